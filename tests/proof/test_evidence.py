"""A history with too little in it is recognised, and the log of clients is correct."""

import asyncio
import sys
import time
from contextlib import suppress
from types import ModuleType

import evidence
import failpoints
import pytest
import setups
from history import (
    Add,
    Attach,
    Break,
    Crash,
    Delivered,
    Entry,
    Extend,
    History,
    Kept,
    Operate,
    Outcome,
    Poll,
    Remove,
    Settle,
)
from twisted.internet.defer import Deferred, succeed
from wireclient import Client

OK = Outcome.OK


ONES = ("back", "extends", "failures", "hand_offs", "deaths", "kept", "duplicates", "operators")
TIMES = {"adds": 10, "polls": 10, "removes": 10, **dict.fromkeys(ONES, 1)}


def busy(**left_out):
    """Return a life with enough of everything, except for *left_out*."""
    times = TIMES | left_out
    at = {"queue": "q", "invoked": 0.0, "ended": 1.0, "outcome": OK}
    item = {"id": b"", "contents": b""}

    def settled(action, *ids, **more):
        entry = Entry(lease=b"", id=b"", action=action, result="done", died=action == "reject")
        return Settle(**at, entries=[entry], changed=True, ids=list(ids), **more)

    kept = Kept(lease=b"", queue="q", ids=[])
    return History(
        [Add(**at, contents=[b""], delays=[0.0], ids=[b""]) for _ in range(times["adds"])]
        + [Add(**at, contents=[b""], delays=[0.0], duplicates=[0]) for _ in range(times["duplicates"])]
        + [Poll(**at, span=1.0, items=[Delivered(**item, attempt=1)]) for _ in range(times["polls"])]
        + [Poll(**at, span=1.0, items=[Delivered(**item, attempt=2)]) for _ in range(times["back"])]
        + [Remove(**at, id=b"", lease=b"", done=True) for _ in range(times["removes"])]
        + [Extend(**at, lease=b"", span=1.0, done=each < times["extends"]) for each in range(5)]
        + [settled("fail") for _ in range(times["failures"])]
        + [settled("remove", b"") for _ in range(times["hand_offs"])]
        + [settled("reject") for _ in range(times["deaths"])]
        + [Attach(**at, session=b"", grace=1.0, leases=[kept], connection=each) for each in range(times["kept"])]
        + [Operate(**at, id=b"", action="kick", result="done") for _ in range(times["operators"])]
    )


@pytest.mark.parametrize(
    ("left_out", "word"),
    [
        ({"adds": 9}, "items added"),
        ({"polls": 3}, "items taken"),
        ({"removes": 0}, "removes"),
        ({"extends": 0}, "extends"),
        ({"back": 0}, "items that came back"),
        ({"failures": 0}, "failures"),
        ({"hand_offs": 0}, "hand-offs"),
        ({"deaths": 0}, "deaths"),
        ({"kept": 0}, "leases that a session kept"),
        ({"duplicates": 0}, "duplicates"),
        ({"operators": 0}, "operators' changes"),
    ],
)
def test_there_has_to_be_some_of_each_kind(left_out, word):
    assert evidence.lacking_in(busy(), 1) == []
    (lacking,) = evidence.lacking_in(busy(**left_out), 1)
    assert word in lacking


def test_more_lives_need_more():
    assert len(evidence.lacking_in(busy(), 3)) == 6
    assert len(evidence.lacking_in(busy(), 11)) == len(TIMES)


def test_a_life_on_a_busy_machine_lasts_until_there_was_enough(monkeypatch):
    history, answered = History(), []

    async def load():
        while True:
            await asyncio.sleep(0.001)
            now = time.monotonic()
            history.calls.append(Remove(queue="q", invoked=now, ended=now, outcome=OK, id=b"", lease=b"", done=True))

    async def live(seconds):
        begin, loading = time.monotonic(), asyncio.create_task(load())
        await evidence.under(loading, history, seconds)
        loading.cancel()
        answered.append(len(history.calls))
        return evidence.enough_for(history, begin, seconds)

    monkeypatch.setattr(evidence, "ACKED_A_SECOND", 2_000)
    assert asyncio.run(live(0.2))
    assert answered[0] >= 200
    monkeypatch.setattr(evidence, "LONGEST_SECONDS", 0.0)
    monkeypatch.setattr(evidence, "ACKED_A_SECOND", 10**6)
    assert not asyncio.run(live(0.15))


def test_faults_that_catch_nothing_are_reported():
    history = busy()
    history.calls += [Remove(queue="q", invoked=1.0, id=b"", lease=b"") for _ in range(4)]
    assert not evidence.too_few_unknown(history, 20)
    assert evidence.too_few_unknown(history, 21)


def test_setups_are_of_all_kinds():
    from random import Random  # noqa: PLC0415

    drawn = [setups.drawn(Random(each)) for each in range(60)]
    words = " ".join(str(each) for each in drawn)
    for word in ("write-buffer", "packed", "durability=os", "tiny windows", "as it comes"):
        assert word in words
    assert "durability" not in " ".join(str(setups.drawn(Random(each), power=True)) for each in range(60))


async def breaks_of(server_does, client_does):
    """Check how a client sees the end of its connection."""
    history = History()
    server = await asyncio.start_server(server_does, "127.0.0.1", 0)
    client = await Client.connect(server.sockets[0].getsockname()[1], history)
    client_does(client)
    async with asyncio.timeout(10):
        while not client.gone:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    server.close()
    return [each.why for each in history.breaks]


def test_a_connection_that_the_server_ends_is_logged():
    async def hang_up(reader, writer):
        # With unread bytes it would be a reset.
        await reader.read(1 << 16)
        writer.close()

    assert asyncio.run(breaks_of(hang_up, lambda client: None)) == ["closed by the server"]


def test_a_stream_that_makes_no_sense_is_logged():
    async def babble(reader, writer):
        writer.write(b"\xff" * 64)
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    assert len(asyncio.run(breaks_of(babble, lambda client: None))) == 1


def test_a_connection_that_the_client_ends_is_not_logged():
    async def listen(reader, writer):
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    assert asyncio.run(breaks_of(listen, lambda client: client.abort())) == []


def test_a_server_that_is_not_there_is_logged():
    history = History()
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(Client.connect(1, history))
    assert "not made" in history.breaks[0].why


@pytest.fixture
def wrapped(monkeypatch):
    """Return functions of a module and the notes around their calls."""
    module, seen = ModuleType("seams_of_a_test"), []
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def wrap(function):
        module.function = function
        monkeypatch.setitem(failpoints.SEAMS, "test", f"{module.__name__}:function")
        failpoints.wrap("test", lambda: seen.append("before"), lambda: seen.append("after"))
        return module.function, seen

    return wrap


@pytest.mark.parametrize(
    ("breaks", "end"),
    [([], 2.75), ([2.5], 2.5), ([2.5, 2.6], 2.5), ([1.9], 2.75)],
    ids=["none", "a client saw it first", "several did", "the end of the server before it"],
)
def test_the_end_of_a_server_is_no_later_than_clients_have_seen_it(breaks, end):
    made = History(crashes=[Crash(1.0, 2.0)], breaks=[Break(at, "closed") for at in breaks])
    assert made.end_noticed(2.8, 0.05) == pytest.approx(end)


def test_a_point_after_a_function_comes_when_it_is_over(wrapped):
    function, seen = wrapped(lambda: seen.append("in it"))
    function()
    assert seen == ["before", "in it", "after"]


def test_a_point_after_a_coroutine_comes_when_it_is_over(wrapped):
    async def slow():
        await asyncio.sleep(0)
        seen.append("in it")
        return 7

    function, seen = wrapped(slow)
    assert asyncio.run(function()) == 7
    assert seen == ["before", "in it", "after"]


def test_a_point_after_what_is_fired_later_comes_then(wrapped):
    waiting = Deferred()
    function, seen = wrapped(lambda: waiting)
    assert function() is waiting
    assert seen == ["before"]
    waiting.callback(None)
    assert seen == ["before", "after"]
    function, seen = wrapped(lambda: succeed(7))
    assert function().result == 7

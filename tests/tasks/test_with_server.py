"""Tasks on a real server, whose clock the test moves."""

import asyncio
import gc
import threading
import weakref
from datetime import date, timedelta

import pytest
import pytest_twisted

from queueber.errors import InvalidRequest
from queueber.tasks import Next, Tasks, current_item
from queueber.tasks.connections import AT_ONCE
from queueber.testing import TestServer
from queueber.values import DeathReason, ItemState
from tests.tasks.stand_ins import drain


@pytest.fixture
def server():
    with TestServer() as made:
        yield made


@pytest.fixture
def app(server):
    with Tasks(server.url("mail"), timeout_ms=20_000) as made:
        yield made


def test_a_call_is_added_run_and_gone(server, app):
    seen = []

    @app.task
    def note(day: date, text: str) -> None:
        seen.append((day, text, current_item().attempt))

    added = note.options(headers={"user": "ann"}).add(date(2026, 1, 1), text="x")
    (item,) = server.assert_added("mail", task=note, args=["2026-01-01"], kwargs={"text": "x"}, headers={"user": "ann"})
    assert item.id == added.id
    drain(app)
    assert seen == [(date(2026, 1, 1), "x", 1)]
    server.assert_empty()


def test_all_faces_add(server, app):
    @app.task
    async def note(number: int) -> None: ...

    async def add():
        async with app:
            return await note.aio.add(1)

    note.add(0)
    asyncio.run(add())
    server.assert_added("mail", task=note, count=2)
    assert len(drain(app)) == 2


@pytest_twisted.ensureDeferred
async def test_twisted_adds(server, app):
    from twisted.internet import reactor  # noqa: PLC0415

    @app.task
    def note(number: int) -> None: ...

    app.connect_twisted(reactor)
    assert (await note.tx.add(1)).queue == "mail"
    await app.close_twisted()
    server.assert_added("mail", task=note, args=[1])


def test_an_add_whose_reply_is_lost_is_sent_again_and_adds_once(server, app):
    @app.task
    def note() -> None: ...

    server.lose_next_reply("add")
    added = note.add()
    (item,) = server.assert_added("mail", count=1)
    assert item.id == added.id


def test_a_key_adds_once_within_the_window_and_for_its_task_alone(server, app):
    @app.task
    def note() -> None: ...

    @app.task
    def other() -> None: ...

    keyed = note.options(key="a")
    first = keyed.add()
    assert keyed.add() == first._replace(duplicate=True)
    assert not other.options(key="a").add().duplicate
    drain(app)
    assert keyed.add().duplicate
    server.advance(300)
    assert not keyed.add().duplicate


def test_a_key_is_never_that_of_another_task(app):
    @app.task(name="note")
    def note() -> None: ...

    @app.task(name="note:all")
    def note_all() -> None: ...

    assert not note.options(key="all:7").add().duplicate
    assert not note_all.options(key="7").add().duplicate


def test_many_calls_are_added_in_order_in_one_add_and_once_though_the_reply_is_lost(server, app):
    @app.task
    def note(number: int) -> None: ...

    server.lose_next_reply("add")
    calls = [note.call(number) for number in range(5)]
    calls[3] = note.options(delay=10).call(3)
    found = app.add_many(calls)
    assert [each.id for each in found] == sorted(each.id for each in found)
    assert [(item.id, item.json()["args"]) for item in server.added("mail")] == [
        (each.id, [number]) for number, each in enumerate(found)
    ]
    assert len(drain(app)) == 4


def test_many_calls_are_all_added_or_none_and_the_limit_of_the_server_is_named(server, app):
    @app.task
    def note(number: int) -> None: ...

    with pytest.raises(InvalidRequest, match="1,001 items; the limit is 1,000"):
        app.add_many(note.call(number) for number in range(1_001))
    server.assert_empty()
    assert len(app.add_many(note.call(number) for number in range(1_000))) == 1_000


def test_keys_of_many_calls_are_those_of_each(server, app):
    @app.task
    def note(number: int) -> None: ...

    first = note.options(key="b").add(0)
    keys = ("a", "b", "a")
    found = app.add_many(note.options(key=key).call(number) for number, key in enumerate(keys))
    assert [each.duplicate for each in found] == [False, True, True]
    assert (found[1].id, found[2].id) == (first.id, found[0].id)
    server.assert_added("mail", task=note, count=2)


def test_an_add_after_its_expiry_is_refused_by_the_clock_of_the_server(server, app):
    @app.task
    def note() -> None: ...

    late = note.options(expires=server.now + timedelta(seconds=5))
    assert not late.add().duplicate
    server.advance(6)
    with pytest.raises(InvalidRequest, match=r"expiresAtMs is 1,00\d ms ago by the server's clock; it must be later"):
        late.add()
    server.assert_added("mail", count=1)


def test_options_of_time(server, app):
    @app.task
    def note(number: int) -> None: ...

    note.options(delay=10).add(1)
    note.options(due=server.now + timedelta(seconds=20)).add(2)
    note.options(expires=server.now + timedelta(seconds=5)).add(3)
    server.advance(10)
    assert drain(app) == [b'{"args":[1],"kwargs":{}}']
    assert [item.death.reason for item in server.dead("mail")] == [DeathReason.EXPIRED]
    server.advance(10)
    assert len(drain(app)) == 1


def test_a_task_has_its_attempts_and_then_is_dead(server, app):
    @app.task(max_attempts=2, backoff=lambda failures: failures * 10)
    def broken() -> None:
        raise OSError("no disk")

    broken.add()
    drain(app)
    server.advance(9)
    assert drain(app) == []
    server.advance(1)
    drain(app)
    (item,) = server.dead("mail")
    assert item.death.reason is DeathReason.REJECTED
    assert item.last_error.startswith("attempt 2 of 2 failed: OSError: no disk")


def test_the_next_step_is_there_when_the_first_is_gone(server, app):
    @app.task(queue="second")
    def second(number: int) -> None: ...

    @app.task
    def first(number: int) -> Next:
        return Next(second.options(delay=5), number + 1)

    first.add(1)
    drain(app)
    server.assert_empty("mail")
    (item,) = server.items("second")
    assert (item.json()["args"], item.state) == ([2], ItemState.DELAYED)


def test_an_item_of_another_program_is_dead_with_the_reason(server, app):
    @app.task
    def note() -> None: ...

    note.add()
    other = Tasks(server.url("mail"))
    other.task(name="other")(print)
    drain(other)
    assert [item.last_error for item in server.dead("mail")] == ["there is no task 'note' here; this program has other"]


def looks_once(app, server, **options):
    """Let a scheduler of *app* look at the clock once."""
    calls = []

    def clock():
        calls.append(None)
        if len(calls) > 1:
            scheduler.stop()
        return server.now.timestamp()

    scheduler = app.scheduler(clock=clock, **options)
    scheduler.run()


@pytest.mark.parametrize("window_ms", [0, 300_000])
def test_each_firing_is_added_once_however_many_schedulers_look_and_whatever_the_queue_remembers(
    server, app, window_ms
):
    @app.task(every=60)
    def tidy() -> None: ...

    server.configure("mail", dedup_window_ms=window_ms)
    start = server.now
    for _ in range(10):
        schedulers = [threading.Thread(target=looks_once, args=(app, server)) for _ in range(3)]
        for each in schedulers:
            each.start()
        for each in schedulers:
            each.join()
        drain(app)
        server.advance(30)
    dues = [item.due - start for item in server.added("mail")]
    assert dues == [timedelta(minutes=minutes) for minutes in range(len(dues))]
    assert len(dues) == 6
    assert [item.state for item in server.added("mail")][:5] == [None] * 5


def test_a_scheduler_refuses_to_catch_up_on_what_its_queue_forgets(server, app):
    @app.task(every=3_600)
    def tidy() -> None: ...

    with pytest.raises(InvalidRequest, match=r"queueber configure --queue mail dedup-window-ms=3900000"):
        looks_once(app, server, catch_up=3_600)
    server.configure("mail", dedup_window_ms=3_900_000)
    server.advance(1_800)
    for _ in range(3):
        looks_once(app, server, catch_up=3_600)
        drain(app)
        server.advance(900)
    assert len(server.added("mail")) == 2


def test_an_app_may_be_given_its_server_late(server):
    app = Tasks("queueber://127.0.0.1:1/mail", attempts=1)

    @app.task
    def note() -> None: ...

    with pytest.raises(InvalidRequest, match="the scheme of the URL"):
        app.url = "http://127.0.0.1"
    app.url = server.url()
    with app:
        assert note.add().queue == "mail"


def test_nothing_is_kept_of_an_asyncio_loop_that_has_ended(app):
    loops = weakref.WeakSet()

    @app.task
    def note() -> None: ...

    async def main():
        loops.add(asyncio.get_running_loop())
        await asyncio.gather(*(note.aio.add() for _ in range(AT_ONCE + 1)))
        await app.aclose()
        await note.aio.add()

    for _ in range(3):
        asyncio.run(main())
    gc.collect()
    assert not loops

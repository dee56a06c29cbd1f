"""Handlers that a test runs itself."""

import asyncio

import pytest
from twisted.internet.defer import Deferred

from queueber import sync
from queueber.client import new_item
from queueber.errors import InvalidRequest
from queueber.testing import TestServer
from queueber.values import Action, AddTo, DeathReason, ItemState
from queueber.worker import Defer, Done, Fail, Reject, Worker


def test_a_handler_runs_for_every_ready_item(server, mail):
    mail.add(b"a", b"b")
    mail.add(b"later", delay_ms=60_000)
    seen = []
    runs = server.drain(lambda item: seen.append((item.contents, item.queue, item.attempt)), "mail")
    assert seen == [(b"a", "mail", 1), (b"b", "mail", 1)]
    assert [(run.verdict.action, run.error, run.lost) for run in runs] == [(Action.REMOVE, None, False)] * 2
    assert [item.contents for item in server.items("mail")] == [b"later"]
    server.advance(60)
    assert len(server.drain(lambda item: None, "mail")) == 1
    server.assert_empty()


def test_a_worker_lends_its_handler_and_its_queues(server, mail, client):
    """Whatever server its URL names."""
    seen = []
    url = "queueber://queue.invalid/mail"
    mail.add(b"a")
    client.queue("more").add(b"b")
    server.drain(Worker(url, lambda item: seen.append(item.contents)))
    server.drain(Worker(url, lambda item: seen.append(item.contents), queues=["more"]))
    assert seen == [b"a", b"b"]
    dead = sync.connect(url).queue().dead_letters()
    with pytest.raises(TypeError, match="needs the name of a queue"):
        server.drain(Worker(dead, lambda item: None))


def test_an_error_fails_the_item_and_is_raised(server, mail):
    mail.add(b"a", b"b")

    def fail(item):
        raise KeyError(item.contents)

    with pytest.raises(KeyError, match="a"):
        server.drain(fail, "mail")
    ready, failed = server.items("mail")
    assert (ready.contents, ready.state, failed.state, failed.failures) == (
        b"b",
        ItemState.READY,
        ItemState.DELAYED,
        1,
    )
    assert failed.last_error.startswith("KeyError: b'a'")


def test_errors_are_collected_if_the_test_wants(server, mail):
    server.configure("mail", max_attempts=1)
    mail.add(b"a", b"b")
    runs = server.drain(lambda item: 1 / 0, "mail", raise_errors=False)
    assert [type(run.error) for run in runs] == [ZeroDivisionError] * 2
    assert [dead.death.reason for dead in server.dead("mail")] == [DeathReason.ATTEMPTS] * 2


def test_an_error_that_ends_the_test_is_raised_in_any_case(server, mail):
    mail.add(b"a")
    with pytest.raises(KeyboardInterrupt):
        server.drain(lambda item: (_ for _ in ()).throw(KeyboardInterrupt), "mail", raise_errors=False)
    assert server.items("mail")[0].failures == 1


def test_decisions_are_no_errors(server, mail):
    mail.add(b"reject", b"defer", b"fail")
    decisions = {b"reject": Reject("no"), b"defer": Defer(60), b"fail": Fail(30, "later")}

    def decide(item):
        raise decisions[item.contents]

    runs = server.drain(decide, "mail")
    assert [(run.verdict.action, run.error) for run in runs] == [
        (Action.REJECT, None),
        (Action.DEFER, None),
        (Action.FAIL, None),
    ]
    assert [dead.last_error for dead in server.dead("mail")] == ["no"]
    assert [item.last_error for item in server.items("mail")] == ["later", ""]


def test_items_that_a_handler_adds_are_run_too(server, mail, client):
    mail.add(b"first")

    def handle(item):
        if item.contents == b"first":
            client.queue("next").add(b"by the handler")
            return Done([AddTo("next", [new_item(b"with the verdict")])])
        return None

    runs = server.drain(handle, "mail", "next")
    assert [(run.item.queue, run.item.contents) for run in runs] == [
        ("mail", b"first"),
        ("next", b"by the handler"),
        ("next", b"with the verdict"),
    ]


def test_a_handler_that_adds_what_it_takes_is_stopped(server, mail):
    mail.add(b"x")
    with pytest.raises(AssertionError, match="the handler ran 5 times, and 'mail' still has items: does it add"):
        server.drain(lambda item: Done([AddTo("mail", [new_item(b"x")])]), "mail", runs_max=5)
    assert [item.state for item in server.items("mail")] == [ItemState.READY]


@pytest.fixture
def late(server):
    """Return a handler whose hand-off has expired by the clock of the server."""
    server.advance(10)
    expired = new_item(b"next", expires_ms=int(server.now.timestamp() * 1_000) - 5_000)
    return lambda item: Done([AddTo("next", [expired])])


def test_a_verdict_that_the_server_refuses_fails_the_item(server, mail, late):
    mail.add(b"a", b"b")
    runs = server.drain(late, "mail", raise_errors=False)
    assert [(type(run.error), run.verdict.action, run.lost) for run in runs] == [
        (InvalidRequest, Action.FAIL, False)
    ] * 2
    for item in server.items("mail"):
        assert (item.state, item.failures) == (ItemState.DELAYED, 1)
        text = "the server refused to remove the item: adds[0].options[0].expiresAtMs is "
        assert item.last_error.startswith(text)
    server.assert_nothing_added("next")


def test_a_refusal_is_raised_once_the_item_is_settled(server, mail, late):
    mail.add(b"a")
    with pytest.raises(InvalidRequest, match="expiresAtMs is "):
        asyncio.run(server.drain_async(late, "mail"))
    assert [(item.state, item.failures) for item in server.items("mail")] == [(ItemState.DELAYED, 1)]


def dues(**options):
    """Return when three items that failed are due again, in seconds."""
    with TestServer(**options) as server:
        with sync.connect(server.url("mail")) as client:
            client.queue().add(b"a", b"b", b"c")
        server.drain(lambda _: Fail(), "mail")
        return [(item.due - server.now).total_seconds() for item in server.items("mail")]


def test_the_jitter_of_backoffs_is_that_of_the_seed():
    once = dues()
    assert once == dues(seed=0)
    assert once != dues(seed=1)
    assert len(set(once)) == 3


def test_a_refused_decision_of_a_task_keeps_its_own_error(server, mail):
    """A framework's exception that hands on is the error of the run."""

    class HandOn(Done):
        error = ZeroDivisionError()

    expired = new_item(b"next", expires_ms=1)
    mail.add(b"a")

    def handle(item):
        raise HandOn([AddTo("next", [expired])])

    (run,) = server.drain(handle, "mail", raise_errors=False)
    assert (run.error, run.verdict.action) == (HandOn.error, Action.FAIL)


def test_a_lease_that_ends_meanwhile_is_lost(server, mail):
    mail.add(b"x")
    runs = server.drain(lambda item: server.end_lease(item) if item.attempt == 1 else None, "mail")
    assert [(run.lost, run.item.attempt) for run in runs] == [(True, 1), (False, 2)]


def test_a_coroutine_function_runs_in_a_loop_of_its_own(server, mail):
    mail.add(b"a", b"b")
    loops = []

    async def handle(item):
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())

    assert len(server.drain(handle, "mail")) == 2
    assert loops[0] is loops[1]
    assert loops[0].is_closed()


def test_a_coroutine_function_runs_in_the_loop_of_the_test(server, mail):
    mail.add(b"a")
    loops = []

    class Handler:
        async def __call__(self, item):
            loops.append(asyncio.get_running_loop())

    async def main():
        with pytest.raises(RuntimeError, match=r"await drain_async\(\)"):
            server.drain(Handler(), "mail")
        assert len(await server.drain_async(Handler(), "mail")) == 1
        assert loops == [asyncio.get_running_loop()]

    asyncio.run(main())


def test_a_plain_handler_runs_while_a_loop_does(server, mail):
    mail.add(b"a", b"b")

    async def main():
        assert len(server.drain(lambda item: None, "mail")) == 2

    asyncio.run(main())
    server.assert_empty()


def test_an_awaitable_is_not_run_while_a_loop_runs(server, mail):
    mail.add(b"a")

    async def handle():
        pytest.fail("it ran")

    async def main():
        with pytest.raises(RuntimeError, match=r"returned an awaitable: await drain_async\(\)"):
            server.drain(lambda item: handle(), "mail")

    asyncio.run(main())


@pytest.fixture
def own_loop():
    """A loop that the test has set for its thread."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield loop
    asyncio.set_event_loop(None)
    loop.close()


@pytest.mark.parametrize("wait", [True, False])
def test_the_loop_of_the_thread_stays(server, mail, own_loop, wait):
    mail.add(b"a")

    async def handle(item): ...

    server.drain(handle if wait else lambda item: None, "mail")
    assert asyncio.get_event_loop() is own_loop


def test_a_cancelled_handler_defers_its_item(server, mail):
    mail.add(b"a")

    async def handle(item):
        await asyncio.sleep(3_600)

    async def main():
        draining = asyncio.create_task(server.drain_async(handle, "mail"))
        await asyncio.sleep(0)
        draining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await draining

    asyncio.run(main())
    (item,) = server.items("mail")
    assert (item.state, item.failures) == (ItemState.READY, 0)


def test_a_handler_may_return_a_deferred(server, mail):
    mail.add(b"a")
    waiting = Deferred()
    done = Deferred.fromCoroutine(server.drain_async(lambda item: waiting, "mail"))
    assert server.items("mail")[0].state is ItemState.LEASED
    waiting.callback(None)
    assert len(done.result) == 1
    server.assert_empty()


@pytest.mark.parametrize(
    ("work", "queues", "text"),
    [
        (print, (), "drain needs the name of a queue"),
        (3, ("mail",), "3 is neither a Tasks, a Worker nor a handler"),
        (print, [str(each) for each in range(65)], "there are 65 queues; drain takes up to 64"),
    ],
)
def test_work_that_cannot_be_drained(server, work, queues, text):
    with pytest.raises(TypeError, match=text):
        server.drain(work, *queues)

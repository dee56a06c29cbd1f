"""Apps of tasks on a test server."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import pytest_twisted
from twisted.internet import reactor

from queueber.tasks import Next, Tasks, current_item
from queueber.testing import TestServer
from queueber.testing.life import START
from queueber.values import Action
from queueber.worker import Fail


@pytest.fixture
def app():
    """An app as a program has it: with the URL of a server that is not there."""
    return Tasks("queueber://queue.invalid:9090/mail")


def test_only_an_app_of_tasks_can_be_adopted(server):
    with pytest.raises(TypeError, match=r"^5 is not a Tasks$"):
        server.adopt(5)


def test_an_adopted_app_adds_to_the_server(server, app):
    @app.task
    def send(to: str) -> None: ...

    with server.adopt(app):
        send.add("ann")
        send.options(delay=60).add(to="bob")
    server.assert_added("mail", task=send, args=["ann"])
    server.assert_added("mail", task="send", kwargs={"to": "bob"}, delay=60)
    assert app.connections.url == app.url


def test_an_adoption_ends_with_the_server(app):
    with TestServer() as server:
        adopted = server.adopt(app)
        assert app.connections.url == server.url()
    assert app.connections.url == app.url
    adopted.end()


def test_connections_to_another_server_are_closed(server):
    """A session of tests may have one event loop and one app, and a server for each test."""
    with TestServer() as other, Tasks(other.url("mail")) as app:

        @app.task
        def send() -> None: ...

        async def main():
            send.add()
            await send.aio.add()
            with server.adopt(app):
                send.add()
                await send.aio.add()
            await send.aio.add()
            await app.aclose()

        asyncio.run(main())
        other.assert_added(task=send, count=3)
    server.assert_added(task=send, count=2)


@pytest_twisted.ensureDeferred
async def test_an_app_that_was_connected_on_twisted_adds_to_either_server(server):
    with TestServer() as other:
        app = Tasks(other.url("mail"))

        @app.task
        def send() -> None: ...

        app.connect_twisted(reactor)
        with server.adopt(app):
            await send.tx.add()
            server.assert_added(task=send)
        await send.tx.add()
        other.assert_added(task=send)
        await app.close_twisted()


def test_tasks_are_drained(server, app):
    sent = []

    @app.task
    def prepare(to: str) -> Next:
        return Next(send, to, attempt=current_item().attempt)

    @app.task(priority="high", max_attempts=2)
    def send(to: str, attempt: int) -> None:
        sent.append((to, attempt))
        if to == "unknown":
            raise LookupError(to)

    with server.adopt(app):
        prepare.add("ann")
        assert [run.item.queue for run in server.drain(app)] == ["mail", "mail.high"]
        assert sent == [("ann", 1)]
        server.assert_empty()
        prepare.add("unknown")
        runs = server.drain(app, raise_errors=False)
        assert [run.verdict.action for run in runs] == [Action.REMOVE, Action.FAIL]
        with pytest.raises(LookupError):
            raise runs[-1].error


def test_coroutine_functions_are_drained_with_and_without_a_loop(server, app):
    @app.task
    async def first() -> None:
        await second.aio.add()

    @app.task
    def second() -> None: ...

    async def main():
        async with app:
            await first.aio.add()
            assert len(await server.drain_async(app)) == 2

    with server.adopt(app):
        first.add()
        assert len(server.drain(app)) == 2
        asyncio.run(main())
    server.assert_added("mail", task="second", count=2)
    server.assert_empty()


def test_periodic_tasks_fire_at_their_moments_and_once(server, app):
    @app.task(every=3_600)
    def count() -> None: ...

    @app.task(cron="30 6 * * *", tz="Europe/Berlin")
    def report() -> None: ...

    with server.adopt(app):
        server.advance(3_599)
        server.assert_nothing_added()
        server.advance(1)
        server.assert_added(task=count, count=1)
        server.advance(86_400 - 3_600)
        assert [item.added_at.replace(microsecond=0) - START for item in server.assert_added(task=count)] == [
            timedelta(hours=hour) for hour in range(1, 25)
        ]
        (item,) = server.assert_added(task=report)
        assert item.added_at.replace(microsecond=0) == datetime(2026, 1, 1, 5, 30, tzinfo=UTC)
        assert len(server.drain(app)) == 25
    server.advance(7_200)
    server.assert_added(task=count, count=24)


@pytest.mark.parametrize("coroutine", [False, True])
@pytest.mark.parametrize("options", [{"max_attempts": 1}, {"backoff": 10}])
def test_an_error_of_a_task_is_raised_though_its_attempts_and_backoff_decide(server, app, options, coroutine):
    """So a test of a task that fails cannot pass unawares."""

    async def wait(name):
        raise KeyError(name)

    def work(name):
        raise KeyError(name)

    task = app.task(**options)(wait if coroutine else work)
    server.adopt(app)
    task.add("ann")
    task.add("bob")
    with pytest.raises(KeyError, match="ann"):
        server.drain(app)
    (run,) = server.drain(app, raise_errors=False)
    assert isinstance(run.error, KeyError)
    assert run.verdict.action is (Action.FAIL if "backoff" in options else Action.REJECT)


def test_a_decision_that_a_task_makes_of_an_error_is_not_raised(server, app):
    @app.task(max_attempts=3, backoff=10)
    def work():
        raise Fail from KeyError("ann")

    server.adopt(app)
    work.add()
    (run,) = server.drain(app)
    assert (run.verdict.action, run.error) == (Action.FAIL, None)

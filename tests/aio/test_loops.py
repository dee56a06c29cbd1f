"""Event loops, cancellation and the end of a loop."""

import asyncio
import os
import sys

import pytest

from queueber import aio
from queueber.aio import Client
from queueber.aio.connector import Connector
from queueber.client_core.errors import NotConnected
from queueber.client_core.url import target_of
from queueber.errors import InvalidRequest
from queueber.testing import TestServer
from tests.support.forks import in_child
from tests.support.processes import completed
from tests.support.waiting import until_in_loop


@pytest.fixture(scope="module")
def server():
    with TestServer(tcp=True) as server:
        yield server


@pytest.fixture
def url(server, request):
    return server.url(request.node.name)


def run(coroutine):
    """Run on a new loop, for a while at most."""

    async def limited():
        async with asyncio.timeout(30):
            return await coroutine

    return asyncio.run(limited())


def states(server, name):
    return [item.state.name for item in server.items(name)]


ONE_AFTER_THE_OTHER = """
import asyncio, os, sys
from queueber import aio
from queueber.aio import Client
from queueber.aio.connector import Connector

client = aio.connect(sys.argv[1])

async def add():
    return await client.queue().add(b"x")

asyncio.run(add())
asyncio.run(add())
if not os.fork():
    asyncio.run(add())
    os._exit(0)
os.wait()
asyncio.run(client.close())
"""


@pytest.mark.slow
def test_a_client_may_be_made_without_a_loop_and_used_in_one_after_the_other_and_after_a_fork(server, url, request):
    """In a process of its own, because asyncio warns of a transport that its loop has left open."""
    done = completed([sys.executable, "-c", ONE_AFTER_THE_OTHER, url])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(server.items(request.node.name)) == 3


def test_a_client_belongs_to_one_loop_at_a_time(url):
    async def main():
        async with aio.connect(url) as client:
            await client.limits()

            async def elsewhere():
                with pytest.raises(InvalidRequest, match="belongs to another event loop"):
                    await client.limits()

            await asyncio.to_thread(asyncio.run, elsewhere())

    run(main())


@pytest.mark.parametrize("order", ["answer first", "cancellation first"])
def test_a_cancellation_in_the_turn_of_the_answer_leaves_nothing_leased(server, url, request, order):
    """The future of the poll is done and its task does not run any more, or the other way round."""

    async def main():
        target = target_of(url)
        connector = Connector(target)
        call = connector.link.call

        def make(made, on_done):
            def done(outcome):
                if order == "cancellation first":
                    polling.cancel()
                on_done(outcome)
                polling.cancel()

            return call(made, done if made.read_lease else on_done)

        connector.link.call = make
        async with Client(connector, target.queue) as client:
            await client.queue().add(b"x")
            polling = asyncio.create_task(client.queue().poll())
            with pytest.raises(asyncio.CancelledError):
                await polling

    run(main())
    (item,) = server.items(request.node.name)
    assert (item.state.name, item.attempts) == ("READY", 0)


def test_a_second_cancellation_does_not_lose_the_item(server, url, request):
    """The item goes back in the background, and the client waits for that when it is closed."""

    async def main():
        async with aio.connect(url) as client:
            await client.queue().add(b"x")

            async def work():
                async with await client.queue().poll():
                    await asyncio.sleep(3600)

            working = asyncio.create_task(work())
            await until_in_loop(lambda: states(server, request.node.name) == ["LEASED"])
            await asyncio.sleep(0.01)
            working.cancel()
            await asyncio.sleep(0)
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working

    run(main())
    assert states(server, request.node.name) == ["READY"]


def test_the_end_of_a_loop_returns_the_items_of_its_tasks(server, url, request):
    """`asyncio.run` cancels all tasks at once."""

    async def main():
        client = aio.connect(url)
        await client.queue().add(b"1", b"2", b"3")

        async def work():
            async with await client.queue().poll():
                await asyncio.sleep(3600)

        async def live():
            async with client:
                await asyncio.sleep(3600)

        tasks = [asyncio.create_task(each) for each in (work(), work(), live())]
        await until_in_loop(lambda: states(server, request.node.name).count("LEASED") == 2)
        await asyncio.sleep(0.05)
        return tasks

    run(main())
    assert states(server, request.node.name) == ["READY"] * 3


def test_a_coroutine_that_is_closed_returns_its_item(server, url, request):
    async def main():
        async with aio.connect(url) as client:
            await client.queue().add(b"x")

            async def items():
                async with await client.queue().poll() as item:
                    yield item

            generator = items()
            await anext(generator)
            await generator.aclose()

    run(main())
    assert states(server, request.node.name) == ["READY"]


def test_a_client_is_closed_while_it_connects():
    async def main():
        client = aio.connect("queueber://127.0.0.1:1/q")
        adding = asyncio.create_task(client.queue().add(b"x"))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(NotConnected, match="the client was closed"):
            await adding

    run(main())


def test_a_task_group_cancels_a_poll(server, url, request):
    async def main():
        async with aio.connect(url) as client:

            async def fail():
                await asyncio.sleep(0.02)
                raise ZeroDivisionError

            async def both():
                async with asyncio.TaskGroup() as group:
                    group.create_task(client.queue().poll())
                    group.create_task(fail())

            with pytest.raises(ExceptionGroup):
                await both()
            await client.queue().add(b"x")
            assert states(server, request.node.name) == ["READY"]

    run(main())


def test_uvloop_serves_as_well(server, url, request):
    uvloop = pytest.importorskip("uvloop")

    async def main():
        async with aio.connect(url) as client:
            await asyncio.gather(*[client.queue().add(b"x") for _ in range(50)])
            async with client.queue().items(5) as items:
                count = 0
                async for item in items:
                    async with item:
                        count += 1
                    if count == 50:
                        break
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.queue().poll()
            server.drop_connections()
            await client.limits()
        with pytest.raises(NotConnected, match="Connection refused"):
            async with aio.connect("queueber://127.0.0.1:1/q", attempts=1) as client:
                await client.limits()

    uvloop.run(main())
    assert server.items(request.node.name) == []


forking = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def first_step(coroutine):
    """Return the error of *coroutine* in its first step; None if it ends there."""
    try:
        coroutine.send(None)
    except StopIteration:
        return None
    except InvalidRequest as why:
        return str(why)
    raise AssertionError("it waits")


@forking
def test_a_process_that_is_forked_within_the_loop_leaves_connection_items_and_session_alone(server, url, request):
    """At its end the child leaves the blocks that its parent has entered."""

    async def main():
        async with aio.connect(url) as client, client.session() as session:
            queue = client.queue()
            await queue.add(b"1", b"2", b"3")
            (item,) = await queue.poll(session=session)
            items = queue.items(1)
            await anext(items)

            def child():
                error = SystemExit(0)
                return [
                    first_step(each)
                    for each in (
                        item.__aexit__(SystemExit, error, None),
                        session.__aexit__(SystemExit, error, None),
                        items.close(),
                        client.close(),
                        item.remove(),
                        queue.add(b"x"),
                        session.attached(),
                        queue.poll(session=session),
                    )
                ]

            said = in_child(child)
            assert said[:4] == [None] * 4
            assert f"belongs to process {os.getpid()}, which polled it, and this is process" in said[4]
            assert said[5] == (
                f"the client belongs to process {os.getpid()}, from which this one was forked: connect in this one"
            )
            assert said[6] == said[7]
            assert "session belongs to the process from which this one was forked" in said[6]
            assert states(server, request.node.name)[:2] == ["LEASED"] * 2
            assert await item.remove()
            await items.close()
            assert await client.ping() == []

    run(main())
    assert states(server, request.node.name) == ["LEASED", "READY"]


@forking
def test_a_client_that_is_made_before_a_fork_serves_both_processes(server, url, request):
    client = aio.connect(url)

    async def add(contents):
        async with client:
            return len(await client.queue().add(contents))

    assert in_child(lambda: run(add(b"child"))) == 1
    run(add(b"parent"))
    assert [item.contents for item in server.items(request.node.name)] == [b"child", b"parent"]


@forking
def test_a_child_does_not_attach_the_session_of_its_parent(server, url):
    client = aio.connect(url)
    session = client.session()

    def child():
        async def main():
            await client.queue().add(b"x")
            return session.state.name

        return run(main())

    assert in_child(child) == "DETACHED"

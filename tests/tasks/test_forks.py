"""An app that is made, or used, before its process forks workers, as gunicorn and the like do."""

import asyncio

import pytest

from queueber.tasks import Tasks
from queueber.testing import TestServer
from tests.support.forks import in_child

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

app = Tasks("queueber://127.0.0.1:1/made-before-the-fork")


@app.task
def note(number: int) -> None: ...


@app.task
async def note_later(number: int) -> None: ...


@pytest.fixture
def server():
    with TestServer(tcp=True) as server, server.adopt(app):
        yield server


@pytest.mark.parametrize("used", [False, True], ids=["made", "used"])
def test_children_add(server, used):
    if used:
        note.add(0)
        asyncio.run(note.aio.add(0))

    def child():
        note.add(1)
        asyncio.run(note_later.aio.add(1))
        return len(app.add_many(note.call(number) for number in range(3)))

    assert [in_child(child) for _ in range(2)] == [3, 3]
    note.add(2)
    server.assert_added(count=11 + 2 * used)


def test_a_child_of_a_running_loop_adds_in_a_loop_of_its_own(server):
    async def main():
        await note.aio.add(0)
        assert in_child(lambda: asyncio.run(note.aio.add(1)).queue) == "made-before-the-fork"
        await note.aio.add(2)

    asyncio.run(main())
    server.assert_added(task=note, count=3)


def test_a_worker_that_is_made_before_the_fork_runs_in_a_child(server):
    done = []
    worker = app.worker(after=[lambda item, verdict, error: (done.append(verdict.action.name), worker.stop())])
    note.add(1)

    def child():
        worker.run()
        return done

    assert in_child(child) == ["REMOVE"]
    server.assert_empty()

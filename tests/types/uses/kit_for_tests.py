"""Uses of `queueber.testing` in strict mode, with assertions about their types."""

from typing import assert_type

from queueber.tasks import Tasks
from queueber.testing import Fault, Run, StoredItem, TestServer, inline
from queueber.worker import WorkItem

app = Tasks("queueber://127.0.0.1/shop")


@app.task
def pack(number: int) -> None:
    print(number)


def handle(item: WorkItem) -> None:
    print(item.contents)


async def right() -> None:
    with TestServer(tcp=True) as server, server.adopt(app):
        assert_type(server, TestServer)
        assert_type(server.url("mail"), str)
        server.configure("mail", max_attempts=2)
        assert_type(server.assert_added("mail", contents=b"a", delay=5, count=1), list[StoredItem])
        server.assert_added(task=pack, args=[5])
        assert_type(server.drain(app), list[Run])
        (run,) = await server.drain_async(handle, "mail", raise_errors=False)
        assert_type(run.item, WorkItem)
        server.advance(0.5)
        with server.lose_next_reply("add") as fault:
            assert_type(fault, Fault)
        assert_type(fault.happened, int)
    with inline(app) as runs:
        assert_type(runs, list[Run])
        pack.add(5)


def wrong(server: TestServer) -> None:
    TestServer(port=9090)  # error: call-arg, reportCallIssue
    server.advance("5")  # error: arg-type, reportArgumentType
    server.assert_added("mail", content=b"a")  # error: call-arg, reportCallIssue
    server.assert_added("mail", count="1")  # error: arg-type, reportArgumentType
    server.adopt("shop")  # error: arg-type, reportArgumentType
    server.overloaded(times="1")  # error: arg-type, reportArgumentType
    inline("shop")  # error: arg-type, reportArgumentType

"""Uses of `queueber.worker` in strict mode, with assertions about their types."""

from typing import assert_type

from queueber.aio import new_item
from queueber.sync import connect
from queueber.worker import AddTo, Defer, Done, Fail, Health, Reject, Verdict, Worker, WorkItem


def resize(item: WorkItem) -> None:
    assert_type(item.contents, bytes)
    assert_type(item.attempt, int)
    if item.wait(0.5):
        raise Reject("no picture")


async def decide(item: WorkItem) -> Defer | Fail | Done:
    if item.attempt < 2:
        return Defer(60)
    if item.stopping:
        return Fail(300, "the disk is full")
    return Done([AddTo("mail", [new_item(b"your picture is ready")])])


def report(item: WorkItem, verdict: Verdict | None, error: BaseException | None) -> None:
    print(item.id, verdict, error)


async def right() -> None:
    worker = Worker("queueber://127.0.0.1/mail", resize, concurrency=4, max_runtime=60, lease=60, after=[report])
    worker.run()
    assert_type(worker.health, Health)
    queue = connect("queueber://127.0.0.1").queue("mail")
    await Worker({queue: 3, "queueber://127.0.0.1/slow": 1}, decide, lease="session").run_async()
    Worker("queueber://127.0.0.1", decide, queues=["urgent", "mail"], strict=True).stop()


def no_item() -> None: ...


def wrong() -> None:
    Worker("queueber://127.0.0.1/mail")  # error: call-arg, reportCallIssue
    Worker("queueber://127.0.0.1/mail", "resize")  # error: arg-type, reportArgumentType
    Worker("queueber://127.0.0.1/mail", no_item)  # error: arg-type, reportArgumentType
    Worker("queueber://127.0.0.1/mail", resize, concurency=4)  # error: call-arg, reportCallIssue
    Worker("queueber://127.0.0.1/mail", resize, lease="for ever")  # error: arg-type, reportArgumentType
    Worker("queueber://127.0.0.1/mail", resize, after=[resize])  # error: list-item, reportArgumentType
    Defer("a minute")  # error: arg-type, reportArgumentType
    Fail(text=5)  # error: arg-type, reportArgumentType
    Done([new_item(b"a")])  # error: list-item, reportArgumentType

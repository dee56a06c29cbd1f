"""Uses of `queueber.client` in strict mode, with assertions about their types."""

from collections.abc import Callable
from typing import assert_type

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IReactorTime

from queueber.client import Batch, Client, Item, Outcome, Queue, connect, new_item


async def right(reactor: IReactorTime, lost: list[bytes]) -> None:
    async with connect(reactor, "queueber://127.0.0.1/mail") as client, client.session(on_lost=lost.append) as session:
        assert_type(client, Client)
        mail = client.queue()
        assert_type(mail, Queue)
        assert_type(mail.add(b"a", delay_ms=5), Deferred[list[bytes]])
        assert_type((await mail.add_items(new_item(b"b"))).ids[0], bytes)
        polling: Deferred[Batch] = mail.poll(10, session=session, wait_ms=0)
        assert_type(await polling, Batch)
        async with await mail.poll() as item:
            assert_type(item, Item)
        async with await mail.poll(wait_ms=1_000) as perhaps:
            assert_type(perhaps, Item | None)
        async for each in mail:
            async with each as entered:
                assert_type(entered, Item)
                assert_type((await entered.defer(delay_ms=5)).outcome, Outcome)
        async with mail.items(prefetch=10) as items:
            async for each in items:
                assert_type(each.remove(), Deferred[bool])


def deferreds(mail: Queue, polls: list[Deferred[Batch]]) -> Deferred[Batch]:
    """Polls without a limit to their wait are `Deferred[Batch]` like the others."""
    polls.append(mail.poll())
    polls.append(mail.poll(wait_ms=5))
    polling: Deferred[Batch] = mail.poll(5)
    polling.addCallback(lambda batch: print(batch.items[0].contents))
    assert_type(mail.poll().addCallback(len), Deferred[int])
    assert_type(gatherResults([mail.poll(), mail.poll(wait_ms=5)]), Deferred[list[Batch]])
    assert_type(maybeDeferred(mail.poll), Deferred[Batch])
    start: Callable[[], Deferred[Batch]] = mail.poll
    start()
    return mail.poll()


async def batches(mail: Queue, limit: int | None) -> Batch:
    batch: Batch = await mail.poll(10)
    batch = await mail.poll(10, wait_ms=0)
    batch = await mail.poll(10, wait_ms=limit)
    for each in await mail.poll(10):
        assert_type(each, Item)
    assert_type((await mail.poll()).items[0], Item)
    print(len(batch))
    return await mail.poll()


async def wrong(reactor: IReactorTime, client: Client, mail: Queue) -> None:
    connect("127.0.0.1:9090")  # error: call-arg, reportCallIssue
    connect(reactor, 9090)  # error: arg-type, reportArgumentType
    client.queue(5)  # error: arg-type, reportArgumentType
    await mail.add("a")  # error: arg-type, reportArgumentType
    await mail.poll(wait=5)  # error: call-overload, reportCallIssue
    async with await mail.poll(wait_ms=5) as item:
        print(item.contents)  # error: union-attr, reportOptionalMemberAccess

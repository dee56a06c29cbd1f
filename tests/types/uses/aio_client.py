"""Uses of `queueber.aio` in strict mode, with assertions about their types."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import assert_type

from queueber.aio import (
    Action,
    AddTo,
    Batch,
    Client,
    Item,
    Items,
    LeaseLost,
    Outcome,
    Queue,
    Session,
    Settlement,
    Tls,
    connect,
    new_item,
)
from queueber.errors import QueueberError


async def right(lost: list[bytes]) -> None:
    client = connect("queueber+tls://127.0.0.1/mail", tls=Tls(), attempts=3, retry_policy=lambda tries: tries * 0.5)
    assert_type(client, Client)
    async with client, client.session(on_lost=lost.append) as session:
        assert_type(session, Session)
        mail = client.queue()
        assert_type(mail, Queue)
        assert_type(await mail.add(b"a", bytearray(b"b"), memoryview(b"c"), delay_ms=5), list[bytes])
        added = await mail.add_items(new_item(b"d", headers={"user": b"ann"}, dedup_key=b"d"), request_id=b"r" * 16)
        assert_type(added.ids[0], bytes)
        batch = await mail.poll(10, session=session, wait_ms=0)
        assert_type(batch, Batch)
        for each in batch:
            assert_type(each, Item)
        entry = Settlement(batch.lease, batch.items[0].id, Action.FAIL, error="no picture")
        settled = await mail.settle(entry, adds=[AddTo("sent", [new_item(b"e")])])
        assert_type(settled.settled[0].outcome, Outcome)
        name, _ = await client.poll_any({"urgent": 3, "usual": 1}, strict=True)
        assert_type(name, str)


async def contexts(mail: Queue) -> None:
    async with await mail.poll() as item:
        assert_type(item, Item)
        assert_type(item.contents, bytes)
        assert_type(item.headers, Mapping[str, bytes])
    async with await mail.poll(wait_ms=1_000) as perhaps:
        assert_type(perhaps, Item | None)
    async for each in mail:
        async with each as entered:
            assert_type(entered, Item)
            assert_type(await entered.remove(), bool)
    try:
        async with mail.items(prefetch=10) as items:
            assert_type(items, Items)
            async for each in items:
                assert_type((await each.fail("no picture", delay_ms=5)).outcome, Outcome)
    except LeaseLost as why:
        print(QueueberError.__name__, why.kind)


async def batches(mail: Queue, limit: int | None) -> Batch:
    """Batches of polls without a limit to their wait are a `Batch` like the others."""
    batch: Batch = await mail.poll(10)
    batch = await mail.poll(10, wait_ms=0)
    batch = await mail.poll(10, wait_ms=limit)
    polls: set[asyncio.Task[Batch]] = {asyncio.create_task(mail.poll()), asyncio.create_task(mail.poll(wait_ms=5))}
    start: Callable[[], Awaitable[Batch]] = mail.poll
    for each in await mail.poll(10):
        assert_type(each, Item)
    assert_type((await mail.poll()).items[0], Item)
    print(len(batch), len(await start()), len(polls))
    return await mail.poll()


async def wrong(client: Client, mail: Queue) -> None:
    connect(9090)  # error: arg-type, reportArgumentType
    connect("127.0.0.1:9090", timeout=5)  # error: call-arg, reportCallIssue
    client.queue(5)  # error: arg-type, reportArgumentType
    mail.add(b"a")  # error: unused-coroutine, reportUnusedCoroutine
    await mail.add("a")  # error: arg-type, reportArgumentType
    await mail.add_items(b"a")  # error: arg-type, reportArgumentType
    await mail.poll(wait=5)  # error: call-overload, reportCallIssue
    await mail.poll("5")  # error: call-overload, reportArgumentType
    async with await mail.poll(wait_ms=5) as item:
        print(item.contents)  # error: union-attr, reportOptionalMemberAccess
    async for each in mail:
        await each.fail(delay_ms="5")  # error: arg-type, reportArgumentType
        each.remov()  # error: attr-defined, reportAttributeAccessIssue, reportUnknownMemberType

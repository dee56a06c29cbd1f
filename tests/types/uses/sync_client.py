"""Uses of `queueber.sync` in strict mode, with assertions about their types."""

from collections.abc import Callable
from typing import assert_type

from queueber.sync import Batch, Client, Item, Items, Outcome, Queue, Session, connect, new_item


def right(lost: list[bytes]) -> None:
    with connect("queueber://127.0.0.1/mail", timeout_ms=5_000) as client, client.session(on_lost=lost.append) as held:
        assert_type(client, Client)
        assert_type(held, Session)
        mail = client.queue()
        assert_type(mail, Queue)
        assert_type(mail.add(b"a", delay_ms=5), list[bytes])
        assert_type(mail.add_items(new_item(b"b")).ids[0], bytes)
        assert_type(mail.poll(10, session=held, wait_ms=0), Batch)
        with mail.poll() as item:
            assert_type(item, Item)
        with mail.poll(wait_ms=1_000) as perhaps:
            assert_type(perhaps, Item | None)
        for each in mail:
            with each as entered:
                assert_type(entered, Item)
                assert_type(entered.defer(delay_ms=5).outcome, Outcome)
        with mail.items(prefetch=10) as items:
            assert_type(items, Items)
            assert_type(next(items), Item)


def batches(mail: Queue, limit: int | None) -> Batch:
    """Batches of polls without a limit to their wait are a `Batch` like the others."""
    batch: Batch = mail.poll(10)
    batch = mail.poll(10, wait_ms=0)
    batch = mail.poll(10, wait_ms=limit)
    start: Callable[[], Batch] = mail.poll
    for each in mail.poll(10):
        assert_type(each, Item)
    assert_type(mail.poll().items[0], Item)
    print(len(batch), len(start()))
    return mail.poll()


def wrong(client: Client, mail: Queue) -> None:
    connect("127.0.0.1:9090", timeout_ms="5")  # error: arg-type, reportArgumentType
    client.queue(b"mail")  # error: arg-type, reportArgumentType
    mail.add("a")  # error: arg-type, reportArgumentType
    mail.add(b"a", delay=5)  # error: call-arg, reportCallIssue
    mail.poll(wait_ms=0.5)  # error: call-overload, reportCallIssue, reportArgumentType
    with mail.poll(wait_ms=5) as item:
        print(item.contents)  # error: union-attr, reportOptionalMemberAccess
    for each in mail:
        each.reject(b"no picture")  # error: arg-type, reportArgumentType
        each.contents = b""  # error: misc, reportAttributeAccessIssue

"""Queues as a program uses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from queueber import wire
from queueber.client.arguments import SPAN_MS_MAX, buffer, buffers, integer, timeout, wrong
from queueber.client.errors import failed
from queueber.errors import InvalidRequest, too_large
from queueber.limits import QUEUE_NAME_BYTES_MAX
from queueber.units import SpanMs, WallMs
from queueber.wire import PolledItem

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from typing_extensions import Buffer

    from queueber.client.service import Connector

LEASE_MS_DEFAULT = 30_000

_COUNT_MAX = (1 << 32) - 1


@frozen
class Batch:
    """What one poll has got: some items under one lease, or nothing."""

    items: tuple[PolledItem, ...]
    """In the order in which they became due; empty when the wait ran out."""

    lease: bytes
    """The right to remove and extend, 16 bytes; empty without items.  Keep it secret from other workers."""

    deadline: WallMs
    """When the lease ends, by the server's clock; 0 without items, or from a server that does not tell."""


class Queue:
    """
    One queue of a server.

    Every method gives a Deferred, which can be awaited.  Each fires once what
    it says is on the server's disk, and fails with a
    `queueber.errors.QueueberError`: what the server answered, `NotConnected`
    when the call was not sent, `OutcomeUnknown` when the connection was lost
    under way, `CallTimedOut` when the time limit was over, `InvalidRequest`
    when an argument cannot be right.

    *timeout_ms* is the time limit of the call, from when it is made to its
    answer, with the wait of a poll in it; with None it has that of `connect`.

    What is taken as bytes may be any object with a buffer: `bytes`,
    `bytearray`, `memoryview`, `array.array`, `mmap`.  All its bytes are copied
    before the method returns.
    """

    def __init__(self, connector: Connector, name: str | None) -> None:
        """The queue named *name*, or the default one; `Client` makes them."""
        self._connector = connector
        self._name = name

    def __repr__(self) -> str:
        return f"<Queue {self._name or 'default'}>"

    def add(self, *contents: Buffer, delay_ms: int = 0, timeout_ms: int | None = None) -> Deferred[list[bytes]]:
        """
        Store an item with each of *contents*, all of them or none, to become due after *delay_ms*.

        Returns:
            Fires with their ids, 16 bytes each, in the same order.
        """
        try:
            delay = SpanMs(integer("delay_ms", delay_ms, 0, SPAN_MS_MAX, "ms"))
            limit = timeout(timeout_ms)
            request = wire.AddRequest([wire.NewItem(each, delay) for each in buffers("contents", contents)])
        except InvalidRequest as why:
            return failed(why)
        return self._connector.call(self._name, wire.ADD, wire.write_add_request(request), _ids, timeout_ms=limit)

    def poll(
        self,
        n: int = 1,
        *,
        lease_ms: int = LEASE_MS_DEFAULT,
        wait_ms: int | None = None,
        timeout_ms: int | None = None,
    ) -> Deferred[Batch]:
        """
        Take up to *n* ready items under a new lease of *lease_ms*.

        While nothing is ready it waits up to *wait_ms*: None as long as it
        takes, 0 not at all.

        Returns:
            Fires with a `Batch`, empty once the wait is over.  Cancelling it
            gives the wait up; items that were already on their way are given
            back.
        """
        try:
            request = wire.PollRequest(
                lease=SpanMs(integer("lease_ms", lease_ms, 1, SPAN_MS_MAX, "ms")),
                num_items=integer("n", n, 1, _COUNT_MAX, "items"),
                wait=None if wait_ms is None else SpanMs(integer("wait_ms", wait_ms, 0, SPAN_MS_MAX, "ms")),
                no_wait=wait_ms == 0,
            )
            limit = timeout(timeout_ms)
        except InvalidRequest as why:
            return failed(why)
        content = wire.write_poll_request(request)
        return self._connector.call(self._name, wire.POLL, content, _batch, timeout_ms=limit, wait_ms=request.wait)

    def remove(self, item_id: Buffer, lease: Buffer, *, timeout_ms: int | None = None) -> Deferred[bool]:
        """
        Remove the item *item_id*, held under *lease*, for ever.

        Returns:
            Fires with False when nothing was changed: the item or the lease is
            unknown, the lease is another one or has ended.
        """
        try:
            limit = timeout(timeout_ms)
            request = wire.RemoveRequest(buffer("item_id", item_id), buffer("lease", lease))
        except InvalidRequest as why:
            return failed(why)
        return self._connector.call(
            self._name, wire.REMOVE, wire.write_remove_request(request), wire.read_remove_response, timeout_ms=limit
        )

    def extend(self, lease: Buffer, lease_ms: int, *, timeout_ms: int | None = None) -> Deferred[bool]:
        """
        Let *lease* end *lease_ms* from now, be that later or earlier than before.

        Returns:
            Fires with False when nothing was changed: the lease is unknown or has ended.
        """
        try:
            span = SpanMs(integer("lease_ms", lease_ms, 1, SPAN_MS_MAX, "ms"))
            limit = timeout(timeout_ms)
            request = wire.ExtendRequest(buffer("lease", lease), span)
        except InvalidRequest as why:
            return failed(why)
        return self._connector.call(
            self._name, wire.EXTEND, wire.write_extend_request(request), wire.read_extend_response, timeout_ms=limit
        )


def checked_name(name: str) -> str:
    """
    *name*, if a queue can have it.

    Raises:
        InvalidRequest: it is no text, empty, longer than the limit, or cannot be written as UTF-8.
    """
    if not isinstance(name, str):
        raise wrong("the queue's name", name, f"text, 1 to {QUEUE_NAME_BYTES_MAX} bytes of UTF-8")
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidRequest(f"the queue's name is not UTF-8: {name!a}") from None
    if not length:
        raise InvalidRequest("the queue's name is empty")
    if length > QUEUE_NAME_BYTES_MAX:
        raise too_large("the queue's name", value=length, limit=QUEUE_NAME_BYTES_MAX, unit="bytes")
    return name


def _ids(results: wire.Results) -> list[bytes]:
    ids: Sequence[bytes] = wire.read_add_response(results).ids
    return list(ids)


def _batch(results: wire.Results) -> Batch:
    response = wire.read_poll_response(results)
    return Batch(tuple(response.items), response.lease, response.deadline)

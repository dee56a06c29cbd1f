"""The queue object that a program uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from attrs import frozen

from queueber import api, rpc
from queueber.api import PolledItem
from queueber.client.arguments import SPAN_MS_MAX, buffers, identifier, integer, timeout, wrong
from queueber.client.errors import failed
from queueber.errors import InvalidRequest, too_large
from queueber.limits import QUEUE_NAME_BYTES_MAX
from queueber.units import SpanMs, WallMs

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from typing_extensions import Buffer

    from queueber.client.service import Connector

LEASE_MS_DEFAULT = 30_000

GIVE_BACK_MS: Final = SpanMs(1)
"""The shortest span.  `extend` by it ends a lease, so that its items go to the next worker."""

_COUNT_MAX = (1 << 32) - 1


@frozen
class Batch:
    """The result of one poll: items under one lease, or none."""

    items: tuple[PolledItem, ...]
    """Items in the order in which they became due; empty if the wait ended first."""

    lease: bytes
    """The lease's id, 16 bytes, which permits to remove and extend; empty without items.  Keep it secret."""

    deadline: WallMs
    """When the lease ends, by the server's clock; 0 without items, or if an old server does not send it."""


class Queue:
    """
    One queue of a server.

    Every method returns a Deferred, which can be awaited.  It fires once the
    change is on the server's disk, and fails with a
    `queueber.errors.QueueberError`: the error that the server returned,
    `NotConnected` if the call was not sent, `OutcomeUnknown` if the connection
    was lost during the call, `CallTimedOut` if it exceeded its time limit,
    `InvalidRequest` if an argument is invalid.

    *timeout_ms* is the time limit of the call, from the call to its answer,
    including the wait of a poll; None selects that of `connect`.

    Arguments of type `Buffer` may be any object with a buffer: `bytes`,
    `bytearray`, `memoryview`, `array.array`, `mmap`.  The bytes are copied
    before the method returns.
    """

    def __init__(self, connector: Connector, name: str | None) -> None:
        """Created by `Client`; *name* is None for the default queue."""
        self._connector = connector
        self._name = name

    def __repr__(self) -> str:
        return f"<Queue {self._name or 'default'}>"

    def add(self, *contents: Buffer, delay_ms: int = 0, timeout_ms: int | None = None) -> Deferred[list[bytes]]:
        """
        Store an item for each of *contents*, all or none, that becomes due after *delay_ms*.

        Returns:
            Fires with the items' ids, 16 bytes each, in the same order.
        """
        try:
            delay = SpanMs(integer("delay_ms", delay_ms, 0, SPAN_MS_MAX, "ms"))
            limit = timeout(timeout_ms)
            request = api.AddRequest([api.NewItem(each, delay) for each in buffers("contents", contents)])
        except InvalidRequest as why:
            return failed(why)
        return self._connector.call(self._name, api.ADD, api.write_add_request(request), _ids, timeout_ms=limit)

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

        If no item is ready, wait up to *wait_ms*: None without a limit, 0 not
        at all.

        Returns:
            Fires with a `Batch`, empty if the wait ended first.  Cancelling it
            ends the wait; items that were already sent go back.
        """
        try:
            request = api.PollRequest(
                lease=SpanMs(integer("lease_ms", lease_ms, 1, SPAN_MS_MAX, "ms")),
                num_items=integer("n", n, 1, _COUNT_MAX, "items"),
                wait=None if wait_ms is None else SpanMs(integer("wait_ms", wait_ms, 0, SPAN_MS_MAX, "ms")),
                no_wait=wait_ms == 0,
            )
            limit = timeout(timeout_ms)
        except InvalidRequest as why:
            return failed(why)
        content = api.write_poll_request(request)
        return self._connector.call(self._name, api.POLL, content, _batch, timeout_ms=limit, wait_ms=request.wait)

    def remove(self, item_id: Buffer, lease: Buffer, *, timeout_ms: int | None = None) -> Deferred[bool]:
        """
        Remove the item *item_id*, held under *lease*.

        Returns:
            Fires with True, or with False if nothing was changed: the item or
            the lease is unknown, or the lease is another one or has ended.
        """
        try:
            limit = timeout(timeout_ms)
            request = api.RemoveRequest(identifier("item_id", item_id), identifier("lease", lease))
        except InvalidRequest as why:
            return failed(why)
        return self._connector.call(
            self._name, api.REMOVE, api.write_remove_request(request), api.read_remove_response, timeout_ms=limit
        )

    def extend(self, lease: Buffer, lease_ms: int, *, timeout_ms: int | None = None) -> Deferred[bool]:
        """
        Set the end of *lease* to *lease_ms* from now, later or earlier than before.

        Returns:
            Fires with True, or with False if nothing was changed: the lease is unknown or has ended.
        """
        try:
            span = SpanMs(integer("lease_ms", lease_ms, 1, SPAN_MS_MAX, "ms"))
            limit = timeout(timeout_ms)
            request = api.ExtendRequest(identifier("lease", lease), span)
        except InvalidRequest as why:
            return failed(why)
        return self._connector.call(
            self._name, api.EXTEND, api.write_extend_request(request), api.read_extend_response, timeout_ms=limit
        )


def checked_name(name: str) -> str:
    """
    Return *name* if it is a valid name of a queue.

    Raises:
        InvalidRequest: *name* is not text, is empty, longer than the limit, or cannot be encoded in UTF-8.
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


def _ids(results: rpc.Results) -> list[bytes]:
    ids: Sequence[bytes] = api.read_add_response(results).ids
    return list(ids)


def _batch(results: rpc.Results) -> Batch:
    response = api.read_poll_response(results)
    return Batch(tuple(response.items), response.lease, response.deadline)

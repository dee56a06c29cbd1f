"""The queue object that a program uses."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, overload

from queueber import api
from queueber.api import AddTo, NewItem, Settled, Settlement
from queueber.client_core.delivery import items_of
from queueber.client_core.queue_calls import LEASE_MS_DEFAULT, QueueCalls, SessionRef, dead_letters
from queueber.client_core.routes import DeadLettersOf
from queueber.client_core.url import Target
from queueber.sync.items import Batch, Item, Items
from queueber.values import DEFAULT_QUEUE

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from queueber.sync.connector import Connector
    from queueber.sync.items import FilledBatch


class Queue:
    """
    One queue of a server.

    Every method returns once the change is on the server's disk, and raises a
    `queueber.errors.QueueberError`: the error that the server returned,
    `NotConnected` if the call was not sent, `OutcomeUnknown` if the connection
    was lost during the call, `CallTimedOut` if it exceeded its time limit,
    `InvalidRequest` if an argument is invalid.  A call that is interrupted, by
    Ctrl-C for example, takes effect all the same, unless it was not sent or is
    a poll: that leaves nothing leased.

    *timeout_ms* is the time limit of the call, from the call to its answer,
    including the wait of a poll; None selects that of `connect`.

    Arguments of type `Buffer` may be any object with the buffer protocol: `bytes`,
    `bytearray`, `memoryview`, `array.array`, `mmap`.  The bytes are copied
    before the method sends them.
    """

    def __init__(self, connector: Connector, place: str | DeadLettersOf | None) -> None:
        """Created by `Client`; *place* is None for the default queue."""
        self._connector = connector
        self._place = place
        self._calls: QueueCalls[Batch] = QueueCalls(
            place, self.batch, held=connector.held, request_ids=connector.request_ids
        )

    def batch(self, response: api.PollResponse) -> Batch:
        """Return the batch of a poll's *response*."""
        items = items_of(response, partial(Item, connector=self._connector, calls=self._calls))
        return Batch(items, response.lease, response.deadline, response.session, tuple(response.facts))

    @property
    def target(self) -> Target | None:
        """Where its client connects, and how, for a worker, which makes a connection of its own."""
        return self._connector.target

    @property
    def place(self) -> str | DeadLettersOf | None:
        """The queue on the server; None for the default queue."""
        return self._place

    @property
    def name(self) -> str:
        """The queue's name; for dead items, that of their queue."""
        return (self._place.queue if isinstance(self._place, DeadLettersOf) else self._place) or DEFAULT_QUEUE

    def __repr__(self) -> str:
        of = "of the dead items of " if isinstance(self._place, DeadLettersOf) else ""
        return f"<Queue {of}{self.name}>"

    def add(self, *contents: Buffer, delay_ms: int = 0, timeout_ms: int | None = None) -> list[bytes]:
        """
        Store an item for each of *contents*, all or none, that becomes due after *delay_ms*.

        Returns:
            The items' ids, 16 bytes each, in the same order.
        """
        return self._connector.call(self._calls.add(*contents, delay_ms=delay_ms), timeout_ms)

    def add_items(self, *items: NewItem, request_id: Buffer = b"", timeout_ms: int | None = None) -> api.AddResponse:
        """
        Store all *items*, made with `new_item`, or none.

        *request_id*, 16 random bytes, identifies this call: if it is sent again with the same id within ten minutes, it
        adds nothing and returns the ids of the first call.  The client itself sends such a call again when its
        connection is lost.

        A server that is older than the options of items ignores them.

        Returns:
            The ids, and the places of the items that were not added because
            their deduplication key was taken.
        """
        return self._connector.call(self._calls.add_items(*items, request_id=request_id), timeout_ms)

    @overload
    def poll(
        self,
        n: int = 1,
        *,
        lease_ms: int = LEASE_MS_DEFAULT,
        wait_ms: None = None,
        session: Buffer | SessionRef = b"",
        timeout_ms: int | None = None,
    ) -> FilledBatch: ...

    @overload
    def poll(
        self,
        n: int = 1,
        *,
        lease_ms: int = LEASE_MS_DEFAULT,
        wait_ms: int | None,
        session: Buffer | SessionRef = b"",
        timeout_ms: int | None = None,
    ) -> Batch: ...

    def poll(
        self,
        n: int = 1,
        *,
        lease_ms: int = LEASE_MS_DEFAULT,
        wait_ms: int | None = None,
        session: Buffer | SessionRef = b"",
        timeout_ms: int | None = None,
    ) -> Batch:
        """
        Take up to *n* ready items under a new lease of *lease_ms*.

        If no item is ready, wait up to *wait_ms*: None without a limit, 0 not
        at all.

        With *session*, of `Client.session` or one that `Client.attach` has
        bound to this connection, the lease lasts as long as the session
        instead.  A server that does not know sessions gives a lease of
        *lease_ms*: see the batch's `session`.

        Returns:
            A `Batch`, empty if the wait ended first; a wait without a limit does
            not.  Interrupting the call ends the wait; items that were already sent return to the queue.
        """
        call = self._calls.poll(n, lease_ms=lease_ms, wait_ms=wait_ms, session=session)
        return self._connector.call(call, timeout_ms)

    def remove(self, item_id: Buffer, lease: Buffer, *, timeout_ms: int | None = None) -> bool:
        """
        Remove the item *item_id*, held under *lease*.

        Returns:
            True, or False if nothing was changed: the item or the lease is
            unknown, or the lease is another one or has ended.
        """
        return self._connector.call(self._calls.remove(item_id, lease), timeout_ms)

    def extend(self, lease: Buffer, lease_ms: int, *, timeout_ms: int | None = None) -> bool:
        """
        Set the end of *lease* to *lease_ms* from now, later or earlier than before.

        Returns:
            True, or False if nothing was changed: the lease is unknown or has ended.
        """
        return self._connector.call(self._calls.extend(lease, lease_ms), timeout_ms)

    def settle(
        self,
        *entries: Settlement,
        adds: Iterable[AddTo] = (),
        all_or_nothing: bool = False,
        timeout_ms: int | None = None,
    ) -> api.SettleResponse:
        """
        Settle items, in the order of *entries*, and add items in the same commit.

        On the default queue, *entries* may be of any queues.  With *adds*, or
        if *all_or_nothing*, an entry that is not `Outcome.DONE` refuses the
        whole call, and `changed` is False.

        Returns:
            The outcome of each entry, and the ids of the items of each of
            *adds*.

        Raises:
            Unimplemented: the server is older than this method.
        """
        call = self._calls.settle(*entries, adds=adds, all_or_nothing=all_or_nothing)
        return self._connector.call(call, timeout_ms)

    def fail(
        self,
        item_id: Buffer,
        lease: Buffer,
        error: str = "",
        *,
        delay_ms: int | None = None,
        timeout_ms: int | None = None,
    ) -> Settled:
        """
        Return the item *item_id* to the queue and count a failure, with *error*, at most 4 KiB.

        It becomes due after *delay_ms*, or after the queue's backoff.  If that was its last attempt, it becomes a dead
        item.

        Returns:
            The outcome.  Raises as `settle` does.
        """
        return self._connector.call(self._calls.fail(item_id, lease, error, delay_ms=delay_ms), timeout_ms)

    def defer(
        self, item_id: Buffer, lease: Buffer, *, delay_ms: int | None = None, timeout_ms: int | None = None
    ) -> Settled:
        """
        Return the item *item_id* to the queue, after *delay_ms* or to its own place, and count nothing.

        Returns:
            The outcome.  Raises as `settle` does.
        """
        return self._connector.call(self._calls.defer(item_id, lease, delay_ms=delay_ms), timeout_ms)

    def reject(self, item_id: Buffer, lease: Buffer, error: str = "", *, timeout_ms: int | None = None) -> Settled:
        """
        Move the item *item_id* to the dead items now, with *error*, at most 4 KiB.

        Returns:
            The outcome.  Raises as `settle` does.
        """
        return self._connector.call(self._calls.reject(item_id, lease, error), timeout_ms)

    def dead_letters(self) -> Queue:
        """
        Return the queue's dead items as a queue: poll, remove, extend and settle work as on any other.

        Its calls fail with `Unimplemented` on a server that has no dead items.

        Raises:
            InvalidRequest: this is such a queue already.
        """
        return Queue(self._connector, dead_letters(self._place))

    def items(
        self, prefetch: int = 0, *, lease_ms: int = LEASE_MS_DEFAULT, session: Buffer | SessionRef = b""
    ) -> Items:
        """
        Return an endless iteration over the queue's items, which waits for each item.

        Up to *prefetch* items, at most 1,000, are polled for in advance; their leases run from then on.  A prefetched
        item whose lease has ended is skipped.

            with queue.items(10) as items:
                for item in items:
                    with item:
                        ...
        """
        return Items(self._connector, self._calls, prefetch, lease_ms, session)

    def __iter__(self) -> Items:
        return self.items()

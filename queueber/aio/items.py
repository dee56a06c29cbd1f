"""Items and batches, whose methods talk to the server, and the iteration over items."""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from queueber.api import Action, DeliveryFacts, Outcome, PolledItem, Settled, Settlement, SettleResponse
from queueber.client_core.calls import Call
from queueber.client_core.delivery import EXIT_MS, Delivered, DeliveredBatch, exit_for, lease_lost, note
from queueber.client_core.prefetch import RETRY_SECONDS, Prefetch, passes
from queueber.client_core.queue_calls import QueueCalls, SessionRef
from queueber.errors import QueueberError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from queueber.aio.connector import Connector

T = TypeVar("T")


class Item(Delivered):
    """
    One delivered item, with methods to settle it.

    As a context manager it settles the item at the end of the block: success removes it, an exception fails it with
    the exception's text and propagates, and a cancellation returns it without counting an attempt.  Has no effect if a
    method of the item has settled it already, or in a process that was forked later.  If the lease has ended, success
    raises `LeaseLost`.  The end of the block takes at most 10 s.
    """

    __slots__ = ("_calls", "_connector")

    def __init__(
        self, polled: PolledItem, lease: bytes, facts: DeliveryFacts, *, connector: Connector, calls: QueueCalls[Batch]
    ) -> None:
        """Created by a poll."""
        super().__init__(polled, lease, facts)
        self._connector = connector
        self._calls = calls

    async def remove(self, *, timeout_ms: int | None = None) -> bool:
        """Remove the item; the result is False if its lease has ended."""
        done = await self._call(self._calls.remove(self.id, self.lease), timeout_ms)
        self.settled = True
        return done

    async def fail(self, error: str = "", *, delay_ms: int | None = None, timeout_ms: int | None = None) -> Settled:
        """Return the item to the queue, after *delay_ms* or the queue's backoff, and count a failure."""
        call = self._calls.fail(self.id, self.lease, error, delay_ms=delay_ms)
        done = await self._call(call, timeout_ms)
        self.settled = True
        return done

    async def defer(self, *, delay_ms: int | None = None, timeout_ms: int | None = None) -> Settled:
        """Return the item to the queue, after *delay_ms* or to its own place, and count nothing."""
        done = await self._call(self._calls.defer(self.id, self.lease, delay_ms=delay_ms), timeout_ms)
        self.settled = True
        return done

    async def reject(self, error: str = "", *, timeout_ms: int | None = None) -> Settled:
        """Move the item to the dead items now."""
        done = await self._call(self._calls.reject(self.id, self.lease, error), timeout_ms)
        self.settled = True
        return done

    async def extend(self, lease_ms: int, *, timeout_ms: int | None = None) -> bool:
        """Set the end of the lease, which it shares with the other items of its batch, to *lease_ms* from now."""
        return await self._call(self._calls.extend(self.lease, lease_ms), timeout_ms)

    async def _call(self, call: Call[T], timeout_ms: int | None) -> T:
        """
        Make *call*.

        Raises:
            InvalidRequest: this process was forked from the one that polled the item.
            QueueberError: an error of the call.
        """
        if (why := self._why_not_here()) is not None:
            raise why
        return await self._connector.call(call, timeout_ms)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.settled or self._why_not_here() is not None:
            return
        action, text = exit_for(error, (asyncio.CancelledError,))
        if error is None:
            if not await self.remove(timeout_ms=EXIT_MS):
                raise lease_lost(self)
        elif action is Action.FAIL:
            await self._return(self._start(self._calls.fail(self.id, self.lease, text)), error)
        else:
            # On its way from here on, whether or not it is waited for.
            returning = self._start(self._calls.defer(self.id, self.lease))
            if not isinstance(error, GeneratorExit):
                try:
                    await self._return(returning, error)
                except asyncio.CancelledError:
                    # A second cancellation.  The first one goes on, without the wait.
                    return

    def _start(self, call: Call[Settled]) -> asyncio.Future[Settled]:
        self.settled = True
        return self._connector.start(call, EXIT_MS, background=True)

    async def _return(self, returning: asyncio.Future[Settled], error: BaseException) -> None:
        """Wait for the end of the call *returning*, and add to *error* why the item was not returned."""
        await asyncio.wait((returning,))
        why = returning.exception()
        if why is None and returning.result().outcome is not Outcome.DONE:
            why = lease_lost(self)
        if why is not None:
            note(error, why)


class Batch(DeliveredBatch[Item]):
    """
    The result of one poll: items under one lease, or none.

    As a context manager it is its only item, or None without items.  Entering a batch of several items raises
    `InvalidRequest`: enter each of its items.
    """

    __slots__ = ()

    async def __aenter__(self) -> Item | None:
        return self.only()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if (item := self.only()) is not None:
            await item.__aexit__(kind, error, trace)


if TYPE_CHECKING:

    class FilledBatch(Batch):
        """The batch of a poll without a limit to its wait, for type checkers: its context is an item, never None."""

        async def __aenter__(self) -> Item: ...


class Items:
    """
    An endless iteration over the items of a queue; made by `Queue.items`.

    Settle each item, most easily as a context manager.  As a context manager itself, or with `close`, the iteration
    returns its prefetched items to the queue at the end, and also when it is no longer referenced.

    If the server is stopping or overloaded, the poll is repeated after a second.  Any other error of a poll is
    raised.  The iteration may go on after it, and after a cancellation.
    """

    def __init__(
        self,
        connector: Connector,
        calls: QueueCalls[Batch],
        prefetch: int,
        lease_ms: int,
        session: Buffer | SessionRef,
    ) -> None:
        """Created by `Queue.items`."""
        self._closed = True
        self._connector = connector
        self._calls = calls
        self._poll = partial(calls.poll, lease_ms=lease_ms, session=session)
        self._poll(1)  # checks the arguments
        held = connector.held if isinstance(session, SessionRef) else None
        self._stock: Prefetch[Item] = Prefetch(prefetch, lease_ms, time.monotonic, held)
        self._polling: asyncio.Future[Batch] | None = None
        self._process = os.getpid()
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        self._leave_to_parent()
        while not self._closed:
            if (item := self._stock.take()) is not None:
                if self._stock.count:
                    self._start_poll()
                return item
            polling = self._polling or self._start_poll()
            assert polling is not None, "an empty stock wants an item"
            try:
                await asyncio.wait((polling,))
            except asyncio.CancelledError:
                if not self._stock.count:
                    polling.cancel()
                raise
            why = None if polling.cancelled() else polling.exception()
            if why is not None:
                if not isinstance(why, QueueberError) or not passes(why):
                    raise why
                await asyncio.sleep(RETRY_SECONDS)
        raise StopAsyncIteration

    def _start_poll(self) -> asyncio.Future[Batch] | None:
        """Poll for as many items as are missing, and return the poll; None if enough are here or on their way."""
        wanted = self._stock.wanted()
        if self._polling is not None or not wanted:
            return None
        self._polling = polling = self._connector.start(self._poll(wanted))
        # The poll does not keep the iteration alive, so that one that was left ends.
        polling.add_done_callback(partial(_arrived, weakref.ref(self), self._connector, self._calls))
        return polling

    def arrived(self, batch: Batch | None) -> None:
        """Add *batch* to the prefetched items; None: the poll has failed or was cancelled."""
        self._polling = None
        if batch is not None:
            self._stock.put(batch)
            if self._closed:
                _give_back(self._connector, self._calls, self._stock.give_back())

    def _leave_to_parent(self) -> None:
        """In a forked process, forget the items of the process in which they were polled."""
        if self._process != os.getpid():
            self._process, self._polling = os.getpid(), None
            self._stock.give_back()

    async def close(self) -> None:
        """
        End the iteration, and return its prefetched items to the queue.

        Returns when the server has confirmed that, or after 10 s; without a connection they are redelivered when their
        leases end.
        """
        self._leave_to_parent()
        self._closed = True
        if self._polling is not None:
            self._polling.cancel()
        returning = _give_back(self._connector, self._calls, self._stock.give_back())
        if returning is not None:
            await asyncio.wait((returning,))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        # Closed, too, if an argument was invalid.
        if not self._closed:
            self._leave_to_parent()
            self._closed = True
            rest = self._stock.give_back()
            if self._polling is not None or rest:
                self._connector.call_from_any_thread(
                    partial(_abandon, self._connector, self._calls, self._polling, rest)
                )


def _arrived(
    me: weakref.ref[Items], connector: Connector, calls: QueueCalls[Batch], polling: asyncio.Future[Batch]
) -> None:
    """Hand the batch of *polling* to its iteration, or give it back if that is gone."""
    batch = None if polling.cancelled() or polling.exception() is not None else polling.result()
    items = me()
    if items is not None:
        items.arrived(batch)
    elif batch is not None:
        _give_back(connector, calls, [Settlement(batch.lease, item.id, Action.DEFER) for item in batch])


def _abandon(
    connector: Connector, calls: QueueCalls[Batch], polling: asyncio.Future[Batch] | None, rest: list[Settlement]
) -> None:
    if polling is not None:
        polling.cancel()
    _give_back(connector, calls, rest)


def _give_back(
    connector: Connector, calls: QueueCalls[Batch], entries: list[Settlement]
) -> asyncio.Future[SettleResponse] | None:
    """Return the call that returns items to their queue; None without *entries*."""
    return connector.start(calls.settle(*entries), EXIT_MS, background=True) if entries else None

"""Items and batches, whose methods talk to the server, and the iteration over items."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from queueber.api import Action, DeliveryFacts, Outcome, PolledItem, Settled, SettleResponse
from queueber.client_core.calls import Call
from queueber.client_core.delivery import EXIT_MS, Delivered, DeliveredBatch, exit_for, lease_lost, note
from queueber.client_core.errors import NotConnected
from queueber.client_core.prefetch import RETRY_SECONDS, Prefetch, passes
from queueber.client_core.queue_calls import QueueCalls, SessionRef
from queueber.errors import QueueberError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from queueber.sync.connector import Connector
    from queueber.sync.pending import Pending

T = TypeVar("T")


class Item(Delivered):
    """
    One delivered item, with methods to settle it.

    As a context manager it settles the item at the end of the block: success removes it, an exception fails it with the
    exception's text and propagates, and an interruption, such as Ctrl-C, returns it without counting an attempt.
    Has no effect if a method of the item has settled it already, or in a process that was forked later.  If the lease
    has ended, success raises `LeaseLost`.  The end of the block takes at most 10 s.
    """

    __slots__ = ("_calls", "_connector")

    def __init__(
        self, polled: PolledItem, lease: bytes, facts: DeliveryFacts, *, connector: Connector, calls: QueueCalls[Batch]
    ) -> None:
        """Created by a poll."""
        super().__init__(polled, lease, facts)
        self._connector = connector
        self._calls = calls

    def remove(self, *, timeout_ms: int | None = None) -> bool:
        """Remove the item; the result is False if its lease has ended."""
        done = self._call(self._calls.remove(self.id, self.lease), timeout_ms)
        self.settled = True
        return done

    def fail(self, error: str = "", *, delay_ms: int | None = None, timeout_ms: int | None = None) -> Settled:
        """Return the item to the queue, after *delay_ms* or the queue's backoff, and count a failure."""
        call = self._calls.fail(self.id, self.lease, error, delay_ms=delay_ms)
        done = self._call(call, timeout_ms)
        self.settled = True
        return done

    def defer(self, *, delay_ms: int | None = None, timeout_ms: int | None = None) -> Settled:
        """Return the item to the queue, after *delay_ms* or to its own place, and count nothing."""
        done = self._call(self._calls.defer(self.id, self.lease, delay_ms=delay_ms), timeout_ms)
        self.settled = True
        return done

    def reject(self, error: str = "", *, timeout_ms: int | None = None) -> Settled:
        """Move the item to the dead items now."""
        done = self._call(self._calls.reject(self.id, self.lease, error), timeout_ms)
        self.settled = True
        return done

    def extend(self, lease_ms: int, *, timeout_ms: int | None = None) -> bool:
        """Set the end of the lease, which it shares with the other items of its batch, to *lease_ms* from now."""
        return self._call(self._calls.extend(self.lease, lease_ms), timeout_ms)

    def _call(self, call: Call[T], timeout_ms: int | None) -> T:
        """
        Make *call*.

        Raises:
            InvalidRequest: this process was forked from the one that polled the item.
            QueueberError: an error of the call.
        """
        if (why := self._why_not_here()) is not None:
            raise why
        return self._connector.call(call, timeout_ms)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.settled or self._why_not_here() is not None:
            return
        action, text = exit_for(error, ())
        if error is None:
            if not self.remove(timeout_ms=EXIT_MS):
                raise lease_lost(self)
        elif action is Action.FAIL:
            self._return(self._calls.fail(self.id, self.lease, text), error)
        else:
            self._return(self._calls.defer(self.id, self.lease), error)

    def _return(self, call: Call[Settled], error: BaseException) -> None:
        """Make *call*, which returns the item, and add to *error* why that did not happen."""
        self.settled = True
        try:
            # In the background: a second interruption ends only the wait for it.
            settled = self._connector.start(call, EXIT_MS, background=True).result()
        except QueueberError as why:
            note(error, why)
        else:
            if settled.outcome is not Outcome.DONE:
                note(error, lease_lost(self))


class Batch(DeliveredBatch[Item]):
    """
    The result of one poll: items under one lease, or none.

    As a context manager it is its only item, or None without items.  Entering a batch of several items raises
    `InvalidRequest`: enter each of its items.
    """

    __slots__ = ()

    def __enter__(self) -> Item | None:
        return self.only()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if (item := self.only()) is not None:
            item.__exit__(kind, error, trace)


if TYPE_CHECKING:

    class FilledBatch(Batch):
        """The batch of a poll without a limit to its wait, for type checkers: its context is an item, never None."""

        def __enter__(self) -> Item: ...


class Items:
    """
    An endless iteration over the items of a queue; made by `Queue.items`.

    Settle each item, most easily as a context manager.  As a context manager itself, or with `close`, the iteration
    returns its prefetched items to the queue at the end, and also when it is no longer referenced.  One thread at a
    time may use it.

    If the server is stopping or overloaded, the poll is repeated after a second.  Any other error of a poll is
    raised.  The iteration may go on after it, and after an interruption.
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
        self._polling: Pending[Batch] | None = None
        self._process = os.getpid()
        self._closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        self._leave_to_parent()
        while not self._closed:
            self._collect()
            if (item := self._stock.take()) is not None:
                if self._stock.count:
                    self._start_poll()
                return item
            polling = self._polling or self._start_poll()
            assert polling is not None, "an empty stock wants an item"
            try:
                polling.result()
            except QueueberError as why:
                self._polling = None
                if not passes(why):
                    raise
                time.sleep(RETRY_SECONDS)
            except BaseException:
                self._cancel()
                raise
        raise StopIteration

    def _start_poll(self) -> Pending[Batch] | None:
        """Poll for as many items as are missing, and return the poll; None if enough are here or on their way."""
        wanted = self._stock.wanted()
        if self._polling is not None or not wanted:
            return None
        self._polling = self._connector.start(self._poll(wanted))
        return self._polling

    def _collect(self) -> None:
        """Add the items of a poll that has ended."""
        polling = self._polling
        if polling is not None and polling.is_set:
            self._polling = None
            if polling.error is None:
                self._stock.put(polling.result(), polling.set_at)

    def _cancel(self) -> None:
        """Cancel the poll in progress.  Items that it has delivered meanwhile return to the queue."""
        polling, self._polling = self._polling, None
        if polling is not None:
            self._connector.abandon(polling)

    def _leave_to_parent(self) -> None:
        """In a forked process, forget the items of the process in which they were polled."""
        if self._process != os.getpid():
            self._process, self._polling = os.getpid(), None
            self._stock.give_back()

    def close(self) -> None:
        """
        End the iteration, and return its prefetched items to the queue.

        Returns when the server has confirmed that, or after 10 s; without a connection they are redelivered when their
        leases end.
        """
        if (returning := self._close()) is not None:
            returning.wait()

    def _close(self) -> Pending[SettleResponse] | None:
        """Close, and return the call that returns the prefetched items; None if there are none."""
        self._leave_to_parent()
        self._closed = True
        self._cancel()
        entries = self._stock.give_back()
        # The items of a client that was closed come back by themselves.
        with suppress(NotConnected):
            return self._connector.start(self._calls.settle(*entries), EXIT_MS, background=True) if entries else None
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Closed, too, if an argument was invalid.
        if not self._closed:
            self._close()

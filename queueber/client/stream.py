"""Iteration over a queue, for Twisted programs."""

from __future__ import annotations

import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Self

from twisted.internet.defer import CancelledError, Deferred

from queueber.client_core.delivery import EXIT_MS
from queueber.client_core.prefetch import RETRY_SECONDS, Prefetch, passes
from queueber.client_core.queue_calls import SessionRef, poll_request
from queueber.errors import QueueberError

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure
    from typing_extensions import Buffer

    from queueber.client.delivery import Batch, Item
    from queueber.client.queue import Queue
    from queueber.client.service import Connector


class Items:
    """
    An endless iteration over the items of a queue; made by `Queue.items`.

    Settle each item, most easily as a context manager.  As a context manager itself, or with `close`, the iteration
    returns its prefetched items to the queue at the end, and also when it is no longer referenced.

    If the server is stopping or overloaded, the poll is repeated after a second.  Any other error of a poll is
    raised.  The iteration may go on after it, and after a cancellation.
    """

    def __init__(
        self, queue: Queue, connector: Connector, prefetch: int, lease_ms: int, session: Buffer | SessionRef
    ) -> None:
        """Created by `Queue.items`."""
        poll_request(1, lease_ms, None, session)
        self._queue = queue
        self._clock = connector.clock
        held = connector.held if isinstance(session, SessionRef) else None
        self._stock: Prefetch[Item] = Prefetch(prefetch, lease_ms, self._clock.seconds, held)
        self._lease_ms = lease_ms
        self._session = session
        self._polling: Deferred[None] | None = None
        self._retry: IDelayedCall | None = None
        self._waiting: Deferred[None] | None = None
        """Fires when items have arrived, or fails with the error of a poll."""

        self._error: Failure | None = None
        """The error of a poll for which no call of `__anext__` waited."""

        self._closed = False

    def __aiter__(self) -> Items:
        return self

    async def __anext__(self) -> Item:
        while not self._closed:
            item = self._stock.take()
            if item is not None:
                self._poll()
                return item
            if self._error is not None:
                why, self._error = self._error, None
                why.raiseException()
            self._waiting = Deferred()
            waiting = self._waiting
            self._poll()
            try:
                await waiting
            except CancelledError:
                self._cancel_on_demand()
                raise
            finally:
                self._waiting = None
        raise StopAsyncIteration

    def _cancel_on_demand(self) -> None:
        """End a poll that was made for a call of `__anext__` alone."""
        if self._polling is not None and not self._stock.count:
            self._polling.cancel()

    def _poll(self) -> None:
        """Poll for as many items as are missing, unless a poll is under way or will be repeated."""
        wanted = self._stock.wanted()
        if self._polling is not None or self._retry is not None or not wanted or self._closed:
            return
        # The poll does not keep the iteration alive, so that one that was left ends.
        me = weakref.ref(self)
        polling = self._queue.poll(wanted, lease_ms=self._lease_ms, session=self._session)
        done: Deferred[None] = polling.addCallbacks(lambda batch: _arrived(me, batch), lambda why: _failed(me, why))
        if not done.called:
            self._polling = done

    def arrived(self, batch: Batch) -> None:
        """Add *batch* to the prefetched items."""
        self._polling = None
        self._stock.put(batch)
        self._wake()

    def failed(self, why: Failure) -> None:
        """End the wait of `__anext__` with *why*, or poll again after a while."""
        self._polling = None
        if why.check(CancelledError):
            return
        if isinstance(why.value, QueueberError) and passes(why.value):
            me = weakref.ref(self)
            self._retry = self._clock.callLater(RETRY_SECONDS, lambda: _again(me))
        elif self._waiting is not None:
            self._waiting.errback(why)
        else:
            self._error = why

    def poll_again(self) -> None:
        """Repeat a poll that failed for a passing reason."""
        self._retry = None
        self._poll()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.called:
            self._waiting.callback(None)

    def close(self) -> Deferred[None]:
        """
        End the iteration, and return its prefetched items to the queue.

        Returns:
            Fires when the server has confirmed that, or after 10 s; without a connection they are redelivered when
            their leases end.
        """
        self._closed = True
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        if self._polling is not None:
            self._polling.cancel()
        self._wake()
        entries = self._stock.give_back()
        if not entries:
            done: Deferred[None] = Deferred()
            done.callback(None)
            return done
        giving_back = self._queue.settle(*entries, timeout_ms=EXIT_MS)
        return giving_back.addCallbacks(lambda _: None, lambda why: why.trap(QueueberError) and None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        closing = self.close()
        if not isinstance(error, GeneratorExit):
            # A coroutine that is being closed cannot wait.
            await closing

    def __del__(self) -> None:
        # Without the attribute an argument was invalid.
        if not getattr(self, "_closed", True):
            self.close()


def _arrived(me: weakref.ref[Items], batch: Batch) -> None:
    """Hand *batch* to its iteration, or give it back if that is gone."""
    items = me()
    if items is not None:
        items.arrived(batch)
    else:
        for each in batch:
            each.defer().addErrback(lambda _: None)


def _failed(me: weakref.ref[Items], why: Failure) -> None:
    items = me()
    if items is not None:
        items.failed(why)


def _again(me: weakref.ref[Items]) -> None:
    items = me()
    if items is not None:
        items.poll_again()

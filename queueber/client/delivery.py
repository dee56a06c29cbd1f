"""Items and batches of the Twisted client, whose methods return Deferreds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from queueber.api import Action, DeliveryFacts, Outcome, PolledItem, PollResponse, Settled
from queueber.client_core.delivery import EXIT_MS, Delivered, DeliveredBatch, exit_for, items_of, lease_lost, note
from queueber.errors import QueueberError

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from queueber.client.queue import Queue

T = TypeVar("T")


class Item(Delivered):
    """
    One delivered item, with methods to settle it.

    As a context manager it settles the item at the end of the block: success removes it, an exception fails it with
    the exception's text and propagates, and a cancellation returns it without counting an attempt.  Has no effect if a
    method of the item has settled it already, or in a process that was forked later.  If the lease has ended, success
    raises `LeaseLost`.  The end of the block takes at most 10 s.
    """

    __slots__ = ("_queue",)

    def __init__(self, polled: PolledItem, lease: bytes, facts: DeliveryFacts, *, queue: Queue) -> None:
        """Created by a poll."""
        super().__init__(polled, lease, facts)
        self._queue = queue

    def remove(self, *, timeout_ms: int | None = None) -> Deferred[bool]:
        """Remove the item; the result is False if its lease has ended."""
        return self._settling(self._queue.remove, timeout_ms=timeout_ms)

    def fail(self, error: str = "", *, delay_ms: int | None = None, timeout_ms: int | None = None) -> Deferred[Settled]:
        """Return the item to the queue, after *delay_ms* or the queue's backoff, and count a failure."""
        return self._settling(self._queue.fail, error, delay_ms=delay_ms, timeout_ms=timeout_ms)

    def defer(self, *, delay_ms: int | None = None, timeout_ms: int | None = None) -> Deferred[Settled]:
        """Return the item to the queue, after *delay_ms* or to its own place, and count nothing."""
        return self._settling(self._queue.defer, delay_ms=delay_ms, timeout_ms=timeout_ms)

    def reject(self, error: str = "", *, timeout_ms: int | None = None) -> Deferred[Settled]:
        """Move the item to the dead items now."""
        return self._settling(self._queue.reject, error, timeout_ms=timeout_ms)

    def extend(self, lease_ms: int, *, timeout_ms: int | None = None) -> Deferred[bool]:
        """Set the end of the lease, which it shares with the other items of its batch, to *lease_ms* from now."""
        if (why := self._why_not_here()) is not None:
            return _failed(why)
        return self._queue.extend(self.lease, lease_ms, timeout_ms=timeout_ms)

    def _settling(self, settle: Callable[..., Deferred[T]], *arguments: object, **options: object) -> Deferred[T]:
        if (why := self._why_not_here()) is not None:
            return _failed(why)
        settling = settle(self.id, self.lease, *arguments, **options)
        self.settled = True
        return settling.addErrback(self._not_settled)

    def _not_settled(self, failure: Failure) -> Failure:
        self.settled = False
        return failure

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.settled or self._why_not_here() is not None:
            return
        if isinstance(error, GeneratorExit):
            # A coroutine that is being closed cannot wait.
            self.defer(timeout_ms=EXIT_MS).addErrback(lambda _: None)
            return
        # Imported here, because blocking clients do without Twisted.
        from twisted.internet.defer import CancelledError  # noqa: PLC0415

        action, text = exit_for(error, (CancelledError,))
        try:
            if action is Action.REMOVE:
                done = await self.remove(timeout_ms=EXIT_MS)
            elif action is Action.FAIL:
                done = (await self.fail(text, timeout_ms=EXIT_MS)).outcome is Outcome.DONE
            else:
                done = (await self.defer(timeout_ms=EXIT_MS)).outcome is Outcome.DONE
        except (QueueberError, CancelledError) as why:
            if error is None:
                raise
            note(error, why)
        else:
            if not done and error is None:
                raise lease_lost(self)
            if not done and error is not None:
                note(error, lease_lost(self))


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
        item = self.only()
        if item is not None:
            await item.__aexit__(kind, error, trace)


if TYPE_CHECKING:

    class FilledBatch(Batch):
        """The batch of a poll without a limit to its wait, for type checkers: its context is an item, never None."""

        async def __aenter__(self) -> Item: ...

    class _FilledBatchAwaitable(Awaitable[FilledBatch]):
        """The first base of `UnlimitedPoll`: pyright awaits by base classes, and mypy by `__await__`."""

    class UnlimitedPoll(_FilledBatchAwaitable, Deferred[Batch]):
        """
        A poll without a limit to its wait, for type checkers: a `Deferred[Batch]` that awaits to a `FilledBatch`.

        A `Deferred[FilledBatch]` would not be a `Deferred[Batch]`: the type of a Deferred's result is invariant.
        """

        def __await__(self) -> Generator[Deferred[Batch], None, FilledBatch]: ...


def _failed(why: QueueberError) -> Deferred[Any]:
    # Imported here, because blocking clients do without Twisted.
    from twisted.internet.defer import fail  # noqa: PLC0415

    return fail(why)


def batch_of(queue: Queue, response: PollResponse) -> Batch:
    """Return the batch of items of *queue* in a poll's *response*."""
    items = items_of(response, lambda polled, lease, facts: Item(polled, lease, facts, queue=queue))
    return Batch(items, response.lease, response.deadline, response.session, tuple(response.facts))

"""Background work on queues: ends idle queues and old dead items, and deletes rows that a purge or a delete left."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from queueber.broker import Broker, ItemId, Plan, Store
from queueber.broker.model import QueueNumber
from queueber.errors import StorageError
from queueber.limits import Limits
from queueber.server.core.clock import QueueClock
from queueber.server.core.committer import Committer
from queueber.server.core.dispatcher import Dispatcher
from queueber.server.core.lookups import find_each
from queueber.server.core.pool import Pool
from queueber.server.core.read_failures import ReadFailures
from queueber.units import WallMs

CLEANUP_SECONDS = 1.0
"""The time between two runs."""

_FAR = WallMs(2**63)
"""A time after all others."""

LOOKS = 1_000
"""Queues that one run looks at."""


@define(eq=False)
class Cleanup:
    """
    Ends what has lived too long, and deletes the rows of retired numbers.

    A commit has a slice of them, so that calls are served in between.

    A slice that cannot be read is tried again in the next run.
    """

    _broker: Broker
    _store: Store
    _pool: Pool
    _clock: QueueClock
    _committer: Committer
    _dispatcher: Dispatcher
    _limits: Limits
    deleted: int = field(default=0, init=False)
    """Rows of retired numbers that were read to be deleted, since the start."""

    ended_records: int = field(default=0, init=False)
    """Deduplication records that were deleted, since the start."""

    _failures: ReadFailures = field(init=False)
    log = Logger()

    def __attrs_post_init__(self) -> None:
        """Bound the log."""
        self._failures = ReadFailures(self.log, self._clock.monotonic)

    def run(self) -> Deferred[None]:
        """Do what there is to do.  The Deferred never fails: that would stop the timer silently."""
        return ensureDeferred(self._run()).addErrback(self._committer.bug)

    async def _run(self) -> None:
        await self._end_idle()
        await self._clear_retired()
        await self._end_records()

    async def _end_idle(self) -> None:
        """Look at some of the queues that may have lived too long, in turn."""
        lifecycle, watched = self._broker.lifecycle, self._broker.queues.watched
        for queue in list(islice(watched, LOOKS)):
            if watched.pop(queue, queue) is None:
                watched[queue] = None  # at the end
            while (plan := lifecycle.look_at(queue, self._clock.now())) is not None:
                await self._commit(plan)
        self._dispatcher.start_scans()

    async def _clear_retired(self) -> None:
        lifecycle = self._broker.lifecycle
        while (retired := lifecycle.next_retired()) is not None:
            number, most = retired.number, self._limits.refill_items
            try:
                keys = await self._pool.run(self._store.keys, number, retired.after, items_max=most)
            except (StorageError, MemoryError):
                self._log_unreadable("what a purge of queue {queue!r} left", retired.queue.name)
                return
            self.deleted += len(keys)
            await self._commit(lifecycle.clear(retired, keys, exhausted=len(keys) < most))
        # All are submitted before any is waited for: other plans must not come between those that are made together.
        for committed in [self._commit(plan) for plan in lifecycle.forget_cleared()]:
            await committed

    async def _end_records(self) -> None:
        """Delete the deduplication records that have ended, and find the time of the next one."""
        dedup, now, most = self._broker.dedup, self._clock.now(), self._limits.expiry_slice
        while dedup.next_end is not None and dedup.next_end <= now:
            sweep = dedup.begin_sweep()
            try:
                dedup.choose_items(sweep, await self._pool.run(self._store.ended, now, entries_max=most))
                for number, items in sweep.wanted.items():
                    sweep.add_existing(await self._pool.run(self._existing, number, items))
                later = [] if sweep.entries else await self._pool.run(self._store.ended, _FAR, entries_max=1)
            except (StorageError, MemoryError):
                dedup.cancel_sweep(sweep)
                self._log_unreadable("deduplication records")
                return
            plan = dedup.finish_sweep(sweep, now, later)
            self.ended_records += plan.reply
            await self._commit(plan)

    def _existing(self, number: QueueNumber, items: Sequence[ItemId]) -> set[ItemId]:
        """On a storage thread: return those of *items* that are there."""
        return {item.key.id for item in find_each(self._store, number, items)}

    def _commit(self, plan: Plan[Any]) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self._committer.submit(plan, done.callback)
        return done

    def _log_unreadable(self, what: str, queue: str = "") -> None:
        """Log the error that is being handled."""
        self._failures.note(f"Reading {what} failed", Failure(), queue, then="; it is tried again", queue=queue)

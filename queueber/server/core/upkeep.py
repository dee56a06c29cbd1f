"""Background work on queues: ends idle queues and old dead items, and deletes rows that a purge or a delete left."""

from itertools import islice

from attrs import define, field
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from queueber.broker import Broker, Plan, Store
from queueber.errors import StorageError
from queueber.limits import Limits
from queueber.server.core.clock import QueueClock
from queueber.server.core.committer import Committer
from queueber.server.core.dispatcher import Dispatcher
from queueber.server.core.log_rate_limit import LogRateLimiter
from queueber.server.core.pool import Pool

UPKEEP_SECONDS = 1.0
"""The time between two runs."""

LOOKS = 1_000
"""Queues that one run looks at."""


@define(eq=False)
class Upkeep:
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

    _log_limiter: LogRateLimiter = field(init=False)
    log = Logger()

    def __attrs_post_init__(self) -> None:
        """Bound the log."""
        self._log_limiter = LogRateLimiter(self._clock.monotonic)

    def run(self) -> Deferred[None]:
        """Do what there is to do.  The Deferred never fails: that would stop the timer silently."""
        return ensureDeferred(self._run()).addErrback(self._committer.bug)

    async def _run(self) -> None:
        await self._end_idle()
        await self._clear_retired()

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
            except (StorageError, MemoryError) as why:
                self._log_unreadable(retired.queue.name, why)
                return
            self.deleted += len(keys)
            await self._commit(lifecycle.clear(retired, keys, exhausted=len(keys) < most))
        for plan in lifecycle.forget_cleared():
            await self._commit(plan)

    def _commit(self, plan: Plan[None]) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self._committer.submit(plan, done.callback)
        return done

    def _log_unreadable(self, name: str, why: BaseException) -> None:
        if (more := self._log_limiter.passes(name, "retired")) is not None:
            line = "Reading what a purge of queue {queue!r} left failed: {why}; it is tried again{more}"
            self.log.error(line, queue=name, why=str(why) or repr(why), more=more)

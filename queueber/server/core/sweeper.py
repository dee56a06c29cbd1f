"""Puts back the items of expired leases, and logs items that are delivered again and again, or that die."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from queueber.broker import Broker, Item, ItemId, Lease, LeaseId, Queue, Store
from queueber.broker.deaths import DropReason
from queueber.errors import StorageError
from queueber.server.core.clock import QueueClock
from queueber.server.core.committer import Committer
from queueber.server.core.log_rate_limit import LogRateLimiter
from queueber.server.core.pool import Pool
from queueber.units import SECOND, SpanMs, WallMs, counted
from queueber.values import DeathReason

_RETRY_DELAY_MAX = SpanMs(64 * SECOND)
"""The longest delay between two attempts to read rows.  The first is a second, and each is twice the one before."""

ATTEMPT_STEPS = (1, 10, 100, 1_000)
"""Deliveries of an item, in steps.  Each step but the first is logged."""

DEATH_CAUSES: Final[Mapping[DeathReason | DropReason, str]] = {
    DeathReason.ATTEMPTS: "its last attempt failed",
    DeathReason.LOST: "the lease of its last attempt ended by itself",
    DeathReason.REJECTED: "a worker rejected it",
    DeathReason.EXPIRED: "it was not delivered in time",
    DropReason.EXPIRED: "it was not delivered in time",
    DropReason.DEAD_TTL: "it was dead for the time of dead-ttl-ms",
}


@frozen
class _Rows:
    """The rows of one lease's items."""

    items: list[Item | None]
    unreadable: frozenset[ItemId] = frozenset()
    """Items whose rows could not be read; they are None in *items*."""

    why: Failure | None = None
    """The error of one of them."""


@define(eq=False)
class Sweeper:
    """
    Ends expired leases and requeues their items, a slice at a time.

    A lease gives no rights once its deadline has passed, swept or not.  The
    sweep only decides how soon other workers get its items.

    An item whose row cannot be read stays under its lease, on the disk too, and
    is tried again later.  It delays no other item.
    """

    _broker: Broker
    _store: Store
    _pool: Pool
    _clock: QueueClock
    _committer: Committer
    expired: int = field(default=0, init=False)
    """Leases that expired, since the start."""

    unreadable: int = field(default=0, init=False)
    """Failed attempts to read the row of an item, since the start."""

    _retry_delays: dict[LeaseId, SpanMs] = field(factory=dict, init=False)
    """The last delay of each lease with rows that cannot be read."""

    redelivered: Counter[int] = field(factory=Counter, init=False)
    """Items that were requeued, by the step of `ATTEMPT_STEPS` that they had reached."""

    _log_limiter: LogRateLimiter = field(init=False)
    log = Logger()

    def __attrs_post_init__(self) -> None:
        """Bound the log."""
        self._log_limiter = LogRateLimiter(self._clock.monotonic)

    @property
    def retrying(self) -> int:
        """Leases with rows that could not be read, and that are swept again later."""
        return len(self._retry_delays)

    def sweep(self) -> Deferred[None]:
        """End all expired leases.  The Deferred never fails: that would stop the timer silently."""
        return ensureDeferred(self._sweep()).addErrback(self._committer.bug)

    async def _sweep(self) -> None:
        while ended := self._pop_expired():
            moved: Deferred[int] | None = None
            for lease, rows in zip(ended, await self._pool.run(self._read, ended), strict=True):
                self._log_missing(lease, rows)
                if rows.why is not None:
                    self._retry_later(lease, rows, rows.why)
                else:
                    self._retry_delays.pop(lease.id, None)
                    self.expired += 1
                if len(rows.unreadable) < len(rows.items):
                    moved = Deferred()
                    plan = self._broker.requeue(lease, rows.items, self._clock.now(), unreadable=rows.unreadable)
                    self._committer.submit(plan, moved.callback)
                    self._count_redelivered(lease, rows.items)
            if moved is not None:
                # One slice at a time, so that other plans are committed in between.
                await moved

    def _pop_expired(self) -> list[Lease]:
        # A remove that has arrived comes before the end of its lease.
        self._committer.decide_now()
        return self._broker.pop_expired(self._clock.now())

    def _log_missing(self, lease: Lease, rows: _Rows) -> None:
        if rows.items.count(None) > len(rows.unreadable):
            self.log.critical(
                "Items of queue {queue} under lease {lease} have no row any more",
                queue=lease.queue,
                lease=lease.id.hex(),
            )

    def _retry_later(self, lease: Lease, rows: _Rows, why: Failure) -> None:
        """Log the failure and sweep the lease again later: the failure may pass or be permanent."""
        self.unreadable += len(rows.unreadable)
        wait = self._retry_delays.get(lease.id)
        self._retry_delays[lease.id] = wait = SECOND if wait is None else min(SpanMs(2 * wait), _RETRY_DELAY_MAX)
        known = why.check(StorageError, MemoryError) is not None
        note = (
            partial(self.log.error, why=why.getErrorMessage() or repr(why.value))
            if known
            else partial(self.log.failure, failure=why)
        )
        note(
            "Reading {items} of queue {queue} under lease {lease}, which has ended, failed; {again} tried again"
            " in {seconds} s" + ": {why}" * known,
            items=counted(len(rows.unreadable), "item"),
            again="it is" if len(rows.unreadable) == 1 else "they are",
            count=len(rows.unreadable),
            queue=lease.queue,
            lease=lease.id.hex(),
            seconds=wait // SECOND,
        )
        self._broker.retry_sweep(lease, WallMs(self._clock.now() + wait))

    def _read(self, leases: list[Lease]) -> list[_Rows]:
        try:
            return [_Rows(self._store.read(lease.queue, lease.rows())) for lease in leases]
        except Exception:  # noqa: BLE001  (any error occurs again in one of them)
            return [self._read_row_by_row(lease) for lease in leases]

    def _read_row_by_row(self, lease: Lease) -> _Rows:
        """Read each row by itself, so that an unreadable one hides no other."""
        items: list[Item | None] = []
        unreadable: set[ItemId] = set()
        why = None
        for key in lease.rows():
            try:
                items += self._store.read(lease.queue, [key])
            except Exception:  # noqa: BLE001  (after any error the item stays where it is and is tried again)
                why = Failure()
                items.append(None)
                unreadable.add(key.id)
        return _Rows(items, frozenset(unreadable), why)

    def _count_redelivered(self, lease: Lease, items: Iterable[Item | None]) -> None:
        for item in items:
            if item is not None:
                attempts = item.attempts + 1
                self.redelivered[_step(attempts)] += 1
                if attempts in ATTEMPT_STEPS[1:]:
                    self._warn_of_redelivery(lease, item, attempts)

    def _warn_of_redelivery(self, lease: Lease, item: Item, attempts: int) -> None:
        more = self._log_limiter.passes(lease.queue, "redelivered")
        if more is not None:
            line = "Item {item} of queue {queue} has been delivered {attempts} times and not removed{more}"
            queue = self._broker.queues.by_number(lease.queue).name
            self.log.warn(line, item=item.key.id.hex(), queue=repr(queue), attempts=attempts, more=more)


@define(eq=False)
class DeathLog:
    """Logs each item that dies or is dropped, with a bound on the lines of each queue."""

    _seconds: Callable[[], float]
    _limiter: LogRateLimiter = field(init=False)
    log = Logger()

    def __attrs_post_init__(self) -> None:
        """Bound the log."""
        self._limiter = LogRateLimiter(self._seconds)

    def note(self, queue: Queue, item: Item, reason: DeathReason | DropReason) -> None:
        """Log *item*, which died in *queue* or is dropped."""
        dropped = isinstance(reason, DropReason)
        more = self._limiter.passes(queue.name, "dropped" if dropped else "died")
        if more is None:
            return
        if dropped:
            level, line = LogLevel.info, "Item {item} of queue {queue!r} is dropped: {why}; attempts: {attempts}{more}"
        else:
            line = "Item {item} of queue {queue!r} is among the dead items now: {why}; attempts: {attempts}{more}"
            level = LogLevel.warn
        name, why = queue.name, DEATH_CAUSES[reason]
        self.log.emit(level, line, item=item.key.id.hex(), queue=name, why=why, attempts=item.attempts, more=more)


def _step(attempts: int) -> int:
    return max(step for step in ATTEMPT_STEPS if step <= attempts)

"""Puts back the items of leases that have run out, and notes those that nobody ever removes."""

from collections import Counter
from collections.abc import Iterable
from functools import partial

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from queueber.broker import Broker, Item, ItemId, Lease, LeaseId, Store
from queueber.errors import StorageError
from queueber.server.core.clock import QueueClock
from queueber.server.core.committer import Committer
from queueber.server.core.pool import Pool
from queueber.server.net.log_rate_limit import LogRateLimiter
from queueber.units import SECOND, SpanMs, WallMs, counted

_LONGEST_WAIT = SpanMs(64 * SECOND)
"""Between two attempts at rows that cannot be read; the first is after a second, and each wait is twice the last."""

ATTEMPTS = (1, 10, 100, 1_000)
"""How often an item has been handed out, in steps.  At all but the first the log says so."""


@frozen
class _Rows:
    """What was read of one lease."""

    items: list[Item | None]
    unreadable: frozenset[ItemId] = frozenset()
    """Those that could not be read, which are None in *items*."""

    why: Failure | None = None
    """Of one of them."""


@define(eq=False)
class Sweeper:
    """
    Ends leases and moves their items, a slice at a time.

    An ended lease gives no rights from the moment its deadline has passed,
    swept or not; the sweep decides only how soon others get its items.

    An item whose row cannot be read stays under its lease, on the disk too, and
    is tried again later; it keeps no other item waiting.
    """

    _broker: Broker
    _store: Store
    _pool: Pool
    _clock: QueueClock
    _committer: Committer
    ended: int = field(default=0, init=False)
    """Leases that have run out, since the start."""

    unreadable: int = field(default=0, init=False)
    """How often the row of an item could not be read, since the start."""

    _waits: dict[LeaseId, SpanMs] = field(factory=dict, init=False)
    """For how long those were put off the last time that have rows that cannot be read."""

    redelivered: Counter[int] = field(factory=Counter, init=False)
    """Items that were put back, to be handed out again, by the step of `ATTEMPTS` that they had reached."""

    _throttle: LogRateLimiter = field(init=False)
    log = Logger()

    def __attrs_post_init__(self) -> None:
        """Bound the log."""
        self._throttle = LogRateLimiter(self._clock.monotonic)

    def sweep(self) -> Deferred[None]:
        """Move all that has ended.  Never fails, which would end the loop for good and without a word."""
        return ensureDeferred(self._sweep()).addErrback(self._committer.bug)

    async def _sweep(self) -> None:
        while ended := self._broker.pop_expired(self._clock.now()):
            moved: Deferred[int] | None = None
            for lease, rows in zip(ended, await self._pool.run(self._read, ended), strict=True):
                self._tell_missing(lease, rows)
                if rows.why is not None:
                    self._put_off(lease, rows, rows.why)
                else:
                    self._waits.pop(lease.id, None)
                    self.ended += 1
                if len(rows.unreadable) < len(rows.items):
                    moved = Deferred()
                    plan = self._broker.requeue(lease, rows.items, unreadable=rows.unreadable)
                    self._committer.submit(plan, moved.callback)
                    self._note(lease, rows.items)
            if moved is not None:
                # One slice at a time: other plans get their turn in between.  They are spoken in order.
                await moved

    def _tell_missing(self, lease: Lease, rows: _Rows) -> None:
        if rows.items.count(None) > len(rows.unreadable):
            self.log.critical(
                "Items of queue {queue} under lease {lease} have no row any more",
                queue=lease.queue,
                lease=lease.id.hex(),
            )

    def _put_off(self, lease: Lease, rows: _Rows, why: Failure) -> None:
        """Let what could not be read have its time: it may be the disk, and it may be for good."""
        self.unreadable += len(rows.unreadable)
        wait = self._waits.get(lease.id)
        self._waits[lease.id] = wait = SECOND if wait is None else min(SpanMs(2 * wait), _LONGEST_WAIT)
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
            return [_Rows(self._store.read(lease.queue, list(lease.keys.values()))) for lease in leases]
        except Exception:  # noqa: BLE001  (whatever it was, it is found again in one of them)
            return [self._read_by_itself(lease) for lease in leases]

    def _read_by_itself(self, lease: Lease) -> _Rows:
        """Row by row, so that one that cannot be read hides no other."""
        items: list[Item | None] = []
        unreadable: set[ItemId] = set()
        why = None
        for key in lease.keys.values():
            try:
                items += self._store.read(lease.queue, [key])
            except Exception:  # noqa: BLE001  (whatever it was, the item stays where it is and is tried again)
                why = Failure()
                items.append(None)
                unreadable.add(key.id)
        return _Rows(items, frozenset(unreadable), why)

    def _note(self, lease: Lease, items: Iterable[Item | None]) -> None:
        for item in items:
            if item is not None:
                attempts = item.attempts + 1
                self.redelivered[_step(attempts)] += 1
                if attempts in ATTEMPTS[1:]:
                    self._tell(lease, item, attempts)

    def _tell(self, lease: Lease, item: Item, attempts: int) -> None:
        more = self._throttle.passes(lease.queue, "redelivered")
        if more is not None:
            line = "Item {item} of queue {queue} has been handed out {attempts} times, and not removed{more}"
            queue = self._broker.queues.by_number(lease.queue).name
            self.log.warn(line, item=item.key.id.hex(), queue=repr(queue), attempts=attempts, more=more)


def _step(attempts: int) -> int:
    return max(step for step in ATTEMPTS if step <= attempts)

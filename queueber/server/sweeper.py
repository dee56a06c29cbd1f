"""Puts back the items of leases that have run out, and notes those that nobody ever removes."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from attrs import define, field
from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from queueber.broker import Broker, Item, Lease, Store
from queueber.server.clock import QueueClock
from queueber.server.committer import Committer
from queueber.server.pool import StoragePool
from queueber.server.throttle import Throttle
from queueber.units import SECOND, WallMs

ATTEMPTS = (1, 10, 100, 1_000)
"""How often an item has been handed out, in steps.  At all but the first the log says so."""


def sweeping(reactor: Any, sweeper: "Sweeper", interval: float) -> TimerService:  # noqa: ANN401
    """A service that sweeps every *interval* seconds: a `LoopingCall`, so that no sweep overtakes a slow one."""
    service = TimerService(interval, sweeper.sweep)
    service.clock = reactor
    return service


@define(eq=False)
class Sweeper:
    """
    Ends leases and moves their items, a slice at a time.

    An ended lease gives no rights from the moment its deadline has passed,
    swept or not; the sweep decides only how soon others get its items.
    """

    _broker: Broker
    _store: Store
    _pool: StoragePool
    _clock: QueueClock
    _committer: Committer
    ended: int = field(default=0, init=False)
    """Leases that have run out, since the start."""

    redelivered: Counter[int] = field(factory=Counter, init=False)
    """Items that were put back, to be handed out again, by the step of `ATTEMPTS` that they had reached."""

    _throttle: Throttle = field(init=False)
    log = Logger()

    def __attrs_post_init__(self) -> None:
        """Bound the log."""
        self._throttle = Throttle(self._clock.monotonic)

    def sweep(self) -> Deferred[None]:
        """Move all that has ended.  Never fails, which would end the loop for good and without a word."""
        return ensureDeferred(self._sweep()).addErrback(self._committer.bug)

    async def _sweep(self) -> None:
        while ended := self._broker.pop_ended(self._clock.now()):
            try:
                found = await self._pool.run(self._read, ended)
            except Exception:  # noqa: BLE001  (whatever it was, the leases stay ended and are tried again)
                self.log.failure("Reading the items of {leases} ended leases failed", leases=len(ended))
                again = WallMs(self._clock.now() + SECOND)
                for lease in ended:
                    self._broker.sweep_again(lease, again)
                return
            moved: Deferred[int] = Deferred()
            for lease, items in zip(ended, found, strict=True):
                if None in items:
                    self.log.critical(
                        "Items of queue {queue} under lease {lease} have no row any more",
                        queue=lease.queue,
                        lease=lease.id.hex(),
                    )
                last = lease is ended[-1]
                self._committer.submit(self._broker.requeue(lease, items), moved.callback if last else _nothing)
                self._note(lease, items)
            self.ended += len(ended)
            # One slice at a time: other plans get their turn in between.
            await moved

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
            queue = self._broker.queues.numbered(lease.queue).name
            self.log.warn(line, item=item.key.id.hex(), queue=repr(queue), attempts=attempts, more=more)

    def _read(self, leases: list[Lease]) -> list[list[Item | None]]:
        return [self._store.read(lease.queue, list(lease.keys.values())) for lease in leases]


def _step(attempts: int) -> int:
    return max(step for step in ATTEMPTS if step <= attempts)


def _nothing(_: object) -> None:
    """Nobody is told that an item was moved."""

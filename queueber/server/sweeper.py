"""Puts back the items of leases that have run out."""

from typing import Any

from attrs import define, field
from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from queueber.broker import Broker, Item, Lease, Store
from queueber.server.clock import QueueClock
from queueber.server.committer import Committer
from queueber.server.pool import StoragePool
from queueber.units import SECOND, WallMs


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

    log = Logger()

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
            self.ended += len(ended)
            # One slice at a time: other plans get their turn in between.
            await moved

    def _read(self, leases: list[Lease]) -> list[list[Item | None]]:
        return [self._store.read(lease.queue, list(lease.keys.values())) for lease in leases]


def _nothing(_: object) -> None:
    """Nobody is told that an item was moved."""

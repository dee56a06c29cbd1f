"""Everything in a running server that can be looked at, for the metrics, the health pages and the console."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.python.failure import Failure

from queueber.broker import Broker
from queueber.limits import Limits
from queueber.server.core.clock import QueueClock
from queueber.server.core.committer import Committer
from queueber.server.core.dispatcher import Dispatcher
from queueber.server.core.handlers import QueueHandlers
from queueber.server.core.reserve import space_of
from queueber.server.core.sweeper import Sweeper
from queueber.server.monitoring.queue_stats import Collector, QueueStats
from queueber.server.monitoring.stats import Lag
from queueber.server.net.certificates import Certificates
from queueber.server.net.connections import Connections

ENGINE_SECONDS = 1.0
"""How long the engine may take to tell of itself; a disk that stands still must not keep the other figures back."""

COMMIT_SECONDS_MAX = 10.0
"""A commit that takes longer than this hangs: disks that work, however slow, do not."""


class Pool(Protocol):
    """The storage pool, as it is looked at."""

    workers: int

    @property
    def busy(self) -> int:
        """Threads at work."""

    @property
    def waiting(self) -> int:
        """Calls that no thread has come to yet."""

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:  # noqa: ANN401
        """Call *function* on a thread."""


class Engine(Protocol):
    """A store that tells of its engine."""

    def properties(self) -> dict[str, int]:
        """By name; blocks for a moment."""


@frozen
class Disk:
    """What the engine and the file system say."""

    properties: dict[str, int]
    """By the names in `queueber.store.properties`."""

    free_bytes: int
    """Where the data directory is."""

    free_inodes: int | None = None
    """Files that may still be made there; None where that has no bound."""


@define(eq=False, kw_only=True)
class Diagnostics:
    """The parts of a server, to be looked at and not to be changed."""

    reactor: Any
    data_dir: Path
    durability: str
    broker: Broker
    store: Engine
    pool: Pool
    committer: Committer
    dispatcher: Dispatcher
    methods: QueueHandlers
    connections: Connections
    sweeper: Sweeper
    clock: QueueClock
    limits: Limits
    lag: Lag
    surveyor: Collector
    disk_lacks: Callable[[], str] = lambda: ""
    """What adds are refused for, because less is free than is kept in reserve; empty if they are not."""

    certificates: Certificates | None = field(default=None, init=False)
    """What the server shows over TLS; None if it does not listen with it."""

    consoles: int = field(default=0, init=False)
    """Sessions of the debugging console."""

    _asked: Deferred[Disk] | None = field(default=None, init=False)

    def queue_stats(self) -> Deferred[QueueStats]:
        """What the queues hold."""
        return self.surveyor.collect()

    def disk(self) -> Deferred[Disk | None]:
        """What the engine says; None if it takes longer than `ENGINE_SECONDS` or cannot."""
        if self._asked is not None:
            # It has not answered the last time either.
            return succeed(None)
        asked: Deferred[Disk | None] = Deferred()
        self._asked = self.pool.run(self._look_at_disk)
        self._asked.addBoth(self._answered, asked)
        asked.addTimeout(ENGINE_SECONDS, self.reactor)
        asked.addErrback(lambda failure: failure.trap(TookTooLong) and None)
        return asked

    def _look_at_disk(self) -> Disk:
        space = space_of(self.data_dir)
        return Disk(self.store.properties(), space.free, space.free_inodes if space.inodes else None)

    def _answered(self, outcome: Disk | Failure, asked: Deferred[Disk | None]) -> None:
        self._asked = None
        if not asked.called:
            asked.callback(outcome if isinstance(outcome, Disk) else None)


@frozen
class Check:
    """One of the things that have to be right."""

    name: str
    passed: bool
    says: str


def not_serving(stage: str) -> list[Check]:
    """All checks of a server that does not serve yet or any more, but is at *stage*."""
    return [Check("serving", passed=False, says=stage)]


def readiness(diagnostics: Diagnostics) -> list[Check]:
    """All checks of a server that serves."""
    draining = diagnostics.methods.draining
    age = diagnostics.committer.load.age(diagnostics.reactor.seconds())
    lacks = diagnostics.disk_lacks()
    return [
        Check("serving", passed=not draining, says="stopping" if draining else "serving"),
        Check("commits", passed=age <= COMMIT_SECONDS_MAX, says=_commit(age)),
        Check("disk", passed=not lacks, says=f"adds are refused: {lacks}" if lacks else "room for adds"),
    ]


def _commit(age: float) -> str:
    if not age:
        return "none is under way"
    hangs = f", and no disk that works takes {COMMIT_SECONDS_MAX:g}" if age > COMMIT_SECONDS_MAX else ""
    return f"one has been under way for {age:.1f} s{hangs}"

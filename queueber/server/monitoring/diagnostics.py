"""Read-only access to the parts of a running server, for the metrics, the health checks and the console."""

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
from queueber.server.core.pool import Pool
from queueber.server.core.reserve import space_of
from queueber.server.core.stats import ReactorLag
from queueber.server.core.sweeper import Sweeper
from queueber.server.monitoring.queue_stats import Collector, QueueStats
from queueber.server.net.certificates import Certificates
from queueber.server.net.connections import Connections

ENGINE_SECONDS = 1.0
"""The time limit for the properties of the storage engine, so that a hanging disk does not delay the other figures."""

COMMIT_SECONDS_MAX = 10.0
"""The duration from which a commit counts as hanging.  No working disk takes so long."""


class MonitoredStore(Protocol):
    """A store that reports the properties of its engine."""

    def properties(self) -> dict[str, int]:
        """Return the properties by name.  Blocks briefly."""


@frozen
class Disk:
    """Figures of the storage engine and the file system."""

    properties: dict[str, int]
    """The engine's properties, with the names in `queueber.store.datadir.database.PROPERTY_NAMES`."""

    free_bytes: int
    """Free space on the file system of the data directory."""

    free_inodes: int | None = None
    """The number of files that can still be created there; None if the file system has no such limit."""


@define(eq=False)
class ConsoleSessions:
    """The count of the debugging console's sessions."""

    open: int = field(default=0, init=False)
    total: int = field(default=0, init=False)
    """The number of sessions since the start."""

    def begin(self) -> int:
        """Count a session that begins, and return its number."""
        self.open += 1
        self.total += 1
        return self.total

    def end(self) -> None:
        """Count a session that has ended."""
        self.open -= 1


@define(eq=False, kw_only=True)
class Diagnostics:
    """The parts of a server, for reading only."""

    reactor: Any
    data_dir: Path
    durability: str
    broker: Broker
    store: MonitoredStore
    pool: Pool
    committer: Committer
    dispatcher: Dispatcher
    handlers: QueueHandlers
    connections: Connections
    sweeper: Sweeper
    clock: QueueClock
    limits: Limits
    lag: ReactorLag
    collector: Collector
    disk_shortage: Callable[[], str] = lambda: ""
    """Return the reason why adds are refused, which is too little free space; empty if they are accepted."""

    certificates: Certificates | None = None
    """The server's certificates; None without TLS."""

    consoles: ConsoleSessions = field(factory=ConsoleSessions)
    """The count of the console's sessions, which the console keeps."""

    _request: Deferred[Disk] | None = field(default=None, init=False)

    def queue_stats(self) -> Deferred[QueueStats]:
        """Return the statistics of all queues."""
        return self.collector.collect()

    def disk(self) -> Deferred[Disk | None]:
        """Return the figures of the disk; None if they take longer than `ENGINE_SECONDS`, or fail."""
        if self._request is not None:
            # The previous request is still pending.
            return succeed(None)
        result: Deferred[Disk | None] = Deferred()
        self._request = self.pool.run(self._read_disk)
        self._request.addBoth(self._finish, result)
        result.addTimeout(ENGINE_SECONDS, self.reactor)
        result.addErrback(lambda failure: failure.trap(TookTooLong) and None)
        return result

    def _read_disk(self) -> Disk:
        space = space_of(self.data_dir)
        return Disk(self.store.properties(), space.free, space.free_inodes if space.inodes else None)

    def _finish(self, outcome: Disk | Failure, result: Deferred[Disk | None]) -> None:
        self._request = None
        if not result.called:
            result.callback(outcome if isinstance(outcome, Disk) else None)


@frozen
class Check:
    """A condition of readiness."""

    name: str
    passed: bool
    says: str
    """The state of the condition, for people."""


def not_serving(stage: str) -> list[Check]:
    """Return the checks of a server that starts or stops, and is at *stage*."""
    return [Check("serving", passed=False, says=stage)]


def readiness(diagnostics: Diagnostics) -> list[Check]:
    """Return the checks of a server that serves."""
    draining = diagnostics.handlers.draining
    age = diagnostics.committer.commit_seconds(diagnostics.reactor.seconds())
    lacks = diagnostics.disk_shortage()
    return [
        Check("serving", passed=not draining, says="stopping" if draining else "serving"),
        Check("commits", passed=age <= COMMIT_SECONDS_MAX, says=_commit(age)),
        Check("disk", passed=not lacks, says=f"adds are refused: {lacks}" if lacks else "room for adds"),
    ]


def _commit(age: float) -> str:
    if not age:
        return "none is under way"
    hangs = f", and a working disk takes less than {COMMIT_SECONDS_MAX:g}" if age > COMMIT_SECONDS_MAX else ""
    return f"one has been under way for {age:.1f} s{hangs}"

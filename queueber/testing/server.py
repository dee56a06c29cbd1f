"""A server in the process of a test."""

import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from queueber.broker import Ids
from queueber.errors import StorageError
from queueber.limits import DEFAULTS, Limits
from queueber.server.app.composition import assemble
from queueber.server.config.settings import Settings
from queueber.server.core.clock import QueueClock
from queueber.server.net.protocol import RpcProtocol
from queueber.store import Durability, MemoryStore

P = ParamSpec("P")
T = TypeVar("T")

# Far more than the calls of any test need.
SETTLE_TURNS = 100


class StepPool:
    """A storage pool that runs each job when `step` is called."""

    workers = 1
    busy = 0

    def __init__(self) -> None:
        self.jobs: deque[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = deque()

    @property
    def waiting(self) -> int:
        """The number of jobs that `step` has not run."""
        return len(self.jobs)

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Queue a job.  Return a Deferred that fires once `step` has run it."""
        done: Deferred[T] = Deferred()
        self.jobs.append((done, function, args, kwargs))
        return done

    def step(self) -> None:
        """Run the oldest job."""
        done, function, args, kwargs = self.jobs.popleft()
        try:
            result = function(*args, **kwargs)
        except Exception:  # noqa: BLE001  (as a thread pool does)
            done.errback()
        else:
            done.callback(result)


class DisklessStore(MemoryStore):
    """A `MemoryStore` that a server can run on: no log to sync, no memory to flush, no backup."""

    unflushed_bytes = 0

    def reclaim_space(self) -> None:
        """Do nothing: the space of removed items is free already."""

    def note_synced(self) -> None:
        """Do nothing: there is no log."""

    def properties(self) -> dict[str, int]:
        """Return no property: there is no engine."""
        return {}

    def backup(self, target: Path, progress: Callable[[int, int], None]) -> None:  # noqa: ARG002
        """Refuse the backup."""
        raise StorageError("a store in memory cannot be backed up")


class InProcessServer:
    """
    The server that users run, on a store in memory and a `task.Clock`.

    Time and jobs advance only on request: `turn` runs one reactor turn,
    `pool.step` one job of the storage pool, `settle` both until nothing is left.
    Periodic work does not start by itself: call `sweeper.sweep` to end expired leases, and `upkeep.run` for queues.
    """

    def __init__(self, limits: Limits = DEFAULTS, *, ids: Ids | None = None, **settings: Any) -> None:  # noqa: ANN401
        """
        Start a server.

        Args:
            limits: its limits.
            ids: makes the ids of items and leases; random ones by default.
            **settings: other fields of `Settings`.
        """
        self.reactor = Clock()
        self.pool = StepPool()
        self.store = DisklessStore()
        self.deaths: list[tuple[str, BaseException]] = []
        """Errors that would have ended the process, each with the failed step."""
        self.limits = limits
        self.clock = QueueClock(lambda: 1_000.0, self.reactor.seconds, lambda: 0.0, b"b" * 16)
        self.clock.begin(None)
        self.parts = assemble(
            self.reactor,
            _settings(limits, settings),
            self.store,
            self.pool,
            self.clock,
            ids=ids,
            end=lambda what, why: self.deaths.append((what, why)),
            defer_to_thread=self.pool.run,
        )
        self.broker = self.parts.broker
        self.committer = self.parts.committer
        self.dispatcher = self.parts.dispatcher
        self.handlers = self.parts.handlers
        self.sweeper = self.parts.sweeper
        self.upkeep = self.parts.upkeep
        self.factory = self.parts.factory
        self.connections = self.parts.connections
        self.flush_queue = self.parts.flush_queue
        self.broker.restore(self.store.recover())
        self.parts.sessions.started()

    def connect(self) -> tuple[RpcProtocol, StringTransport]:
        """Open a connection.  Pass bytes to `dataReceived` of the protocol, and read its output from the transport."""
        protocol = self.factory.buildProtocol(None)
        assert protocol is not None, "the limit of connections is reached"
        transport = StringTransport()
        protocol.makeConnection(transport)  # type: ignore[no-untyped-call]
        return protocol, transport

    def turn(self) -> None:
        """Run one reactor turn."""
        self.reactor.advance(0)

    def settle(self) -> None:
        """Run reactor turns and jobs until nothing is left to do."""
        for _ in range(SETTLE_TURNS):
            self.turn()
            while self.pool.jobs:
                self.pool.step()
        self.broker.check()


def _settings(limits: Limits, chosen: Mapping[str, Any]) -> Settings:
    """Return the settings of a server that listens nowhere and keeps nothing on a disk, but for what was *chosen*."""
    settings = Settings(
        listen=(),
        data_dir=Path(tempfile.gettempdir()),
        workers=1,
        durability=Durability.NONE,
        lease_sweep_interval=1.0,
        limits=limits,
        free_space_reserve=0,
    )
    return evolve(settings, **chosen)

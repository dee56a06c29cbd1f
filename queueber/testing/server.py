"""A server in the process of a test."""

from collections import deque
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from queueber.api import template_readers
from queueber.broker import Broker
from queueber.limits import DEFAULTS, Limits
from queueber.server.core.clock import QueueClock
from queueber.server.core.committer import Committer
from queueber.server.core.dispatcher import Dispatcher
from queueber.server.core.handlers import QueueHandlers
from queueber.server.core.ids import RandomIds
from queueber.server.core.pool import StoragePool
from queueber.server.core.sweeper import Sweeper
from queueber.server.net.connections import Connections
from queueber.server.net.protocol import FlushQueue, RpcFactory, RpcProtocol
from queueber.server.net.read_scheduler import ReadScheduler
from queueber.store import MemoryStore

# Far more than the calls of any test need.
SETTLE_TURNS = 100


class StepPool:
    """A storage pool that runs each job when `step` is called."""

    def __init__(self) -> None:
        self.jobs: deque[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = deque()

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:  # noqa: ANN401
        """Queue a job.  Return a Deferred that fires once `step` has run it."""
        done: Deferred[Any] = Deferred()
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


class InProcessServer:
    """
    All parts of a server on a `MemoryStore` and a `task.Clock`.

    Time and jobs advance only on request: `turn` runs one reactor turn,
    `pool.step` one job of the storage pool, `settle` both until nothing is left.
    """

    def __init__(self, limits: Limits = DEFAULTS) -> None:
        self.reactor = Clock()
        self.pool = StepPool()
        threads = cast(StoragePool, self.pool)
        self.store = MemoryStore()
        self.deaths: list[tuple[str, BaseException]] = []
        """Errors that would have ended the process, each with the failed step."""
        self.limits = limits
        self.clock = QueueClock(lambda: 1_000.0, self.reactor.seconds, lambda: 0.0, b"b" * 16)
        self.clock.begin(None)
        self.broker = Broker(RandomIds(), limits=self.limits)
        self.broker.restore(self.store.recover())
        self.outbox = FlushQueue()
        self.dispatcher = Dispatcher(self.reactor, self.broker, self.store, threads, self.clock, self.limits)
        self.committer = Committer(
            self.reactor,
            self.broker,
            self.store,
            threads,
            self.clock,
            self.limits,
            lambda what, why: self.deaths.append((what, why)),
            self.dispatcher.round,
            self.outbox.flush,
        )
        self.dispatcher.committer = self.committer
        self.methods = QueueHandlers(self.broker, self.committer, self.dispatcher, self.clock, self.limits)
        self.connections = Connections(
            self.limits, self.reactor.seconds, self.broker.limit_hits, self.reactor.callLater
        )
        self.factory = RpcFactory(
            self.broker,
            self.methods,
            self.dispatcher,
            self.outbox,
            self.connections,
            self.limits,
            ReadScheduler(self.reactor, self.reactor.seconds),
            template_readers(self.limits),
        )
        self.sweeper = Sweeper(self.broker, self.store, threads, self.clock, self.committer)

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

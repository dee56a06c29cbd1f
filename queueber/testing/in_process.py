"""A server in the process of a test, without sockets: each step is requested by the test."""

from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from queueber.broker import Ids
from queueber.limits import DEFAULTS, Limits
from queueber.server.app.composition import assemble
from queueber.server.core.clock import QueueClock
from queueber.server.net.protocol import RpcProtocol
from queueber.testing.memory import DisklessStore, SeededJitter, StepPool, settings_in_memory

# Far more than the calls of any test need.
SETTLE_TURNS = 100


class InProcessServer:
    """
    The server that users run, on a store in memory and a `task.Clock`.

    Time and jobs advance only on request: `turn` runs one reactor turn,
    `pool.step` one job of the storage pool, `settle` both until nothing is left.
    Periodic work does not start by itself: call `sweeper.sweep` to end expired leases, and `cleanup.run` for queues.
    """

    def __init__(self, limits: Limits = DEFAULTS, *, ids: Ids | None = None, **settings: Any) -> None:  # noqa: ANN401
        """
        Start a server.

        Args:
            limits: its limits.
            ids: makes the ids of items and leases, and the jitter of backoffs; by default, the ids are random and the
                jitter is the same in each run.
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
            settings_in_memory(limits, settings),
            self.store,
            self.pool,
            self.clock,
            ids=ids or SeededJitter(0),
            end=lambda what, why: self.deaths.append((what, why)),
            defer_to_thread=self.pool.run,
        )
        self.broker = self.parts.broker
        self.committer = self.parts.committer
        self.dispatcher = self.parts.dispatcher
        self.handlers = self.parts.handlers
        self.sweeper = self.parts.sweeper
        self.cleanup = self.parts.cleanup
        self.first_due_reader = self.parts.first_due_reader
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

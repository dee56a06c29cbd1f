"""A server without sockets, threads or a real clock: each step is taken by hand."""

from collections import deque

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from queueber import wire
from queueber.broker import Broker
from queueber.limits import Limits
from queueber.server.clock import QueueClock
from queueber.server.committer import Committer
from queueber.server.dispatcher import Dispatcher
from queueber.server.ids import RandomIds
from queueber.server.methods import Methods
from queueber.server.protocol import Outbox, RpcFactory
from queueber.server.sweeper import Sweeper
from queueber.store import MemoryStore


class HandPool:
    """Runs what it was given when it is told to."""

    def __init__(self) -> None:
        self.jobs = deque()

    def run(self, function, *args, **kwargs):
        done = Deferred()
        self.jobs.append((done, function, args, kwargs))
        return done

    def step(self) -> None:
        done, function, args, kwargs = self.jobs.popleft()
        try:
            result = function(*args, **kwargs)
        except Exception:  # noqa: BLE001  (as a thread pool does)
            done.errback()
        else:
            done.callback(result)


@define(eq=False)
class Peer:
    """A client's end, and the transport that its bytes would take."""

    hand: "Hand"
    protocol: object
    transport: StringTransport
    connection: wire.Connection = field(factory=lambda: wire.Connection(limits=Limits()))
    outcomes: dict = field(factory=dict)
    _root: wire.QuestionId = None

    def __attrs_post_init__(self) -> None:
        self._root = self.connection.bootstrap()

    def call(self, method, content, target=None):
        question = self.connection.call(
            target or wire.PromisedAnswer(self._root), wire.QUEUE_INTERFACE_ID, method, content
        )
        self.send()
        return question

    def send(self) -> None:
        self.protocol.dataReceived(self.connection.data_to_send())

    def receive(self):
        """All outcomes so far, by question."""
        data, self.transport.io = self.transport.value(), type(self.transport.io)()
        for event in self.connection.receive_data(data):
            self.outcomes[event.question] = event.outcome
        return self.outcomes

    def add(self, *contents):
        items = [wire.NewItem(each, 0) for each in contents]
        return self.call(wire.ADD, wire.write_add_request(wire.AddRequest(items)))

    def poll(self, count=1, *, wait=None, no_wait=False, lease=1000):
        return self.call(wire.POLL, wire.write_poll_request(wire.PollRequest(lease, count, wait, no_wait)))


class Hand:
    """All parts of a server, moved by hand."""

    def __init__(self, **limits) -> None:
        self.reactor = Clock()
        self.pool = HandPool()
        self.store = MemoryStore()
        self.limits = Limits(**limits)
        self.deaths = []
        self.clock = QueueClock(lambda: 1_000.0, self.reactor.seconds, lambda: 0.0, b"b" * 16)
        self.clock.begin(None)
        self.broker = Broker(RandomIds(), limits=self.limits)
        self.broker.restore(self.store.recover())
        self.outbox = Outbox()
        self.dispatcher = Dispatcher(self.reactor, self.broker, self.store, self.pool, self.clock, self.limits)
        self.committer = Committer(
            self.reactor,
            self.broker,
            self.store,
            self.pool,
            self.clock,
            self.limits,
            lambda what, why: self.deaths.append((what, why)),
            self.dispatcher.round,
            self.outbox.flush,
        )
        self.dispatcher.committer = self.committer
        self.methods = Methods(self.broker, self.committer, self.dispatcher, self.clock, self.limits)
        self.factory = RpcFactory(self.broker, self.methods, self.dispatcher, self.outbox, self.limits)
        self.sweeper = Sweeper(self.broker, self.store, self.pool, self.clock, self.committer)

    def connect(self) -> Peer:
        protocol = self.factory.buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        return Peer(self, protocol, transport)

    def turn(self) -> None:
        """One turn of the reactor."""
        self.reactor.advance(0)

    def settle(self) -> None:
        """Turns and jobs until nothing is left to do."""
        for _ in range(100):
            self.turn()
            while self.pool.jobs:
                self.pool.step()
        self.broker.check()


@pytest.fixture
def hand():
    return Hand()


@pytest.fixture
def make_hand():
    return Hand

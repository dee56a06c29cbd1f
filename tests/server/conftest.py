"""A server without sockets, threads or a real clock, and clients of it."""

import pytest
from attrs import define, field
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs

from queueber import api, rpc
from queueber.limits import Limits
from queueber.server.core.stats import ReactorLag
from queueber.server.monitoring.diagnostics import Diagnostics
from queueber.server.monitoring.queue_stats import Collector
from queueber.store.datadir.database import PROPERTY_NAMES
from queueber.testing import InProcessServer


@define(eq=False)
class Peer:
    """The client's end of a connection, and its transport."""

    server: "Server"
    protocol: object
    transport: StringTransport
    connection: rpc.Connection = field(factory=lambda: rpc.Connection(limits=Limits()))
    outcomes: dict = field(factory=dict)
    root: rpc.PromisedAnswer = None
    aborted: list = field(factory=list)
    overloaded: str = ""

    def __attrs_post_init__(self) -> None:
        self.root = rpc.PromisedAnswer(self.connection.bootstrap())
        self.transport.abortConnection = lambda: self.aborted.append(True)

    def call(self, method, content, target=None):
        question = self.connection.call(target or self.root, api.QUEUE_INTERFACE_ID, method, content)
        self.send()
        return question

    def call_broker(self, method, content):
        question = self.connection.call(self.root, api.BROKER_INTERFACE_ID, method, content)
        self.send()
        return question

    def attach(self, session=b"s" * 16, grace=0, *, more=False):
        return self.call_broker(api.ATTACH, api.write_attach_request(api.AttachRequest(session, grace, more)))

    def send(self) -> None:
        self.protocol.dataReceived(self.connection.data_to_send())

    @property
    def request_bytes(self):
        return self.server.handlers.request_bytes.get(self.protocol.peer, 0)

    def stop_reading(self) -> None:
        """Have the transport take no more bytes, as one does whose peer reads nothing."""
        self.transport.producer.pauseProducing()

    def read_on(self) -> None:
        self.transport.producer.resumeProducing()

    def receive(self):
        """Return all outcomes so far, by question."""
        data, self.transport.io = self.transport.value(), type(self.transport.io)()
        for event in self.connection.receive_data(data):
            self.outcomes[event.question] = event.outcome
        return self.outcomes

    def queue(self, name, method=api.QUEUE):
        """Return the queue of that name, or what another *method* returns for it, as a target of calls."""
        question = self.connection.call(self.root, api.BROKER_INTERFACE_ID, method, api.write_queue_request(name))
        return rpc.PromisedAnswer(question, (0,))

    def add(self, *contents, delay=0, target=None):
        items = [api.NewItem(each, delay) for each in contents]
        return self.call(api.ADD, api.write_add_request(api.AddRequest(items)), target)

    def remove(self, item, lease, target=None):
        return self.call(api.REMOVE, api.write_remove_request(api.RemoveRequest(item, lease)), target)

    def extend(self, lease, span):
        return self.call(api.EXTEND, api.write_extend_request(api.ExtendRequest(lease, span)))

    def poll(self, count=1, *, wait=None, no_wait=False, lease=1000, session=b"", target=None):
        request = api.PollRequest(lease, count, wait, no_wait, session)
        return self.call(api.POLL, api.write_poll_request(request), target)

    def polled(self, count=1, **how):
        """Poll, let the server settle, and return the response."""
        question = self.poll(count, **how)
        self.server.settle()
        return api.read_poll_response(self.receive()[question])


class Server(InProcessServer):
    """A server whose connections have a client's end."""

    def connect(self) -> Peer:
        return Peer(self, *super().connect())


class Reactor:
    """A reactor whose turns and time advance only on request.  Calls scheduled in a turn run in the next."""

    def __init__(self):
        self.calls = []
        self.now = 0.0

    def seconds(self):
        return self.now

    def callLater(self, seconds, function):  # noqa: N802  (as Twisted names it)
        assert seconds == 0
        self.calls.append(function)

    def turn(self):
        calls, self.calls = self.calls, []
        for call in calls:
            call()


@pytest.fixture
def reactor():
    return Reactor()


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def make_server():
    return lambda settings=(), **limits: Server(Limits(**limits), **dict(settings))


@pytest.fixture
def log_lines():
    """Return a function that returns the lines logged so far whose formats have a text."""
    with capturedLogs() as events:
        yield lambda text: [event for event in events if text in (event.get("log_format") or "")]


class IdlePool:
    """A storage pool to be looked at; what it is given waits for the test, as in `server.pool`."""

    workers = 2
    busy = 0

    def __init__(self, pool) -> None:
        self._pool = pool
        self.run = pool.run

    @property
    def waiting(self) -> int:
        return len(self._pool.jobs)


class NumberedEngine:
    """An engine whose properties are 1, 2, 3 and so on."""

    def properties(self):
        return {name: number for number, name in enumerate(PROPERTY_NAMES, 1)}


@pytest.fixture
def make_diagnostics(tmp_path):
    """Return a function that makes the diagnostics of a server."""

    def make(server: Server) -> Diagnostics:
        return Diagnostics(
            reactor=server.reactor,
            data_dir=tmp_path,
            durability="fsync",
            broker=server.broker,
            store=NumberedEngine(),
            pool=IdlePool(server.pool),
            committer=server.committer,
            dispatcher=server.dispatcher,
            handlers=server.handlers,
            connections=server.connections,
            sweeper=server.sweeper,
            clock=server.clock,
            limits=server.limits,
            lag=ReactorLag(server.reactor.seconds),
            collector=Collector(server.reactor, server.broker, server.clock),
        )

    return make


@pytest.fixture
def diagnostics(server, make_diagnostics):
    return make_diagnostics(server)

"""A network in memory: the client's connections end at scripted `rpc.Connection`s."""

from collections.abc import Callable

import pytest
from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from zope.interface import implementer

from queueber import api, rpc
from queueber.client import Client, connect
from queueber.client.protocol import CLOSE_SECONDS
from queueber.errors import Kind
from queueber.limits import DEFAULTS, Limits

ROOT = "the server's first object"


class Transport(StringTransportWithDisconnection):
    """A transport that records every write, and whether it was aborted."""

    def __init__(self):
        super().__init__(peerAddress=IPv4Address("TCP", "192.0.2.1", 9090))
        self.writes = []
        self.options = {}
        self.lingers = False

    def write(self, data):
        self.writes.append(data)
        super().write(data)

    def loseConnection(self):  # noqa: N802
        if not self.lingers:
            super().loseConnection()

    def abortConnection(self):  # noqa: N802
        self.aborting = True
        super().loseConnection()

    def setTcpNoDelay(self, enabled):  # noqa: N802
        self.options["nodelay"] = enabled


@define
class Peer:
    """The server's end of one connection."""

    protocol: object
    transport: Transport
    connection: rpc.Connection = field(factory=lambda: rpc.Connection(limits=DEFAULTS, bootstrap=ROOT))
    events: list = field(factory=list)
    limits: Limits | Kind = DEFAULTS
    """The kind of the exception that answers a request for limits, for example of an older server."""

    asked: int = 0
    controls: int = 0
    control: Callable | None = None
    """Answers a request for a control instead."""

    is_old: bool = False
    """Whether the server knows no dead letters."""

    @property
    def answers(self):
        """The calls that are answered at once, and their answers."""
        return {
            (api.BROKER_INTERFACE_ID, api.QUEUE): self.named,
            (api.BROKER_INTERFACE_ID, api.LIMITS): self.asked_for_limits,
            (api.BROKER_INTERFACE_ID, api.CONTROL): self.controlled,
            (api.QUEUE_INTERFACE_ID, api.DEAD_LETTERS): self.dead_letters,
        }

    def controlled(self, event):
        self.controls += 1
        if self.control is not None:
            self.control(event)
            return
        self.connection.return_capabilities(
            event.answer, api.QUEUE_RESPONSE, (f"control of {api.read_queue_request(event.params)}",)
        )

    def dead_letters(self, event):
        if self.is_old:
            self.connection.return_exception(event.answer, Kind.UNIMPLEMENTED, "no method 5")
        else:
            self.connection.return_capabilities(event.answer, api.QUEUE_RESPONSE, (f"dead of {event.target}",))

    def turn(self):
        """Process the client's messages, return named queues, and send the pending messages."""
        data = self.transport.value()
        self.transport.clear()
        for event in self.connection.receive_data(data):
            called = (event.interface_id, event.method_id) if isinstance(event, rpc.Calls) else None
            self.answers.get(called, self.events.append)(event)
        self.connection.check()
        self.send()

    def named(self, event):
        name = api.read_queue_request(event.params)
        if name == "forbidden":
            self.connection.return_exception(event.answer, 1, "no more queues")
        else:
            self.connection.return_capabilities(event.answer, api.QUEUE_RESPONSE, (name,))

    def asked_for_limits(self, event):
        self.asked += 1
        if isinstance(self.limits, Kind):
            self.connection.return_exception(event.answer, self.limits, "no limits for you")
        else:
            self.connection.return_results([event.answer], [api.write_limits_response(self.limits)])

    def send(self):
        data = self.connection.data_to_send()
        if data:
            self.protocol.dataReceived(data)

    def answer(self, results, *calls):
        """Send *results*, a list of one, as those of each of *calls*."""
        for call in calls:
            self.connection.return_results([call.answer], results)
        self.send()

    def calls(self):
        """The calls that have come since this was last asked."""
        calls = [event for event in self.events if isinstance(event, rpc.Calls)]
        self.events = [event for event in self.events if not isinstance(event, rpc.Calls)]
        return calls


@implementer(IStreamClientEndpoint)
@define
class Network:
    """Where a client under test lives; an endpoint itself."""

    clock: Clock = field(factory=Clock)
    peers: list[Peer] = field(factory=list)
    refused: int = 0
    refusing: bool = False
    pending: bool = False
    waiting: list = field(factory=list)
    on_connected: Callable = lambda: None
    """Called in the turn in which a connection is made."""

    def connect(self, factory):
        if self.refusing:
            self.refused += 1
            return fail(Refused())
        if self.pending:
            self.waiting.append(Deferred())
            return self.waiting[-1]
        protocol = factory.buildProtocol(None)
        transport = Transport()
        transport.protocol = protocol
        self.peers.append(Peer(protocol, transport))
        protocol.makeConnection(transport)
        self.on_connected()
        return succeed(protocol)

    @property
    def peer(self):
        return self.peers[-1]

    def client(self, **options) -> Client:
        return connect(self.clock, self, retry_policy=lambda _: 1.0, **options)

    def turn(self):
        """One turn of the reactor on the client's side, then one on the server's."""
        self.clock.advance(0)
        self.peer.turn()


@pytest.fixture
def network():
    return Network()


@pytest.fixture
def client(network):
    """A connected client."""
    client = network.client()
    network.turn()
    yield client
    client.close()
    # A server that has not answered a cancelled poll is waited for.
    network.clock.advance(CLOSE_SECONDS)
    assert network.clock.getDelayedCalls() == []


def success(deferred):
    """Return the result with which *deferred* has fired."""
    results = []
    deferred.addCallback(results.append)
    deferred.addErrback(lambda failure: failure.raiseException())
    assert results, "it has not fired"
    return results[0]


def failure(deferred):
    """The exception that *deferred* has failed with."""
    failures = []
    deferred.addErrback(failures.append)
    assert failures, "it has not failed"
    return failures[0].value


@pytest.fixture(name="success")
def success_fixture():
    return success


@pytest.fixture(name="failure")
def failure_fixture():
    return failure

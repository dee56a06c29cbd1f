"""The Twisted client and a server, both real, joined in memory."""

from attrs import define, field
from twisted.internet.defer import fail, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.python.failure import Failure
from zope.interface import implementer

from queueber.client import connect
from queueber.testing import InProcessServer


@implementer(IStreamClientEndpoint)
@define(eq=False)
class Joined:
    """A server, and clients whose connections end at it."""

    server: InProcessServer = field(factory=InProcessServer)
    links: list = field(factory=list)
    refusing: bool = False
    """Whether connections are refused."""

    def connect(self, factory):
        if self.refusing:
            return fail(Refused())
        protocol, transport = factory.buildProtocol(None), StringTransportWithDisconnection()
        transport.protocol = protocol
        self.links.append((protocol, transport, *self.server.connect()))
        protocol.makeConnection(transport)
        return succeed(protocol)

    def client(self, **options):
        """Return a client of the server, which connects again a second after a loss."""
        return connect(self.server.reactor, self, retry_policy=lambda _: 1.0, **options)

    def break_link(self, at=-1):
        """End the latest connection, or the one *at* that place, at both ends; bytes on their way are lost."""
        protocol, transport, peer, _ = self.links.pop(at)
        peer.connectionLost(Failure(ConnectionLost()))
        transport.loseConnection()
        assert transport.protocol is protocol

    def settle(self):
        """Pass bytes between all ends until nothing moves."""
        moved = True
        while moved:
            self.server.settle()
            moved = False
            for protocol, transport, peer, peer_transport in self.links:
                for source, sink in ((transport, peer), (peer_transport, protocol)):
                    data = source.value()
                    if data:
                        source.clear()
                        sink.dataReceived(data)
                        moved = True

    def result(self, deferred):
        """Return the result of *deferred* once everything has been passed on."""
        self.settle()
        found = []
        deferred.addBoth(found.append)
        assert found, "it has not fired"
        if hasattr(found[0], "raiseException"):
            found[0].raiseException()
        return found[0]

    def pass_time(self, seconds):
        self.server.reactor.advance(seconds)
        self.server.sweeper.sweep()
        self.settle()

"""
Connections behind TLS, whose handshakes go on when it is their turn.  Imported only where there is TLS.

Until something has come from the peer there is nothing but a `PendingConnection`: what
OpenSSL needs for a connection takes longer to make than to accept one.
"""

import gc
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure

from queueber.server.net.connections import Connections
from queueber.transport.protocol_detection import TLS_HANDSHAKE, TLS_REFUSAL, protocol_of

ENDED = 100
"""After so many connections what they leave behind is collected: 60 KiB each, in a circle of Twisted's."""


class Secured(BufferingTLSTransport):
    """As Twisted has it; whoever speaks over it may tell its `greeting` that it is secured."""

    greeting: "PendingConnection"


class PendingConnection(Protocol):
    """A connection until it is secured; then the transport's protocol is the one behind it."""

    def __init__(self, factory: "TlsFactory", address: IAddress) -> None:
        """A connection of *address*."""
        self._factory = factory
        self._address = address
        self._behind: Any = None
        self._early = b""

    def connectionMade(self) -> None:
        """It counts from here."""
        self._factory.connections.handshakes.begin(self)

    def dataReceived(self, data: bytes) -> None:
        """Go on with the handshake, now or when it is its turn."""
        if self._behind is None and not self._early and data and not data.startswith(TLS_HANDSHAKE):
            self._refuse(data)
            return
        waits = bool(self._early)
        self._early += data
        if not waits and not self._factory.connections.handshakes.step(self):
            self._transport.pauseProducing()

    def _refuse(self, data: bytes) -> None:
        """Answer what is no TLS as TLS answers it, at the cost of no handshake."""
        peer, speaks = self._transport.getPeer(), protocol_of(data) or "plaintext"
        line = "Closing the connection of {peer}: it speaks {speaks}, and this port TLS"
        self._factory.connections.warn(getattr(peer, "host", None), line, peer=peer, speaks=speaks)
        self._transport.write(TLS_REFUSAL)
        self._transport.loseConnection()

    @property
    def _transport(self) -> Any:  # noqa: ANN401
        return self.transport

    def go_on(self) -> None:
        """It is its turn."""
        early, self._early = self._early, b""
        # First, because whoever gets what comes of it may stop the reading for a reason of its own.
        self._transport.resumeProducing()
        if self._behind is None:
            self._behind = self._factory.secured.buildProtocol(self._address)
            if self._behind is None:
                self._transport.abortConnection()
                return
            self._behind.greeting = self
            self._behind.makeConnection(self._transport)
        self._behind.dataReceived(early)

    def finished(self) -> None:
        """The connection is secured."""
        self._factory.connections.handshakes.end(self)
        self._transport.protocol = self._behind

    def give_up(self, limit: str) -> None:
        """It has to end."""
        self._factory.connections.gave_up_handshake(self._transport.getPeer(), limit)
        self._transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It ended before it was secured."""
        self._factory.connections.handshakes.end(self)
        behind, self._behind, self._early = self._behind, None, b""
        if behind is not None:
            behind.connectionLost(reason)


class _Securing(TLSMemoryBIOFactory):
    protocol = Secured
    ended = 0

    def buildProtocol(self, addr: IAddress | None) -> Any:  # noqa: ANN401
        """A protocol behind TLS; None when there are too many connections."""
        behind: Any = self.wrappedFactory
        wrapped = behind.buildProtocol(addr)
        return None if wrapped is None else self.protocol(self, wrapped)

    def unregisterProtocol(self, p: Any) -> None:  # noqa: ANN401
        """A connection has ended."""
        super().unregisterProtocol(p)  # type: ignore[no-untyped-call]
        self.ended += 1
        if self.ended >= ENDED:
            self.ended = 0
            gc.collect(1)


class TlsFactory(Factory):
    """Secures the connections of another factory."""

    noisy = False

    def __init__(self, creator: Any, wrapped: Any, connections: Connections) -> None:  # noqa: ANN401
        """For those of *wrapped*; *creator* makes OpenSSL's side of one."""
        self.connections = connections
        self.secured = _Securing(creator, False, wrapped)

    def buildProtocol(self, addr: Any) -> PendingConnection:  # noqa: ANN401
        """For a new peer."""
        return PendingConnection(self, addr)

    def logPrefix(self) -> str:
        """As it shows in the log."""
        return str(self.secured.logPrefix())  # type: ignore[no-untyped-call]

"""
TLS connections whose handshakes proceed when `Handshakes` schedules them.  Imported only by servers with TLS.

Until the peer has sent something, a connection is only a `PendingConnection`:
OpenSSL's state for a connection takes longer to make than the connection takes
to accept.
"""

import gc
from typing import Any, Final

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure

from queueber.server.net.connections import Connections
from queueber.transport.protocol_detection import TLS_HANDSHAKE, TLS_REFUSAL, protocol_of

COLLECTED_AFTER: Final = 100
"""Lost connections after which garbage is collected: Twisted leaves a reference cycle of 60 KiB for each."""


class TlsTransport(BufferingTLSTransport):
    """Twisted's TLS transport, with a reference to its pending connection."""

    pending: "PendingConnection"


class PendingConnection(Protocol):
    """A connection until its handshake is finished.  Then the `TlsTransport` takes its place."""

    def __init__(self, factory: "TlsFactory", address: IAddress) -> None:
        """A connection from *address*."""
        self._factory = factory
        self._address = address
        self._tls: Any = None
        self._early = b""
        """Received bytes that wait for the next step."""

    def connectionMade(self) -> None:
        """Count as an unfinished handshake."""
        self._factory.connections.handshakes.add(self)

    def dataReceived(self, data: bytes) -> None:
        """Continue the handshake, now or in a later turn."""
        if self._tls is None and not self._early and data and not data.startswith(TLS_HANDSHAKE):
            self._refuse(data)
            return
        waits = bool(self._early)
        self._early += data
        if not waits and not self._factory.connections.handshakes.schedule(self):
            self._transport.pauseProducing()

    def _refuse(self, data: bytes) -> None:
        """Refuse bytes that are not TLS with TLS's own alert, without the cost of a handshake."""
        peer, speaks = self._transport.getPeer(), protocol_of(data) or "plaintext"
        line = "Closing the connection of {peer}: it speaks {speaks}, and this port TLS"
        self._factory.connections.warn(getattr(peer, "host", None), line, peer=peer, speaks=speaks)
        self._transport.write(TLS_REFUSAL)
        self._transport.loseConnection()

    @property
    def _transport(self) -> Any:  # noqa: ANN401
        return self.transport

    def proceed(self) -> None:
        """Process what the peer has sent."""
        early, self._early = self._early, b""
        # Before the bytes are processed, because their receiver may stop reading for its own reasons.
        self._transport.resumeProducing()
        if self._tls is None:
            self._tls = self._factory.tls.buildProtocol(self._address)
            if self._tls is None:
                self._transport.abortConnection()
                return
            self._tls.pending = self
            self._tls.makeConnection(self._transport)
        self._tls.dataReceived(early)

    def finish(self) -> None:
        """Hand the connection over: the handshake is finished."""
        self._factory.connections.handshakes.remove(self)
        self._transport.protocol = self._tls

    def abandon(self, limit: str) -> None:
        """Close the connection because of *limit*."""
        self._factory.connections.handshake_abandoned(self._transport.getPeer(), limit)
        self._transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Handle the loss of the connection during the handshake."""
        self._factory.connections.handshakes.remove(self)
        tls, self._tls, self._early = self._tls, None, b""
        if tls is not None:
            tls.connectionLost(reason)


class _TransportFactory(TLSMemoryBIOFactory):
    protocol = TlsTransport
    lost = 0

    def buildProtocol(self, addr: IAddress | None) -> Any:  # noqa: ANN401
        """Return a TLS transport with a protocol; None if there are too many connections."""
        inner: Any = self.wrappedFactory
        protocol = inner.buildProtocol(addr)
        return None if protocol is None else self.protocol(self, protocol)

    def unregisterProtocol(self, p: Any) -> None:  # noqa: ANN401
        """Collect garbage after every `COLLECTED_AFTER` lost connections."""
        super().unregisterProtocol(p)  # type: ignore[no-untyped-call]
        self.lost += 1
        if self.lost >= COLLECTED_AFTER:
            self.lost = 0
            gc.collect(1)


class TlsFactory(Factory):
    """Makes the TLS connections of another factory's protocols."""

    noisy = False

    def __init__(self, creator: Any, wrapped: Any, connections: Connections) -> None:  # noqa: ANN401
        """Wrap the protocols of *wrapped*.  *creator* makes OpenSSL's state of a connection."""
        self.connections = connections
        self.tls = _TransportFactory(creator, False, wrapped)

    def buildProtocol(self, addr: Any) -> PendingConnection:  # noqa: ANN401
        """Return a pending connection for a new peer."""
        return PendingConnection(self, addr)

    def logPrefix(self) -> str:
        """Return the prefix of Twisted's own log lines."""
        return str(self.tls.logPrefix())  # type: ignore[no-untyped-call]

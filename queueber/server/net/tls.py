"""
TLS connections whose handshakes proceed when `Handshakes` schedules them.  Imported only by servers with TLS.

Until the peer has sent something, a connection is only a `PendingConnection`:
OpenSSL's state for a connection takes longer to make than the connection takes
to accept.
"""

import gc
from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.internet.interfaces import IAddress, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure

from queueber.server.net.rpc_factory import RpcFactory
from queueber.server.net.states import HandshakeInput, HandshakeState, next_handshake_state
from queueber.transport.protocol_detection import TLS_HANDSHAKE, TLS_REFUSAL, protocol_of

COLLECTED_AFTER: Final = 100
"""Lost connections after which garbage is collected: Twisted leaves a reference cycle of 60 KiB for each."""

_NAMES_LETTERS_MAX: Final = 200
"""The longest text of a refused certificate's names in a log line."""


class PendingConnection(Protocol):
    """
    A connection until its handshake is finished.  Then Twisted's TLS transport takes its place.

    Its states are the `HandshakeState`.
    """

    def __init__(self, factory: "TlsFactory", address: IAddress) -> None:
        """A connection from *address*."""
        self._factory = factory
        self._address = address
        self._state = HandshakeState.SILENT
        self._tls: Any = None
        """The TLS transport, which is made for the first bytes."""

        self._early = b""
        """Received bytes that wait for the next step."""

    def connectionMade(self) -> None:
        """Count as an unfinished handshake."""
        self._factory.connections.handshakes.add(self)

    def dataReceived(self, data: bytes) -> None:
        """Continue the handshake, now or in a later turn."""
        before = self._state
        if before is HandshakeState.SILENT and data and not data.startswith(TLS_HANDSHAKE):
            self._refuse(data)
            return
        self._state = next_handshake_state(before, HandshakeInput.DATA)
        if self._state is HandshakeState.QUEUED:
            self._early += data
            if before is not HandshakeState.QUEUED and not self._factory.connections.handshakes.schedule(self):
                self._transport.pauseProducing()

    def _refuse(self, data: bytes) -> None:
        """Refuse bytes that are not TLS with TLS's own alert, without the cost of a handshake."""
        self._state = next_handshake_state(self._state, HandshakeInput.REFUSE)
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
        self._state = next_handshake_state(self._state, HandshakeInput.TURN)
        early, self._early = self._early, b""
        # Before the bytes are processed, because their receiver may stop reading for its own reasons.
        self._transport.resumeProducing()
        if self._tls is None:
            self._tls = self._factory.tls.build(self._address, self.finish)
            if self._tls is None:
                self._state = next_handshake_state(self._state, HandshakeInput.REFUSE)
                self._transport.abortConnection()
                return
            self._tls.makeConnection(self._transport)
        self._tls.dataReceived(early)

    def finish(self) -> None:
        """Hand the connection over: the handshake is finished."""
        self._state = next_handshake_state(self._state, HandshakeInput.FINISH)
        self._factory.connections.handshakes.remove(self)
        self._transport.protocol = self._tls

    def on_timeout(self, limit: str) -> None:
        """Abandon the handshake, which has taken too long."""
        self.abandon(limit)

    def abandon(self, limit: str) -> None:
        """Close the connection because of *limit*."""
        self._factory.connections.handshake_abandoned(self._transport.getPeer(), limit)
        self._transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Handle the loss of the connection during the handshake."""
        self._state = next_handshake_state(self._state, HandshakeInput.LOSS)
        self._factory.connections.handshakes.remove(self)
        tls, self._tls, self._early = self._tls, None, b""
        if tls is not None:
            tls.connectionLost(reason)


class _TransportFactory(TLSMemoryBIOFactory):
    protocol = BufferingTLSTransport
    lost = 0

    def __init__(self, creator: IOpenSSLServerConnectionCreator, wrapped: RpcFactory) -> None:
        """Wrap the protocols of *wrapped*.  *creator* makes OpenSSL's state of a connection."""
        super().__init__(creator, False, wrapped)
        self._build = wrapped.build
        self._connections = wrapped.connections

    def build(self, addr: IAddress | None, on_handshake: Callable[[], None]) -> BufferingTLSTransport | None:
        """
        Return a TLS transport with a protocol; None if there are too many connections.

        *on_handshake* is called when the handshake is finished.
        """
        protocol = self._build(addr, on_handshake)
        return None if protocol is None else self.protocol(self, protocol)

    def certificate_refused(self, transport: Any, names: Iterable[str]) -> None:  # noqa: ANN401
        """Log that a client was refused because of the *names* in its certificate, which are text from the peer."""
        peer = transport.transport.getPeer()
        shown = ", ".join(sorted(names))[:_NAMES_LETTERS_MAX] or "nothing"
        line = "Refusing {peer}, whose certificate names {names}"
        self._connections.warn(getattr(peer, "host", None), line, peer=peer, names=shown)

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

    def __init__(self, creator: IOpenSSLServerConnectionCreator, wrapped: RpcFactory) -> None:
        """Wrap the protocols of *wrapped*.  *creator* makes OpenSSL's state of a connection."""
        self.connections = wrapped.connections
        self.tls = _TransportFactory(creator, wrapped)

    def buildProtocol(self, addr: Any) -> PendingConnection:  # noqa: ANN401
        """Return a pending connection for a new peer."""
        return PendingConnection(self, addr)

    def logPrefix(self) -> str:
        """Return the prefix of Twisted's own log lines."""
        return str(self.tls.logPrefix())  # type: ignore[no-untyped-call]

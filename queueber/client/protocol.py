"""
The transport of one connection to a server.

| State | handshake complete | data | peer at fault | disconnected |
|---|---|---|---|---|
| SECURING | OPEN | not received | CLOSING | LOST |
| OPEN | | completes calls | CLOSING, ends the calls | LOST, ends the calls |
| CLOSING | | completes the calls that are left | | LOST, ends the calls that are left |

A plaintext connection is OPEN at once.  The calls are those of a
`ClientConnection`, which exists from OPEN on.  All calls of one reactor turn are
sent in one write.
"""

import typing
from enum import Enum, auto

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IReactorTime, ISSLTransport, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from queueber import rpc
from queueber.client.refusals import lost_transport, nameless_certificate, refusal_of
from queueber.client_core.connection import ClientConnection
from queueber.client_core.errors import NotConnected, OutcomeUnknown
from queueber.client_core.reconnect import Link
from queueber.transport.keepalive import keep_alive

CLOSE_SECONDS = 5.0
"""Time limit for sending the last messages of a closing connection."""

HANDSHAKE_SECONDS = 30.0
"""Time limit of the TLS handshake."""


class TransportState(Enum):
    """The state of a transport, as in the table above."""

    SECURING = auto()
    OPEN = auto()
    CLOSING = auto()
    LOST = auto()


class TransportOwner(typing.Protocol):
    """The receiver of a transport's state changes."""

    def on_made(self, transport: "ClientProtocol") -> None:
        """Note that *transport* exists, from now until `on_lost`."""

    def on_lost(self) -> None:
        """Note that the transport is lost."""


@implementer(IHandshakeListener)
class ClientProtocol(Protocol):
    """The transport of one connection, for the calls of a link."""

    log = Logger()
    transport: ITCPTransport

    def __init__(self, clock: IReactorTime, link: Link, owner: TransportOwner) -> None:
        """Carry the calls of *link*, and report state changes to *owner*."""
        self._clock = clock
        self._link = link
        self._owner = owner
        self._state = TransportState.SECURING
        self._connection: ClientConnection | None = None
        self._reading = False
        self._finishing = False
        """Whether the client is closed, and waits only until returned items are confirmed."""

        self._timer: IDelayedCall | None = None
        """For the handshake, the next flush, or the close."""

    def connectionMade(self) -> None:
        """Begin to use the transport: calls can be made at once, or after the TLS handshake."""
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        keep_alive(self.transport)
        self._owner.on_made(self)
        if ISSLTransport.providedBy(self.transport):
            self._timer = self._clock.callLater(HANDSHAKE_SECONDS, self._handshake_timed_out)
        else:
            self._open_for_calls()

    def handshakeCompleted(self) -> None:
        """Open the connection after its TLS handshake."""
        self._stop_timer()
        if (nameless := nameless_certificate(self.transport)) is None:
            self._open_for_calls()
        else:
            self._refuse(nameless, refused=True)

    def _open_for_calls(self) -> None:
        if self._state is TransportState.SECURING:
            self._state = TransportState.OPEN
            self._connection = self._link.connected()
            self.flush_soon()
            self._link.dispatch()

    def _handshake_timed_out(self) -> None:
        self._timer = None
        self._refuse(f"no TLS handshake within {HANDSHAKE_SECONDS:g} s", refused=False)

    def _refuse(self, why: str, *, refused: bool) -> None:
        """End a transport that was not opened for calls."""
        if self._state is TransportState.SECURING:
            self._state = TransportState.CLOSING
            self._link.attempt_failed(why, refused=refused)
            self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Process answers."""
        connection = self._connection
        if connection is None or connection.is_over():
            return
        self._reading = True
        try:
            connection.receive_data(data)
        finally:
            self._reading = False
        self.flush()
        if connection.ended is not None and self._state is TransportState.OPEN:
            peer = self.transport.getPeer()
            self.log.warn("Closing the connection to {peer}: {why}", peer=peer, why=connection.ended.why)
            self._close()
        elif self._finishing and not connection.settling:
            self._close()

    def flush_soon(self) -> None:
        """Schedule a flush at the end of this reactor turn, or of the answers that are being read."""
        if not self._reading and self._timer is None and self._state is TransportState.OPEN:
            self._timer = self._clock.callLater(0, self._flush_now)

    def _flush_now(self) -> None:
        self._timer = None
        self.flush()

    def flush(self) -> None:
        """Send the pending messages."""
        if self._connection is not None and (data := self._connection.data_to_send()):
            self.transport.write(data)

    def close(self) -> None:
        """
        Send the remaining bytes, and close once the server has confirmed all returned items.

        That takes at most `CLOSE_SECONDS`.
        """
        self.flush()
        if self._state is TransportState.OPEN and self._connection is not None and self._connection.settling:
            self._finishing = True
            self._stop_timer()
            self._timer = self._clock.callLater(CLOSE_SECONDS, self._finished)
        else:
            self._close()

    def _finished(self) -> None:
        self._timer = None
        self._close()

    def _close(self) -> None:
        """Close the transport; abort it if that takes longer than `CLOSE_SECONDS`."""
        if self._state in (TransportState.SECURING, TransportState.OPEN):
            self.flush()
            self._stop_timer()
            self._state = TransportState.CLOSING
            self._timer = self._clock.callLater(CLOSE_SECONDS, self._close_timed_out)
        if self._state is TransportState.CLOSING:
            self.transport.loseConnection()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _close_timed_out(self) -> None:
        self._timer = None
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail the calls in flight: with `OutcomeUnknown`, unless no server has read them."""
        self._stop_timer()
        state, self._state = self._state, TransportState.LOST
        connection = self._connection
        secured = state is not TransportState.SECURING
        refusal = None
        if connection is None or not connection.received:
            refusal = refusal_of(reason.value, self.transport, secured=secured)
        # A handshake that ends without an alert may succeed later; a bad certificate does not.
        refused = refusal is not None and not isinstance(reason.value, ConnectionLost | ConnectionDone)
        why = refusal or ("the client was closed" if state is TransportState.CLOSING else lost_transport(reason.value))
        if connection is not None:
            connection.end(why, NotConnected if refusal is not None else OutcomeUnknown, refused=refused)
        elif state is TransportState.SECURING:
            self._link.attempt_failed(why, refused=refused)
        self._owner.on_lost()

    def usage(self) -> rpc.ConnectionStats:
        """Return the sizes of the connection's tables."""
        assert self._connection is not None
        return self._connection.usage()

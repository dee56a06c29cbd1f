"""
Replies on their way to peers.

`FlushQueue` collects the connections that have replies, so that all replies of
one reactor turn or one commit to a peer leave in one write.  `SendBuffer` sends
the replies of one connection, counts what it holds, and notices progress.

A reply goes straight to the socket while the transport holds nothing: a
transport's own `write` asks the reactor to report a writable socket and then
takes that back, two system calls and fifteen Python calls for a reply that the
socket takes at once.  The transport gets only what the socket did not take, and
finds errors by its own next write.
"""

import fcntl
import socket
from collections import deque
from collections.abc import Callable
from struct import Struct
from termios import TIOCOUTQ
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.interfaces import IPushProducer
from twisted.internet.tcp import Connection as SocketTransport
from twisted.protocols.policies import ProtocolWrapper
from zope.interface import implementer

from queueber.units import KIB

CHUNK = 64 * KIB
"""The size of a transport's own buffer.  A peer has taken this much between two signs of progress."""

# `tcpi_bytes_acked` of `struct tcp_info` in linux/tcp.h, since Linux 4.1.
_TCP_BYTES_ACKED = Struct("=120xQ")

# Bytes in a Unix socket's queue.  `SIOCOUTQ`, as it is called for sockets, has the same number as `TIOCOUTQ`.
_UNIX_QUEUED = Struct("=i")


class Sender(Protocol):
    """A connection with replies."""

    def send(self) -> None:
        """Send all replies."""


@define(eq=False)
class FlushQueue:
    """Connections with replies that have not been sent."""

    waiting: dict[Sender, None] = field(factory=dict, init=False)
    """In the order of their first reply.  Connections add themselves."""

    def flush(self) -> None:
        """Let all of them send."""
        waiting, self.waiting = self.waiting, {}
        for sender in waiting:
            sender.send()


@implementer(IPushProducer)
class SendBuffer:
    """The replies of one connection that its transport has no room for, in order."""

    def __init__(self, transport: Any, on_change: Callable[[], None]) -> None:  # noqa: ANN401
        """Send over *transport*.  *on_change* is called when it becomes full, and when it has room again."""
        self._transport = transport
        self._socket_transport = socket_transport(transport)
        self._on_change = on_change
        self._waiting: deque[memoryview] = deque()
        self._ending = False
        self.unsent = 0
        """Bytes that wait here.  Those that the transport holds, up to about 100 kB, are not included."""

        self.given = 0
        """Bytes passed to the socket or the transport since the connection was made."""

        self.full = False
        """Whether the transport has no room, because the peer does not read."""

        transport.registerProducer(self, True)

    @property
    def held(self) -> int:
        """Bytes held for the peer: those that wait here, and the most that a full transport may hold."""
        return self.unsent + 2 * CHUNK if self.full else self.unsent

    def write(self, data: bytes) -> None:
        """Send *data* now, or as soon as there is room."""
        if self.full or len(data) > CHUNK:
            self._waiting.append(memoryview(data))
            self.unsent += len(data)
            self._push()
            return
        self.given += len(data)
        direct = self._socket_transport
        # Bytes that the transport still holds must go first.
        if direct is not None and direct.connected and not (direct.dataBuffer or direct._tempDataLen):  # noqa: SLF001
            try:
                sent = direct.socket.send(data)
            except OSError:
                # The socket's buffer is full or the connection is broken.  The transport meets the same error in its
                # own write, and waits or reports `connectionLost`; the caller is in no position to handle that.
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        self._transport.write(data)

    def _push(self) -> None:
        """Write the waiting bytes, a chunk at a time, until the transport is full."""
        while self._waiting and not self.full:
            piece = self._waiting[0][:CHUNK]
            if len(piece) == len(self._waiting[0]):
                self._waiting.popleft()
            else:
                self._waiting[0] = self._waiting[0][CHUNK:]
            self.unsent -= len(piece)
            self.write(bytes(piece))
        if self._ending and not self._waiting:
            self._transport.unregisterProducer()
            self._transport.loseConnection()

    def end(self) -> None:
        """Close the connection once the peer has taken everything."""
        self._ending = True
        self._push()

    def abort(self) -> None:
        """Close the connection at once, whatever the peer has not taken."""
        self._socket_transport = None
        self._transport.abortConnection()

    def bytes_acked(self) -> int | None:
        """Return how many bytes the peer has taken; see the function `bytes_acked`."""
        return bytes_acked(self._transport, self.given)

    # The transport calls these two when its buffer is full, and when that has become empty.

    def pauseProducing(self) -> None:
        """Keep further replies here."""
        self.full = True
        self._on_change()

    def resumeProducing(self) -> None:
        """Send the waiting bytes."""
        self.full = False
        self._push()
        self._on_change()

    def forget(self) -> None:
        """Drop everything, and the reference to the connection, which is lost."""
        self.stopProducing()
        self._on_change = _ignore

    def stopProducing(self) -> None:
        """Drop everything: the transport is closed."""
        self._waiting.clear()
        self.unsent = 0


def _ignore() -> None:
    """Ignore a change of a connection that is lost."""


def socket_transport(transport: Any) -> Any | None:  # noqa: ANN401
    """
    Return the transport whose socket takes the same bytes as `write` of *transport*, if there is one.

    That is *transport* itself for plain TCP and Unix sockets, and the one
    inside of wrappers that pass on what is written, as for the PROXY protocol.
    None for TLS and for any other transport.
    """
    while getattr(type(transport), "write", None) is ProtocolWrapper.write:
        transport = transport.transport
    return transport if isinstance(transport, SocketTransport) and not transport.TLS else None


def bytes_acked(transport: Any, given: int) -> int | None:  # noqa: ANN401
    """
    Return how many of the *given* bytes the peer has taken from *transport* since the connection was made.

    Over TCP these are the bytes that the peer's system has acknowledged.  Over
    a Unix socket they are those that the peer has read, less the socket's
    bookkeeping.  So compare the figure only with an earlier one of the same
    connection.  None for other transports, and on systems that do not count.
    """
    made = getattr(transport, "socket", None)
    if made is None:
        return None
    try:
        if made.family == socket.AF_UNIX:
            queued = int(_UNIX_QUEUED.unpack(fcntl.ioctl(made, TIOCOUTQ, bytes(_UNIX_QUEUED.size)))[0])
            return given - _held_by(transport) - queued
        if made.family not in (socket.AF_INET, socket.AF_INET6) or not hasattr(socket, "TCP_INFO"):
            return None
        info = made.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_BYTES_ACKED.size)
    except (OSError, ValueError):
        return None
    return int(_TCP_BYTES_ACKED.unpack(info)[0]) if len(info) == _TCP_BYTES_ACKED.size else None


def _held_by(transport: Any) -> int:  # noqa: ANN401
    """Return how many bytes *transport* holds; its latest writes are not in its `dataBuffer` yet."""
    latest: int = getattr(transport, "_tempDataLen", 0)
    return len(transport.dataBuffer) - int(transport.offset) + latest

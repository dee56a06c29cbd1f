"""
Replies that a peer has not taken yet.

The transport is given no more than it has room for; the rest waits here, so
that it can be counted, and so that it shows when a peer takes some of it.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPushProducer, IWriteDescriptor
from zope.interface import implementer

# As large as the transport's own buffer: a peer has taken this much between two signs of progress.
CHUNK = 64 * 1024


@implementer(IPushProducer)
class SendBuffer:
    """What is said on one connection, in order."""

    def __init__(self, transport: Any, changed: Callable[[], None]) -> None:  # noqa: ANN401
        """Replies over *transport*; *changed* is called when it takes some or will take no more."""
        self._transport = transport
        self._changed = changed
        self._waiting: deque[memoryview] = deque()
        self._ending = False
        self.unsent = 0
        """Bytes that wait here; those that the transport holds, a hundred kilobytes or so, are not among them."""

        self.given = 0
        """Bytes that the transport was given, in all."""

        self.full = False
        """The peer is behind: the transport takes no more for now."""

        self._writes_at_once = IWriteDescriptor.providedBy(transport)
        transport.registerProducer(self, True)

    @property
    def held(self) -> int:
        """Bytes that are held for the peer: those that wait here, and what a transport that is full may hold."""
        return self.unsent + 2 * CHUNK if self.full else self.unsent

    def write(self, data: bytes) -> None:
        """Send *data* as soon as the peer takes it."""
        if not self.full and len(data) <= CHUNK:
            self.given += len(data)
            self._transport.write(data)
            if self._writes_at_once and not self._ending and self._transport.connected:
                # Now, and not after one more round of the reactor's, which costs as much as carrying out a call.  What
                # the socket does not take, or an error, is found again by that round.
                self._transport.doWrite()
        else:
            self._waiting.append(memoryview(data))
            self.unsent += len(data)
            self._push()

    def _push(self) -> None:
        while self._waiting and not self.full:
            piece = self._waiting[0][:CHUNK]
            if len(piece) == len(self._waiting[0]):
                self._waiting.popleft()
            else:
                self._waiting[0] = self._waiting[0][CHUNK:]
            self.unsent -= len(piece)
            self.given += len(piece)
            self._transport.write(bytes(piece))
        if self._ending and not self._waiting:
            self._transport.unregisterProducer()
            self._transport.loseConnection()

    def end(self) -> None:
        """Close the connection once the peer has taken everything."""
        self._ending = True
        self._push()

    # The transport calls these: when its buffer has filled up, and when it has become empty.

    def pauseProducing(self) -> None:
        """Keep what comes."""
        self.full = True
        self._changed()

    def resumeProducing(self) -> None:
        """Go on."""
        self.full = False
        self._push()
        self._changed()

    def forget(self) -> None:
        """The connection is gone: hold nothing, and nobody."""
        self.stopProducing()
        self._changed = _nobody

    def stopProducing(self) -> None:
        """The connection is on its way out; what waits will never be taken."""
        self._waiting.clear()
        self.unsent = 0


def _nobody() -> None:
    """There is nobody to be told."""

"""A terminal at the debugging console of a server: telnet, as little of it as that takes."""

import fcntl
import os
import struct
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGWINCH, signal
from typing import Any

from twisted.conch.telnet import ECHO, NAWS, SGA, Telnet
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure
from zope.interface import implementer

from queueber.client.connect import endpoint_of
from queueber.errors import QueueberError

END_OF_INPUT = b"\x04"
ESCAPE = b"\x1d"
"""Ctrl-], as of old: leaves even a server that does not answer."""


class NoConsole(QueueberError):
    """There is no console at the address, or it cannot be reached."""


class Line(Telnet):
    """The connection."""

    transport: Any

    def __init__(self, terminal: "Terminal") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._terminal = terminal
        self.ended: Deferred[None] = Deferred()

    def enableRemote(self, option: bytes) -> bool:
        """Let the server echo what is typed."""
        return option in (ECHO, SGA)

    def disableRemote(self, option: bytes) -> None:
        """It has stopped to."""

    def enableLocal(self, option: bytes) -> bool:
        """Tell the size of the window."""
        return option in (NAWS, SGA)

    def disableLocal(self, option: bytes) -> None:
        """It does not want to know any more."""

    def send_size(self) -> None:
        """Send the size."""
        self.requestNegotiation(NAWS, struct.pack("!HH", *self._terminal.size()))  # type: ignore[no-untyped-call]

    def telnet_DO(self, option: bytes) -> None:
        """The server wants something of us."""
        super().telnet_DO(option)  # type: ignore[no-untyped-call]
        if option == NAWS:
            self.send_size()

    def applicationDataReceived(self, data: bytes) -> None:
        """Show it."""
        if self._terminal.transport is not None:
            self._terminal.transport.write(data)

    def unhandledCommand(self, command: bytes, argument: bytes | None) -> None:
        """Leave it."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The session has ended."""
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self.ended.callback(None)


@implementer(IHalfCloseableProtocol)
class Terminal(Protocol):
    """Where one types."""

    transport: Any

    def __init__(self) -> None:
        self.line: Line | None = None
        self.interactive = os.isatty(sys.stdin.fileno())
        self._in_a_line = False
        """Something was typed since the last line ended."""

        self.ended: Deferred[None] = Deferred()

    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        try:
            found = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, bytes(8))
        except OSError:
            return 80, 24
        rows, columns = struct.unpack("HHHH", found)[:2]
        return columns or 80, rows or 24

    def dataReceived(self, data: bytes) -> None:
        """Something was typed."""
        assert self.line is not None, "nobody can type before there is a line"
        if self.interactive and ESCAPE in data:
            self.line.transport.abortConnection()
        else:
            self._in_a_line = not data.endswith((b"\n", b"\r"))
            typed = data.replace(b"\xff", b"\xff\xff").replace(b"\n", b"\r")
            # A bare one would be kept until it shows what follows.
            self.line.transport.write(typed.replace(b"\r", b"\r\0"))

    def readConnectionLost(self) -> None:
        """Nothing more will be typed: end the line and the block that were begun, and leave once all is answered."""
        assert self.line is not None
        if self._in_a_line:
            self.line.transport.write(b"\r\0")
        self.line.transport.write(END_OF_INPUT + END_OF_INPUT)

    def writeConnectionLost(self) -> None:
        """Nobody reads any more."""
        assert self.line is not None
        self.line.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        """All is written."""
        self.ended.callback(None)


@contextmanager
def raw_terminal() -> Iterator[None]:
    """A terminal that leaves echo and editing to the server, until the end of this."""
    if not os.isatty(sys.stdin.fileno()):
        yield
        return
    before = termios.tcgetattr(sys.stdin.fileno())
    tty.setraw(sys.stdin.fileno())
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)


async def session(reactor: Any, address: str) -> None:  # noqa: ANN401
    """
    Connect this process's terminal to the console at *address*, until one of the two ends it.

    Raises:
        NoConsole: there is none.
        InvalidRequest: *address* is no address.
    """
    terminal = Terminal()
    line = Line(terminal)
    try:
        await connectProtocol(endpoint_of(reactor, address), line)
    except ConnectError as why:
        raise NoConsole(f"no console at {address}: {why}") from None
    terminal.line = line
    StandardIO(terminal, reactor=reactor)
    signal(SIGWINCH, lambda *_: reactor.callFromThread(line.send_size))
    await line.ended
    terminal.transport.loseConnection()
    await terminal.ended

"""``queueber manhole``: connect this terminal to the debugging console of a server, by telnet."""

import fcntl
import os
import struct
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from signal import SIGWINCH, signal
from typing import Any

import click
from twisted.conch.telnet import ECHO, NAWS, SGA, Telnet
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.internet.task import react
from twisted.python.failure import Failure
from zope.interface import implementer

from queueber.client.connect import twisted_endpoint_of
from queueber.client.refusals import failed_attempt
from queueber.client_core.address import parse
from queueber.errors import QueueberError

END_OF_INPUT = b"\x04"
ESCAPE = b"\x1d"
"""Ctrl-], as in telnet: ends the session even if the server does not answer."""


class NoConsole(QueueberError):
    """The address of the console cannot be reached."""


class TelnetClient(Telnet):
    """The telnet connection to the server."""

    transport: Any
    terminal: "LocalTerminal"
    """The terminal, once the connection is made."""

    def __init__(self, open_terminal: Callable[["TelnetClient"], "LocalTerminal"]) -> None:
        """*open_terminal* is called with this connection once it is made."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._open_terminal = open_terminal
        self.ended: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        """Open the terminal."""
        super().connectionMade()  # type: ignore[no-untyped-call]
        self.terminal = self._open_terminal(self)

    def enableRemote(self, option: bytes) -> bool:
        """Let the server echo input and suppress go-ahead."""
        return option in (ECHO, SGA)

    def disableRemote(self, option: bytes) -> None:
        """Accept that the server stops."""

    def enableLocal(self, option: bytes) -> bool:
        """Agree to send the size of the window."""
        return option in (NAWS, SGA)

    def disableLocal(self, option: bytes) -> None:
        """Accept that the server does not need it."""

    def send_size(self) -> None:
        """Send the size of the window."""
        self.requestNegotiation(NAWS, struct.pack("!HH", *self.terminal.size()))  # type: ignore[no-untyped-call]

    def telnet_DO(self, option: bytes) -> None:
        """Answer the server's request for an option."""
        super().telnet_DO(option)  # type: ignore[no-untyped-call]
        if option == NAWS:
            self.send_size()

    def applicationDataReceived(self, data: bytes) -> None:
        """Write output of the server to the terminal."""
        self.terminal.transport.write(data)

    def unhandledCommand(self, command: bytes, argument: bytes | None) -> None:
        """Ignore unknown commands."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note the end of the session."""
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self.ended.callback(None)


@implementer(IHalfCloseableProtocol)
class LocalTerminal(Protocol):
    """The terminal of this process."""

    transport: Any

    def __init__(self, connection: TelnetClient) -> None:
        """Send input to *connection*."""
        self._connection = connection
        self.interactive = os.isatty(sys.stdin.fileno())
        self._line_unfinished = False
        """Whether input has come since the last end of a line."""

        self.output_lost = False
        """Standard output has not taken all: it is full, or a pipe that is not read any more."""

        self.ended: Deferred[None] = Deferred()

    def size(self) -> tuple[int, int]:
        """Return columns and rows."""
        try:
            found = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, bytes(8))
        except OSError:
            return 80, 24
        rows, columns = struct.unpack("HHHH", found)[:2]
        return columns or 80, rows or 24

    def dataReceived(self, data: bytes) -> None:
        """Send input to the server."""
        if self.interactive and ESCAPE in data:
            self._connection.transport.abortConnection()
        else:
            self._line_unfinished = not data.endswith((b"\n", b"\r"))
            typed = data.replace(b"\xff", b"\xff\xff").replace(b"\n", b"\r")
            # A bare carriage return would wait for the next byte.
            self._connection.transport.write(typed.replace(b"\r", b"\r\0"))

    def readConnectionLost(self) -> None:
        """End an unfinished line and block at the end of input.  The server closes once all is answered."""
        if self._line_unfinished:
            self._connection.transport.write(b"\r\0")
        self._connection.transport.write(END_OF_INPUT + END_OF_INPUT)

    def writeConnectionLost(self) -> None:
        """End the session when the output is closed."""
        self.output_lost = True
        self._connection.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note whether all output is written."""
        self.output_lost = self.output_lost or reason.check(ConnectionDone) is None
        self.ended.callback(None)


@contextmanager
def raw_terminal() -> Iterator[None]:
    """Put the terminal in raw mode, which leaves echo and editing to the server, within the context."""
    if not os.isatty(sys.stdin.fileno()):
        yield
        return
    before = termios.tcgetattr(sys.stdin.fileno())
    tty.setraw(sys.stdin.fileno())
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)


async def connect_terminal(reactor: Any, address: str) -> bool:  # noqa: ANN401
    """
    Connect this process's terminal to the console at *address*, until one of the two ends it.

    Returns:
        Whether standard output has taken all.

    Raises:
        NoConsole: *address* cannot be reached.
        InvalidRequest: *address* is not an address.
    """

    def open_terminal(connection: TelnetClient) -> LocalTerminal:
        terminal = LocalTerminal(connection)
        StandardIO(terminal, reactor=reactor)
        return terminal

    connection = TelnetClient(open_terminal)
    try:
        await connectProtocol(twisted_endpoint_of(reactor, parse(address)), connection)
    except (ConnectError, OSError) as why:
        raise NoConsole(f"cannot connect to {address}: {failed_attempt(why)}") from None
    terminal = connection.terminal
    signal(SIGWINCH, lambda *_: reactor.callFromThread(connection.send_size))
    await connection.ended
    terminal.transport.loseConnection()
    if not terminal.output_lost:
        # Otherwise Twisted has nothing left that could end.
        await terminal.ended
    return not terminal.output_lost


@click.command()
@click.argument("address", metavar="ADDRESS")
def manhole(address: str) -> None:
    """
    Connect this terminal to the debugging console of a server that runs with --manhole.

    ADDRESS is unix:PATH, HOST:PORT or another Twisted endpoint.  Ctrl-D ends the session, Ctrl-] leaves a server that
    does not answer.
    """
    failures: list[QueueberError] = []
    complete = True

    async def main(reactor: Any) -> None:  # noqa: ANN401
        nonlocal complete
        try:
            complete = await connect_terminal(reactor, address)
        except QueueberError as why:
            failures.append(why)

    with raw_terminal(), suppress(SystemExit):
        react(main)
    if failures:
        raise failures[0]
    if not complete:
        # Twisted does not report the reason.  Another write fails with it.
        click.echo()

"""A session of the console: a telnet connection, a login if a password is required, and a Python prompt."""

import socket
import struct
from codecs import getincrementaldecoder
from collections.abc import Callable
from typing import Any

from attrs import define
from twisted.conch.insults.insults import ServerProtocol, modes
from twisted.conch.manhole import CTRL_D, Manhole, ManholeInterpreter
from twisted.conch.telnet import ECHO, NAWS, SGA, StatefulTelnetProtocol, TelnetBootstrapProtocol, TelnetTransport
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from queueber import __version__
from queueber.server.admin.console.commands import Command, Commands
from queueber.server.config.console_access import ConsoleAccess, Password, read_password
from queueber.server.monitoring.diagnostics import Diagnostics
from queueber.server.net.listeners import address_text

SESSIONS_MAX = 10
LOGIN_ATTEMPTS = 3
LOGIN_SECONDS = 60.0
_LOGGED_LETTERS_MAX = 500

log = Logger()


class Interpreter(ManholeInterpreter):
    """The interpreter of the input.  The result of a Deferred is shown when it fires."""

    handler: "Prompt"

    def displayhook(self, obj: object) -> None:
        """Show *obj*, or the result of a Deferred."""
        if isinstance(obj, Deferred):
            self.handler.show(obj)
        else:
            super().displayhook(obj)  # type: ignore[no-untyped-call]


class Prompt(Manhole):
    """The Python prompt."""

    ps = (b"queueber> ", b"... ")

    def __init__(self, diagnostics: Diagnostics, number: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._diagnostics = diagnostics
        self._number = number
        self.ended = False
        self._decode = getincrementaldecoder("utf-8")().decode
        self._not_utf_8 = False
        """The line has bytes that are not UTF-8."""

        self._pending = 0
        self._leaving = False

    def connectionMade(self) -> None:
        """Create the commands and the interpreter."""
        self._commands = Commands(self._diagnostics)
        leave = {
            name: Command(f"{name}()", self._exit, "End the session, as Ctrl-D does.") for name in ("exit", "quit")
        }
        self.namespace = {**self._commands.all(), **leave, "__name__": "__console__"}
        super().connectionMade()  # type: ignore[no-untyped-call]
        self.interpreter = Interpreter(self, self.namespace)  # type: ignore[no-untyped-call]

    def initializeScreen(self) -> None:
        """Show the commands."""
        self.terminal.setModes({modes.IRM})
        self.setInsertMode()  # type: ignore[no-untyped-call]
        lines = (
            f"Queueber {__version__}: a Python prompt inside the server. Commands, which change nothing:",
            f"  {' '.join(command.signature for command in self._commands.all().values())}",
            "Other input is Python code, which the server runs. Ctrl-D ends the session.",
        )
        for line in lines:
            self.terminal.write(line.encode())
            self.terminal.nextLine()
        self.terminal.write(self.ps[self.pn])

    def terminalSize(self, width: int, height: int) -> None:
        """Note the size, and leave the screen as it is."""
        self.width, self.height = width, height

    def keystrokeReceived(self, keyID: Any, modifier: object) -> None:  # noqa: ANN401
        """Accept a key or a byte.  A non-ASCII character is inserted with its last byte."""
        if self.ended:
            return
        letter = keyID
        if isinstance(keyID, bytes):
            try:
                letter = self._decode(keyID).encode()
            except UnicodeDecodeError:
                self._decode = getincrementaldecoder("utf-8")().decode
                self._not_utf_8 = True
                letter = keyID if keyID.isascii() else "\N{REPLACEMENT CHARACTER}".encode()
        if letter != keyID:
            self._insert_letters(letter)
        else:
            super().keystrokeReceived(keyID, modifier)  # type: ignore[no-untyped-call]

    def _insert_letters(self, letters: bytes) -> None:
        for letter in letters.decode():
            self.characterReceived(letter.encode(), moreCharactersComing=False)  # type: ignore[no-untyped-call]

    def _deliverBuffer(self, buf: bytes) -> None:
        """Insert a line of the history."""
        self._insert_letters(buf)

    def handle_INT(self) -> None:
        """Discard the input, at Ctrl-C."""
        self._not_utf_8 = False
        super().handle_INT()  # type: ignore[no-untyped-call]

    def handle_EOF(self) -> None:
        """End the block that is being typed, or else the session, at Ctrl-D."""
        if self.lineBuffer or not self.pn:
            super().handle_EOF()  # type: ignore[no-untyped-call]
            return
        self.terminal.nextLine()
        self.lineReceived(b"")
        if self.pn:
            self.handle_INT()

    def addOutput(self, data: str, isAsync: bool | None = None) -> None:
        """Show *data*, with surrogates escaped."""
        super().addOutput(data.encode(errors="backslashreplace"), isAsync)  # type: ignore[no-untyped-call]

    def lineReceived(self, line: bytes) -> None:
        """Run *line*."""
        if self._not_utf_8:
            self._not_utf_8 = False
            self.terminal.write(b"Not run: this line is not UTF-8.")
            line = b""
        if line.strip():
            typed = line.decode(errors="replace")[:_LOGGED_LETTERS_MAX]
            log.info("Console session {number}: {line!r}", number=self._number, line=typed)
        more = False
        try:
            more = self.interpreter.push(line)
        except SystemExit:
            self.leave()
        if not self.ended:
            self.pn = int(bool(more))
            if self._needsNewline():  # type: ignore[no-untyped-call]
                self.terminal.nextLine()
            self.terminal.write(self.ps[self.pn])

    def show(self, result: Deferred[object]) -> None:
        """Show *result*, now or when it fires."""
        texts: list[str] = []
        self._pending += 1
        text = result.addCallbacks(repr, lambda why: f"{why.type.__name__}: {why.getErrorMessage()}")
        text.addCallback(lambda text: self._show_result(text, texts))
        if texts:
            self.terminal.write(texts[0].encode())
        else:
            texts.append("")
            self.terminal.write(b"(a moment)")

    def _show_result(self, text: str, texts: list[str]) -> None:
        self._pending -= 1
        if not texts:
            texts.append(text)
        elif not self.ended:
            self._insert(text)
        if self._leaving and not self._pending:
            self.leave()

    def _insert(self, text: str) -> None:
        """Write *text* above the line that is being typed."""
        typed = b"".join(self.lineBuffer)
        letters = len(self.lineBuffer)
        self.terminal.eraseLine()
        self.terminal.cursorBackward(letters + len(self.ps[self.pn]))
        self.terminal.write(text.encode())
        self.terminal.nextLine()
        self.terminal.write(self.ps[self.pn] + typed)
        if letters > self.lineBufferIndex:
            self.terminal.cursorBackward(letters - self.lineBufferIndex)

    def handle_QUIT(self) -> None:
        """End the session when all results are shown, at Ctrl-D."""
        self._leaving = True
        if not self._pending:
            self.leave()

    def _exit(self, status: object = None) -> None:  # noqa: ARG002  (users are used to giving one)
        self.leave()

    def leave(self) -> None:
        """End the session, and leave the screen as it is."""
        if not self.ended:
            self.ended = True
            self.terminal.resetModes({modes.IRM})
            self.terminal.nextLine()
            self.terminal.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Show no further results."""
        self.ended = True
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


class ConsoleTelnet(TelnetBootstrapProtocol):
    """The telnet side of a session, which negotiates options and logs its beginning and end."""

    def __init__(self, factory: "ConsoleFactory") -> None:
        self._factory = factory
        self._number = 0

    def connectionMade(self) -> None:
        """Negotiate that the server edits the line, and start the prompt."""
        transport: Any = self.transport
        self._number = self._factory.diagnostics.consoles.begin()
        # A warning, because the session is a shell with the rights of the server's user.
        warn = self._factory.diagnostics.connections.warn
        warn(
            peer_host(transport),
            "Console session {number} begins: {peer}",
            number=self._number,
            peer=peer_of(transport),
        )
        transport.negotiationMap[NAWS] = self.telnet_NAWS
        for asked in (transport.do(NAWS), transport.do(SGA), transport.will(ECHO), transport.will(SGA)):
            # A peer may refuse; its prompt looks slightly wrong then.
            asked.addErrback(lambda _: None)
        self.protocol = ServerProtocol(Prompt, self._factory.diagnostics, self._number)
        self.protocol.makeConnection(self)

    def telnet_NAWS(self, data: list[bytes]) -> None:
        """Take over the size of the peer's window."""
        content = b"".join(data)
        protocol: Any = self.protocol
        if len(content) == struct.calcsize("!HH") and protocol is not None:
            protocol.terminalProtocol.terminalSize(*struct.unpack("!HH", content))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Log the end of the session."""
        if self._number:
            info = self._factory.diagnostics.connections.info
            info(peer_host(self.transport), "Console session {number} has ended", number=self._number)
            self._factory.diagnostics.consoles.end()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


class Login(StatefulTelnetProtocol):
    """The login, with up to `LOGIN_ATTEMPTS` attempts."""

    state = "User"

    def __init__(self, factory: "ConsoleFactory", password: Callable[[], Password]) -> None:
        self._factory = factory
        self._password = password
        self._user = b""
        self._failed = 0
        self._timeout: Any = None

    def connectionMade(self) -> None:
        """Ask for the user."""
        transport: Any = self.transport
        self._timeout = self._factory.diagnostics.reactor.callLater(LOGIN_SECONDS, transport.loseConnection)
        # Before the login, because `queueber manhole` shows only what the server sends.
        transport.will(ECHO).addErrback(lambda _: None)
        transport.write(b"User: ")

    def dataReceived(self, data: bytes) -> None:
        """Accept input, with the line ends of telnet or of terminals."""
        transport: Any = self.transport
        typed = data.replace(b"\r", b"\n")
        if self.state == "User":
            name, newline, _ = typed.partition(b"\n")
            transport.write(name + newline)
        super().dataReceived(typed)  # type: ignore[no-untyped-call]
        if CTRL_D in typed and self.state != "Done":
            transport.loseConnection()

    def rawDataReceived(self, data: bytes) -> None:
        """Pass on the input after the password."""
        transport: Any = self.transport
        transport.protocol.dataReceived(data)

    def telnet_User(self, line: bytes) -> str:
        """Note the user, and ask for the password."""
        transport: Any = self.transport
        self._user = line
        transport.write(b"Password: ")
        return "Password"

    def telnet_Password(self, line: bytes) -> str:
        """Check the password, and start the session or ask again."""
        transport: Any = self.transport
        transport.write(b"\n")
        if self._matches(line):
            self._timeout.cancel()
            session = ConsoleTelnet(self._factory)
            transport.protocol = session
            session.makeConnection(transport)  # type: ignore[no-untyped-call]
            self.setRawMode()  # type: ignore[no-untyped-call]
            return "Done"
        self._failed += 1
        # Without the user: people type their password there by mistake.
        self._factory.diagnostics.connections.warn(
            peer_host(transport), "Console: a login failed: {peer}", peer=peer_of(transport)
        )
        transport.write(b"Wrong user or password.\n")
        if self._failed == LOGIN_ATTEMPTS:
            transport.loseConnection()
            return "Done"
        transport.write(b"User: ")
        return "User"

    def telnet_Done(self, line: bytes) -> None:
        """Ignore input after the login."""

    def _matches(self, password: bytes) -> bool:
        try:
            return self._password().matches(self._user, password)
        except ValueError as why:
            line = "Console: no login is possible: {why}"
            self._factory.diagnostics.connections.warn(peer_host(self.transport), line, why=str(why))
            return False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop the timeout."""
        if self._timeout.active():
            self._timeout.cancel()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


def peer_of(transport: Any) -> str:  # noqa: ANN401
    """Return the peer: its address, or its process and user."""
    connection = getattr(transport, "transport", None)
    found = getattr(connection, "socket", None)
    if found is not None and found.family == socket.AF_UNIX and hasattr(socket, "SO_PEERCRED"):
        size = struct.calcsize("3i")
        pid, uid, _ = struct.unpack("3i", found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        return f"process {pid} of user {uid}"
    return address_text(transport.getPeer())


def peer_host(transport: Any) -> str | None:  # noqa: ANN401
    """Return the peer's address, by which its log lines are rate-limited; None for a process of this machine."""
    return getattr(transport.getPeer(), "host", None)


class RefusedConnection(Protocol):
    """A connection above the limit.  Twisted's `ThrottlingFactory` cannot handle None in its place."""

    def __init__(self, factory: "ConsoleFactory") -> None:
        self._factory = factory

    def connectionMade(self) -> None:
        """Log the connection, and abort it."""
        transport: Any = self.transport
        line = "Console: a session is refused, because there are {most}: {peer}"
        warn = self._factory.diagnostics.connections.warn
        warn(peer_host(transport), line, most=SESSIONS_MAX, peer=peer_of(transport))
        transport.abortConnection()


@define(eq=False)
class ConsoleFactory(Factory):
    """The factory of sessions."""

    diagnostics: Diagnostics
    access: ConsoleAccess
    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Any:  # noqa: ANN401, ARG002
        """Return the protocol of a session, or of the login before it."""
        if self.diagnostics.consoles.open >= SESSIONS_MAX:
            return RefusedConnection(self)
        path = self.access.password_file
        if path is None:
            return TelnetTransport(ConsoleTelnet, self)
        return TelnetTransport(Login, self, lambda: read_password(path))

"""One session of the console: a telnet connection, a login where one is needed, and a Python prompt."""

import socket
import struct
from codecs import getincrementaldecoder
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.conch.insults.insults import ServerProtocol, modes
from twisted.conch.manhole import CTRL_D, Manhole, ManholeInterpreter
from twisted.conch.telnet import ECHO, NAWS, SGA, StatefulTelnetProtocol, TelnetBootstrapProtocol, TelnetTransport
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from queueber import __version__
from queueber.server.admin.console.access import ConsoleAccess, Password, read_password
from queueber.server.admin.console.commands import Command, Commands
from queueber.server.monitoring.diagnostics import Diagnostics
from queueber.server.net.listeners import address_text

SESSIONS_MAX = 10
ATTEMPTS = 3
LOGIN_SECONDS = 60.0
_LOGGED_LETTERS_MAX = 500

log = Logger()


class Interpreter(ManholeInterpreter):
    """Runs what is typed; what comes later is shown when it comes."""

    handler: "Prompt"

    def displayhook(self, obj: object) -> None:
        """Show *obj*."""
        if isinstance(obj, Deferred):
            self.handler.show(obj)
        else:
            super().displayhook(obj)  # type: ignore[no-untyped-call]


class Prompt(Manhole):
    """The prompt."""

    ps = (b"queueber> ", b"... ")

    def __init__(self, diagnostics: Diagnostics, number: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._diagnostics = diagnostics
        self._number = number
        self.ended = False
        self._decode = getincrementaldecoder("utf-8")().decode
        self._not_utf_8 = False
        """The line has bytes that are no letter's."""

        self._coming = 0
        self._leaving = False

    def connectionMade(self) -> None:
        """Greet."""
        self._questions = Commands(self._diagnostics)
        leave = {
            name: Command(f"{name}()", self._exit, "End the session, as Ctrl-D does.") for name in ("exit", "quit")
        }
        self.namespace = {**self._questions.all(), **leave, "__name__": "__console__"}
        super().connectionMade()  # type: ignore[no-untyped-call]
        self.interpreter = Interpreter(self, self.namespace)  # type: ignore[no-untyped-call]

    def initializeScreen(self) -> None:
        """Say where one is, and what can be asked."""
        self.terminal.setModes({modes.IRM})
        self.setInsertMode()  # type: ignore[no-untyped-call]
        lines = (
            f"Queueber {__version__}: a Python prompt inside the server. What can be asked, and changes nothing:",
            f"  {' '.join(question.sign for question in self._questions.all().values())}",
            "Anything else you type is run by the server itself. Ctrl-D ends the session.",
        )
        for line in lines:
            self.terminal.write(line.encode())
            self.terminal.nextLine()
        self.terminal.write(self.ps[self.pn])

    def terminalSize(self, width: int, height: int) -> None:
        """Remember the size; what is on the screen stays."""
        self.width, self.height = width, height

    def keystrokeReceived(self, keyID: Any, modifier: object) -> None:  # noqa: ANN401
        """Take a key with a name, or a byte: of a letter beyond ASCII the last byte brings it in whole."""
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
            self._take(letter)
        else:
            super().keystrokeReceived(keyID, modifier)  # type: ignore[no-untyped-call]

    def _take(self, letters: bytes) -> None:
        for letter in letters.decode():
            self.characterReceived(letter.encode(), moreCharactersComing=False)  # type: ignore[no-untyped-call]

    def _deliverBuffer(self, buf: bytes) -> None:
        """Take a line again that was typed before."""
        self._take(buf)

    def handle_INT(self) -> None:
        """Ctrl-C: forget what is being typed."""
        self._not_utf_8 = False
        super().handle_INT()  # type: ignore[no-untyped-call]

    def handle_EOF(self) -> None:
        """Ctrl-D: end the block that is being typed, or the session if there is none."""
        if self.lineBuffer or not self.pn:
            super().handle_EOF()  # type: ignore[no-untyped-call]
            return
        self.terminal.nextLine()
        self.lineReceived(b"")
        if self.pn:
            self.handle_INT()

    def addOutput(self, data: str, isAsync: bool | None = None) -> None:
        """Show *data*, of which what is no UTF-8 is escaped."""
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

    def show(self, coming: Deferred[object]) -> None:
        """Show what is *coming*, now or when it is there."""
        texts: list[str] = []
        self._coming += 1
        text = coming.addCallbacks(repr, lambda why: f"{why.type.__name__}: {why.getErrorMessage()}")
        text.addCallback(lambda text: self._came(text, texts))
        if texts:
            self.terminal.write(texts[0].encode())
        else:
            texts.append("")
            self.terminal.write(b"(a moment)")

    def _came(self, text: str, texts: list[str]) -> None:
        self._coming -= 1
        if not texts:
            texts.append(text)
        elif not self.ended:
            self._insert(text)
        if self._leaving and not self._coming:
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
        """Ctrl-D: end the session when all is answered."""
        self._leaving = True
        if not self._coming:
            self.leave()

    def _exit(self, status: object = None) -> None:  # noqa: ARG002  (which people are used to give)
        self.leave()

    def leave(self) -> None:
        """End the session, and leave on the screen what is there."""
        if not self.ended:
            self.ended = True
            self.terminal.resetModes({modes.IRM})
            self.terminal.nextLine()
            self.terminal.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Show nothing more."""
        self.ended = True
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


class Terminal(TelnetBootstrapProtocol):
    """The telnet options of a session, and its beginning and end in the log."""

    def __init__(self, factory: "ConsoleFactory") -> None:
        self._factory = factory
        self._number = 0

    def connectionMade(self) -> None:
        """Ask the peer's terminal to leave editing to us, and begin."""
        transport: Any = self.transport
        self._factory.count += 1
        self._factory.diagnostics.consoles += 1
        self._number = self._factory.count
        # Somebody has a shell as the server's user: whoever reads only what is grave wants to know.
        told = self._factory.diagnostics.connections.warn
        told(
            host_of(transport), "Console session {number} begins: {peer}", number=self._number, peer=peer_of(transport)
        )
        transport.negotiationMap[NAWS] = self.telnet_NAWS
        for asked in (transport.do(NAWS), transport.do(SGA), transport.will(ECHO), transport.will(SGA)):
            # A peer that refuses gets a prompt that looks a little odd.
            asked.addErrback(lambda _: None)
        self.protocol = ServerProtocol(Prompt, self._factory.diagnostics, self._number)
        self.protocol.makeConnection(self)

    def telnet_NAWS(self, data: list[bytes]) -> None:
        """The peer tells its window's size."""
        content = b"".join(data)
        protocol: Any = self.protocol
        if len(content) == struct.calcsize("!HH") and protocol is not None:
            protocol.terminalProtocol.terminalSize(*struct.unpack("!HH", content))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The session has ended."""
        if self._number:
            told = self._factory.diagnostics.connections.info
            told(host_of(self.transport), "Console session {number} has ended", number=self._number)
            self._factory.diagnostics.consoles -= 1
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


class Login(StatefulTelnetProtocol):
    """Asks for a user and a password, a few times."""

    state = "User"

    def __init__(self, factory: "ConsoleFactory", password: Callable[[], Password]) -> None:
        self._factory = factory
        self._password = password
        self._user = b""
        self._failed = 0
        self._timeout: Any = None

    def connectionMade(self) -> None:
        """Ask."""
        transport: Any = self.transport
        self._timeout = self._factory.diagnostics.reactor.callLater(LOGIN_SECONDS, transport.loseConnection)
        # From the beginning, because whoever types at `queueber manhole` sees only what comes from here.
        transport.will(ECHO).addErrback(lambda _: None)
        transport.write(b"User: ")

    def dataReceived(self, data: bytes) -> None:
        """Take what was typed; a line ends as telnet says or as terminals do."""
        transport: Any = self.transport
        typed = data.replace(b"\r", b"\n")
        if self.state == "User":
            name, newline, _ = typed.partition(b"\n")
            transport.write(name + newline)
        super().dataReceived(typed)  # type: ignore[no-untyped-call]
        if CTRL_D in typed and self.state != "Done":
            transport.loseConnection()

    def rawDataReceived(self, data: bytes) -> None:
        """Pass on what came together with the password."""
        transport: Any = self.transport
        transport.protocol.dataReceived(data)

    def telnet_User(self, line: bytes) -> str:
        """The user's name."""
        transport: Any = self.transport
        self._user = line
        transport.write(b"Password: ")
        return "Password"

    def telnet_Password(self, line: bytes) -> str:
        """The password, which decides."""
        transport: Any = self.transport
        transport.write(b"\n")
        if self._fits(line):
            self._timeout.cancel()
            terminal = Terminal(self._factory)
            transport.protocol = terminal
            terminal.makeConnection(transport)  # type: ignore[no-untyped-call]
            self.setRawMode()  # type: ignore[no-untyped-call]
            return "Done"
        self._failed += 1
        # Not as whom: people type their password in its place.
        self._factory.diagnostics.connections.warn(
            host_of(transport), "Console: a login failed: {peer}", peer=peer_of(transport)
        )
        transport.write(b"This is not the password.\n")
        if self._failed == ATTEMPTS:
            transport.loseConnection()
            return "Done"
        transport.write(b"User: ")
        return "User"

    def telnet_Done(self, line: bytes) -> None:
        """Nothing is asked any more."""

    def _fits(self, password: bytes) -> bool:
        try:
            return self._password().fits(self._user, password)
        except ValueError as why:
            line = "Console: nobody can log in: {why}"
            self._factory.diagnostics.connections.warn(host_of(self.transport), line, why=str(why))
            return False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nobody has logged in."""
        if self._timeout.active():
            self._timeout.cancel()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


def peer_of(transport: Any) -> str:  # noqa: ANN401
    """Who is at the other end: an address, or a process of this machine."""
    connection = getattr(transport, "transport", None)
    found = getattr(connection, "socket", None)
    if found is not None and found.family == socket.AF_UNIX and hasattr(socket, "SO_PEERCRED"):
        size = struct.calcsize("3i")
        pid, uid, _ = struct.unpack("3i", found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        return f"process {pid} of user {uid}"
    return address_text(transport.getPeer())


def host_of(transport: Any) -> str | None:  # noqa: ANN401
    """The peer's address, by which lines about it are bounded; None for a process of this machine."""
    return getattr(transport.getPeer(), "host", None)


class TurnedAway(Protocol):
    """A connection beyond those that may be.  Not None in its place: Twisted's `ThrottlingFactory` would wrap that."""

    def __init__(self, factory: "ConsoleFactory") -> None:
        self._factory = factory

    def connectionMade(self) -> None:
        """End it."""
        transport: Any = self.transport
        line = "Console: one more session is turned away, there are {most}: {peer}"
        told = self._factory.diagnostics.connections.warn
        told(host_of(transport), line, most=SESSIONS_MAX, peer=peer_of(transport))
        transport.abortConnection()


@define(eq=False)
class ConsoleFactory(Factory):
    """Makes sessions."""

    diagnostics: Diagnostics
    access: ConsoleAccess
    count: int = field(default=0, init=False)
    """Sessions so far."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Any:  # noqa: ANN401, ARG002
        """A session, or a login before it."""
        if self.diagnostics.consoles >= SESSIONS_MAX:
            return TurnedAway(self)
        path = self.access.password_file
        if path is None:
            return TelnetTransport(Terminal, self)
        return TelnetTransport(Login, self, lambda: read_password(path))

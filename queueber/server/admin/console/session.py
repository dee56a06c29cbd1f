"""A session of the console: a telnet connection, a login if a password is required, and then the prompt."""

import socket
import struct
from collections.abc import Callable
from typing import Any

from attrs import define
from twisted.conch.insults.insults import ServerProtocol
from twisted.conch.manhole import CTRL_D
from twisted.conch.telnet import ECHO, NAWS, SGA, StatefulTelnetProtocol, TelnetBootstrapProtocol, TelnetTransport
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from queueber.server.admin.console.access import ConsoleAccess, Password
from queueber.server.admin.console.prompt import Prompt
from queueber.server.monitoring.diagnostics import Diagnostics
from queueber.server.net.listeners import address_text

SESSIONS_MAX = 10
LOGIN_ATTEMPTS = 3
LOGIN_SECONDS = 60.0


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
        line = "Console session {number} begins: {peer}"
        warn = self._factory.diagnostics.connections.warn
        warn(peer_host(transport), line, number=self._number, peer=peer_of(transport))
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
        file = self.access.password_file
        if file is None:
            return TelnetTransport(ConsoleTelnet, self)
        return TelnetTransport(Login, self, file.read)

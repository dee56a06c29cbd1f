"""
Socket activation: listen on sockets that systemd created.

systemd keeps the sockets open.  While no server runs, connections wait, and the next
server gets them.  Twisted treats a Unix socket among them as its own: it makes it
accessible to all users, shortens its backlog, and at the end shuts it down and
removes its path.
"""

import errno
import os
import socket
from typing import Any

from attrs import define
from twisted.internet import tcp, unix
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.python.failure import Failure

SYSTEMD = "systemd"
"""The type of their endpoint strings."""


class AdoptedUnixPort(unix.Port):
    """A Unix socket of another process.  Its owner, mode and path are not changed."""

    _shouldShutdown = False
    """Closing the port closes only the descriptor of this process."""

    _preexistingSocket: Any

    def startListening(self) -> None:
        """Accept connections, without access to the socket file, whose directory may be read-only."""
        tcp._reservedFD.reserve()  # noqa: SLF001  (as each of Twisted's ports does)
        factory: Any = self.factory
        factory.doStart()
        self.socket, self._preexistingSocket = self._preexistingSocket, None
        self.socket.listen(self.backlog)
        self.fileno = self.socket.fileno  # type: ignore[method-assign]  # as each of Twisted's ports does
        self.connected = True
        self.numberAccepts = 100
        self.startReading()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:
        """Close the descriptor of this process."""
        tcp.Port.connectionLost(self, reason)


@define(eq=False)
class _Adopting:
    """A proxy of a reactor that adopts Unix sockets as an `AdoptedUnixPort`."""

    _reactor: Any
    _backlog: int

    def adoptStreamPort(self, descriptor: int, family: int, factory: IProtocolFactory) -> IListeningPort:
        """Listen on *descriptor*; raise `OSError` if it is not of *family*, which decides who can reach it."""
        with socket.socket(fileno=os.dup(descriptor)) as passed:
            if passed.family != family:
                raise OSError(errno.EINVAL, f"systemd has passed a socket of {passed.family.name}")
        if family != socket.AF_UNIX:
            made: IListeningPort = self._reactor.adoptStreamPort(descriptor, family, factory)
            return made
        port = AdoptedUnixPort._fromListeningDescriptor(self._reactor, descriptor, factory)  # type: ignore[no-untyped-call] # noqa: SLF001
        port.backlog = self._backlog
        port.startListening()
        adopted: IListeningPort = port
        return adopted

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._reactor, name)


def make_endpoint(reactor: Any, text: str, backlog: int) -> IStreamServerEndpoint:  # noqa: ANN401
    """
    Return the endpoint for the endpoint string *text*.

    Raises:
        LookupError: it is a systemd socket that was not passed to this process.
        ValueError: it is not an endpoint string.  Twisted raises other errors for some.
    """
    adopting: Any = _Adopting(reactor, backlog)
    endpoint: IStreamServerEndpoint = serverFromString(adopting if SYSTEMD in text else reactor, text)
    return endpoint


def is_passed(text: str) -> bool:
    """Return False if *text* is a systemd socket that was not passed to this process."""
    try:
        # An endpoint that never listens does not need a reactor.
        serverFromString(None, text)
    except LookupError:
        return False
    return True

"""
Sockets that systemd made and passes to the process that serves them.

They stay systemd's: another process has them open, keeps whoever comes while
no server runs, and passes them to the next one.  Twisted treats a Unix socket
among them as one of its own: it opens it to everybody, waits behind a short
line, and at the end shuts it down and removes its path.
"""

import errno
import os
import socket
from typing import Any

from attrs import define
from twisted.internet import tcp, unix
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.testing import MemoryReactor
from twisted.python.failure import Failure

SYSTEMD = "systemd"
"""The kind of their endpoint strings."""


class AdoptedUnixPort(unix.Port):
    """A Unix socket that somebody else has made and keeps: whose it is, and where, is left alone."""

    _shouldShutdown = False
    """Closing it here closes this process's descriptor and nothing more."""

    _preexistingSocket: Any

    def startListening(self) -> None:
        """Take connections; the socket file is not looked at, which may lie where nothing can be written."""
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
        """Close this process's end."""
        tcp.Port.connectionLost(self, reason)


@define(eq=False)
class _Adopting:
    """A reactor that adopts Unix sockets in our way, and is the one it stands for in all else."""

    _reactor: Any
    _backlog: int

    def adoptStreamPort(self, descriptor: int, family: int, factory: IProtocolFactory) -> IListeningPort:
        """Listen on *descriptor*; an `OSError` if it is not of *family*, by which it was decided who may reach it."""
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


def endpoint_of(reactor: Any, text: str, backlog: int) -> IStreamServerEndpoint:  # noqa: ANN401
    """
    The endpoint that *text* describes, on *reactor*.

    Raises:
        LookupError: it is a socket of systemd's, which has passed none such to this process.
        ValueError: it does not describe any; other kinds of errors say the same.
    """
    adopting: Any = _Adopting(reactor, backlog)
    endpoint: IStreamServerEndpoint = serverFromString(adopting if SYSTEMD in text else reactor, text)
    return endpoint


def is_passed(text: str) -> bool:
    """Whether the socket that *text* describes is there, if it is one of systemd's."""
    try:
        serverFromString(MemoryReactor(), text)
    except LookupError:
        return False
    return True

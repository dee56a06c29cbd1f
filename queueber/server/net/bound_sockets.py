"""
TCP sockets that are bound before the data directory is opened, and listen afterwards.

So an address in use is found before anything on the disk changes, and ports
below 1024 are bound before twistd drops root's privileges.  Until the server
listens, connections are refused as if it did not run.
"""

import itertools
import socket
from collections.abc import Iterable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from queueber.server.net.listeners import Listen, ListenFailed, start_listening
from queueber.server.net.proxy_protocol import PREFIX

_KINDS = ("tcp:", "tcp4:", "tcp6:")


@implementer(IStreamServerEndpoint)
@define(eq=False)
class BoundEndpoint:
    """An endpoint with a bound socket, which can listen once."""

    _reactor: Any
    _socket: socket.socket
    _backlog: int

    @property
    def address(self) -> tuple[Any, ...]:
        """The address that the socket is bound to."""
        return tuple(self._socket.getsockname())

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def reserve(self) -> None:
        """
        Queue connections, so that no other process that has bound the address can listen on it.

        Raises:
            ListenFailed: another process listens already.
        """
        try:
            self._socket.listen(self._backlog)
        except OSError as why:
            host, port = self._socket.getsockname()[:2]
            raise ListenFailed(str(CannotListenError(host, port, why))) from why

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Accept connections.  Fail with `CannotListenError` if another process listens already."""
        with self._socket:
            try:
                self._socket.listen(self._backlog)
                made: Any = self._reactor.adoptStreamPort(self._socket.fileno(), self._socket.family, protocolFactory)
            except OSError as why:
                host, port = self._socket.getsockname()[:2]
                return fail(Failure(CannotListenError(host, port, why)))
        return succeed(made)


@define(eq=False)
class BoundPorts:
    """The bound sockets, by their endpoint strings."""

    _reactor: Any
    _sockets: dict[str, list[BoundEndpoint]] = field(factory=dict, init=False)
    _refused: ListenFailed | None = field(default=None, init=False)
    _done: bool = field(default=False, init=False)

    def bind(self, places: Iterable[tuple[str, Listen]]) -> None:
        """
        Bind every TCP address of *places*, pairs of an option and an address.  A second call does nothing.

        An error is kept for `check`, because under twistd no caller could handle it.
        """
        if self._done:
            return
        self._done = True
        for option, listen in places:
            text = _plain(listen.endpoint)
            if text.startswith(_KINDS):
                try:
                    self._sockets.setdefault(text, []).append(self._bound(text))
                except CannotListenError as why:
                    self._refused = ListenFailed(f"--{option} {listen.text}: {why}")
                    return

    def check(self) -> None:
        """
        Check that every address was bound.

        Raises:
            ListenFailed: one is in use, is not this machine's, or is not permitted.
        """
        if self._refused is not None:
            self.close()
            raise self._refused

    async def reserve(self, places: Iterable[tuple[str, Listen]]) -> None:
        """
        Make sure, as far as possible, that the server can listen on each of *places*.

        From now on connections to TCP addresses wait.  Unix sockets are opened and closed again.

        Raises:
            ListenFailed: one is in use or not permitted.
        """
        for endpoint in itertools.chain.from_iterable(self._sockets.values()):
            endpoint.reserve()
        for option, listen in places:
            if _plain(listen.endpoint).startswith("unix:"):
                port = await start_listening(self._reactor, listen, Factory(), option)
                await maybeDeferred(port.stopListening)

    def pop_endpoint(self, text: str) -> BoundEndpoint | None:
        """Return the endpoint that *text* describes, if its socket was bound and is unused."""
        left = self._sockets.get(text)
        return left.pop() if left else None

    def close(self) -> None:
        """Close the unused sockets."""
        for endpoints in self._sockets.values():
            for each in endpoints:
                each.close()
        self._sockets.clear()

    def _bound(self, text: str) -> BoundEndpoint:
        port, _, backlog, interface = _tcp_of(text)
        family = socket.AF_INET6 if ":" in interface else socket.AF_INET
        made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setblocking(False)
            found = socket.getaddrinfo(interface or None, port, family, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)
            made.bind(found[0][4])
        except OSError as why:
            made.close()
            raise CannotListenError(interface, port, why) from None
        return BoundEndpoint(self._reactor, made, backlog)


def _plain(endpoint: str) -> str:
    """Return *endpoint* without the prefixes of the PROXY protocol."""
    while endpoint.startswith(PREFIX):
        endpoint = endpoint.removeprefix(PREFIX)
    return endpoint


def _tcp_of(text: str) -> tuple[int, Any, int, str]:
    """Return the port, factory, backlog and interface that Twisted would use for the endpoint *text*."""
    asked: list[tuple[int, Any, int, str]] = []

    class Recorder:
        def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> None:  # noqa: ANN401
            asked.append((port, factory, backlog, interface))

    serverFromString(Recorder(), text).listen(Factory())
    return asked[-1]

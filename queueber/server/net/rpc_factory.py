"""The factories that make a protocol for each connection."""

from collections.abc import Callable

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from queueber.server.net.context import ServerContext
from queueber.server.net.protocol import RpcProtocol


class RpcFactory(Factory):
    """Makes the protocols of the public ports, and refuses connections beyond the limits."""

    noisy = False

    def __init__(self, server: ServerContext) -> None:
        """Make connections that use the parts of *server*."""
        self.server = server
        self.connections = server.connections

    def buildProtocol(self, addr: IAddress | None) -> RpcProtocol | None:
        """Return a protocol for a new connection; None, which closes the connection, if there are too many."""
        return self.build(addr)

    def build(self, addr: IAddress | None, on_handshake: Callable[[], None] = lambda: None) -> RpcProtocol | None:
        """Build the protocol of a connection with TLS; *on_handshake* is called when its handshake is finished."""
        host = getattr(addr, "host", None)
        return RpcProtocol(self.server, host, on_handshake) if self.connections.admit(host) else None


class ControlFactory(Factory):
    """Makes the protocols of the control socket, which do not count against the limit of connections."""

    noisy = False

    def __init__(self, server: ServerContext) -> None:
        """Make connections that use the parts of *server*."""
        self.server = server

    def buildProtocol(self, addr: IAddress | None) -> RpcProtocol:  # noqa: ARG002  (as Twisted calls it)
        """Return the protocol of a new connection."""
        return RpcProtocol(self.server, None)

"""Listen for the metrics, the health pages and the console of a server."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.logger import Logger
from twisted.protocols.policies import ThrottlingFactory

from queueber.server.admin.console.access import ConsoleAccess
from queueber.server.monitoring.diagnostics import Diagnostics
from queueber.server.net.bound_sockets import BoundPorts
from queueber.server.net.listeners import Listen, address_of, start_listening

PAGE_CONNECTIONS_MAX = 100
CONSOLE_CONNECTIONS_MAX = 20
"""The number of console connections, including those before a login."""


class MonitoringEndpoints:
    """The listeners that are configured.  The modules of others are not imported."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401
        http: Listen | None,
        console: ConsoleAccess | None,
        durability: str,
        stage: Callable[[], str],
        bound: BoundPorts,
    ) -> None:
        """Create the listeners; *stage* returns the stage of a start or stop, and *bound* has the ports."""
        self._bound = bound
        self._reactor = reactor
        self._http = http
        self._console = console
        self._durability = durability
        self._stage = stage
        self._diagnostics: Diagnostics | None = None
        """The diagnostics, while the server serves."""

        self._ports: list[IListeningPort] = []

    def preload(self) -> None:
        """Import the modules of the configured listeners, before --chroot hides them."""
        if self._http is not None:
            import queueber.server.monitoring.web  # noqa: PLC0415  (an extra)
        if self._console is not None:
            import queueber.server.admin.console.session  # noqa: F401, PLC0415  (it imports the reactor)

    async def open_pages(self, connections: int) -> None:
        """
        Serve the pages, which report that the server is not ready yet, on up to *connections* connections.

        Raises:
            ListenFailed: the address is in use, or not of this machine.
        """
        if self._http is not None:
            from queueber.server.monitoring.web import Pages, site  # noqa: PLC0415  (an extra)

            pages = Pages(self._durability, self._stage, lambda: self._diagnostics)
            await self._open(self._http, site(pages, connections), "http")

    async def open(self, diagnostics: Diagnostics) -> None:
        """
        Show *diagnostics* on the pages, and open the console.

        Raises:
            ListenFailed: the console's address is in use, or not of this machine.
        """
        self._diagnostics = diagnostics
        if self._console is not None:
            # Imports the reactor, which must be installed by then.
            from queueber.server.admin.console.session import ConsoleFactory  # noqa: PLC0415

            limited = ThrottlingFactory(
                ConsoleFactory(diagnostics, self._console), maxConnectionCount=CONSOLE_CONNECTIONS_MAX
            )
            limited.noisy = False
            await self._open(self._console.listen, limited, "manhole")

    async def _open(self, listen: Listen, factory: IProtocolFactory, option: str) -> None:
        port = await start_listening(self._reactor, listen, factory, option, self._bound.pop_endpoint)
        self._ports.append(port)
        what = "Debugging console" if option == "manhole" else "Pages"
        self.log.info("{what} on {address}", what=what, address=address_of(port))

    async def close(self) -> None:
        """Stop listening, and show no diagnostics any more."""
        self._diagnostics = None
        await DeferredList([maybeDeferred(port.stopListening) for port in self._ports])
        self._ports.clear()

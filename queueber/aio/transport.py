"""The transport of one connection, as asyncio calls it."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, cast

from queueber.client_core.connection import ClientConnection
from queueber.client_core.endpoint import Endpoint, loss_problem, refusal_of
from queueber.client_core.errors import NotConnected
from queueber.transport.keepalive import keep_socket_alive

if TYPE_CHECKING:
    from queueber.aio.connector import Connector

CLOSE_SECONDS = 5.0
"""Time limit for sending the last messages of a connection."""

_log = logging.getLogger("queueber.aio")


class Transport(asyncio.Protocol):
    """The transport of one connection."""

    def __init__(self, connector: Connector, endpoint: Endpoint) -> None:
        """Carry the calls of *connector* to *endpoint*."""
        self._connector = connector
        self._endpoint = endpoint
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._connection: ClientConnection | None = None
        self._closing: asyncio.TimerHandle | None = None
        self.lost: asyncio.Future[None] = self._loop.create_future()
        """Done once the transport is lost."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to use the transport, after its TLS handshake."""
        self._transport = cast("asyncio.Transport", transport)
        made = transport.get_extra_info("socket")
        if made is not None and made.family in (socket.AF_INET, socket.AF_INET6):
            keep_socket_alive(made)
        self._connection = self._connector.connected(self)
        if self._connection is None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Process answers."""
        if self._connection is not None:
            self._connection.receive_data(data)
            self._connector.received()

    def flush(self) -> None:
        """Send the pending messages, and close the transport of a connection that has ended."""
        if self._transport is not None and self._connection is not None:
            if data := self._connection.data_to_send():
                self._transport.write(data)
            if self._connection.ended is not None and self._closing is None:
                _log.warning("closing the connection to %s: %s", self._endpoint.name, self._connection.ended.why)
                self.close()

    def close(self) -> None:
        """Close the transport once all bytes are sent; abort it if that takes longer than `CLOSE_SECONDS`."""
        if self._transport is not None and self._closing is None:
            self._closing = self._loop.call_later(CLOSE_SECONDS, self._transport.abort)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the calls in flight: with `OutcomeUnknown`, unless no server has read them."""
        if self._closing is not None:
            self._closing.cancel()
        if (connection := self._connection) is not None:
            refusal = None if connection.received else refusal_of(exc, self._endpoint, secured=True)
            if refusal is None:
                connection.end(loss_problem(exc, closing=self._connector.link.closed))
            else:
                connection.end(refusal[0], NotConnected, refused=refusal[1])
        self._connector.lost(self)
        self.lost.set_result(None)

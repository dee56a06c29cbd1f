"""The page with a worker's health, for probes that speak HTTP.  Imported only by workers that have one."""

import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from weakref import WeakSet

from attrs import asdict

from queueber.errors import InvalidRequest, reason
from queueber.worker.handling import LOG
from queueber.worker.liveness import Health

_REQUEST_SECONDS = 5.0
"""The time that a peer has to send its request."""

_CLOSE_SECONDS = 0.2
"""The time within which the thread notices that it shall end."""


class HealthPage:
    """`GET /` on a port answers with the health as JSON, status 200 if the worker makes progress and 503 if not."""

    def __init__(self, health: Callable[[], Health], port: int, host: str) -> None:
        """
        Listen on *port*, 0 for any free one, of *host*, empty for all addresses.

        Raises:
            InvalidRequest: the port cannot be opened.
        """
        page = type("_Page", (_Page,), {"health": staticmethod(health)})
        try:
            self._server = _Server(port, host, page)
        except (OSError, UnicodeError) as why:
            raise InvalidRequest(f"http_port {port} of {host} cannot be opened: {reason(why)}") from None
        try:
            threading.Thread(
                target=self._server.serve_forever, args=(_CLOSE_SECONDS,), name="queueber health", daemon=True
            ).start()
        except RuntimeError as why:
            self._server.server_close()
            raise InvalidRequest(f"http_port {port} of {host} cannot be opened: {why}") from None
        _pages.add(self)

    @property
    def address(self) -> tuple[str, int]:
        """The host and port."""
        host, port = self._server.server_address[:2]
        return str(host), port

    def close(self) -> None:
        """Stop listening: the port is free when this returns.  Not in a forked process, which has no thread."""
        self._server.shutdown()
        self._server.server_close()

    def leave_to_parent(self) -> None:
        """Close the socket that a fork has copied, in the child, which would keep the port taken."""
        self._server.socket.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, host: str, page: type[BaseHTTPRequestHandler]) -> None:
        """
        Listen on *port* of *host*, a name or an address of either version.

        Raises:
            OSError: that cannot be done.
        """
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, _, _, _, address = found[0]
        super().__init__((str(address[0]), port), page)

    def server_bind(self) -> None:
        """Bind, without asking a name server for the host's full name, as `HTTPServer` does."""
        TCPServer.server_bind(self)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002  (socketserver's signature)
        """Log the error of a request.  A probe may open a connection, and reset it, to see that the port is there."""
        if isinstance(sys.exc_info()[1], OSError):
            LOG.debug("the peer %s of the health page is gone", client_address, exc_info=True)
        else:
            LOG.exception("the health page cannot answer %s", client_address)


class _Page(BaseHTTPRequestHandler):
    health: Callable[[], Health]
    timeout = _REQUEST_SECONDS
    server_version = "queueber"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        if self.path.partition("?")[0] not in ("/", "/health", "/healthz", "/livez"):
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        health = type(self).health()
        body = json.dumps(asdict(health), indent=1).encode() + b"\n"
        self.send_response(HTTPStatus.OK if health.alive else HTTPStatus.SERVICE_UNAVAILABLE)
        self.send_header("Content-Type", "application/json")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        LOG.debug(format, *args)


_pages: WeakSet[HealthPage] = WeakSet()
"""The pages of this process."""


def _leave_to_parent() -> None:
    for each in list(_pages):
        each.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)

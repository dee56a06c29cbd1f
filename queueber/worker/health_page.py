"""The page with a worker's health, for probes that speak HTTP.  Imported only by workers that have one."""

import json
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from attrs import asdict

from queueber.errors import InvalidRequest
from queueber.worker.handling import LOG
from queueber.worker.liveness import Health

_REQUEST_SECONDS = 5.0
"""The time that a peer has to send its request."""


class HealthPage:
    """`GET /` on a port answers with the health as JSON, status 200 if the worker gets on and 503 if not."""

    def __init__(self, health: Callable[[], Health], port: int, host: str) -> None:
        """
        Listen on *host* and *port*; 0 for any free one.

        Raises:
            InvalidRequest: the port cannot be listened on.
        """
        page = type("_Page", (_Page,), {"health": staticmethod(health)})
        try:
            self._server = ThreadingHTTPServer((host, port), page)
        except (OSError, OverflowError) as why:
            raise InvalidRequest(f"http_port {port} of {host} cannot be listened on: {why}") from None
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="queueber health", daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        """The host and port."""
        host, port = self._server.server_address[:2]
        return str(host), port

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


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

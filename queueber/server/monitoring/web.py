"""
The pages ``/metrics``, ``/livez`` and ``/readyz`` over HTTP.

They change nothing and do not show the contents of items.  Requests have no body,
and an idle connection is closed after ten seconds.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger
from twisted.protocols.policies import ThrottlingFactory
from twisted.python.failure import Failure
from twisted.web.http import (
    INTERNAL_SERVER_ERROR,
    NOT_ALLOWED,
    NOT_FOUND,
    REQUEST_ENTITY_TOO_LARGE,
    SERVICE_UNAVAILABLE,
)
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from queueber.server.monitoring.diagnostics import Check, Diagnostics, not_serving, readiness
from queueber.server.monitoring.metrics import ScrapeData, exposition, not_serving_exposition

SILENCE_SECONDS = 10
"""The idle timeout of a connection, also between two requests."""

_TEXT = b"text/plain; charset=utf-8"


class Pages(Resource):
    """The resource with all pages."""

    isLeaf = True
    log = Logger()

    def __init__(
        self, durability: str, stage: Callable[[], str], diagnostics: Callable[[], Diagnostics | None]
    ) -> None:
        """
        Create the pages of a server with *durability*.

        *diagnostics* returns None while the server does not serve, and *stage* the stage of its start or stop then.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._diagnostics = diagnostics
        self._durability = durability
        self._stage = stage
        self._pages: dict[bytes, Callable[[Request], bytes | int]] = {
            b"/livez": self._livez,
            b"/readyz": self._readyz,
            b"/metrics": self._metrics,
        }

    def render(self, request: Request) -> bytes | int:
        """Return the requested page."""
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader(b"Allow", b"GET, HEAD")
            return _text(request, NOT_ALLOWED, "There is nothing to be changed here.")
        request.setHeader(b"Cache-Control", b"no-store")
        page = self._pages.get(request.path)
        if page is None:
            return _text(request, NOT_FOUND, "There are /metrics, /livez and /readyz.")
        return page(request)

    def _livez(self, request: Request) -> bytes:
        """Return ok: a server whose reactor answers is alive."""
        return _text(request, None, "ok")

    def _readyz(self, request: Request) -> bytes:
        checks = self._checks()
        ready = all(check.passed for check in checks)
        status = None if ready else SERVICE_UNAVAILABLE
        if b"application/json" in (request.getHeader(b"accept") or b""):
            return _json(request, status, checks, ready=ready)
        lines = [f"{'ok' if check.passed else 'NOT OK'}  {check.name}: {check.says}" for check in checks]
        return _text(request, status, "\n".join(["ready" if ready else "not ready", *lines]))

    def _checks(self) -> list[Check]:
        diagnostics = self._diagnostics()
        return not_serving(self._stage()) if diagnostics is None else readiness(diagnostics)

    def _metrics(self, request: Request) -> bytes | int:
        accept = (request.getHeader(b"accept") or b"").decode("latin-1")
        diagnostics = self._diagnostics()
        if diagnostics is None:
            # A long start must not raise the alert for a server that is down.
            content, content_type = not_serving_exposition(self._durability, self._checks(), accept)
            request.setHeader(b"Content-Type", content_type.encode())
            return content
        disconnected: list[Failure] = []
        request.notifyFinish().addErrback(disconnected.append)
        made = ensureDeferred(_scrape(diagnostics, accept))
        made.addCallbacks(_show, self._fail, callbackArgs=(request, disconnected), errbackArgs=(request, disconnected))
        return int(NOT_DONE_YET)

    def _fail(self, failure: Failure, request: Request, disconnected: Sequence[Failure]) -> None:
        self.log.failure("Making the metrics failed", failure)
        if not disconnected:
            request.write(_text(request, INTERNAL_SERVER_ERROR, "The reason is in the server's log."))
            request.finish()


async def _scrape(diagnostics: Diagnostics, accept: str) -> tuple[bytes, str]:
    busy, waiting = diagnostics.pool.busy, diagnostics.pool.waiting
    disk: Deferred[Any] = diagnostics.disk()
    stats = await diagnostics.queue_stats()
    return exposition(diagnostics, ScrapeData(stats, await disk, busy, waiting), accept)


def _show(made: tuple[bytes, str], request: Request, disconnected: Sequence[Failure]) -> None:
    if not disconnected:
        content, content_type = made
        request.setHeader(b"Content-Type", content_type.encode())
        request.setHeader(b"Content-Length", b"%d" % len(content))
        if request.method != b"HEAD":
            request.write(content)
        request.finish()


def _text(request: Request, status: int | None, text: str) -> bytes:
    if status is not None:
        request.setResponseCode(status)
    request.setHeader(b"Content-Type", _TEXT)
    return f"{text}\n".encode()


def _json(request: Request, status: int | None, checks: Sequence[Check], *, ready: bool) -> bytes:
    if status is not None:
        request.setResponseCode(status)
    request.setHeader(b"Content-Type", b"application/json")
    found = {check.name: {"passed": check.passed, "says": check.says} for check in checks}
    return f"{json.dumps({'ready': ready, 'checks': found})}\n".encode()


class BodilessRequest(Request):
    """A request without a body."""

    def gotLength(self, length: int | None) -> None:
        """Refuse a body before any of it is buffered."""
        if length != 0:
            channel: Any = self.channel
            channel.transport.write(b"HTTP/1.1 %d No body is wanted\r\n\r\n" % REQUEST_ENTITY_TOO_LARGE)
            channel.loseConnection()
        super().gotLength(0)  # type: ignore[no-untyped-call]


class QuietSite(Site):
    """A site that logs no requests, because scrapes are frequent."""

    noisy = False
    displayTracebacks = False

    def log(self, request: object) -> None:
        """Do nothing."""


def site(pages: Pages, connections: int) -> IProtocolFactory:
    """Return the factory that serves *pages* on up to *connections* connections."""
    served: Any = QuietSite(pages, requestFactory=BodilessRequest, timeout=SILENCE_SECONDS)  # type: ignore[no-untyped-call]
    limited = ThrottlingFactory(served, maxConnectionCount=connections)
    limited.noisy = False
    return limited

"""
The pages for those who watch: ``/metrics``, ``/livez`` and ``/readyz``, over HTTP.

They change nothing and tell nothing of what is in an item.  A page is small
and so is a request; whoever keeps us waiting is let go after ten seconds.
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
from queueber.server.monitoring.metrics import ScrapeData, absent_exposition, exposition

SILENCE_SECONDS = 10
"""How long a connection may keep us waiting, between two requests too."""

_TEXT = b"text/plain; charset=utf-8"


class Pages(Resource):
    """All pages."""

    isLeaf = True
    log = Logger()

    def __init__(self, durability: str, stage: Callable[[], str]) -> None:
        """Of a server with that *durability*; *stage* says what it is at while it does not serve."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.diagnostics: Diagnostics | None = None
        """The server, while it serves."""

        self._durability = durability
        self._stage = stage
        self._pages: dict[bytes, Callable[[Request], bytes | int]] = {
            b"/livez": self._livez,
            b"/readyz": self._readyz,
            b"/metrics": self._metrics,
        }

    def render(self, request: Request) -> bytes | int:
        """The page that was asked for."""
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader(b"Allow", b"GET, HEAD")
            return _text(request, NOT_ALLOWED, "There is nothing to be changed here.")
        request.setHeader(b"Cache-Control", b"no-store")
        page = self._pages.get(request.path)
        if page is None:
            return _text(request, NOT_FOUND, "There are /metrics, /livez and /readyz.")
        return page(request)

    def _livez(self, request: Request) -> bytes:
        """A reactor that stands still would not answer, and one that answers is alive."""
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
        return not_serving(self._stage()) if self.diagnostics is None else readiness(self.diagnostics)

    def _metrics(self, request: Request) -> bytes | int:
        accept = (request.getHeader(b"accept") or b"").decode("latin-1")
        if self.diagnostics is None:
            # Whoever starts for long is not down, and an alert must not say so.
            content, content_type = absent_exposition(self._durability, self._checks(), accept)
            request.setHeader(b"Content-Type", content_type.encode())
            return content
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)
        made = ensureDeferred(_scraped(self.diagnostics, accept))
        made.addCallbacks(_show, self._cannot, callbackArgs=(request, gone), errbackArgs=(request, gone))
        return int(NOT_DONE_YET)

    def _cannot(self, failure: Failure, request: Request, gone: Sequence[Failure]) -> None:
        self.log.failure("Making the metrics failed", failure)
        if not gone:
            request.write(_text(request, INTERNAL_SERVER_ERROR, "the server's log says why"))
            request.finish()


async def _scraped(diagnostics: Diagnostics, accept: str) -> tuple[bytes, str]:
    busy, waiting = diagnostics.pool.busy, diagnostics.pool.waiting
    asked: Deferred[Any] = diagnostics.disk()
    survey = await diagnostics.queue_stats()
    return exposition(diagnostics, ScrapeData(survey, await asked, busy, waiting), accept)


def _show(made: tuple[bytes, str], request: Request, gone: Sequence[Failure]) -> None:
    if not gone:
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
    """A request that may not bring anything along."""

    def gotLength(self, length: int | None) -> None:
        """Refuse a body before any of it is kept."""
        if length != 0:
            channel: Any = self.channel
            channel.transport.write(b"HTTP/1.1 %d No body is wanted\r\n\r\n" % REQUEST_ENTITY_TOO_LARGE)
            channel.loseConnection()
        super().gotLength(0)  # type: ignore[no-untyped-call]


class QuietSite(Site):
    """A site that writes nothing to the log: a scrape is no news."""

    noisy = False
    displayTracebacks = False

    def log(self, request: object) -> None:
        """Leave it."""


def site(pages: Pages, connections: int) -> IProtocolFactory:
    """What serves *pages* to at most so many *connections* at a time."""
    served: Any = QuietSite(pages, requestFactory=BodilessRequest, timeout=SILENCE_SECONDS)  # type: ignore[no-untyped-call]
    few = ThrottlingFactory(served, maxConnectionCount=connections)
    few.noisy = False
    return few

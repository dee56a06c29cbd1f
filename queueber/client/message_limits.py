"""The length limits of a connection's calls, and the calls that wait until the server's limit is known."""

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from queueber import api
from queueber.client.arguments import (
    CALL_OVERHEAD_BYTES,
    FRAME_BYTES_LOWEST,
    FROM_ARGUMENT,
    FROM_DEFAULT,
    FROM_SERVER,
    call_too_long,
)
from queueber.errors import Unimplemented
from queueber.limits import FRAME_BYTES_MAX


class NotSent(CancelledError):
    """A call was cancelled before it was sent.  The text, if any, names what it waited for."""


class MessageLimits:
    """
    The longest messages that the client and its server accept.

    Every server accepts `FRAME_BYTES_LOWEST`.  The first longer call requests the server's limit, and waits for it
    with all later calls, so that their order stays.
    """

    def __init__(self, own: int | None, request: Callable[[], Deferred[api.ServerLimits]]) -> None:
        """*own* is the client's limit in bytes, or None for the server's.  *request* asks the server for its limits."""
        self.own = own
        self._request = request
        self._server: int | None = None
        self._server_source = FROM_SERVER
        self._waiting: dict[Deferred[None], None] = {}

    def when_sendable(self, length: int) -> Deferred[None] | None:
        """
        Return a Deferred that fires once a call with *length* bytes of content may be sent; None if it may be now.

        Raises:
            InvalidRequest: the call exceeds the client's own limit.
        """
        message = length + CALL_OVERHEAD_BYTES
        if self.own is not None and message > self.own:
            raise call_too_long(length, self.own, FROM_ARGUMENT)
        if not self._waiting and (message <= FRAME_BYTES_LOWEST or self._server is not None):
            return None
        waiting: Deferred[None] = Deferred(self._cancel)
        self._waiting[waiting] = None
        if len(self._waiting) == 1:
            self._request().addCallbacks(self._received, self._refused)
        return waiting

    def check(self, length: int) -> None:
        """
        Check a call with *length* bytes of content against the server's limit, as far as that is known.

        Raises:
            InvalidRequest: the call exceeds the limit.
        """
        if self._server is not None and length + CALL_OVERHEAD_BYTES > self._server:
            raise call_too_long(length, self._server, self._server_source)

    def take_waiting(self) -> list[Deferred[None]]:
        """Remove the Deferreds of the waiting calls and return them: the connection ends."""
        waiting, self._waiting = self._waiting, {}
        return list(waiting)

    def _cancel(self, waiting: Deferred[None]) -> None:
        """Fail a call that was cancelled while it waited."""
        self._waiting.pop(waiting, None)
        waiting.errback(NotSent("the server has not returned its limits"))

    def _received(self, limits: api.ServerLimits) -> None:
        self._server = limits.frame_bytes
        self._release()

    def _refused(self, failure: Failure) -> None:
        """Continue without the limits: the server is too old for the question, or has no room for it now."""
        self._server, self._server_source = self.own or FRAME_BYTES_MAX, FROM_DEFAULT
        self._release()
        if failure.check(Unimplemented) is None:
            self._server = None

    def _release(self) -> None:
        while self._waiting:
            waiting = next(iter(self._waiting))
            del self._waiting[waiting]
            waiting.callback(None)

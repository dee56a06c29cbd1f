"""
Keep a connection to a server, and reconnect when it is lost.

Calls made without a connection wait in a queue and leave it in a reactor turn
of their own.  `ClientService` is not re-entrant and reports its events from
within, and the end of a call may run any code of the user.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from attrs import define
from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from queueber import api, rpc
from queueber.client.errors import CallTimedOut, NotConnected
from queueber.client.message_limits import NotSent
from queueber.client.protocol import ClientProtocol, ConnectionObserver
from queueber.client.routes import Place
from queueber.limits import Limits
from queueber.units import MS_PER_SECOND

T = TypeVar("T")

RETRY_SECONDS_MIN = 0.1
RETRY_SECONDS_MAX = 10.0
"""Range of the wait after a failed attempt, which grows from the first to the second with some jitter."""


@define(eq=False)
class ClientProtocolFactory(Factory):
    """Create the protocol of each connection."""

    noisy = False
    clock: IReactorTime
    limits: Limits | None
    observer: ConnectionObserver
    to: str

    def buildProtocol(self, addr: IAddress | None) -> ClientProtocol:  # noqa: ARG002  (Twisted's signature)
        """Return the protocol for a new connection."""
        return ClientProtocol(self.clock, self.limits, self.observer, self.to)


@implementer(IStreamClientEndpoint)
@define(eq=False)
class ReportingEndpoint:
    """An endpoint that calls *failed* for every failed attempt of *endpoint*."""

    endpoint: IStreamClientEndpoint
    failed: Callable[[Failure], None]

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect through the endpoint."""
        return self.endpoint.connect(protocolFactory).addErrback(self._report)

    def _report(self, failure: Failure) -> Failure:
        self.failed(failure)
        return failure


@define(eq=False)
class _Waiting:
    """A call that waits for a connection."""

    attempts: int | None
    """Failed attempts left before the call fails; None for no limit."""

    why: str = ""
    """The error of the last attempt."""


class Connector:
    """
    A connection to one server, re-established whenever it is lost.

    Calls made without a connection wait for the next.  Calls in flight when a
    connection is lost are not repeated: only the caller knows whether that
    would do harm.
    """

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamClientEndpoint,
        *,
        limits: Limits | None,
        attempts: int | None = None,
        retry_policy: Callable[[int], float] | None = None,
        address: str | None = None,
        timeout_ms: int | None = None,
    ) -> None:
        """
        Start connecting.  Errors name *address*, if it is known.

        A waiting call fails after *attempts* failed attempts to connect; None waits without a limit.  *timeout_ms* is
        the time limit of calls without one of their own.
        """
        self._clock = clock
        self._attempts = attempts
        self._timeout_ms = timeout_ms
        self._to = f" to {address}" if address else ""
        self._usable: ClientProtocol | None = None
        self._waiting: dict[Deferred[ClientProtocol], _Waiting] = {}
        """Waiting calls by the Deferred that fires with their connection, in the order of the calls."""

        self._dispatch_timer: IDelayedCall | None = None
        self._closed = False
        self._closing: list[Deferred[None]] | None = None
        """Deferreds to fire when the connection is closed; None unless it is closing."""

        self._retry_policy = retry_policy or backoffPolicy(RETRY_SECONDS_MIN, RETRY_SECONDS_MAX)
        self._failed_attempts = 0
        """Attempts since the last connection that was of use.  One that ends at once was not."""

        self._usable_since = 0.0
        """When the connection became usable."""

        self._service = ClientService(
            ReportingEndpoint(endpoint, self._attempt_failed),
            ClientProtocolFactory(clock, limits, self, self._to),
            retryPolicy=self._delay,
            clock=clock,
        )
        self._service.startService()

    def call(
        self,
        place: Place,
        method: int,
        content: bytes,
        read: Callable[[rpc.Results], T],
        interface: int = api.QUEUE_INTERFACE_ID,
        *,
        timeout_ms: int | None = None,
        wait_ms: int | None = 0,
    ) -> Deferred[T]:
        """
        Call as `ClientProtocol.call` does, once there is a connection.

        A call that is cancelled before that is not sent.  Without *timeout_ms* the time limit is that of the client
        plus *wait_ms*, the wait of a poll; with a *wait_ms* of None there is no time limit.

        Raises (through the Deferred):
            CallTimedOut: the call exceeded its time limit.
        """
        calling = self._call(place, method, content, read, interface)
        if timeout_ms is None and self._timeout_ms is not None and wait_ms is not None:
            timeout_ms = self._timeout_ms + wait_ms
        if timeout_ms is None or calling.called:
            return calling
        return calling.addTimeout(timeout_ms / MS_PER_SECOND, self._clock, partial(_timed_out, timeout_ms))

    def _call(
        self, place: Place, method: int, content: bytes, read: Callable[[rpc.Results], T], interface: int
    ) -> Deferred[T]:
        if self._closed:
            return fail(NotConnected("the call was not sent: the client is closed"))
        if self._usable is not None and not self._waiting:
            return self._usable.call(place, method, content, read, interface)
        connected: Deferred[ClientProtocol] = Deferred(self._cancel)
        self._waiting[connected] = _Waiting(self._attempts)
        return connected.addCallback(lambda usable: usable.call(place, method, content, read, interface))

    def _cancel(self, connected: Deferred[ClientProtocol]) -> None:
        """Fail a call that was cancelled while it waited for a connection."""
        waiting = self._waiting.pop(connected)
        why = f": {waiting.why}" if waiting.why else ""
        connected.errback(NotSent(f"there is no connection{self._to}{why}"))

    def on_usable(self, connection: ClientProtocol) -> None:
        """Send the waiting calls over *connection* in the next reactor turn.  Part of `ConnectionObserver`."""
        self._usable, self._usable_since = connection, self._clock.seconds()
        self._dispatch_soon()

    def on_answer(self) -> None:
        """Reset the back-off.  Part of `ConnectionObserver`."""
        self._failed_attempts = 0

    def _delay(self, _: int) -> float:
        """Return the seconds until the next attempt.  `ClientService`'s own count ends with any connection."""
        self._failed_attempts += 1
        return self._retry_policy(self._failed_attempts)

    def on_end(self, why: str, *, refused: bool) -> None:
        """Forget the connection.  If it was *refused*, fail the waiting calls.  Part of `ConnectionObserver`."""
        was_usable, self._usable = self._usable is not None, None
        if was_usable and self._clock.seconds() - self._usable_since >= RETRY_SECONDS_MAX:
            # Useful even without an answer: a worker may wait in its first poll for days.
            self._failed_attempts = 0
        for waiting in self._waiting.values() if refused or not was_usable else ():
            waiting.why = why
            if refused:
                waiting.attempts = 0
            elif waiting.attempts is not None:
                waiting.attempts -= 1
        self._dispatch_soon()

    def _attempt_failed(self, failure: Failure) -> None:
        for waiting in self._waiting.values():
            waiting.why = failure.getErrorMessage()
            if waiting.attempts is not None:
                waiting.attempts -= 1
        self._dispatch_soon()

    def _dispatch_soon(self) -> None:
        if self._waiting and self._dispatch_timer is None:
            self._dispatch_timer = self._clock.callLater(0, self._dispatch)

    def _dispatch(self) -> None:
        """Send the waiting calls if there is a connection, and fail those without attempts left."""
        self._dispatch_timer = None
        while self._waiting and self._usable is not None:
            connected = next(iter(self._waiting))
            del self._waiting[connected]
            connected.callback(self._usable)
        for connected, waiting in list(self._waiting.items()):
            # The callbacks of an earlier failure may have cancelled this call.
            if connected in self._waiting and waiting.attempts is not None and waiting.attempts <= 0:
                del self._waiting[connected]
                connected.errback(NotConnected(f"cannot connect{self._to}: {waiting.why}"))

    def close(self) -> Deferred[None]:
        """
        Send pending calls, close the connection and do not reconnect.  Further calls of `close` have no effect.

        Returns:
            Fires when the connection is closed.  Calls in flight fail with `OutcomeUnknown`, waiting ones with
            `NotConnected`.
        """
        closed: Deferred[None] = Deferred()
        if self._closing is not None:
            self._closing.append(closed)
        elif self._closed:
            closed.callback(None)
        else:
            self._closing = [closed]
            self._close()
        return closed

    def _close(self) -> None:
        self._closed = True
        if self._dispatch_timer is not None:
            self._dispatch_timer.cancel()
            self._dispatch_timer = None
        while self._waiting:
            connected, _ = self._waiting.popitem()
            connected.errback(NotConnected("the call was not sent: the client was closed"))
        if self._usable is not None:
            self._usable.close()
        self._service.stopService().addCallback(self._fire_closed)

    def _fire_closed(self, _: object) -> None:
        closing, self._closing = self._closing or [], None
        for closed in closing:
            closed.callback(None)


def _timed_out(timeout_ms: int, outcome: T | Failure, _: float) -> T:
    """Raise `CallTimedOut` for a call that its time limit cancelled.  Return or raise any other *outcome*."""
    if not isinstance(outcome, Failure):
        return outcome
    outcome.trap(CancelledError)
    if isinstance(outcome.value, NotSent):
        raise CallTimedOut(f"the call was not sent within {timeout_ms:,} ms: {outcome.value}", sent=False)
    raise CallTimedOut(f"no answer within {timeout_ms:,} ms: the call may have taken effect or not", sent=True)

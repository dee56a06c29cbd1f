"""
Keep a connection to a server over Twisted, and make calls over it.

`Connector` drives a `Link`: it connects to an endpoint, again after each loss,
and turns the outcome of each call into that of a Deferred.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from attrs import define
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from queueber.client.protocol import ClientProtocol
from queueber.client.refusals import failed_attempt
from queueber.client_core.arguments import timeout
from queueber.client_core.calls import Call, PendingCall, PendingState
from queueber.client_core.held_leases import HeldLeases
from queueber.client_core.options import ConnectOptions
from queueber.client_core.reconnect import Withdrawn, link_of, timed_out
from queueber.client_core.url import Target
from queueber.errors import QueueberError
from queueber.fixed_limits import ID_BYTES
from queueber.units import MS_PER_SECOND

T = TypeVar("T")


@define(eq=False)
class _Factory(Factory):
    """Create the transport of each connection."""

    noisy = False
    make: Callable[[], ClientProtocol]

    def buildProtocol(self, addr: IAddress | None) -> ClientProtocol:  # noqa: ARG002  (Twisted's signature)
        """Return the protocol for a new connection."""
        return self.make()


class DeferredCall(PendingCall, Generic[T]):
    """A call whose outcome is that of a Deferred."""

    __slots__ = ("_connector", "_limit_ms", "_timer", "deferred")

    def __init__(self, call: Call[T], connector: Connector) -> None:
        """Create the Deferred of *call*, which its program may cancel."""
        super().__init__(call)
        self._connector = connector
        self._timer: IDelayedCall | None = None
        self.deferred: Deferred[T] = Deferred(self._cancel)

    def limit(self, timeout_ms: int) -> None:
        """Fail with `CallTimedOut` after *timeout_ms*."""
        self._limit_ms = timeout_ms
        self._timer = self._connector.clock.callLater(timeout_ms / MS_PER_SECOND, self._late)

    def finish(self, outcome: Any) -> None:  # noqa: ANN401
        """Fire the Deferred, unless the call was cancelled."""
        if self.state is not PendingState.DONE:
            deferred = self.deferred
            self.withdraw()
            if isinstance(outcome, QueueberError):
                deferred.errback(outcome)
            else:
                deferred.callback(outcome)

    def withdraw(self) -> None:
        """End the call without an outcome, unless it has ended."""
        if self.state is PendingState.DONE:
            return
        self.state = PendingState.DONE
        # Breaks a cycle of references.
        del self.deferred
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cancel(self, _: Deferred[T]) -> None:
        self._connector.cancel(self)

    def _late(self) -> None:
        self._timer = None
        deferred = self.deferred
        deferred.errback(timed_out(self._limit_ms, self._connector.cancel(self)))


class Connector:
    """
    A connection to one server, re-established whenever it is lost.

    Calls made without a connection wait for one.
    """

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamClientEndpoint,
        options: ConnectOptions,
        *,
        target: Target | None = None,
    ) -> None:
        """Start connecting.  Errors name the address of *target*, if it is known."""
        self.target = target
        """Where the client connects, and how; None if it was made with an endpoint."""

        self.request_ids = (lambda: os.urandom(ID_BYTES)) if options.resend_adds else None
        """A source of request ids for adds, or None."""

        self.held = HeldLeases()
        """The client's session leases."""

        self.clock = clock
        self.link = link_of(options, None if target is None else target.name, clock.seconds)
        self._endpoint = endpoint
        self._factory = _Factory(lambda: ClientProtocol(clock, self.link, self))
        self._timeout_ms = options.timeout_ms
        self._transport: ClientProtocol | None = None
        self._attempt: Deferred[IProtocol] | None = None
        self._retry: IDelayedCall | None = None
        self._closing: list[Deferred[None]] = []
        """Deferreds to fire when the connection is closed."""

        self._connect()

    # Calls

    def start(self, build: Callable[[], Call[T]], timeout_ms: int | None = None) -> Deferred[T]:
        """
        Make the call that *build* returns.

        Returns:
            Fires with its result, or fails with the `InvalidRequest` that *build* raises, with `CallTimedOut` after
            the call's time limit, or as `ClientConnection.call` does.  Cancelling it ends the wait of a poll; a call
            that was not sent is not sent then, and any other takes effect all the same.
        """
        try:
            call = build()
            limit = None
            if timeout_ms is not None or self._timeout_ms is not None:
                limit = call.limit_ms(timeout(timeout_ms), self._timeout_ms)
        except QueueberError as why:
            return fail(why)
        pending: DeferredCall[T] = DeferredCall(call, self)
        deferred = pending.deferred
        if limit is not None:
            # Before the call, which may be done at once.
            pending.limit(limit)
        self.link.send(pending)
        self.flush_soon()
        return deferred

    def cancel(self, pending: PendingCall) -> Withdrawn:
        """End the wait for the outcome of *pending*."""
        withdrawn = self.link.cancel(pending)
        self.flush_soon()
        return withdrawn

    def flush_soon(self) -> None:
        """Send the calls that were made in this reactor turn at its end."""
        if self._transport is not None:
            self._transport.flush_soon()

    # Connecting

    def _connect(self) -> None:
        self._retry = None
        # Before the callbacks, which may be called at once.
        self._attempt = attempt = self._endpoint.connect(self._factory)
        attempt.addCallbacks(self._made, self._failed)

    def _made(self, _: IProtocol) -> None:
        self._attempt = None
        self._check_closed()

    def _failed(self, failure: Failure) -> None:
        self._attempt = None
        self._retry_later()
        if not self.link.closed:
            assert failure.value is not None
            self.link.attempt_failed(failed_attempt(failure.value))
        self._check_closed()

    def _retry_later(self) -> None:
        seconds = None if self.link.closed else self.link.retry_delay()
        # A call that a wrong retry policy has failed may have closed the client.
        if seconds is not None and not self.link.closed:
            self._retry = self.clock.callLater(seconds, self._connect)

    def on_made(self, transport: ClientProtocol) -> None:
        """Use *transport*.  Part of `TransportOwner`."""
        self._transport = transport

    def on_lost(self) -> None:
        """Connect again.  Part of `TransportOwner`."""
        self._transport = None
        self._retry_later()
        self._check_closed()

    # Closing

    def close(self) -> Deferred[None]:
        """
        Send pending calls, close the connection and do not reconnect.  Further calls of `close` have no effect.

        Returns:
            Fires when the connection is closed.  Calls in flight fail with `OutcomeUnknown`, waiting ones with
            `NotConnected`.
        """
        closed: Deferred[None] = Deferred()
        self._closing.append(closed)
        if not self.link.closed:
            self._close()
        self._check_closed()
        return closed

    def _close(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self.link.close()
        if self._transport is not None:
            self._transport.close()
        if self._attempt is not None:
            self._attempt.cancel()

    def _check_closed(self) -> None:
        if self.link.closed and self._transport is None and self._attempt is None:
            while self._closing:
                self._closing.pop(0).callback(None)

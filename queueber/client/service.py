"""
Keep a connection to a server over Twisted, and make calls over it.

`Connector` drives a `Link`: it connects to an endpoint, again after each loss,
and turns the outcome of each call into that of a Deferred.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from random import SystemRandom
from typing import TypeVar

from attrs import define
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from queueber.client.protocol import ClientProtocol
from queueber.client_core.arguments import timeout
from queueber.client_core.calls import Call
from queueber.client_core.connection import PendingCall
from queueber.client_core.held_leases import HeldLeases
from queueber.client_core.options import Options
from queueber.client_core.reconnect import Link, backoff, timed_out
from queueber.errors import QueueberError
from queueber.limits import ID_BYTES
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


class Connector:
    """
    A connection to one server, re-established whenever it is lost.

    Calls made without a connection wait for the next.
    """

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamClientEndpoint,
        options: Options,
        *,
        address: str | None = None,
    ) -> None:
        """Start connecting.  Errors name *address*, if it is known."""
        self.request_ids = (lambda: os.urandom(ID_BYTES)) if options.resend_adds else None
        """A source of request ids for adds, or None."""

        self.held = HeldLeases()
        """The client's session leases."""

        self.clock = clock
        self.link = Link(
            limits=options.limits,
            attempts=options.attempts,
            address=address,
            retry_policy=options.retry_policy or backoff(SystemRandom().random),
            clock=clock.seconds,
            resend_adds=options.resend_adds,
        )
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
        if limit is not None:
            return self._start_limited(call, limit)
        deferred: Deferred[T] = Deferred(lambda _: self._cancel(pending))
        pending = self.link.call(call, partial(_fire, deferred))
        self.flush_soon()
        return deferred

    def _start_limited(self, call: Call[T], limit: int) -> Deferred[T]:
        def cancel(_: Deferred[T]) -> None:
            timer.cancel()
            self._cancel(pending)

        def done(outcome: T | QueueberError) -> None:
            if timer.active():
                timer.cancel()
            _fire(deferred, outcome)

        def late() -> None:
            withdrawn = self.link.cancel(pending)
            self.flush_soon()
            deferred.errback(timed_out(limit, withdrawn))

        deferred: Deferred[T] = Deferred(cancel)
        # Before the call, which may be done at once.
        timer = self.clock.callLater(limit / MS_PER_SECOND, late)
        pending = self.link.call(call, done)
        self.flush_soon()
        return deferred

    def _cancel(self, pending: PendingCall) -> None:
        self.link.cancel(pending)
        self.flush_soon()

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
            self.link.attempt_failed(failure.getErrorMessage())
        self._check_closed()

    def _retry_later(self) -> None:
        if not self.link.closed:
            self._retry = self.clock.callLater(self.link.retry_delay(), self._connect)

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
            self._transport.transport.loseConnection()
        if self._attempt is not None:
            self._attempt.cancel()

    def _check_closed(self) -> None:
        if self.link.closed and self._transport is None and self._attempt is None:
            while self._closing:
                self._closing.pop(0).callback(None)


def _fire(deferred: Deferred[T], outcome: T | QueueberError) -> None:
    if isinstance(outcome, QueueberError):
        deferred.errback(outcome)
    else:
        deferred.callback(outcome)

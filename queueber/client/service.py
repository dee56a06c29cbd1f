"""Keeping a connection to a server, and making it again when it is lost."""

from collections.abc import Callable
from typing import TypeVar

from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IAddress, IProtocol, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from queueber import wire
from queueber.client.errors import NotConnected
from queueber.client.protocol import ClientProtocol
from queueber.limits import Limits

T = TypeVar("T")

RETRY_SECONDS_MIN = 0.1
RETRY_SECONDS_MAX = 10.0
"""How long to wait after an attempt that failed: from the first of these up to the second, a little at random."""


class ClientFactory(Factory):
    """Makes the protocol of each connection, and knows the one that can be used."""

    noisy = False

    def __init__(self, clock: IReactorTime, limits: Limits) -> None:
        self._clock = clock
        self._limits = limits
        self.usable: ClientProtocol | None = None

    def buildProtocol(self, addr: IAddress | None) -> ClientProtocol:  # noqa: ARG002  (as Twisted calls it)
        """The protocol of a new connection."""
        return ClientProtocol(self._clock, self._limits, self._changed)

    def _changed(self, usable: ClientProtocol | None) -> None:
        self.usable = usable


class Connector:
    """
    A connection to one server, made again whenever it is lost.

    Calls made while there is none wait for the next.  Calls in flight when one
    is lost are not repeated: who made them knows whether that would do harm.
    """

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamClientEndpoint,
        *,
        limits: Limits,
        attempts: int | None = None,
        retry_policy: Callable[[int], float] | None = None,
    ) -> None:
        """
        Starts connecting at once.

        A call fails once *attempts* have failed while it waited; with None it waits as long as it takes.
        """
        self._factory = ClientFactory(clock, limits)
        self._attempts = attempts
        self._closed = False
        policy = retry_policy or backoffPolicy(RETRY_SECONDS_MIN, RETRY_SECONDS_MAX)
        self._service = ClientService(endpoint, self._factory, retryPolicy=policy, clock=clock)
        self._service.startService()

    def call(self, queue: str | None, method: int, content: bytes, read: Callable[[wire.Results], T]) -> Deferred[T]:
        """As `ClientProtocol.call`, when there is a connection; before that the call can be cancelled too."""
        if self._closed:
            return fail(NotConnected("the call was not sent: the client is closed"))
        if self._factory.usable is not None:
            return self._factory.usable.call(queue, method, content, read)

        def connected(_: IProtocol) -> Deferred[T]:
            usable = self._factory.usable
            if usable is None:
                return fail(NotConnected("the call was not sent: the connection was lost again"))
            return usable.call(queue, method, content, read)

        return self._service.whenConnected(self._attempts).addCallbacks(connected, self._not_connected)

    def _not_connected(self, failure: Failure) -> Failure:
        if self._closed:
            return Failure(NotConnected("the call was not sent: the client was closed"))
        # Left alone: the call was cancelled by who made it.
        if failure.check(CancelledError):
            return failure
        return Failure(NotConnected(f"cannot connect: {failure.getErrorMessage()}"))

    def close(self) -> Deferred[None]:
        """
        Send what has been said, close the connection and make no other.

        Returns:
            Fires when it is closed.  Calls in flight fail with `OutcomeUnknown`, those that wait with `NotConnected`.
        """
        self._closed = True
        if self._factory.usable is not None:
            self._factory.usable.flush()
        return self._service.stopService()

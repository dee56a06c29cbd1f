"""
One connection to a server: calls out, answers in.

State model of a connection
---------------------------

1. OPEN     calls are sent; each has its Deferred until the answer comes.
2. CLOSING  the peer broke the protocol or ended the connection.  What was in
            flight has failed; a new call fails and is not sent.
3. LOST     the transport is gone.

Every call ends in exactly one way: with what the server answered, cancelled by
its caller, or with `OutcomeUnknown` when the connection went first.

Nothing waits for the bootstrap or for a named queue: calls are made to what
those will return, and the server resolves that in order.  All calls of one
turn of the reactor leave in one write.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from attrs import define
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from queueber import wire
from queueber.client.errors import NotConnected, OutcomeUnknown, error_of
from queueber.client.routes import Route, Routes
from queueber.errors import QueueberError, RemoteProtocolError, tls_reason, too_large
from queueber.limits import Limits

T = TypeVar("T")

CLOSE_SECONDS = 5.0
"""How long a connection that is being closed may take to say goodbye."""

MID_STREAM = ("record", "decrypt", "decode")
"""Alerts that a server may also send after it has read a call; all others say that it never did."""

CALL_OVERHEAD_BYTES = 1_024
"""The most that a call's message holds beside its content."""


@define(eq=False)
class _Call:
    """A call in flight."""

    deferred: Deferred[Any]
    read: Callable[[wire.Results], object]
    route: Route


class ClientProtocol(Protocol):
    """One connection to a server."""

    log = Logger()
    transport: ITCPTransport

    def __init__(self, clock: IReactorTime, limits: Limits, changed: Callable[["ClientProtocol | None"], None]) -> None:
        """*changed* is told this connection when it can be used, and None when it cannot be any more."""
        self._clock = clock
        self._frame_bytes = limits.frame_bytes
        self._changed = changed
        self._connection = wire.Connection(limits=limits)
        self._routes = Routes(self._connection)
        self._calls: dict[wire.QuestionId, _Call] = {}
        self._closed: str | None = None
        self._reading = False
        self._heard = False
        """The server has said something: until then it may not even have let us in."""

        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Ask for the server's first object; it need not have come before calls are made."""
        for option in ("setTcpNoDelay", "setTcpKeepAlive"):
            if hasattr(self.transport, option):
                getattr(self.transport, option)(True)
        self._routes.begin()
        self._changed(self)
        self._flush_soon()

    def call(
        self,
        queue: str | None,
        method: int,
        content: bytes,
        read: Callable[[wire.Results], T],
        interface: int = wire.QUEUE_INTERFACE_ID,
    ) -> Deferred[T]:
        """
        Call *method* of the queue named *queue*, or of the default one, which *interface* may say is more than that.

        Returns:
            Fires with what *read* makes of the results.  Cancelling gives a
            waiting poll up; any other call takes effect all the same.

        Raises (the Deferred does):
            InvalidRequest: the call is longer than a message may be.
            NotConnected: the connection is closing.
            OutcomeUnknown: it was lost before the answer came.
            QueueberError: what the server answered.
        """
        if self._closed is not None:
            return fail(NotConnected(f"the call was not sent: {self._closed}"))
        if len(content) > self._frame_bytes - CALL_OVERHEAD_BYTES:
            limit = self._frame_bytes - CALL_OVERHEAD_BYTES
            return fail(too_large("the call", value=len(content), limit=limit, unit="bytes"))
        route = self._routes.to(queue)
        question = self._connection.call(route.target, interface, method, content)
        deferred: Deferred[T] = Deferred(lambda _: self._cancel(question))
        self._calls[question] = _Call(deferred, read, route)
        self._flush_soon()
        return deferred

    def _cancel(self, question: wire.QuestionId) -> None:
        if self._calls.pop(question, None) is not None:
            self._connection.finish(question)
            self._flush_soon()

    def dataReceived(self, data: bytes) -> None:
        """Take answers in."""
        if self._closed is not None:
            return
        self._reading = self._heard = True
        try:
            for event in self._connection.receive_data(data):
                if isinstance(event, wire.Returned):
                    self._returned(event)
                elif isinstance(event, wire.Aborted):
                    self._close(f"the server ended the connection: {event.reason}")
        except RemoteProtocolError as why:
            self._connection.abort(str(why))
            self._close(f"the server broke the protocol: {why}")
        finally:
            self._reading = False
        self.flush()

    def _returned(self, event: wire.Returned) -> None:
        if self._routes.returned(event):
            return
        call = self._calls.pop(event.question)
        try:
            value = _value_of(call, event.outcome)
        except RemoteProtocolError:
            self._calls[event.question] = call
            raise
        self._connection.finish(event.question)
        if isinstance(value, QueueberError):
            call.deferred.errback(value)
        else:
            call.deferred.callback(value)

    def _flush_soon(self) -> None:
        """See to it that what has been said is sent at the end of this turn."""
        if not self._reading and self._timer is None and self._closed is None:
            self._timer = self._clock.callLater(0, self._flush_now)

    def _flush_now(self) -> None:
        self._timer = None
        self.flush()

    def flush(self) -> None:
        """Send what has been said."""
        data = self._connection.data_to_send()
        if data:
            self.transport.write(data)

    def _close(self, why: str) -> None:
        """Say goodbye and end the connection, within a bounded time."""
        self.log.warn("Closing the connection to {peer}: {why}", peer=self.transport.getPeer(), why=why)
        self.flush()
        self._end(why)
        self._timer = self._clock.callLater(CLOSE_SECONDS, self._give_up)
        self.transport.loseConnection()

    def _give_up(self) -> None:
        self._timer = None
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail what is in flight: nobody knows what has become of it, unless the server never let us in."""
        refused = None if self._heard else tls_reason(reason.value)
        if refused is None or any(each in refused for each in MID_STREAM):
            self._end(reason.getErrorMessage())
        else:
            # With TLS 1.3 we believe in a connection before the server has looked at our certificate.
            self._end(refused, NotConnected(f"cannot connect: the server refuses to speak TLS with us: {refused}"))

    def _end(self, why: str, error: QueueberError | None = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closed is not None:
            return
        self._closed = why
        self._changed(None)
        calls, self._calls = self._calls, {}
        for call in calls.values():
            unknown = OutcomeUnknown(f"the connection was lost, the call's outcome is unknown: {why}")
            call.deferred.errback(error or unknown)


def _value_of(call: _Call, outcome: wire.Results | wire.RemoteException | wire.Canceled) -> object:
    """What *call* ends with; a call to a queue that could not be had, with the reason for that."""
    if isinstance(outcome, wire.Results):
        return call.read(outcome)
    return call.route.error or error_of(outcome)

"""
One connection to a server: send calls, receive answers.

| State | handshake complete | call | data | peer at fault | disconnected |
|---|---|---|---|---|---|
| SECURING | OPEN | not made | not received | CLOSING | LOST |
| OPEN | | sent | completes calls | CLOSING, fails all calls | LOST, fails all calls |
| CLOSING, LOST | | fails, unsent | ignored | | LOST |

A plaintext connection is OPEN at once.

Every call ends in exactly one way: with the server's answer, cancelled by its
caller, or, if the connection is lost first, with `OutcomeUnknown`, or with
`NotConnected` if it is known that no server has read it.

Calls do not wait for the bootstrap or for a named queue.  They are pipelined to
the promised answers, which the server resolves in order.  All calls of one
reactor turn are sent in one write.
"""

import typing
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, TypeVar

from attrs import define, evolve
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IReactorTime, ISSLTransport, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from queueber import api, rpc
from queueber.client.arguments import FRAME_BYTES_HIGHEST, FROM_ARGUMENT
from queueber.client.errors import NotConnected, OutcomeUnknown, ReplyTooLong, error_of
from queueber.client.message_limits import MessageLimits
from queueber.client.queue import GIVE_BACK_MS
from queueber.client.refusals import nameless_certificate, refusal_of
from queueber.client.routes import Place, Route, Routes
from queueber.errors import InvalidRequest, Kind, QueueberError, RemoteProtocolError, Unimplemented
from queueber.limits import DEFAULTS, Limits
from queueber.transport.keepalive import keep_alive
from queueber.transport.protocol_detection import FIRST_BYTES, protocol_of

T = TypeVar("T")

CLOSE_SECONDS = 5.0
"""Time limit for sending the last messages of a closing connection."""

HANDSHAKE_SECONDS = 30.0
"""Time limit of the TLS handshake."""


_POLLS = {
    (api.QUEUE_INTERFACE_ID, api.POLL): api.read_poll_lease,
    (api.BROKER_INTERFACE_ID, api.POLL_ANY): api.read_poll_any_lease,
}


class ClientConnectionState(Enum):
    """The state of a connection, as in the table above."""

    SECURING = auto()
    OPEN = auto()
    CLOSING = auto()
    LOST = auto()


class ConnectionObserver(typing.Protocol):
    """The receiver of a connection's state changes."""

    def on_usable(self, connection: "ClientProtocol") -> None:
        """Note that *connection* accepts calls."""

    def on_answer(self) -> None:
        """Note that the latest connection has answered a call, other than with 'stopping'."""

    def on_end(self, why: str, *, refused: bool) -> None:
        """Note that the latest connection has ended.  *refused*: a new attempt needs another configuration."""


@define(eq=False)
class _Call:
    """A call in flight."""

    deferred: Deferred[Any]
    read: Callable[[rpc.Results], object]
    route: Route
    place: Place
    called: tuple[int, int]
    """The numbers of the interface and of the method."""

    @property
    def read_lease(self) -> Callable[[rpc.Results], bytes] | None:
        """The reader of the lease in the results, if this is a poll."""
        return _POLLS.get(self.called)


@implementer(IHandshakeListener)
class ClientProtocol(Protocol):
    """One connection to a server."""

    log = Logger()
    transport: ITCPTransport

    def __init__(self, clock: IReactorTime, limits: Limits | None, observer: ConnectionObserver, to: str = "") -> None:
        """Report state changes to *observer*.  *to* follows "cannot connect" in errors."""
        self._clock = clock
        self._observer = observer
        self._to = to
        self._limits = MessageLimits(None if limits is None else limits.frame_bytes, self._request_limits)
        # The length of replies is bounded by the server's own limit, which its operator sets.
        self._connection = rpc.Connection(limits=evolve(limits or DEFAULTS, frame_bytes=FRAME_BYTES_HIGHEST))
        self._routes = Routes(self._connection)
        self._calls: dict[rpc.QuestionId, _Call] = {}
        self._cancelled: dict[rpc.QuestionId, _Call] = {}
        """Cancelled polls whose Return has not arrived."""

        self._state = ClientConnectionState.SECURING
        self._end_reason = ""
        self._reading = False
        self._first = b""
        """The first bytes from the server, enough to recognise another protocol."""

        self._answered = False
        """A call was answered, other than with 'stopping'."""

        self._unsent: list[rpc.QuestionId] = []
        """The calls made since the last flush."""

        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Begin to use the connection: calls can be made at once, or after the TLS handshake."""
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        keep_alive(self.transport)
        if ISSLTransport.providedBy(self.transport):
            self._timer = self._clock.callLater(HANDSHAKE_SECONDS, self._handshake_timed_out)
        else:
            self._open_for_calls()

    def handshakeCompleted(self) -> None:
        """Open the connection after its TLS handshake."""
        self._stop_timer()
        if (nameless := nameless_certificate(self.transport)) is None:
            self._open_for_calls()
        else:
            self._end(nameless, NotConnected, refused=True)
            self.transport.abortConnection()

    def _open_for_calls(self) -> None:
        if self._state is ClientConnectionState.SECURING:
            self._state = ClientConnectionState.OPEN
            self._observer.on_usable(self)
            self._flush_soon()

    def _handshake_timed_out(self) -> None:
        self._timer = None
        self._end(f"no TLS handshake within {HANDSHAKE_SECONDS:g} s", NotConnected)
        self.transport.abortConnection()

    def call(
        self,
        place: Place,
        method: int,
        content: bytes,
        read: Callable[[rpc.Results], T],
        interface: int = api.QUEUE_INTERFACE_ID,
    ) -> Deferred[T]:
        """
        Call *method* of the object at *place*.

        Returns:
            Fires with the results, parsed by *read*.  Cancelling ends the wait
            of a poll; any other call takes effect all the same.

        Raises (through the Deferred):
            InvalidRequest: the call is longer than a message may be.
            NotConnected: the connection is closing.
            OutcomeUnknown: the connection was lost before the answer.
            QueueberError: the error that the server returned.
        """
        if self._state is not ClientConnectionState.OPEN:
            return fail(NotConnected(f"the call was not sent: {self._end_reason}"))
        try:
            waiting = self._limits.when_sendable(len(content))
        except InvalidRequest as why:
            return fail(why)
        if waiting is None:
            return self._send(place, method, content, read, interface)
        return waiting.addCallback(lambda _: self._send(place, method, content, read, interface))

    def _send(
        self, place: Place, method: int, content: bytes, read: Callable[[rpc.Results], T], interface: int
    ) -> Deferred[T]:
        try:
            self._limits.check(len(content))
        except InvalidRequest as why:
            return fail(why)
        route = self._routes.to(place)
        question = self._connection.call(route.target, interface, method, content)
        deferred: Deferred[T] = Deferred(lambda _: self._cancel(question))
        self._calls[question] = _Call(deferred, read, route, place, (interface, method))
        self._unsent.append(question)
        self._flush_soon()
        return deferred

    def _request_limits(self) -> Deferred[api.ServerLimits]:
        content, read = api.write_limits_request(), api.read_limits_response
        return self._send(None, api.LIMITS, content, read, api.BROKER_INTERFACE_ID)

    def _cancel(self, question: rpc.QuestionId) -> None:
        call = self._calls.pop(question, None)
        if call is not None:
            is_poll = call.read_lease is not None
            self._connection.finish(question, report=is_poll)
            if is_poll:
                self._cancelled[question] = call
            self._flush_soon()

    def _returned_late(self, event: rpc.Returned) -> bool:
        """Give back the items of a cancelled poll.  Return False if *event* answers another call."""
        call = self._cancelled.pop(event.question, None)
        if call is None:
            return False
        if isinstance(event.outcome, rpc.Results):
            self._give_back(call, event.outcome)
        return True

    def dataReceived(self, data: bytes) -> None:
        """Process answers."""
        if self._state is not ClientConnectionState.OPEN:
            return
        if len(self._first) < FIRST_BYTES:
            self._first += data[: FIRST_BYTES - len(self._first)]
            if other := protocol_of(self._first):
                self._close(f"this port speaks {other}", NotConnected, refused=True)
                return
        self._reading = True
        try:
            for event in self._connection.receive_data(data):
                if isinstance(event, rpc.Returned):
                    self._returned(event)
                elif isinstance(event, rpc.Aborted):
                    self._close(f"the server ended the connection: {event.reason}")
        except RemoteProtocolError as why:
            self._connection.abort(str(why))
            self._close(f"the server broke the protocol: {why}")
        finally:
            self._reading = False
        self.flush()

    def _returned(self, event: rpc.Returned) -> None:
        if self._routes.returned(event) or self._returned_late(event):
            return
        call = self._calls.pop(event.question)
        if not self._answered and getattr(event.outcome, "kind", None) != Kind.DISCONNECTED:
            self._answered = True
            self._observer.on_answer()
        try:
            value = self._value_of(call, event.outcome)
        except RemoteProtocolError:
            self._calls[event.question] = call
            raise
        self._connection.finish(event.question)
        if isinstance(value, QueueberError):
            call.deferred.errback(value)
        else:
            call.deferred.callback(value)

    def _flush_soon(self) -> None:
        """Schedule a flush at the end of this reactor turn."""
        if not self._reading and self._timer is None and self._state is ClientConnectionState.OPEN:
            self._timer = self._clock.callLater(0, self._flush_now)

    def _flush_now(self) -> None:
        self._timer = None
        self.flush()

    def usage(self) -> rpc.ConnectionStats:
        """Return the sizes of the connection's tables."""
        return self._connection.stats()

    def flush(self) -> None:
        """Send the pending messages."""
        if data := self._connection.data_to_send():
            self.transport.write(data)
        self._unsent.clear()

    def _close(self, why: str, kind: type[QueueberError] = OutcomeUnknown, *, refused: bool = False) -> None:
        """Send the last messages and end the connection, within a bounded time."""
        self.log.warn("Closing the connection to {peer}: {why}", peer=self.transport.getPeer(), why=why)
        self.flush()
        self._end(why, kind, refused=refused)
        self._timer = self._clock.callLater(CLOSE_SECONDS, self._close_timed_out)
        self.transport.loseConnection()

    def close(self) -> None:
        """Send the remaining bytes, then close; abort the transport if that takes longer than `CLOSE_SECONDS`."""
        self.flush()
        self._stop_timer()
        self._timer = self._clock.callLater(CLOSE_SECONDS, self._close_timed_out)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _close_timed_out(self) -> None:
        self._timer = None
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail the calls in flight: with `OutcomeUnknown`, unless no server has read them."""
        secured = self._state is not ClientConnectionState.SECURING
        refusal = None if self._first else refusal_of(reason.value, self.transport, secured=secured)
        if refusal is None:
            self._end(reason.getErrorMessage())
        else:
            # A handshake that ends without an alert may succeed later; a bad certificate does not.
            self._end(refusal, NotConnected, refused=not isinstance(reason.value, ConnectionLost | ConnectionDone))
        self._state = ClientConnectionState.LOST

    def _end(self, why: str, kind: type[QueueberError] = OutcomeUnknown, *, refused: bool = False) -> None:
        self._stop_timer()
        if self._state in (ClientConnectionState.CLOSING, ClientConnectionState.LOST):
            return
        self._state, self._end_reason = ClientConnectionState.CLOSING, why
        self._observer.on_end(why, refused=refused)
        calls, self._calls = self._calls, {}
        waiting = self._limits.take_waiting()
        # The callbacks of one call may cancel others.
        for each in waiting:
            if not each.called:
                each.errback(self._error(why, kind, sent=False))
        for question, call in calls.items():
            if not call.deferred.called:
                call.deferred.errback(self._error(why, kind, sent=question not in self._unsent))

    def _error(self, why: str, kind: type[QueueberError], *, sent: bool) -> QueueberError:
        """Return the error of a call, *sent* or not, on a connection that ends for the reason *why*."""
        if kind is NotConnected:
            return NotConnected(f"cannot connect{self._to}: {why}")
        if not sent:
            return NotConnected(f"the call was not sent: {why}")
        return OutcomeUnknown(f"the connection was lost, the call's outcome is unknown: {why}")

    def _value_of(self, call: _Call, outcome: rpc.Results | rpc.RemoteException | rpc.Canceled) -> object:
        """Return the value or error of *call*.  If its queue could not be resolved, that is the error."""
        if not isinstance(outcome, rpc.Results):
            return call.route.error or error_of(outcome, *call.called)
        length = outcome.content.frame_bytes
        if self._limits.own is None or length <= self._limits.own:
            return call.read(outcome)
        is_poll = call.read_lease is not None
        self._give_back(call, outcome)
        return ReplyTooLong(
            f"the reply is {length:,} bytes; the limit is {self._limits.own:,}, {FROM_ARGUMENT}:"
            " raise its frame_bytes, or pass no limits to accept what the server sends"
            + ("; the items of this poll are given back" if is_poll else "")
        )

    def _give_back(self, call: _Call, results: rpc.Results) -> None:
        """End the lease in the *results* of a poll, so that its items go to a worker that can receive them."""
        lease = b"" if call.read_lease is None else call.read_lease(results)
        if not lease:
            return

        def end_on_an_old_server(failure: Failure) -> None:
            """Extend the lease to nearly nothing, on a server without `settle`; the attempt counts then."""
            if failure.check(Unimplemented) and self._state is ClientConnectionState.OPEN:
                content = api.write_extend_request(api.ExtendRequest(lease, GIVE_BACK_MS))
                ended = self._send(call.place, api.EXTEND, content, api.read_extend_response, api.QUEUE_INTERFACE_ID)
                ended.addErrback(lambda _: None)

        settlement = api.Settlement(lease, b"", api.Action.DEFER)
        content = api.write_settle_request(api.SettleRequest([settlement]))
        settled = self._send(call.place, api.SETTLE, content, api.read_settle_response, api.QUEUE_INTERFACE_ID)
        settled.addErrback(end_on_an_old_server)

"""
One connection to a server: send calls, take answers.

A `ClientConnection` is open from its creation, when the transport can carry
calls, until `end`.  After every input the driver sends `data_to_send`, and closes
the transport if `ended` is set.

| State of a call | sent | answer | `cancel` | connection ends |
|---|---|---|---|---|
| WAITING (for a connection) | HELD or SENT | | DONE | |
| HELD (for the server's limits) | SENT, or DONE: too long | | DONE | ENDING: not sent |
| SENT | | DONE | DONE; a poll's late items go back | ENDING: not sent, or unknown |
| ENDING | | | DONE | DONE, or WAITING again |

Every call ends in exactly one way: with the server's answer, cancelled by its
caller, or, if the connection is lost first, with `OutcomeUnknown`, or with
`NotConnected` if it is known that no server has read it.

Calls do not wait for the bootstrap or for a named queue.  They are pipelined to
the promised answers, which the server resolves in order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from queueber import api, rpc
from queueber.client_core.arguments import FROM_ARGUMENT
from queueber.client_core.calls import Call, PendingCall, PendingState, ignore
from queueber.client_core.errors import NotConnected, OutcomeUnknown, ReplyTooLong, error_of
from queueber.client_core.message_limits import MessageLimits
from queueber.client_core.queue_calls import GIVE_BACK_MS
from queueber.client_core.routes import Routes
from queueber.errors import InvalidRequest, Kind, QueueberError, RemoteProtocolError, Stopping, Unimplemented
from queueber.fixed_limits import CONNECTION, FRAME_BYTES_HIGHEST
from queueber.transport.protocol_detection import FIRST_BYTES, protocol_of
from queueber.values import DEFAULT_QUEUE

if TYPE_CHECKING:
    from queueber.limits import Limits

T = TypeVar("T")


class ConnectionEnd(NamedTuple):
    """The end of a connection."""

    why: str
    refused: bool
    """Whether a new attempt needs another configuration."""


class ConnectionOwner(Protocol):
    """The receiver of a connection's events."""

    def on_answer(self) -> None:
        """Note that the connection has answered its first call, other than with 'stopping'."""

    def on_stopping(self, pending: PendingCall, why: Stopping) -> None:
        """Finish *pending*, which may be sent again and for which the server did nothing, or keep it until `on_end`."""

    def on_end(self, end: ConnectionEnd, unfinished: list[PendingCall]) -> None:
        """
        Note that the connection has ended, with these calls *unfinished*, in the order in which they were made.

        They are in the state ENDING and have their errors.  Finish them, or send them over another connection.
        """


class ClientConnection:
    """One connection to a server; the module's docstring explains its use."""

    def __init__(self, limits: Limits | None, owner: ConnectionOwner, to: str = "") -> None:
        """
        Request the bootstrap object.

        *limits* are the client's own, or None for the server's.  *to* follows "cannot connect" in errors.
        """
        self.ended: ConnectionEnd | None = None
        """Why the connection has ended; None while it is open."""

        self._owner = owner
        self._to = to
        self._limits = MessageLimits(None if limits is None else limits.frame_bytes)
        # The length of replies is bounded by the server's own limit, which its operator sets.
        bounds = CONNECTION if limits is None else limits.connection
        self._rpc = rpc.Connection(limits=bounds._replace(frame_bytes=FRAME_BYTES_HIGHEST))
        self._routes = Routes(self._rpc)
        self._sent: dict[rpc.QuestionId, PendingCall] = {}
        self._held: dict[PendingCall, None] = {}
        """Calls that wait for the server's limits, with all later ones, so that their order stays."""

        self._cancelled: dict[rpc.QuestionId, PendingCall] = {}
        """Cancelled polls whose Return has not arrived."""

        self._unsent: list[PendingCall] = []
        """The calls made since the last `data_to_send`."""

        self._first = b""
        """The first bytes from the server, enough to recognise another protocol."""

        self._answered = False
        self._probed = False
        self.knows_request_ids: bool | None = None
        """Whether the server recognises an add by its request id; None before it is known."""

    def is_over(self) -> bool:
        """Return whether the connection has ended."""
        return self.ended is not None

    @property
    def received(self) -> bool:
        """Whether the server has sent any data."""
        return bool(self._first)

    @property
    def settling(self) -> bool:
        """Whether an answer is awaited that returns items: of a cancelled poll, or of a settle of its items."""
        return bool(self._cancelled) or any(each.returning for each in self._sent.values())

    def call(self, call: Call[T], on_done: Callable[[T | QueueberError], None]) -> PendingCall:
        """
        Make *call*.

        *on_done* is called once: with the result; or with `InvalidRequest`, the call is longer than a message may be;
        `NotConnected`, the connection has ended; `OutcomeUnknown`, the connection was lost before the answer; or the
        error that the server returned.
        """
        pending = PendingCall(call, on_done)
        self.send(pending)
        return pending

    def probe(self) -> None:
        """
        Ask once whether the server recognises adds by their request ids.

        An older server ignores them.  The question is a method that came with them, and is answered without waiting
        for the disk, so before any add.  A ping would take away a session's ended leases.
        """
        if self._probed or self.is_over():
            return
        self._probed = True

        def answered(outcome: object) -> None:
            if isinstance(outcome, Unimplemented):
                self.knows_request_ids = False
            elif not isinstance(outcome, QueueberError):
                self.knows_request_ids = True

        content = api.write_queue_request(DEFAULT_QUEUE)
        asking = Call(None, api.BROKER_INTERFACE_ID, api.CONTROL, content, lambda _: None)
        self._transmit(PendingCall(asking, answered, internal=True))

    def send(self, pending: PendingCall) -> None:
        """Make the call *pending*."""
        if self.ended is not None:
            pending.finish(NotConnected(f"the call was not sent: {self.ended.why}"))
        elif self._held or len(pending.call.content) > self._limits.short:
            self._send_long(pending)
        else:
            self._transmit(pending)

    def _send_long(self, pending: PendingCall) -> None:
        """Make the call *pending*, which is long or comes after a long one, once the server's limit is known."""
        try:
            must_ask = self._limits.must_ask(len(pending.call.content))
        except InvalidRequest as why:
            pending.finish(why)
            return
        if not must_ask and not self._held:
            self._transmit_checked(pending)
            return
        pending.state = PendingState.HELD
        self._held[pending] = None
        if len(self._held) == 1:
            content, read = api.write_limits_request(), api.read_limits_response
            asking = Call(None, api.BROKER_INTERFACE_ID, api.LIMITS, content, read)
            self._transmit(PendingCall(asking, self._release, internal=True))

    def _release(self, outcome: api.ServerLimits | QueueberError) -> None:
        """Send the calls that wait for the server's limits, which are *outcome*."""
        self._limits.answered(outcome)
        while self._held:
            pending = next(iter(self._held))
            del self._held[pending]
            self._transmit_checked(pending)
        self._limits.forget(outcome)

    def _transmit_checked(self, pending: PendingCall) -> None:
        try:
            self._limits.check(len(pending.call.content))
        except InvalidRequest as why:
            pending.finish(why)
        else:
            self._transmit(pending)

    def _transmit(self, pending: PendingCall) -> None:
        call = pending.call
        pending.route = route = self._routes.to(call.place)
        pending.question = question = self._rpc.call(route.target, call.interface, call.method, call.content)
        pending.state = PendingState.SENT
        self._sent[question] = pending
        self._unsent.append(pending)

    def cancel(self, pending: PendingCall) -> None:
        """
        End the wait for the answer of *pending*, a call in the state HELD or SENT.

        The wait of a poll ends at the server, too, and items that were already sent return to the queue.  Any other
        call that was sent takes effect all the same.
        """
        question = pending.question
        if pending.state is PendingState.HELD:
            del self._held[pending]
        elif question is not None and self._sent.pop(question, None) is not None:
            is_poll = pending.call.read_lease is not None
            self._rpc.finish(question, report=is_poll)
            if is_poll:
                self._cancelled[question] = pending
        pending.withdraw()

    def receive_data(self, data: bytes) -> None:
        """Process answers.  Data after the end is ignored."""
        if self.is_over():
            return
        if len(self._first) < FIRST_BYTES:
            self._first += data[: FIRST_BYTES - len(self._first)]
            if other := protocol_of(self._first):
                self.end(f"this port speaks {other}", NotConnected, refused=True)
                return
        try:
            for event in self._rpc.receive_data(data):
                if isinstance(event, rpc.Returned):
                    self._returned(event)
                elif isinstance(event, rpc.Aborted):
                    self.end(f"the server ended the connection: {event.reason}")
        except RemoteProtocolError as why:
            self._rpc.abort(str(why))
            self.end(f"the server broke the protocol: {why}")

    def _returned(self, event: rpc.Returned) -> None:
        pending = self._sent.pop(event.question, None)
        if pending is None:
            # Without one of these, a function that was called with an earlier outcome has ended the connection.
            if not self._routes.returned(event):
                self._returned_late(event)
            return
        if not self._answered and getattr(event.outcome, "kind", None) != Kind.DISCONNECTED:
            self._answered = True
            self._owner.on_answer()
        try:
            outcome = self._outcome_of(pending, event.outcome)
        except RemoteProtocolError:
            self._sent[event.question] = pending
            raise
        self._rpc.finish(event.question)
        if type(outcome) is Stopping and pending.call.resend:
            self._owner.on_stopping(pending, outcome)
        else:
            pending.finish(outcome)

    def _returned_late(self, event: rpc.Returned) -> None:
        """Give back the items of a cancelled poll, if *event* is its answer."""
        pending = self._cancelled.pop(event.question, None)
        if pending is not None and not self.is_over() and isinstance(event.outcome, rpc.Results):
            self._give_back(pending.call, event.outcome)

    def _outcome_of(self, pending: PendingCall, outcome: rpc.Results | rpc.RemoteException | rpc.Canceled) -> object:
        """Return the result or error of *pending*.  If its object could not be resolved, that is the error."""
        call = pending.call
        if not isinstance(outcome, rpc.Results):
            assert pending.route is not None
            return pending.route.error or error_of(outcome, call.interface, call.method)
        own = self._limits.own
        if own is not None and outcome.content.frame_bytes > own:
            self._give_back(call, outcome)
            return ReplyTooLong(
                f"the reply is {outcome.content.frame_bytes:,} bytes; the limit is {own:,}, {FROM_ARGUMENT}:"
                " raise its frame_bytes, or pass no limits to accept what the server sends"
                + ("; the items of this poll return to their queue" if call.read_lease is not None else "")
            )
        try:
            return call.read(outcome)
        except RemoteProtocolError:
            raise
        except QueueberError as why:
            return why

    def _give_back(self, call: Call[Any], results: rpc.Results) -> None:
        """End the lease in the *results* of a poll, so that its items go to a worker that can receive them."""
        lease = b"" if call.read_lease is None else call.read_lease(results)
        if not lease:
            return

        def extend_on_an_old_server(outcome: object) -> None:
            """Extend the lease to nearly nothing, on a server without `settle`; the attempt counts then."""
            if isinstance(outcome, Unimplemented):
                content = api.write_extend_request(api.ExtendRequest(lease, GIVE_BACK_MS))
                ending = Call(call.place, api.QUEUE_INTERFACE_ID, api.EXTEND, content, api.read_extend_response)
                self._transmit(PendingCall(ending, ignore, internal=True, returning=True))

        settlement = api.Settlement(lease, b"", api.Action.DEFER)
        content = api.write_settle_request(api.SettleRequest([settlement]))
        settling = Call(call.place, api.QUEUE_INTERFACE_ID, api.SETTLE, content, api.read_settle_response)
        self._transmit(PendingCall(settling, extend_on_an_old_server, internal=True, returning=True))

    def data_to_send(self) -> bytes:
        """Return the bytes to send since the last time; empty if there are none."""
        self._unsent.clear()
        return self._rpc.data_to_send()

    def end(self, why: str, kind: type[QueueberError] = OutcomeUnknown, *, refused: bool = False) -> None:
        """
        End the connection, because its transport is lost or its peer is at fault.

        Calls in flight end with `NotConnected` if *kind* is that: no server has read any of them.  *refused*: a new
        attempt needs another configuration.
        """
        if self.ended is not None:
            return
        self.ended = ConnectionEnd(why, refused)
        unsent = {each.question for each in self._unsent}
        unfinished = [each for each in (*self._sent.values(), *self._held) if not each.internal]
        self._sent, self._held = {}, {}
        for each in unfinished:
            sent = each.state is PendingState.SENT and each.question not in unsent
            each.state, each.error = PendingState.ENDING, self._error(why, kind, sent=sent)
        self._owner.on_end(self.ended, unfinished)

    def _error(self, why: str, kind: type[QueueberError], *, sent: bool) -> QueueberError:
        """Return the error of a call, *sent* or not, on a connection that ends for the reason *why*."""
        if kind is NotConnected:
            return NotConnected(f"cannot connect{self._to}: {why}")
        if not sent:
            return NotConnected(f"the call was not sent: {why}")
        return OutcomeUnknown(f"the connection was lost, the call's outcome is unknown: {why}")

    def usage(self) -> rpc.ConnectionStats:
        """Return the sizes of the connection's tables."""
        return self._rpc.stats()

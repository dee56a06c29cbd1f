"""
The methods of sessions: `attach` and `ping`.

A session belongs to one connection at a time.  Its sink reports when the
connection is lost, and closes it when another connection attaches the session.
"""

from functools import partial
from typing import Any

from attrs import define, field

from queueber import api, rpc
from queueber.broker import Broker, Peer, Plan, Session
from queueber.broker.session_table import SessionId
from queueber.limits import Limits
from queueber.server.core.clock import QueueClock
from queueber.server.core.committer import Committer
from queueber.server.core.replies import Methods, ReplySink


@define(eq=False)
class SessionHandlers:
    """Carries calls about sessions, and the losses of their connections, to the broker."""

    _broker: Broker
    _committer: Committer
    _clock: QueueClock
    _limits: Limits
    _draining: bool = field(default=False, init=False)
    """The server is stopping: connections that end start no grace."""

    _sinks: dict[Peer, ReplySink] = field(factory=dict, init=False)
    """The connections with sessions."""

    @property
    def methods(self) -> Methods:
        """The handlers of the methods."""
        return {
            (api.BROKER_INTERFACE_ID, api.ATTACH): self._attach,
            (api.BROKER_INTERFACE_ID, api.PING): self._ping,
        }

    def _attach(self, sink: ReplySink, root: Any, calls: rpc.Calls) -> None:  # noqa: ANN401, ARG002
        request = api.read_attach_request(calls.params)
        now = self._clock.now()
        attached = self._broker.sessions.attach(SessionId(request.session), request.grace, sink.peer, now)
        older = None if attached.superseded is None else self._sinks.pop(attached.superseded, None)
        if older is not None:
            # Its polls are cancelled at once, so that none of them is answered with items for this session.  One that
            # had several sessions is closing already when the second of them moves.
            older.supersede()
        if sink.peer not in self._sinks:
            self._sinks[sink.peer] = sink
            sink.keep_session(partial(self._lost, sink.peer))
        self._submit(attached.plans)
        # Without `more` a session that is attached already gets no leases: small calls would cause large replies.
        response = self._response(attached.session, leases=request.more or not attached.again)
        self._committer.submit(Plan([], (), response), partial(self._return, sink, calls.answer))

    def _response(self, session: Session, *, leases: bool) -> api.AttachResponse:
        """Return the response, with the next *leases* that its worker was not shown."""
        found = self._broker.sessions.next_leases(session) if leases else []
        shown = [api.SessionLease(lease.id, queue, list(lease.keys)) for lease, queue in found]
        return api.AttachResponse(shown, session.grace, self._limits.session_silence_ms, bool(session.unlisted))

    def _return(self, sink: ReplySink, answer: rpc.AnswerId, response: api.AttachResponse) -> None:
        sink.results([answer], [api.write_attach_response(response)])

    def _ping(self, sink: ReplySink, root: Any, calls: rpc.Calls) -> None:  # noqa: ANN401, ARG002
        sink.results([calls.answer], [api.write_ping_response(self._broker.sessions.ping(sink.peer))])

    def _lost(self, peer: Peer) -> None:
        """Detach the sessions of a connection that has ended."""
        self._sinks.pop(peer, None)
        if not self._draining:
            self._submit(self._broker.sessions.lost(peer, self._clock.now()))

    def drain(self) -> None:
        """Start no grace from now on, because the server is stopping: the next start gives the workers time."""
        self._draining = True

    def started(self) -> None:
        """Give the leases that were read from the disk their deadlines, now that workers can attach again."""
        self._submit(self._broker.sessions.started(self._clock.now()))

    def _submit(self, plans: list[Plan[None]]) -> None:
        for plan in plans:
            self._committer.submit(plan, _ignore)


def _ignore(_: object) -> None:
    """Do nothing."""

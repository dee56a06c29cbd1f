"""
Sessions: leases that last as long as a worker's connection.

State model for sessions
------------------------

1. ATTACHED  bound to one connection.  Its leases have no deadline; no timer runs and nothing is written for them.
2. DETACHED  that connection has ended, or the server was started.  Its leases have deadlines, on the disk too.
3. GONE      it was detached and has lost its last lease.  An attach with its id makes a new session.

    state    | attach   | loss     | emptied
    ---------+----------+----------+---------
    ATTACHED | ATTACHED | DETACHED | -
    DETACHED | ATTACHED | -        | GONE

An attach on another connection moves the session there, and the caller closes
the older connection.  Its end changes nothing then: a loss concerns only the
sessions that are still bound to the connection that was lost.

The deadlines of a detached session are durable before its worker may attach
again elsewhere.  If they were kept in memory alone, a server that crashes more
often than the grace would hold the items of a dead worker for ever.
"""

from collections import deque
from collections.abc import Iterator
from enum import IntEnum, auto
from typing import TYPE_CHECKING, NewType

from attrs import define, field

from queueber.broker.waiter import Peer
from queueber.units import SpanMs

if TYPE_CHECKING:
    from queueber.broker.leases import Lease
    from queueber.broker.model import LeaseId

SessionId = NewType("SessionId", bytes)
"""16 random bytes that a worker has chosen."""

ENDED_MAX = 1_000
"""The most ended leases that a session remembers for a ping: a peer may never send one."""


class SessionState(IntEnum):
    """States of a session.  Integers, because the hash of other enums is a Python call."""

    ATTACHED = auto()
    DETACHED = auto()
    GONE = auto()


class SessionInput(IntEnum):
    """Inputs of a session's state machine."""

    ATTACH = auto()
    LOSS = auto()
    EMPTIED = auto()


SESSION_TRANSITIONS = {
    (SessionState.ATTACHED, SessionInput.ATTACH): SessionState.ATTACHED,
    (SessionState.ATTACHED, SessionInput.LOSS): SessionState.DETACHED,
    (SessionState.DETACHED, SessionInput.ATTACH): SessionState.ATTACHED,
    (SessionState.DETACHED, SessionInput.EMPTIED): SessionState.GONE,
}
"""Every transition of a session.  Any other input is a bug of the broker, and a KeyError."""


@define(eq=False)
class Session:
    """One worker's session."""

    id: SessionId
    grace: SpanMs
    peer: Peer | None = None
    """The connection that it is bound to; None while it is detached."""

    state: SessionState = SessionState.DETACHED
    leases: "dict[LeaseId, Lease]" = field(factory=dict)
    """The session's leases whose polls were answered and that have not ended."""

    unlisted: "deque[Lease]" = field(factory=deque)
    """The leases that it had when it was attached and that its worker was not shown yet; some may have ended."""

    ended: "list[LeaseId]" = field(factory=list)
    """The last `ENDED_MAX` leases that ended without the worker since its last ping."""

    def advance(self, happened: SessionInput) -> None:
        """Make the transition of the table.  Raises KeyError, and changes nothing, if there is none."""
        self.state = SESSION_TRANSITIONS[self.state, happened]


class SessionTable:
    """All sessions that are attached or have leases, by id and by connection."""

    def __init__(self) -> None:
        self._all: dict[SessionId, Session] = {}
        self._of_peer: dict[Peer, dict[SessionId, Session]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._all.values()))

    def get(self, session_id: SessionId) -> Session | None:
        """Return the session of that id, attached or not; None without one."""
        return self._all.get(session_id)

    def add(self, session_id: SessionId, grace: SpanMs) -> Session:
        """Return a new session, which is detached and has no leases: attach it, or bind one."""
        session = self._all[session_id] = Session(session_id, grace)
        return session

    def attached_to(self, peer: Peer) -> list[Session]:
        """Return the sessions that are attached to the connection *peer*."""
        return list(self._of_peer.get(peer, {}).values())

    def attach(self, session: Session, peer: Peer) -> None:
        """Bind *session* to the connection *peer*."""
        self._unbind(session)
        session.advance(SessionInput.ATTACH)
        session.peer = peer
        self._of_peer.setdefault(peer, {})[session.id] = session

    def detach(self, session: Session) -> None:
        """Note that the connection of *session* has ended; forget it if it has no leases."""
        self._unbind(session)
        session.unlisted.clear()
        session.advance(SessionInput.LOSS)
        self._forget_emptied(session)

    def bind(self, lease: "Lease") -> None:
        """Add *lease*, whose poll was answered or which was read at start, to its session."""
        self._all[SessionId(lease.session)].leases[lease.id] = lease

    def release(self, lease: "Lease", *, ended: bool = False) -> None:
        """Take *lease* out of its session; *ended* if it ended without the worker, which the next ping reports."""
        session = self._all[SessionId(lease.session)]
        del session.leases[lease.id]
        if ended and session.state is SessionState.ATTACHED:
            session.ended.append(lease.id)
            del session.ended[:-ENDED_MAX]
        self._forget_emptied(session)

    def _forget_emptied(self, session: Session) -> None:
        if session.state is SessionState.DETACHED and not session.leases:
            session.advance(SessionInput.EMPTIED)
            del self._all[session.id]

    def _unbind(self, session: Session) -> None:
        if session.peer is None:
            return
        of_peer = self._of_peer[session.peer]
        del of_peer[session.id]
        if not of_peer:
            del self._of_peer[session.peer]
        session.peer = None

    def check(self) -> None:
        """Raise AssertionError if the indexes disagree.  O(n); for tests."""
        bound = [session for sessions in self._of_peer.values() for session in sessions.values()]
        attached = [session for session in self if session.state is SessionState.ATTACHED]
        assert sorted(session.id for session in bound) == sorted(session.id for session in attached)
        for session in self:
            assert (session.peer is not None) == (session.state is SessionState.ATTACHED)
            assert session.leases or session.peer is not None
            assert all(lease.session == session.id for lease in session.leases.values())

"""
Decisions about sessions: attaches, pings, and the ends of connections.

The model and the states of sessions are in `session_table`.
"""

from collections import Counter, deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from attrs import define

from queueber.broker.leases import FOREVER, GRACE_USED, Lease, LeaseTable
from queueber.broker.model import LeaseId, QueueNumber
from queueber.broker.plans import Plan, UncommittedPlans
from queueber.broker.queues import Queues
from queueber.broker.session_table import Session, SessionId, SessionState
from queueber.broker.storage import PutLease, Write
from queueber.broker.waiter import Peer
from queueber.errors import InvalidRequest, Overloaded
from queueber.fixed_limits import ATTACH_BYTES, ID_BYTES
from queueber.limits import Limits
from queueber.units import SECOND, SpanMs, WallMs, counted

GRACE_MIN = SpanMs(10 * SECOND)
GRACE_DEFAULT = SpanMs(30 * SECOND)
"""Also the least time that a worker has to attach again after a start of the server."""

_LEASE_BYTES: Final = 64
"""A lease in a reply without its items and the name of its queue.  An item takes `Lease.record_bytes` there, too."""


class Attached(NamedTuple):
    """The result of an attach."""

    session: Session
    plans: list[Plan[None]]
    """Plans that must be durable before the attach is answered."""

    superseded: Peer | None
    """The older connection of the session, which the caller must close."""

    again: bool
    """Whether the session was attached to this connection already."""


@define(eq=False)
class Sessions:
    """Decides attaches, pings and the ends of connections."""

    _queues: Queues
    _leases: LeaseTable
    _uncommitted: UncommittedPlans
    _limits: Limits

    def attach(self, session_id: SessionId, grace: SpanMs, peer: Peer, now: WallMs) -> Attached:
        """
        Bind a session to the connection *peer*.  *grace* is 0 for the default.

        Leases whose deadline has passed stay lost.

        Raises:
            InvalidRequest: the id or the grace cannot be had.
            Overloaded: there are too many sessions.
        """
        self._check(session_id, grace)
        session = self._leases.sessions.get(session_id) or self._make(session_id)
        again = session.peer == peer
        superseded = None if again else session.peer
        was_detached = session.state is SessionState.DETACHED
        session.grace = grace or GRACE_DEFAULT
        self._leases.sessions.attach(session, peer)
        plans: list[Plan[None]] = []
        if was_detached:
            lost = [lease for lease in session.leases.values() if lease.deadline <= now]
            for lease in lost:
                self._leases.leave_session(lease)
                # Nor does the next start give it back.
                lease.grace = GRACE_USED
            for lease in session.leases.values():
                lease.grace, lease.excused = session.grace, False
            plans = self._move_deadlines(session, FOREVER) + self._write(lost)
        elif not again:
            # Not over the same connection, where small calls would cause large writes.
            others = [lease for lease in session.leases.values() if lease.grace != session.grace]
            for lease in others:
                lease.grace = session.grace
            plans = self._write(others)
        if not again:
            session.unlisted = deque(session.leases.values())
        return Attached(session, plans, superseded, again)

    def _check(self, session_id: SessionId, grace: SpanMs) -> None:
        if len(session_id) != ID_BYTES:
            raise InvalidRequest(f"session is {counted(len(session_id), 'byte')}; it must be {ID_BYTES}")
        if grace and not GRACE_MIN <= grace <= self._limits.lease_ms:
            raise InvalidRequest(
                f"graceMs is {grace:,} ms; it must be {GRACE_MIN:,} to {self._limits.lease_ms:,} ms (lease_ms), or 0"
            )

    def _make(self, session_id: SessionId) -> Session:
        if len(self._leases.sessions) >= self._limits.sessions:
            raise Overloaded(
                f"sessions: {counted(len(self._leases.sessions), 'exists', 'exist')}; the limit is"
                f" {self._limits.sessions:,} (sessions)",
                limit="sessions",
            )
        return self._leases.sessions.add(session_id, GRACE_DEFAULT)

    def next_leases(self, session: Session) -> list[tuple[Lease, str]]:
        """
        Return the next leases of an attached session that its worker was not shown, and the names of their queues.

        They are at most `ATTACH_BYTES` in a reply, and one lease more.  There may be others until `Session.unlisted` is
        empty.
        """
        found: list[tuple[Lease, str]] = []
        size = 0
        while session.unlisted and size < ATTACH_BYTES:
            lease = session.unlisted.popleft()
            if lease.id in session.leases:
                name = self._queues.by_number(lease.queue).name
                found.append((lease, name))
                size += _LEASE_BYTES + len(name.encode()) + lease.record_bytes
        return found

    def of(self, session_id: SessionId, peer: Peer) -> Session:
        """
        Return the session of a poll from the connection *peer*.

        Raises:
            InvalidRequest: the session is not attached to that connection.
        """
        session = self._leases.sessions.get(session_id)
        if session is None or session.peer != peer:
            raise InvalidRequest("session is not attached to this connection; call attach first")
        return session

    def ping(self, peer: Peer) -> list[LeaseId]:
        """Return leases that ended without the worker since the last ping: of each session the last `ENDED_MAX`."""
        ended: list[LeaseId] = []
        for session in self._leases.sessions.attached_to(peer):
            ended += session.ended
            session.ended = []
        return ended

    def lost(self, peer: Peer, now: WallMs) -> list[Plan[None]]:
        """
        Detach the sessions of the connection *peer*, which has ended.

        Not to be called for connections that end because the server stops: the
        outage is not the workers' fault, and the next start gives them time.

        Returns:
            Plans that write the deadlines of their leases.
        """
        plans: list[Plan[None]] = []
        for session in self._leases.sessions.attached_to(peer):
            self._leases.sessions.detach(session)
            plans += self._move_deadlines(session, WallMs(now + session.grace))
        return plans

    def restore(self, lease: Lease) -> None:
        """Make the session of *lease*, which is read from the disk at start, unless an earlier lease has made it."""
        session_id = SessionId(lease.session)
        if self._leases.sessions.get(session_id) is None:
            self._leases.sessions.add(session_id, lease.grace)

    def started(self, now: WallMs) -> list[Plan[None]]:
        """
        Give the leases of all detached sessions their deadlines after a start: *now* is when the server listens.

        Returns:
            Plans that write them.
        """
        plans: list[Plan[None]] = []
        for session in self._leases.sessions:
            if session.state is SessionState.ATTACHED:
                # Its worker was faster.
                continue
            plans += self._move_deadlines(session, WallMs(now + max(session.grace, GRACE_DEFAULT)))
        return plans

    def _move_deadlines(self, session: Session, end: WallMs) -> list[Plan[None]]:
        """Let the leases of *session* end at *end*, or before it at their bound; return a plan for each queue."""
        for lease in session.leases.values():
            self._leases.extend(lease, min(end, lease.latest_end))
        return self._write(session.leases.values())

    def _write(self, leases: Iterable[Lease]) -> list[Plan[None]]:
        """Return a plan for each queue that writes the rows of *leases*."""
        writes: dict[QueueNumber, list[Write]] = {}
        sizes: Counter[QueueNumber] = Counter()
        for lease in leases:
            writes.setdefault(lease.queue, []).append(PutLease(lease.id, lease.record()))
            sizes[lease.queue] += lease.record_bytes
        return [
            self._uncommitted.plan(self._queues.by_number(number), rows, None, sizes[number])
            for number, rows in writes.items()
        ]

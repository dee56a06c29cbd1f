"""
The attachment of a worker to its server: whether it may poll, and how.

| State | session attached | detached | refused | the server has no sessions | it settles | it does not settle |
|---|---|---|---|---|---|---|
| ATTACHING | ATTACHED | | ATTACHING, logged | PROBING | | |
| ATTACHED | | ATTACHING | | | | |
| PROBING | | ATTACHING | | | TIMED | ONE_ITEM |
| TIMED, ONE_ITEM | | ATTACHING | | | | |

A worker with session leases begins as ATTACHING, and may poll while its session is ATTACHED.  One without begins as
PROBING, and is never detached.  A server that is older than sessions gives leases with a deadline, and one that is
older than `settle` is found out by an empty one, before the first poll.  That is repeated after a temporary error.
"""

import os
from collections.abc import Callable
from enum import Enum, auto
from time import monotonic
from typing import Final

from attrs import frozen

from queueber.client_core.connection import ClientConnection
from queueber.client_core.kept_session import KeptSession, SessionState
from queueber.errors import InvalidRequest, Kind, QueueberError, Unimplemented
from queueber.fixed_limits import ID_BYTES
from queueber.sync.io_thread import IoThread
from queueber.units import MS_PER_SECOND, SpanMs
from queueber.worker.connection_watch import ConnectionWatch, WatchState
from queueber.worker.handling import LOG
from queueber.worker.polling import PollMode
from queueber.worker.source import QueueSource

RETRY_SECONDS: Final = 1.0


@frozen(kw_only=True)
class LeaseOptions:
    """The kind of a worker's leases, and their spans."""

    session: bool
    grace_ms: int
    """The time by which session leases outlive the connection."""

    span: SpanMs
    """The span of leases with a deadline."""


class AttachmentState(Enum):
    """The state of an attachment, as in the table of this module."""

    ATTACHING = auto()
    ATTACHED = auto()
    PROBING = auto()
    """The server is asked whether it settles."""

    TIMED = auto()
    ONE_ITEM = auto()
    """TIMED, on a server that does not settle."""


_POLLS: Final = {
    AttachmentState.ATTACHING: PollMode.NONE,
    AttachmentState.ATTACHED: PollMode.MANY,
    AttachmentState.PROBING: PollMode.NONE,
    AttachmentState.TIMED: PollMode.MANY,
    AttachmentState.ONE_ITEM: PollMode.ONE_ITEM,
}


class Attachment:
    """The session of one worker, or its leases with a deadline.  Lives in the I/O thread."""

    def __init__(
        self,
        io: IoThread,
        source: QueueSource,
        upkeep: LeaseOptions,
        *,
        session: bytes | None,
        on_change: Callable[[], None],
        on_lost: Callable[[bytes], None],
        on_refused: Callable[[QueueberError], None],
    ) -> None:
        """
        Attach *session*, that of a worker that has ended, or a new one.

        Call *on_change* when `polls` may have changed, *on_lost* with each lease that the server ends, and *on_refused*
        if the server, or another program at its address, refuses this worker before a server has accepted it.
        """
        self.state = AttachmentState.ATTACHING
        self.connection = ConnectionWatch(io, source, on_refused)
        self._io = io
        self._source = source
        self._upkeep = upkeep
        self._on_change = on_change
        self._on_refused = on_refused
        link = io.link
        link.users.append(self)
        self._session: KeptSession | None = None
        """None without one, and while it is made."""

        if upkeep.session:
            self._session = self._keep(session, on_lost)
        else:
            self._probe()
        if link.connection is None:
            self.on_disconnected()
        else:
            self.on_connected(link.connection)

    def _keep(self, session: bytes | None, on_lost: Callable[[bytes], None]) -> KeptSession:
        return KeptSession(
            self._io.link,
            self._source.held,
            os.urandom(ID_BYTES) if session is None else session,
            grace_ms=self._upkeep.grace_ms,
            inherited=session is not None,
            clock=monotonic,
            on_change=self._session_changed,
            on_lost=on_lost,
        )

    @property
    def polls(self) -> PollMode:
        """Whether the worker may poll, and how."""
        return _POLLS[self.state]

    @property
    def session(self) -> KeptSession | bytes:
        """The session to name in polls, or nothing."""
        session = self._session
        return b"" if session is None or session.state is SessionState.UNSUPPORTED else session

    @property
    def safe_until(self) -> float | None:
        """The end of the time in which session leases last for certain; None without a session."""
        return None if self._session is None else self._session.safe_until

    @property
    def next_at(self) -> float | None:
        """When `tick` is due; None if that does not depend on time."""
        return None if self._session is None else self._session.next_at

    def tick(self, now: float) -> None:
        """Ping if it is time, and write to the log why there is no connection."""
        if self._session is not None:
            self._session.tick()
        self.connection.tick(now)

    def close(self) -> None:
        """Note that the worker has ended."""
        self.connection.end()

    def on_connected(self, _: ClientConnection) -> None:
        """Note that there is a connection.  Part of `ConnectionUser`."""
        self.connection.connected()
        if self.polls is not PollMode.NONE:
            self.connection.served()

    def on_disconnected(self) -> None:
        """Note that there is no connection.  Part of `ConnectionUser`."""
        self.connection.lost()

    def on_closing(self) -> None:
        """Make no calls: the worker has given back its items.  Part of `ConnectionUser`."""

    def _enter(self, state: AttachmentState) -> None:
        self.state = state
        if self.polls is not PollMode.NONE:
            self.connection.served()
        self._on_change()

    def _session_changed(self) -> None:
        session = self._session
        if session is None:
            # Called while it is made.
            self._io.post(self._session_changed)
        elif session.state is SessionState.ATTACHED:
            self._enter(AttachmentState.ATTACHED)
        elif session.state is SessionState.UNSUPPORTED:
            span = self._upkeep.span / MS_PER_SECOND
            LOG.warning("the server is too old for sessions: leases of %g s are extended instead", span)
            self._probe()
        else:
            self._enter(AttachmentState.ATTACHING)
            if session.state is SessionState.REFUSED:
                self._refused(session.error)

    def _refused(self, why: QueueberError | None) -> None:
        if isinstance(why, InvalidRequest) and not self.connection.accepted:
            self._on_refused(why)
        else:
            LOG.warning("the server refuses the session: %s", why)

    def _probe(self) -> None:
        """Find out whether the server settles."""
        self._enter(AttachmentState.PROBING)

        def probed(outcome: object) -> None:
            if self.state is not AttachmentState.PROBING:
                # The connection was lost meanwhile, and a session may be attached over the next one.
                return
            if isinstance(outcome, Unimplemented):
                LOG.warning("the server is too old for settle: failures are not counted, and nothing is rejected")
                self._enter(AttachmentState.ONE_ITEM)
            elif isinstance(outcome, QueueberError) and outcome.kind is not Kind.FAILED:
                self._io.timers.call_later(RETRY_SECONDS, self._probe_again)
            else:
                self._enter(AttachmentState.TIMED)

        self._io.link.call(self._source.settle([], []), probed)

    def _probe_again(self) -> None:
        if self.state is AttachmentState.PROBING and self.connection.state is not WatchState.ENDED:
            self._probe()

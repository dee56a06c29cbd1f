"""
The state of the worker's session: whether it may poll, and why not.

A worker with session leases may poll while its session is attached.  A server
that is older than sessions gives leases with a deadline, and one that is older
than `settle` is found out by an empty one, before the first poll.
"""

import os
from collections.abc import Callable
from time import monotonic
from typing import Final

from attrs import frozen

from queueber.client_core.connection import ClientConnection, PendingCall
from queueber.client_core.errors import NotConnected
from queueber.client_core.kept_session import KeptSession, SessionState
from queueber.errors import InvalidRequest, Kind, QueueberError, Unimplemented
from queueber.limits import ID_BYTES
from queueber.sync.io_thread import IoThread
from queueber.units import MS_PER_SECOND, SpanMs
from queueber.worker.handling import LOG
from queueber.worker.source import Source

RETRY_SECONDS: Final = 1.0

ABSENT_SECONDS: Final = 3.0
AWAY_SECONDS: Final = 60.0
"""The time without a connection after which the log says why, and then the time between two such lines."""


@frozen(kw_only=True)
class Upkeep:
    """How leases are kept."""

    session: bool
    grace_ms: int
    """How long session leases outlive the connection."""

    span: SpanMs
    """The span of leases with a deadline."""


class Attachment:
    """The session and the connection of one worker.  Lives in the I/O thread."""

    def __init__(
        self,
        io: IoThread,
        source: Source,
        upkeep: Upkeep,
        *,
        session: bytes | None,
        on_change: Callable[[], None],
        on_lost: Callable[[bytes], None],
        on_refused: Callable[[QueueberError], None],
    ) -> None:
        """
        Attach *session*, that of a worker that has ended, or a new one.

        Call *on_change* when an attribute changes, *on_lost* with each lease that the server ends, and *on_refused* if
        the server, or another program at its address, refuses this worker before a server has accepted it.
        """
        self.ready = False
        """Whether the worker may poll."""

        self.old_server = False
        """Whether the server does not settle."""

        self.connected_at: float | None = None
        """Monotonic seconds since which there is a connection; None without one."""

        self.away_since: float | None = monotonic()
        """Monotonic seconds since which there is no connection; None with one."""

        self._io = io
        self._source = source
        self._upkeep = upkeep
        self._on_change = on_change
        self._on_refused = on_refused
        self._closed = False
        self._asking: PendingCall | None = None
        """A call that waits for the connection, and has the reason why there is none."""

        self._report_at = 0.0
        self._refusal_at = 0.0
        """When the log may say again that the peer refuses."""

        self._announced = self._accepted = False
        """Whether the log says that there is a connection, and whether a server has ever let this worker poll."""

        link = io.link
        link.users.append(self)
        self._session: KeptSession | None = None
        if upkeep.session:
            self._session = self._keep(session, on_lost)
        else:
            self._probe()
        if link.connection is None:
            self._await_connection()
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
        if self._asking is not None and self._asking.why and now >= self._report_at:
            LOG.warning("there is no connection: %s", self._asking.why)
            self._report_at = now + AWAY_SECONDS

    def close(self) -> None:
        """Note that the worker has ended."""
        self._closed = True

    def on_connected(self, _: ClientConnection) -> None:
        """Note that there is a connection.  Part of `ConnectionUser`."""
        self.connected_at, self.away_since = monotonic(), None
        if self.ready:
            self._announce()

    def on_disconnected(self) -> None:
        """Note that the connection is lost.  Part of `ConnectionUser`."""
        self.connected_at, self.away_since = None, monotonic()
        if not self._closed:
            if self._announced:
                LOG.warning("the connection is lost; connecting again")
            self._announced = False
            self._await_connection()

    def _announce(self) -> None:
        """Log that a server answers."""
        if not self._announced:
            self._announced = self._accepted = True
            LOG.info("connected; taking items of %s", self._source)

    def on_closing(self) -> None:
        """Make no calls: the worker has given back its items.  Part of `ConnectionUser`."""

    def _await_connection(self) -> None:
        """Make a call that has the reason as long as there is no connection."""
        self._report_at = monotonic() + ABSENT_SECONDS

        def answered(outcome: object) -> None:
            self._asking = None
            if not isinstance(outcome, NotConnected) or self._closed:
                return
            # The peer is no server of Queueber, or refuses this client.
            if not self._accepted:
                self._on_refused(outcome)
            else:
                # Another attempt is made, but it may take an operator to help.
                if (now := monotonic()) >= self._refusal_at:
                    LOG.error("%s", outcome)
                    self._refusal_at = now + AWAY_SECONDS
                self._later(AWAY_SECONDS, self._await_connection)

        if self._asking is None:
            self._asking = self._io.link.call(self._source.limits(), answered)

    def _later(self, seconds: float, function: Callable[[], None]) -> None:
        self._io.timers.call_later(seconds, lambda: None if self._closed else function())

    def _session_changed(self) -> None:
        session = self._session
        if session is None:
            # Called while it is made.
            self._io.post(self._session_changed)
            return
        self.ready = session.state is SessionState.ATTACHED
        if self.ready:
            self._announce()
        if session.state is SessionState.UNSUPPORTED:
            span = self._upkeep.span / MS_PER_SECOND
            LOG.warning("the server is too old for sessions: leases of %g s are extended instead", span)
            self._probe()
        elif session.state is SessionState.REFUSED:
            if isinstance(session.error, InvalidRequest) and not self._accepted:
                self._on_refused(session.error)
            else:
                LOG.warning("the server refuses the session: %s", session.error)
        self._on_change()

    def _probe(self) -> None:
        """Find out whether the server settles."""

        def probed(outcome: object) -> None:
            if isinstance(outcome, Unimplemented):
                self.old_server = True
                LOG.warning("the server is too old for settle: failures are not counted, and nothing is rejected")
            elif isinstance(outcome, QueueberError) and outcome.kind is not Kind.FAILED:
                self._later(RETRY_SECONDS, self._probe)
                return
            self.ready = True
            self._announce()
            self._on_change()

        self._io.link.call(self._source.settle([], []), probed)

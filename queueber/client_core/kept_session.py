"""
A session that is kept for as long as its program wants it.

| State | connected | answer | refused | connection lost | `end` |
|---|---|---|---|---|---|
| DETACHED | ATTACHING | | | | CLOSED |
| ATTACHING | | ATTACHED | REFUSED, or UNSUPPORTED: an old server | DETACHED | CLOSED |
| ATTACHED | | pinged | | DETACHED | CLOSED |
| REFUSED | ATTACHING, also after a while | | | DETACHED | CLOSED |
| UNSUPPORTED | ATTACHING | | | DETACHED | CLOSED |
| CLOSED | | pinged, until the connection is lost | | | |

Leases of the session do not end while it is attached.  While it is detached, the
worker may rely on them until `safe_until`.  After attaching, the session compares
the leases that the server names with those that its program holds: it reports
the ones that have ended, and gives back the ones whose reply was lost.

On a server that does not know sessions, polls that name the session get leases
with a deadline, which the worker must extend: see `state`.
"""

from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from queueber import api
from queueber.client_core.arguments import integer
from queueber.client_core.broker_calls import BrokerCalls
from queueber.client_core.calls import Call, PendingCall, ignore
from queueber.client_core.connection import ClientConnection
from queueber.client_core.errors import NotConnected
from queueber.client_core.held_leases import HeldLeases
from queueber.client_core.items import settle_content
from queueber.client_core.queue_calls import GRACE_MS_DEFAULT, SessionRef
from queueber.client_core.reconnect import Link
from queueber.errors import InvalidRequest, QueueberError, Unimplemented
from queueber.fixed_limits import SETTLEMENTS_MAX
from queueber.units import DAY, MS_PER_SECOND, SECOND, SpanMs

GRACE_MS_MIN: Final = 10 * SECOND
GRACE_MS_MAX: Final = 7 * DAY

PINGS: Final = 4
"""Pings in the shorter of the grace and the server's silence."""

REFUSED_SECONDS: Final = 5.0
"""The wait before an attach that the server refused is sent again."""

END_MS: Final = SpanMs(1)
"""The shortest span of a lease."""

_CALLS: Final = BrokerCalls(lambda _, response: response)


class SessionState(Enum):
    """The state of a session, as the client sees it."""

    DETACHED = auto()
    """There is no connection."""

    ATTACHING = auto()
    """The server has not answered yet."""

    ATTACHED = auto()
    """The leases of the session do not end."""

    REFUSED = auto()
    """The server refused the session, and is asked again after a while."""

    UNSUPPORTED = auto()
    """The server is older than sessions: leases have a deadline, and must be extended."""

    CLOSED = auto()
    """The session was ended."""


class KeptSession(SessionRef):
    """
    One session; the module's docstring explains its states.

    The driver calls `tick` at `next_at`, sends what the connection has after
    every call, and looks at `next_at` again when *on_change* was called.
    """

    def __init__(
        self,
        link: Link,
        held: HeldLeases,
        session: bytes,
        *,
        grace_ms: int = GRACE_MS_DEFAULT,
        inherited: bool = False,
        clock: Callable[[], float],
        on_change: Callable[[], None],
        on_lost: Callable[[bytes], None],
    ) -> None:
        """
        Keep *session*, 16 random bytes, over the connections of *link*.

        *held* are the client's leases.  With *inherited* it is the session of a process that has ended: the leases that
        the server names at first end at once, which counts as the loss that they would be after the grace.  *clock*
        returns monotonic seconds.  *on_change* is called when the state or `next_at` has changed, *on_lost* with each
        lease that ended while the program held it.

        Raises:
            InvalidRequest: *grace_ms* is not 10 s to 7 days.
        """
        self.grace_ms = SpanMs(integer("grace_ms", grace_ms, GRACE_MS_MIN, GRACE_MS_MAX, "ms"))
        """The time by which leases outlive a lost connection."""

        self.state = SessionState.DETACHED
        self.error: QueueberError | None = None
        """The reason, in the state REFUSED."""

        self.safe_until: float | None = None
        """
        The time, by the clock, until which the leases live if the server hears nothing more; None before an answer.

        The sending time of the last answered ping, and the grace.
        """

        self.next_at: float | None = None
        """When `tick` is due; None without a connection."""

        self._link = link
        self._held = held
        self._session = session
        self._clock = clock
        self._on_change = on_change
        self._on_lost = on_lost
        self._connection: ClientConnection | None = None
        self._interval = 0.0
        self._inherits = inherited
        """Whether the server has still to name the leases of the earlier process."""

        self._inherited: set[bytes] = set()
        """The leases of the earlier process that have not been ended yet."""

        link.users.append(self)
        if link.connection is not None:
            self.on_connected(link.connection)

    @property
    def session_id(self) -> bytes:
        """
        The session's bytes, for a poll.  Part of `SessionRef`.

        Raises:
            InvalidRequest: the session is closed.
            QueueberError: the server has refused to attach it, for now.
        """
        if self.state is SessionState.CLOSED:
            raise InvalidRequest("session is closed; it must be an open one")
        if self.state is SessionState.REFUSED and self.error is not None:
            raise self.error
        return self._session

    def hold(self, response: api.PollResponse) -> None:
        """Note the lease in a poll's *response*.  Part of `SessionRef`."""
        if response.session and response.lease:
            self._held.hold(self, response.lease, [item.id for item in response.items])

    def on_connected(self, connection: ClientConnection) -> None:
        """Attach the session to *connection*.  Part of `ConnectionUser`."""
        self._connection = connection
        self.next_at = None
        self._attach(connection)

    def _attach(self, connection: ClientConnection) -> None:
        sent_at, expected = self._clock(), set(self._held.of(self))
        alive: set[bytes] = set()
        inherits = self._inherits
        self.state = SessionState.ATTACHING

        def attached(outcome: api.AttachResponse | QueueberError) -> None:
            if connection is not self._connection:
                return
            if isinstance(outcome, QueueberError):
                if self.state is SessionState.ATTACHING:
                    self._refused(outcome)
            else:
                alive.update(page := {each.lease for each in outcome.leases})
                if inherits:
                    # Added page by page: polls begin after the first, and their leases are this process's own.
                    self._inherited |= page
                    self._inherits = False
                self._attached(outcome, sent_at)
                if outcome.more:
                    connection.call(_CALLS.attach(self._session, grace_ms=self.grace_ms, more=True), attached)
                else:
                    self._give_back(connection.send, sorted(alive - expected - self._inherited))
                    self._end_inherited(connection)
                    self._lose(expected - alive)
            self._on_change()

        connection.call(_CALLS.attach(self._session, grace_ms=self.grace_ms), attached)

    def _end_inherited(self, connection: ClientConnection) -> None:
        """
        Let the leases of the earlier process end in a moment.  What is refused is sent again with the next ping.

        Failing their items would be bounded by the size of the items, and would count failures of what never began.
        """
        leases = sorted(self._inherited)[:SETTLEMENTS_MAX]
        if not leases:
            return

        def ended(outcome: object) -> None:
            if not isinstance(outcome, QueueberError):
                self._inherited.difference_update(leases)
                if connection is self._connection:
                    self._end_inherited(connection)

        entries = [api.Settlement(lease, b"", api.Action.EXTEND, END_MS) for lease in leases]
        connection.send(PendingCall(_settling(entries), ended))

    def _attached(self, response: api.AttachResponse, sent_at: float) -> None:
        if self.state is SessionState.ATTACHING:
            self.state, self.error = SessionState.ATTACHED, None
        self.grace_ms = response.grace
        self._interval = min(response.grace, response.silence) / PINGS / MS_PER_SECOND
        self._answered(sent_at)
        self.next_at = sent_at + self._interval

    def _refused(self, why: QueueberError) -> None:
        self.error = why
        if isinstance(why, Unimplemented):
            self.state, self.next_at = SessionState.UNSUPPORTED, None
        else:
            self.state, self.next_at = SessionState.REFUSED, self._clock() + REFUSED_SECONDS

    def _answered(self, sent_at: float) -> None:
        until = sent_at + self.grace_ms / MS_PER_SECOND
        self.safe_until = until if self.safe_until is None else max(self.safe_until, until)

    def _lose(self, leases: set[bytes]) -> None:
        for each in sorted(leases):
            if self._held.forget(each):
                self._on_lost(each)

    def on_disconnected(self) -> None:
        """Wait for the next connection.  Part of `ConnectionUser`."""
        self._connection, self.next_at = None, None
        if self.state is SessionState.CLOSED:
            self._link.users.remove(self)
        else:
            self.state = SessionState.DETACHED
        self._on_change()

    def on_closing(self) -> None:
        """Give back the leases that the program still holds.  Part of `ConnectionUser`."""
        self.end(ignore)

    def tick(self) -> None:
        """Ping, or attach again, if `next_at` has come."""
        now = self._clock()
        if self.next_at is None or now < self.next_at or self._connection is None:
            return
        if self.state is SessionState.REFUSED:
            self.next_at = None
            self._attach(self._connection)
            return
        self.next_at = now + self._interval

        def pinged(outcome: list[bytes] | QueueberError) -> None:
            if not isinstance(outcome, QueueberError):
                self._answered(now)
                self._lose(set(outcome))

        self._connection.call(_CALLS.ping(), pinged)
        self._end_inherited(self._connection)

    def end(self, on_done: Callable[[object], None]) -> None:
        """
        Give back the leases that the program still holds, and do not attach again.

        *on_done* is called with None or with a `QueueberError`: then the items are redelivered after the grace, when
        the connection is lost.
        """
        if self.state is SessionState.CLOSED:
            on_done(None)
            return
        self.state = SessionState.CLOSED
        if self._connection is None:
            self._link.users.remove(self)
        leases = self._held.of(self)
        if not leases:
            on_done(None)
            return
        for each in leases:
            self._held.forget(each)
        if self._connection is None:
            on_done(NotConnected("the session's items were not given back: there is no connection"))
        else:
            self._give_back(self._link.send, leases, on_done)

    def _give_back(
        self,
        send: Callable[[PendingCall], None],
        leases: list[bytes],
        on_done: Callable[[object], None] = ignore,
    ) -> None:
        """Defer all items of *leases*, in as few calls as possible; *on_done* has the first error or None."""
        slices = [leases[at : at + SETTLEMENTS_MAX] for at in range(0, len(leases), SETTLEMENTS_MAX)]
        outcomes: list[object] = []

        def done(outcome: object) -> None:
            outcomes.append(outcome)
            if len(outcomes) == len(slices):
                errors = [each for each in outcomes if isinstance(each, QueueberError)]
                on_done(errors[0] if errors else None)

        for each in slices:
            entries = [api.Settlement(lease, b"", api.Action.DEFER) for lease in each]
            send(PendingCall(_settling(entries), done, returning=True))


def _settling(entries: list[api.Settlement]) -> Call[api.SettleResponse]:
    content = settle_content(entries, (), all_or_nothing=False)
    return Call(None, api.QUEUE_INTERFACE_ID, api.SETTLE, content, api.read_settle_response)

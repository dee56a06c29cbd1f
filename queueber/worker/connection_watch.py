"""
Watching the connection of a worker: since when there is one or none, for its health, and why there is none, in the log.

| State | connected | the worker may poll | connection lost | the worker ends |
|---|---|---|---|---|
| AWAY | CONNECTED | | | ENDED |
| CONNECTED | | SERVED, logged | AWAY | ENDED |
| SERVED | | | AWAY, logged | ENDED |

While it is AWAY the reason is logged after `ABSENT_SECONDS`, and then each `AWAY_SECONDS`.  A connection that ends
before the worker is SERVED, such as one to a proxy without a server, interrupts neither this time nor `away_since`.  A
peer that is no server of Queueber, or that refuses this client, ends a worker that has never been SERVED.
"""

from collections.abc import Callable
from enum import Enum, auto
from time import monotonic
from typing import Final

from queueber.client_core.calls import PendingCall
from queueber.client_core.errors import NotConnected
from queueber.errors import QueueberError
from queueber.sync.io_thread import IoThread
from queueber.worker.handling import LOG
from queueber.worker.source import QueueSource

ABSENT_SECONDS: Final = 3.0
AWAY_SECONDS: Final = 60.0
"""The time without a connection after which the log says why, and then the time between two such lines."""


class WatchState(Enum):
    """The state of the connection, as in the table of this module."""

    AWAY = auto()
    CONNECTED = auto()
    SERVED = auto()
    """The server lets the worker poll."""

    ENDED = auto()


class ConnectionWatch:
    """The connection of one worker, as its health and its log show it.  Lives in the I/O thread."""

    def __init__(self, io: IoThread, source: QueueSource, on_refused: Callable[[QueueberError], None]) -> None:
        """
        Watch the link of *io*, and name *source* in the log.

        Call *on_refused* if another program listens at the address, or the server refuses this client, before a server
        has let the worker poll.  `connected` or `lost` has to be called next.
        """
        self.state = WatchState.AWAY
        self.accepted = False
        """Whether the worker was ever SERVED."""

        self.connected_at: float | None = None
        """Monotonic seconds since which there is a connection; None without one."""

        self._unserved_since = monotonic()
        """When the worker began, or was last SERVED."""

        self.away_since: float | None = self._unserved_since
        """Monotonic seconds since which the worker is not SERVED, if there is no connection; None with one."""

        self._io = io
        self._source = source
        self._on_refused = on_refused
        self._asking: PendingCall | None = None
        """A call that waits for the connection, and has the reason why there is none."""

        self._report_at = 0.0
        self._refusal_at = 0.0
        """When the log may say again that the peer refuses."""

    def tick(self, now: float) -> None:
        """Log why there is no connection, if it is time."""
        asking = self._asking if self.state is WatchState.AWAY else None
        if asking is not None and asking.why and now >= self._report_at:
            LOG.warning("there is no connection: %s", asking.why)
            self._report_at = now + AWAY_SECONDS

    def connected(self) -> None:
        """Note that there is a connection."""
        self.connected_at, self.away_since = monotonic(), None
        if self.state is not WatchState.ENDED:
            self.state = WatchState.CONNECTED

    def served(self) -> None:
        """Note that the server lets the worker poll."""
        if self.state is WatchState.CONNECTED:
            self.state = WatchState.SERVED
            self.accepted = True
            LOG.info("connected; taking items of %s", self._source)

    def lost(self) -> None:
        """Note that there is no connection."""
        if self.state is WatchState.SERVED:
            self._unserved_since = monotonic()
        self.connected_at, self.away_since = None, self._unserved_since
        if self.state is WatchState.ENDED:
            return
        if self.state is WatchState.SERVED:
            LOG.warning("the connection is lost; connecting again")
        self.state = WatchState.AWAY
        self._ask()

    def end(self) -> None:
        """Log nothing more: the worker has ended."""
        self.state = WatchState.ENDED

    def _ask(self) -> None:
        """Make a call that has the reason as long as there is no connection, unless one waits."""

        def answered(outcome: object) -> None:
            self._asking = None
            if not isinstance(outcome, NotConnected) or self.state is WatchState.ENDED:
                return
            # The peer is no server of Queueber, or refuses this client.
            if not self.accepted:
                self._on_refused(outcome)
            else:
                # Another attempt is made, but it may take an operator to help.
                if (now := monotonic()) >= self._refusal_at:
                    LOG.error("%s", outcome)
                    self._refusal_at = now + AWAY_SECONDS
                self._io.timers.call_later(AWAY_SECONDS, self._ask_again)

        if self._asking is None:
            self._report_at = monotonic() + ABSENT_SECONDS
            self._asking = self._io.link.call(self._source.limits(), answered)

    def _ask_again(self) -> None:
        if self.state is not WatchState.ENDED:
            self._ask()

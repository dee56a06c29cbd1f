"""
Timeouts of peers.

All timers of one kind have the same duration, so insertion order is expiry
order, and a check costs as much as it expires.
"""

from collections.abc import Callable, Collection
from typing import Final, Generic, Protocol, TypeVar

from attrs import define, field

from queueber.limits import Limits
from queueber.units import MS_PER_SECOND

# The kinds of timers, by the names of their limits.
FIRST_MESSAGE: Final = "first_message_ms"
WHOLE_MESSAGE: Final = "stalled_message_ms"
PROGRESS: Final = "stalled_replies_ms"
ACTIVITY: Final = "idle_ms"
SILENCE: Final = "session_silence_ms"

_SUSPICION: Final = "suspicion"
"""
Begins when `SILENCE` expires, which is reported at its end.

Timers run before sockets: after a pause of the machine, the pings of all peers are there and not read yet.
"""

REASONS: Final = {
    FIRST_MESSAGE: "no complete message within",
    WHOLE_MESSAGE: "a message is incomplete: no data for",
    PROGRESS: "none of the replies that wait was taken for",
    ACTIVITY: "no data for",
    SILENCE: "with a session attached, no data for",
}
"""The reasons given to peers, each followed by the limit."""

CHECK_SECONDS: Final = 0.25
"""Between two checks: how much later than its limit a timer may expire."""


class TimedPeer(Protocol):
    """A connection with timers."""

    def on_timeout(self, limit: str) -> None:
        """Handle the expiry of the timer for the limit named *limit*."""


T = TypeVar("T", bound=TimedPeer)


@define(eq=False)
class PeerTimeouts(Generic[T]):
    """The running timers of many peers."""

    _seconds: Callable[[], float]
    _limits: Limits
    _started: dict[str, dict[T, float]] = field(
        init=False, factory=lambda: {kind: {} for kind in (*REASONS, _SUSPICION)}
    )

    def _duration(self, kind: str) -> float:
        """Return the seconds that timers of *kind* run; 0 for none."""
        if kind == _SUSPICION:
            return CHECK_SECONDS
        duration: float = getattr(self._limits, kind) / MS_PER_SECOND
        return duration

    def start(self, peer: T, limit: str) -> None:
        """Start or restart the timer of *peer* for the limit named *limit*, unless the limit's value is 0."""
        if limit == SILENCE:
            self._started[_SUSPICION].pop(peer, None)
        if self._duration(limit):
            started = self._started[limit]
            started.pop(peer, None)
            started[peer] = self._seconds()

    def clear(self, peer: T, limit: str) -> None:
        """Stop the timer of *peer* for the limit named *limit*."""
        self._started[limit].pop(peer, None)

    def clear_all(self, peer: T) -> None:
        """Stop all timers of *peer*."""
        for started in self._started.values():
            started.pop(peer, None)

    def running(self, limit: str) -> Collection[T]:
        """Return the peers whose timers for the limit named *limit* run, in the order in which they were started."""
        return self._started[limit].keys()

    def oldest(self, limit: str) -> T | None:
        """Return the peer whose timer for the limit named *limit* was started first, if any is running."""
        return next(iter(self._started[limit]), None)

    def expire(self) -> None:
        """Stop the timers that have expired and notify their peers.  Call this every `CHECK_SECONDS`."""
        now = self._seconds()
        for limit, started in self._started.items():
            duration = self._duration(limit)
            while started:
                peer, began = next(iter(started.items()))
                if now - began < duration:
                    break
                del started[peer]
                if limit == SILENCE:
                    self.start(peer, _SUSPICION)
                else:
                    peer.on_timeout(SILENCE if limit == _SUSPICION else limit)

"""
Watching the event loop of the handlers, from another thread.

The loop is asked for a sign, a `Beat`, and the time counts until it comes.
Only time in which the watching thread itself ran is counted: when a library has
held the interpreter lock, or the process was stopped, the loop deserves a turn
before it is judged.
"""

from enum import Enum, auto

from queueber.worker.policy import SLOW_SECONDS, TICK_SECONDS


class LoopState(Enum):
    """The news of a look at the loop."""

    FINE = auto()
    ASK = auto()
    """Ask it for a sign."""

    SLOW = auto()
    """`SLOW_SECONDS` without a turn, which is new."""

    STALLED = auto()
    """The time without a turn after which it loses its items, which is new."""


class LoopWatch:
    """The time for which a loop has not turned."""

    def __init__(self, stall: float, now: float) -> None:
        """*stall* is in seconds."""
        self.blocked_seconds = 0.0
        """Seconds since the loop was asked for a sign that has not come."""

        self._stall = stall
        self._asked = False
        self._looked = now

    @property
    def slow(self) -> bool:
        """Whether the loop has not turned for `SLOW_SECONDS`."""
        return self.blocked_seconds >= SLOW_SECONDS

    def turned(self) -> bool:
        """Note the sign.  Return whether the loop had been slow."""
        was_slow = self.slow
        self._asked, self.blocked_seconds = False, 0.0
        return was_slow

    def look(self, now: float, *, busy: bool) -> LoopState:
        """Return the news.  *busy*: there are items that need the loop."""
        passed, self._looked = min(now - self._looked, 2 * TICK_SECONDS), now
        if not self._asked:
            self._asked = busy
            return LoopState.ASK if busy else LoopState.FINE
        before, self.blocked_seconds = self.blocked_seconds, self.blocked_seconds + passed
        if before < self._stall <= self.blocked_seconds:
            return LoopState.STALLED
        return LoopState.SLOW if before < SLOW_SECONDS <= self.blocked_seconds else LoopState.FINE

"""
Watching the event loop of the handlers, from another thread.

The loop is asked to call back, by a `Beat`, and the time until it does is measured.  Only time in which the watching
thread itself ran is counted: after a library has held the interpreter lock, or the process was suspended, the loop gets
a chance to run first.
"""

import traceback
from enum import Enum, auto
from sys import _current_frames
from typing import Final

from queueber.worker.policy import SLOW_SECONDS, TICK_SECONDS

STACK_LINES: Final = 12


class LoopState(Enum):
    """The result of a check of the loop."""

    FINE = auto()
    ASK = auto()
    """Ask it to call back."""

    SLOW = auto()
    """Blocked for `SLOW_SECONDS` since just now."""

    STALLED = auto()
    """Blocked for so long that its items fail, since just now."""


class LoopWatch:
    """The time for which a loop has been blocked."""

    def __init__(self, stall: float, now: float) -> None:
        """*stall* is in seconds."""
        self.blocked_seconds = 0.0
        """Seconds since the loop was asked to call back, and has not."""

        self._stall = stall
        self._asked = False
        self._looked = now

    @property
    def slow(self) -> bool:
        """Whether the loop has been blocked for `SLOW_SECONDS`."""
        return self.blocked_seconds >= SLOW_SECONDS

    def turned(self) -> bool:
        """Note that the loop has run.  Return whether it had been slow."""
        was_slow = self.slow
        self._asked, self.blocked_seconds = False, 0.0
        return was_slow

    def look(self, now: float, *, busy: bool) -> LoopState:
        """Return the result of a check.  *busy*: there are items that need the loop."""
        passed, self._looked = min(now - self._looked, 2 * TICK_SECONDS), now
        if not self._asked:
            self._asked = busy
            return LoopState.ASK if busy else LoopState.FINE
        before, self.blocked_seconds = self.blocked_seconds, self.blocked_seconds + passed
        if before < self._stall <= self.blocked_seconds:
            return LoopState.STALLED
        return LoopState.SLOW if before < SLOW_SECONDS <= self.blocked_seconds else LoopState.FINE


def stack_of(thread: int | None) -> str:
    """Return the innermost lines of the code that *thread*, that of a loop, executes now; empty without one."""
    frame = None if thread is None else _current_frames().get(thread)
    return "" if frame is None else "".join(traceback.format_stack(frame)[-STACK_LINES:])

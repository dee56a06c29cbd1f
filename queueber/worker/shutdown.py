"""
The life of a worker, from its first stop to its end.

| State | `stop` | the grace is over | no handler has an item | all is settled | time is over |
|---|---|---|---|---|---|
| SERVING | GRACE | | | | |
| GRACE | SETTLING | CANCELLING | SETTLING | | ENDED |
| CANCELLING | SETTLING | | SETTLING | | ENDED |
| SETTLING | SETTLING, in less time | | | ENDED | ENDED |

A worker polls and starts handlers while it is SERVING.  When it becomes CANCELLING, its handlers are asked to end, and
a second `stop` takes their items away from them.
"""

import math
from enum import Enum, auto

from queueber.worker.policy import ENDING_SECONDS, FORCED_SECONDS, SETTLE_SECONDS


class Life(Enum):
    """The state of a worker, as in the table of this module."""

    SERVING = auto()
    GRACE = auto()
    """Handlers may go on for their grace."""

    CANCELLING = auto()
    """Handlers were asked to end."""

    SETTLING = auto()
    """The last verdicts are on their way to the server."""

    ENDED = auto()


class Shutdown:
    """The end of one worker, with its time limits."""

    def __init__(self) -> None:
        """Start in the state SERVING."""
        self.state = Life.SERVING
        self._grace_end = self._end_by = math.inf

    def stop(self, grace: float, now: float) -> None:
        """Give handlers *grace* seconds, or none if this is called again."""
        if self.state is Life.SERVING:
            self.state = Life.GRACE
            self._grace_end = now + grace
            self._end_by = self._grace_end + ENDING_SECONDS + SETTLE_SECONDS
        elif self.state is not Life.ENDED:
            self._settle(now + FORCED_SECONDS)

    def cancels(self, now: float) -> bool:
        """Return True once when the grace is over: the caller then asks the handlers to end."""
        if self.state is not Life.GRACE or now < self._grace_end:
            return False
        self.state = Life.CANCELLING
        return True

    def ends(self, now: float, *, handlers: int, verdicts: int) -> bool:
        """
        Return whether the worker ends now, as far as *handlers* that have items and *verdicts* without answer allow.

        To be called after a stop.
        """
        if not handlers and self.state in (Life.GRACE, Life.CANCELLING):
            self._settle(now + SETTLE_SECONDS)
        if (handlers or verdicts) and now < self._end_by:
            return False
        self.state = Life.ENDED
        return True

    def _settle(self, end_by: float) -> None:
        self.state, self._end_by = Life.SETTLING, min(self._end_by, end_by)

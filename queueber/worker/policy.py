"""The settings of a worker's rules, and what it counts."""

from typing import Final

from attrs import define, frozen

from queueber.values import Action

TICK_SECONDS: Final = 0.25
"""The time between two ticks while there are items: the accuracy of `max_runtime` and of all upkeep."""

IDLE_SECONDS: Final = 1.0
"""The time between two ticks without items."""

ENDING_SECONDS: Final = 5.0
"""The time that a handler has to end when it is asked to: for its `finally` blocks."""

SETTLE_SECONDS: Final = 5.0
"""The time that the last verdicts have to reach the server after a stop."""

FORCED_SECONDS: Final = 2.0
"""The time that the last verdicts have after a second stop."""

SLOW_SECONDS: Final = 5.0
"""The time after which a blocked loop is reported and gets no more items."""

BACKLOG_MAX: Final = 4_000
"""Verdicts without an answer above which there are no more polls: each may hold an error of 4 KiB."""

PREFETCH_SECONDS: Final = 0.1
"""
The amount of work to prefetch, unless `prefetch` is given.

Enough that quick handlers do not wait for polls, and so little that an item rarely waits here while another worker is
idle.
"""

PREFETCH_MAX: Final = 500
"""The most items to prefetch, unless `prefetch` is given."""


@frozen(kw_only=True)
class Policy:
    """The settings that the user of a worker chooses.  Times are in seconds."""

    concurrency: int
    """The most handlers at a time."""

    prefetch: int | None = None
    """Items to prefetch; None: as many as the handlers process in `PREFETCH_SECONDS`."""

    lease_seconds: float = 30.0
    """The span of leases with a deadline."""

    max_runtime: float | None = None
    """The time after which a handler is asked to end."""

    stall: float | None = None
    """The time after which all items of a blocked event loop fail; None without an event loop."""

    def prefetch_for(self, mean_seconds: float) -> int:
        """Return how many items to prefetch, when handlers take *mean_seconds* on average, 0 before the first."""
        if self.prefetch is not None:
            return self.prefetch
        # The first items may take hours, and prefetched ones would wait for them while other workers are idle.
        return min(PREFETCH_MAX, int(self.concurrency * PREFETCH_SECONDS / mean_seconds)) if mean_seconds else 0


@define
class Counts:
    """Answered polls, and items by their end, since the start."""

    polls: int = 0
    """Including those without items."""

    delivered: int = 0
    removed: int = 0
    failed: int = 0
    deferred: int = 0
    rejected: int = 0
    lost: int = 0
    """Items whose lease ended before their result was confirmed."""

    def settled(self, action: Action) -> None:
        """Count an item that was settled by *action*."""
        match action:
            case Action.REMOVE:
                self.removed += 1
            case Action.FAIL:
                self.failed += 1
            case Action.DEFER:
                self.deferred += 1
            case _:
                self.rejected += 1

"""Timers of one thread, by the monotonic clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from time import monotonic


class Timer:
    """A function to be called once."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[], object]) -> None:
        """Call *function* later."""
        self.function: Callable[[], object] | None = function

    def cancel(self) -> None:
        """Do not call the function.  Has no effect once it was called."""
        self.function = None


class Timers:
    """All timers of a thread, which calls `run` when `seconds_left` are over."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = count()

    def call_later(self, seconds: float, function: Callable[[], object]) -> Timer:
        """Call *function* after *seconds*."""
        timer = Timer(function)
        heapq.heappush(self._heap, (monotonic() + seconds, next(self._order), timer))
        return timer

    def seconds_left(self) -> float | None:
        """Return the time until the next timer; None if there is none."""
        while self._heap and self._heap[0][2].function is None:
            heapq.heappop(self._heap)
        return max(0.0, self._heap[0][0] - monotonic()) if self._heap else None

    def run(self) -> None:
        """Call the functions whose time has come."""
        now = monotonic()
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)[2]
            if timer.function is not None:
                timer.function()

"""
Polling: when to poll and for how many items, and the poll under way.

There is one poll at a time.  It asks for all places that are free: those of handlers, and those of prefetched items.
"""

from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from queueber.worker.actions import CancelPoll, Poll
from queueber.worker.policy import Policy

BACKOFF_SECONDS: Final = (0.1, 10.0)
"""The shortest and the longest wait after a failed poll.  The wait doubles, and up to half of it is random."""


class PollMode(Enum):
    """Whether a worker may poll, and how."""

    NONE = auto()
    """Not at all: its session is not attached, or it does not know yet what the server is able to do."""

    ONE_ITEM = auto()
    """For one item at a time: the server cannot settle single items of a lease."""

    MANY = auto()


class Polling:
    """
    The poll under way.

    A poll that was cancelled may still be answered: its number is no longer the current one.
    """

    def __init__(self, policy: Policy, now: float, jitter: Callable[[], float]) -> None:
        """*jitter* returns numbers between 0 and 1."""
        self.number = 0
        """The number of the poll under way; 0: none."""

        self.last_answer = now
        """When a poll was last answered, or the worker began."""

        self.errors = 0
        """Polls that failed since the last answer."""

        self._policy = policy
        self._jitter = jitter
        self._mode = PollMode.MANY
        self._polls = 0
        self._not_before = now
        self._mean_seconds = 0.0
        """The moving average of what handlers take."""

    def allow(self, mode: PollMode) -> None:
        """Poll in this way from now on.  A poll under way continues."""
        self._mode = mode

    def handled(self, seconds: float) -> None:
        """Note that a handler took *seconds*, on which the number of prefetched items depends."""
        self._mean_seconds += (seconds - self._mean_seconds) / 8

    def answered(self, number: int, now: float) -> bool:
        """Process an answer.  Return whether it is that of the poll under way."""
        current = number == self.number
        if current:
            self.number = 0
        self.last_answer, self.errors = now, 0
        return current

    def failed(self, now: float) -> float:
        """End the poll under way, which has failed.  Return the seconds until the next."""
        least, most = BACKOFF_SECONDS
        wait = min(most, least * 2.0 ** min(self.errors, 10)) * (1 - self._jitter() / 2)
        self.number = 0
        self.errors += 1
        self._not_before = now + wait
        return wait

    def wake_at(self, now: float) -> float | None:
        """Return when `next` may return a poll, or None if that does not depend on time."""
        return None if self.number or now >= self._not_before else self._not_before

    def next(self, now: float, *, running: int, waiting: int) -> Poll | None:
        """
        Return a poll that is under way from now on, or None if it is not time for one or there is no room.

        *running* handlers and *waiting* prefetched items occupy places.
        """
        if self.number or now < self._not_before or self._mode is PollMode.NONE:
            return None
        places = self._policy.concurrency + self._policy.prefetch_for(self._mean_seconds)
        room = places - running - waiting
        # Fewer, larger polls: while items wait there is work until more places are free.
        if room <= 0 or (waiting and room < places // 4):
            return None
        self._polls += 1
        self.number = self._polls
        return Poll(self.number, 1 if self._mode is PollMode.ONE_ITEM else room)

    def cancel(self) -> CancelPoll | None:
        """End the poll under way, if there is one."""
        number, self.number = self.number, 0
        return CancelPoll(number) if number else None

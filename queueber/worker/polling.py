"""Polling: one poll at a time, its number, and the wait after one that failed."""

from collections.abc import Callable
from typing import Final

from queueber.worker.actions import CancelPoll, Poll

BACKOFF_SECONDS: Final = (0.1, 10.0)
"""The shortest and the longest wait after a failed poll.  The wait doubles, and up to half of it is random."""


class Polling:
    """
    The poll under way.

    A poll that was cancelled may still be answered: its number is no longer the current one.
    """

    def __init__(self, now: float, jitter: Callable[[], float]) -> None:
        """*jitter* returns numbers between 0 and 1."""
        self.number = 0
        """The number of the poll under way; 0: none."""

        self.last_answer = now
        """When a poll was last answered, or the worker began."""

        self.errors = 0
        """Polls that failed since the last answer."""

        self._jitter = jitter
        self._polls = 0
        self._not_before = now

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

    def ready(self, now: float) -> bool:
        """Return whether a poll may be sent."""
        return not self.number and now >= self._not_before

    def wake_at(self, now: float) -> float | None:
        """Return when `ready` becomes true, or None if that does not depend on time."""
        return None if self.number or now >= self._not_before else self._not_before

    def next(self, n: int) -> Poll:
        """Return a poll for *n* items, which is under way from now on."""
        self._polls += 1
        self.number = self._polls
        return Poll(self.number, n)

    def cancel(self) -> CancelPoll | None:
        """End the poll under way, if there is one."""
        number, self.number = self.number, 0
        return CancelPoll(number) if number else None

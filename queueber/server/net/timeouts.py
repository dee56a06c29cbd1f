"""
How long peers may keep us waiting.

All waits for the same thing last equally long, so whoever began to be waited
for first is out of time first: each look costs as much as it ends.
"""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from attrs import define, field

from queueber.limits import Limits
from queueber.units import MS_PER_SECOND

FIRST_MESSAGE = "first_message_ms"
WHOLE_MESSAGE = "stalled_message_ms"
PROGRESS = "stalled_replies_ms"
ACTIVITY = "idle_ms"

LOOK_SECONDS = 0.25
"""Between two looks: how much longer than its limit a wait may last."""


class Awaited(Protocol):
    """Somebody who keeps us waiting."""

    def overdue(self, limit: str) -> None:
        """What was waited for has not come; *limit* is the name of the limit."""


T = TypeVar("T", bound=Awaited)


@define(eq=False)
class PeerTimeouts(Generic[T]):
    """Who is waited for, and since when."""

    _seconds: Callable[[], float]
    _limits: Limits
    _since: dict[str, dict[T, float]] = field(
        init=False, factory=lambda: {limit: {} for limit in (FIRST_MESSAGE, WHOLE_MESSAGE, PROGRESS, ACTIVITY)}
    )

    def expect(self, peer: T, limit: str) -> None:
        """Begin to wait, or begin anew, for what *limit* is about; not at all if that is 0."""
        if getattr(self._limits, limit):
            since = self._since[limit]
            since.pop(peer, None)
            since[peer] = self._seconds()

    def content(self, peer: T, limit: str) -> None:
        """It has come."""
        self._since[limit].pop(peer, None)

    def forget(self, peer: T) -> None:
        """Nothing more is expected of *peer*."""
        for since in self._since.values():
            since.pop(peer, None)

    def oldest(self, limit: str) -> T | None:
        """Who has been waited for longest."""
        return next(iter(self._since[limit]), None)

    def look(self) -> None:
        """Tell all whose time is up."""
        now = self._seconds()
        for limit, since in self._since.items():
            span = getattr(self._limits, limit) / MS_PER_SECOND
            while since:
                peer, began = next(iter(since.items()))
                if now - began < span:
                    break
                del since[peer]
                peer.overdue(limit)

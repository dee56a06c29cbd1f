"""
What all connections together hold of messages that have begun and of replies that nobody takes.

Each connection has limits of its own, but ten thousand that all go to theirs
would fill any memory.  Refusing whoever comes last would let those who hold
the most hold it for ever.  So the one has to go that has the most bytes times
seconds to its name: whoever drips for minutes goes before a large message that
is just coming in.
"""

from collections.abc import Callable
from typing import Protocol

from attrs import define, field


class Holder(Protocol):
    """A connection."""

    def evict(self) -> None:
        """It holds the most of what is too much in all: it is to let go of everything."""


@define(eq=False)
class Buffers:
    """Who holds how many bytes."""

    _limit: int
    _seconds: Callable[[], float]
    _held: dict[Holder, int] = field(factory=dict, init=False)
    _since: dict[Holder, float] = field(factory=dict, init=False)
    total: int = field(default=0, init=False)
    """Bytes held by all."""

    def hold(self, holder: Holder, size: int) -> None:
        """*holder* now holds *size* bytes in all."""
        self.total += size - self._held.pop(holder, 0)
        if not size:
            self._since.pop(holder, None)
            return
        self._held[holder] = size
        now = self._seconds()
        self._since.setdefault(holder, now)
        while self.total > self._limit:
            # A second is given to everybody: those that have just begun are told apart by their size.
            most = max(self._held, key=lambda each: self._held[each] * (now - self._since[each] + 1))
            self.total -= self._held.pop(most)
            del self._since[most]
            most.evict()

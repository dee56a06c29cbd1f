"""
What all connections together hold of messages that have begun and of replies that nobody takes.

Each connection has limits of its own, but ten thousand that all go to theirs
would fill any memory.  Refusing whoever comes last would let those who hold
the most hold it for ever, so the one that holds the most has to go.
"""

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
    _held: dict[Holder, int] = field(factory=dict, init=False)
    total: int = field(default=0, init=False)
    """Bytes held by all."""

    def hold(self, holder: Holder, size: int) -> None:
        """*holder* now holds *size* bytes in all."""
        self.total += size - self._held.pop(holder, 0)
        if size:
            self._held[holder] = size
            while self.total > self._limit:
                most = max(self._held, key=self._held.__getitem__)
                self.total -= self._held.pop(most)
                most.evict()

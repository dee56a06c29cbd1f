"""
Numbers that stand for things, as both sides of a connection use them.

Each side numbers what it owns: questions it asks, objects it exports.  The
other side may name a number until it has said that it will not any more, so
an entry that is gone may still keep its number.
"""

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Generic, TypeVar

T = TypeVar("T")


class OwnedTable(Generic[T]):
    """
    Entries under numbers that are ours to give.

    The smallest free number is given first, which keeps the peer's table dense.
    """

    def __init__(self) -> None:
        self._entries: dict[int, T] = {}
        self._free: list[int] = []
        self._next = 0

    def __len__(self) -> int:
        return len(self._entries)

    def items(self) -> Iterator[tuple[int, T]]:
        """All entries with their numbers, in the order in which they were added."""
        return iter(self._entries.items())

    def find(self, number: int) -> T | None:
        """The entry at *number*, if there is one."""
        return self._entries.get(number)

    def add(self, entry: T) -> int:
        """The number under which *entry* is from now on."""
        if self._free:
            number = heappop(self._free)
        else:
            number = self._next
            self._next += 1
        self._entries[number] = entry
        return number

    def drop(self, number: int) -> None:
        """Forget the entry at *number*, which the peer will not name any more."""
        del self._entries[number]
        heappush(self._free, number)

    def check(self) -> None:
        """Raise AssertionError unless every number below the next is either used or free."""
        assert sorted([*self._entries, *self._free]) == list(range(self._next))

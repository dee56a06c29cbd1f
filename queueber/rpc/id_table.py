"""
A table of entries under small ids that we assign: our questions, our exports.

The peer may use an id until it has sent the last message that names it, so ids
are freed explicitly.
"""

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Generic, TypeVar

T = TypeVar("T")


class IdTable(Generic[T]):
    """
    Entries under ids that we assign.

    The smallest free id is assigned first, which keeps the peer's table dense.
    """

    def __init__(self) -> None:
        self._entries: dict[int, T] = {}
        self._free: list[int] = []
        self._next = 0

    def __len__(self) -> int:
        return len(self._entries)

    def items(self) -> Iterator[tuple[int, T]]:
        """Return all entries with their ids, in the order in which they were added."""
        return iter(self._entries.items())

    def find(self, number: int) -> T | None:
        """Return the entry at *number*, if there is one."""
        return self._entries.get(number)

    def add(self, entry: T) -> int:
        """Add *entry*, and return its id."""
        if self._free:
            number = heappop(self._free)
        else:
            number = self._next
            self._next += 1
        self._entries[number] = entry
        return number

    def drop(self, number: int) -> None:
        """Remove the entry at *number*, which the peer will not use any more."""
        del self._entries[number]
        heappush(self._free, number)

    def check(self) -> None:
        """Raise AssertionError unless every id below the next is either used or free."""
        assert sorted([*self._entries, *self._free]) == list(range(self._next))

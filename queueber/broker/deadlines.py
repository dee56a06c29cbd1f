"""A set of things, each with one deadline, ordered by deadline."""

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeAlias, TypeVar

from queueber.units import WallMs

T = TypeVar("T", bound=Hashable)

_Entry: TypeAlias = tuple[WallMs, int, T]
"""A deadline, a number that breaks ties in the order of setting, and the thing, which is never compared."""

# Superseded entries stay in the heap until they reach its top.  A heap with fewer of them than this is not rebuilt.
_STALE_MIN = 64


class Deadlines(Generic[T]):
    """
    At most one deadline for each thing.  Setting another one replaces it.

    A set costs O(log n), a discard O(1) amortised: the heap may hold
    superseded entries, but at most twice as many as valid ones, and 64.
    """

    def __init__(self) -> None:
        self._valid: dict[T, _Entry[T]] = {}
        self.heap: list[_Entry[T]] = []
        """Valid and superseded entries.  No deadline is earlier than the first one, so a look at it saves a call."""
        self._count = 0

    def __len__(self) -> int:
        return len(self._valid)

    def set(self, thing: T, at: WallMs) -> None:
        """Set the deadline of *thing* to *at*."""
        self._count += 1
        self._valid[thing] = entry = (at, self._count, thing)
        heap = self.heap
        heappush(heap, entry)
        if len(heap) > 3 * len(self._valid) + _STALE_MIN:
            self._rebuild()

    def discard(self, thing: T) -> None:
        """Remove the deadline of *thing*, if it has one."""
        valid = self._valid
        if valid.pop(thing, None) is None:
            return
        if not valid:
            self.heap.clear()
        elif len(self.heap) > 3 * len(valid) + _STALE_MIN:
            self._rebuild()

    def next(self) -> WallMs | None:
        """Return the earliest deadline; None without any."""
        heap, valid = self.heap, self._valid
        while heap and valid.get(heap[0][2]) is not heap[0]:
            heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, now: WallMs) -> T | None:
        """Remove and return the thing with the earliest deadline, if that is not after *now*; None otherwise."""
        heap, valid = self.heap, self._valid
        while heap and heap[0][0] <= now:
            entry = heappop(heap)
            thing = entry[2]
            if valid.get(thing) is entry:
                del valid[thing]
                if len(heap) > 3 * len(valid) + _STALE_MIN:
                    self._rebuild()
                return thing
        return None

    def soonest(self, count: int) -> list[T]:
        """Return the *count* things with the earliest deadlines, in order.  O(count log n) plus superseded entries."""
        found: list[T] = []
        heap = self.heap
        candidates = [(heap[0], 0)] if heap else []
        while candidates and len(found) < count:
            entry, at = heappop(candidates)
            if self._valid.get(entry[2]) is entry:
                found.append(entry[2])
            for child in (2 * at + 1, 2 * at + 2):
                if child < len(heap):
                    heappush(candidates, (heap[child], child))
        return found

    def _rebuild(self) -> None:
        self.heap = list(self._valid.values())
        heapify(self.heap)

    def check(self) -> None:
        """Raise AssertionError if the dict and the heap disagree.  O(n); for tests."""
        assert set(self._valid.values()) <= set(self.heap), "a valid deadline is missing from the heap"
        assert all(entry[2] == thing for thing, entry in self._valid.items())

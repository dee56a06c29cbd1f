"""A set of things that each become due once, soonest first."""

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

from queueber.units import WallMs

T = TypeVar("T", bound=Hashable)

# Superseded entries stay in the heap until they surface.  Below this many the
# heap is not worth rebuilding.
_STALE_MIN = 64


class Deadlines(Generic[T]):
    """
    At most one deadline for each thing; setting it again moves it.

    Setting costs O(log n), discarding O(1) amortised: the heap may hold
    superseded entries, but never more of them than twice what is live.
    """

    def __init__(self) -> None:
        self._at: dict[T, tuple[WallMs, int]] = {}
        self._heap: list[tuple[WallMs, int, T]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._at)

    def set(self, thing: T, at: WallMs) -> None:
        """Make *thing* due at *at*, and no longer when it was before."""
        # The count breaks ties, in the order of setting, without ever comparing two things.
        self._count += 1
        self._at[thing] = (at, self._count)
        heappush(self._heap, (at, self._count, thing))
        self._trim()

    def discard(self, thing: T) -> None:
        """Make *thing* never due."""
        if self._at.pop(thing, None) is not None:
            self._trim()

    def next(self) -> WallMs | None:
        """The earliest deadline; None when there is none."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: WallMs) -> T | None:
        """Take out the thing that has been due for longest at *now*; None when none is."""
        self._drop_stale()
        if not self._heap or self._heap[0][0] > now:
            return None
        thing = heappop(self._heap)[2]
        del self._at[thing]
        self._trim()
        return thing

    def soonest(self, count: int) -> list[T]:
        """The *count* things that are due first, in that order.  O(count log n), superseded entries aside."""
        found: list[T] = []
        heap = self._heap
        candidates = [(heap[0], 0)] if heap else []
        while candidates and len(found) < count:
            entry, at = heappop(candidates)
            if self._at.get(entry[2]) == entry[:2]:
                found.append(entry[2])
            for child in (2 * at + 1, 2 * at + 2):
                if child < len(heap):
                    heappush(candidates, (heap[child], child))
        return found

    def _drop_stale(self) -> None:
        heap = self._heap
        while heap and self._at.get(heap[0][2]) != heap[0][:2]:
            heappop(heap)

    def _trim(self) -> None:
        if len(self._heap) > 3 * len(self._at) + _STALE_MIN:
            self._heap = [(at, count, thing) for thing, (at, count) in self._at.items()]
            heapify(self._heap)

    def check(self) -> None:
        """Raise AssertionError if the two views disagree.  O(n); for tests."""
        entries = {(at, count, thing) for thing, (at, count) in self._at.items()}
        assert entries <= set(self._heap), "a live deadline is missing from the heap"

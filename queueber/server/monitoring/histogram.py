"""How often something took how much: cheap enough for every call."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from queueber.units import KIB

SECONDS = (
    0.000_25,
    0.000_5,
    0.001,
    0.002_5,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
"""From what memory takes to what a person gives up at."""

ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000)
BYTES = tuple(KIB * 4**power for power in range(8))


class Histogram:
    """
    Values, counted by how large they are.

    One thread at a time may observe; any may read meanwhile, and finds at
    worst a value that is counted and not yet in the sum.
    """

    __slots__ = ("_counts", "bounds", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Values up to each of *bounds*, which grow, are told apart; those above the last are one more kind."""
        self.bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        """The sum of all values."""

    def observe(self, value: float, times: int = 1) -> None:
        """Count *value*, or as many of it as there were.  About 0.2 microseconds."""
        self._counts[bisect_left(self.bounds, value)] += times
        self.total += times * value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self._counts)

    @property
    def mean(self) -> float:
        """Their mean; 0 if there were none."""
        return self.total / (self.count or 1)

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Each bound, infinity last, with how many values were no larger."""
        count = 0
        for bound, here in zip((*self.bounds, float("inf")), self._counts, strict=True):
            count += here
            yield bound, count

    def quantile(self, share: float) -> float:
        """The smallest bound that at least *share* of the values do not exceed, 0 to 1; 0 if there were none."""
        wanted = share * self.count
        return next((bound for bound, count in self.cumulative() if count and count >= wanted), 0.0)

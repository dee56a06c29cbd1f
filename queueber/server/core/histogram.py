"""Counts of values by size: cheap enough for every call."""

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
"""From the time of a call in memory to ten seconds, when most clients have timed out."""

ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000)
BYTES = tuple(KIB * 4**power for power in range(8))


class Histogram:
    """
    Counts of values by bucket.

    One thread at a time may observe.  Any thread may read meanwhile; it may
    find a value that is counted and not yet in the sum.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Make a bucket for the values up to each of *bounds*, which ascend, and one for those above the last."""
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        """Values in each bucket."""
        self.total = 0.0
        """The sum of all values."""

    def observe(self, value: float, times: int = 1) -> None:
        """Count *value*, *times* over.  About 0.2 microseconds."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += times * value

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """The mean of the values; 0 if there are none."""
        return self.total / (self.count or 1)

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Return each bound, infinity last, with the number of values up to it."""
        count = 0
        for bound, here in zip((*self.bounds, float("inf")), self.counts, strict=True):
            count += here
            yield bound, count

    def quantile(self, share: float) -> float:
        """Return the smallest bound that at least *share* (0 to 1) of the values do not exceed; 0 without values."""
        wanted = share * self.count
        return next((bound for bound, count in self.cumulative() if count and count >= wanted), 0.0)

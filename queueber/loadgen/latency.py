"""Percentiles of millions of durations in little memory."""

from math import ceil, exp, log

from attrs import define, field

MICROSECONDS = 1_000_000
STEP = log(1.02)
"""Two per cent from one bucket to the next, so the error of a percentile is at most half of that."""

PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


@define
class Latency:
    """A histogram of durations, with percentiles to within two per cent."""

    count: int = 0
    longest: float = 0.0
    """The longest duration in seconds, exact."""

    _buckets: dict[int, int] = field(factory=dict)

    def observe(self, seconds: float) -> None:
        """Add a duration."""
        self.count += 1
        self.longest = max(self.longest, seconds)
        bucket = int(log(max(seconds * MICROSECONDS, 1.0)) / STEP)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def percentile(self, part: float) -> float:
        """Return the seconds that *part* of the durations did not exceed, 0 < *part* <= 1; 0 without any."""
        wanted = ceil(self.count * part)
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted <= 0:
                return min(self.longest, exp((bucket + 0.5) * STEP) / MICROSECONDS)
        return self.longest

    def milliseconds(self) -> dict[str, float]:
        """Return the usual percentiles and the maximum in milliseconds."""
        found = {name: round(self.percentile(part) * 1e3, 3) for name, part in PERCENTILES.items()}
        return {**found, "max": round(self.longest * 1e3, 3)}


def spoken(latency: Latency) -> str:
    """Return the percentiles as one line of text."""
    if not latency.count:
        return "none"
    return ", ".join(f"{name} {value:,.2f} ms" for name, value in latency.milliseconds().items())

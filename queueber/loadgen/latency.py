"""How long things took, by the million, in little memory."""

from math import ceil, exp, log

from attrs import define, field

MICROSECONDS = 1_000_000
STEP = log(1.02)
"""Two per cent from one bucket to the next: a percentile is no further off than half of that."""

PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


@define
class Latency:
    """Durations, of which any percentile can be told to within two per cent."""

    count: int = 0
    longest: float = 0.0
    """In seconds, exactly."""

    _buckets: dict[int, int] = field(factory=dict)

    def observe(self, seconds: float) -> None:
        """One more."""
        self.count += 1
        self.longest = max(self.longest, seconds)
        bucket = int(log(max(seconds * MICROSECONDS, 1.0)) / STEP)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def percentile(self, part: float) -> float:
        """The seconds within which *part* of them were, 0 < *part* <= 1; 0 if there are none."""
        wanted = ceil(self.count * part)
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted <= 0:
                return min(self.longest, exp((bucket + 0.5) * STEP) / MICROSECONDS)
        return self.longest

    def milliseconds(self) -> dict[str, float]:
        """The usual percentiles and the longest, for a table or JSON."""
        found = {name: round(self.percentile(part) * 1e3, 3) for name, part in PERCENTILES.items()}
        return {**found, "max": round(self.longest * 1e3, 3)}


def spoken(latency: Latency) -> str:
    """The same in one line for a person."""
    if not latency.count:
        return "none"
    return ", ".join(f"{name} {value:,.2f} ms" for name, value in latency.milliseconds().items())

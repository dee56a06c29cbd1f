"""Results of a load: percentiles of millions of durations in little memory, and bar charts."""

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, exp, log

from attrs import define, field, frozen

from queueber.units import US_PER_SECOND

STEP = log(1.02)
"""Two per cent from one bucket to the next, so the error of a percentile is at most half of that."""

PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}

CHART_WIDTH = 900
LABEL_WIDTH = 150
VALUE_WIDTH = 90
BAR_HEIGHT, BAR_GAP, HEADING_HEIGHT = 18, 4, 34
COLOURS = ("#2563ab", "#6aa3d8", "#b9d4ec", "#c2571a", "#e39a6b", "#3d8a4e", "#8fc79b", "#7a4a9e", "#b8a1cc", "#777777")


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
        bucket = int(log(max(seconds * US_PER_SECOND, 1.0)) / STEP)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def percentile(self, part: float) -> float:
        """Return the seconds that *part* of the durations did not exceed, 0 < *part* <= 1; 0 without any."""
        wanted = ceil(self.count * part)
        for bucket in sorted(self._buckets):
            wanted -= self._buckets[bucket]
            if wanted <= 0:
                return min(self.longest, exp((bucket + 0.5) * STEP) / US_PER_SECOND)
        return self.longest

    def milliseconds(self) -> dict[str, float]:
        """Return the usual percentiles and the maximum in milliseconds."""
        found = {name: round(self.percentile(part) * 1e3, 3) for name, part in PERCENTILES.items()}
        return {**found, "max": round(self.longest * 1e3, 3)}


def percentiles_text(latency: Latency) -> str:
    """Return the percentiles as one line of text."""
    if not latency.count:
        return "none"
    return ", ".join(f"{name} {value:,.2f} ms" for name, value in latency.milliseconds().items())


@frozen
class BarGroup:
    """Bars with a common scale."""

    title: str
    bars: Mapping[str, float]
    """Values by name, 0 or more."""

    unit: str = ""


def bar_chart(title: str, groups: Sequence[BarGroup]) -> str:
    """Return an SVG chart of *groups*, one below the other.  A name has the same colour in all of them."""
    names = list(dict.fromkeys(name for group in groups for name in group.bars))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    parts, top = [_text(10, 24, title, size=18, weight="bold")], HEADING_HEIGHT
    for group in groups:
        top += HEADING_HEIGHT
        parts.append(_text(10, top - 8, group.title, size=13, weight="bold"))
        most = max(group.bars.values(), default=0) or 1
        for name, value in group.bars.items():
            length = (CHART_WIDTH - LABEL_WIDTH - VALUE_WIDTH - 20) * value / most
            left, middle = LABEL_WIDTH + 8, top + BAR_HEIGHT - 5
            parts.append(_text(LABEL_WIDTH, middle, name, anchor="end"))
            parts.append(
                f'<rect x="{left}" y="{top}" width="{length:.1f}" height="{BAR_HEIGHT}" fill="{colours[name]}"/>'
            )
            parts.append(_text(left + 6 + length, middle, f"{_short(value)} {group.unit}".strip()))
            top += BAR_HEIGHT + BAR_GAP
    width, height = CHART_WIDTH, top + 20
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif"><rect width="{width}" height="{height}" fill="#ffffff"/>'
    )
    return "\n".join((head, *parts, "</svg>\n"))


def _text(x: float, y: float, text: str, *, size: int = 12, weight: str = "normal", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _short(value: float) -> str:
    """Return *value* with three significant digits, or as an integer from 100 on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004

"""
Runs the same load for hours, and checks whether memory, descriptors, bytes on disk or the time of a poll grow.

A line is fitted through the samples after the first quarter, or, in a run of two
hours or more, after the first hour.  Slopes are reported per day.  A slope that
amounts to more than noise within the run is a failure.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from attrs import frozen
from counts import Counts, from_command_line
from serverhost import Host
from through import MIB, Measures, put_through

ITEMS_PER_SAMPLE = 4_000
SETTLE_SECONDS = 0.5
SAMPLES_MIN = 12

HOUR = 3_600.0

# How much each may grow within the run.
GROWTH_MAX = {"rss_mib": 20.0, "descriptors": 8.0, "threads": 0.5, "disk_mib": 150.0}


@frozen
class Bounds:
    """The other bounds."""

    rss_mib_an_hour: float
    p99_factor: float
    """From the first to the last part of the samples."""

    p99_seconds: float
    """In a shorter run the p99 may double by other work on the machine."""


SHORT = Bounds(rss_mib_an_hour=float("inf"), p99_factor=2.0, p99_seconds=0.05)
LONG = Bounds(rss_mib_an_hour=1e6 / MIB, p99_factor=1.2, p99_seconds=0.005)
"""For a run of an hour or longer."""


@frozen
class Sample:
    """One sample."""

    at: float
    measures: Measures
    p99: float


def slope(points):
    """Return the slope of the line through (x, y) *points* with the least squares."""
    count = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    over = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / over if over else 0.0


async def watch(server, data, seconds, seed):
    """Take samples under load for *seconds*."""
    port, began, samples = server.port(), time.monotonic(), []
    while time.monotonic() < began + seconds or len(samples) < SAMPLES_MIN:
        took = sorted(await put_through(port, ITEMS_PER_SAMPLE, f"{seed}-{len(samples)}"))
        await asyncio.sleep(SETTLE_SECONDS)
        samples.append(Sample(time.monotonic() - began, Measures.of(server.pid, data), took[len(took) * 99 // 100]))
    return samples


def judge(samples):
    """Return the lines of a report, and the errors."""
    whole = samples[-1].at
    bounds = LONG if whole >= HOUR else SHORT
    begin = HOUR if whole >= 2 * HOUR else whole / 4
    late = [each for each in samples if each.at >= begin]
    span = late[-1].at - late[0].at
    lines, wrong = [], []
    for name, most in GROWTH_MAX.items():
        points = [(each.at, getattr(each.measures, name)) for each in late]
        rate = slope(points)
        line = (
            f"{name}: {points[0][1]:,.1f} to {points[-1][1]:,.1f}, slope {rate * 3_600:+,.3f} an hour,"
            f" {rate * 86_400:+,.1f} a day"
        )
        lines.append(line)
        if rate * span > most or (name == "rss_mib" and rate * HOUR > bounds.rss_mib_an_hour):
            wrong.append(line)
    third = max(1, len(late) // 3)
    first, last = (sorted(each.p99 for each in part)[third // 2] for part in (late[:third], late[-third:]))
    line = f"p99 of a poll: {first * 1e3:.1f} ms in the first third, {last * 1e3:.1f} ms in the last"
    lines.append(line)
    if last > max(bounds.p99_factor * first, bounds.p99_seconds):
        wrong.append(line)
    return lines, wrong


def run(seconds, seed):
    """Run the server and compare its figures; return the counts."""
    counts = Counts("steady", "runs")
    with Host() as host, tempfile.TemporaryDirectory(prefix="queueber-steady-") as scratch:
        data = Path(scratch) / "data"
        server = host.start(data, Path(scratch) / "log")
        samples = asyncio.run(watch(server, data, seconds, seed))
        server.stop()
    lines, wrong = judge(samples)
    print(f"{len(samples) * ITEMS_PER_SAMPLE:,} items in {samples[-1].at:,.0f} s", *lines, sep="\n")
    counts.count(wrong)
    return counts


if __name__ == "__main__":
    sys.exit(from_command_line(__doc__, run, seconds=60.0))

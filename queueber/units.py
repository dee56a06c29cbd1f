"""
Points in time and lengths of time, both whole milliseconds.

A point and a span are different types, because adding two points or sleeping
until a span is always a mistake.  Spans are rounded so that nothing is ever
shorter than asked.
"""

from typing import NewType

WallMs = NewType("WallMs", int)
"""A point in queue time: milliseconds since the Unix epoch.  Goes to disk."""

SpanMs = NewType("SpanMs", int)
"""A length of time in milliseconds.  Never a point in time."""

MS_PER_SECOND = 1_000

SECOND = SpanMs(MS_PER_SECOND)
HOUR = SpanMs(3_600 * MS_PER_SECOND)
DAY = SpanMs(24 * HOUR)
YEAR = SpanMs(366 * DAY)
"""The longest year: a limit given in years must not fall short of one."""

KIB = 1 << 10
MIB = 1 << 20


def no_earlier_than(now: WallMs, span: SpanMs) -> WallMs:
    """
    A point that lies at least *span* after this moment.

    *now* has been rounded down to a whole millisecond, so up to one
    millisecond of it has passed already.
    """
    return WallMs(now + span + 1)


def span_from(seconds: int, ms: int) -> SpanMs:
    """The span a pair of wire fields means: *ms* unless it is 0, else *seconds*."""
    return SpanMs(ms or seconds * MS_PER_SECOND)


def seconds_rounded_up(span: SpanMs) -> int:
    """Whole seconds that are not shorter than *span*."""
    return -(-span // MS_PER_SECOND)

"""
Points in time and spans of time in whole milliseconds, and quantities as text.

A point and a span are different types, because adding two points or sleeping
until a span is always a mistake.  Rounding never makes a span shorter than
requested.
"""

import re
from enum import Enum
from typing import NewType

WallMs = NewType("WallMs", int)
"""A point in queue time: milliseconds since the Unix epoch.  Stored on disk."""

SpanMs = NewType("SpanMs", int)
"""A span of time in milliseconds, never a point in time."""

MS_PER_SECOND = 1_000
US_PER_SECOND = 1_000_000

SECOND = SpanMs(MS_PER_SECOND)
MINUTE = SpanMs(60 * SECOND)
HOUR = SpanMs(60 * MINUTE)
DAY = SpanMs(24 * HOUR)
YEAR = SpanMs(366 * DAY)
"""The longest year, so that a limit in years covers any calendar year."""

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


class Unit(Enum):
    """The unit of a number, with its named multiples, the largest first."""

    COUNT = (("", 1),)
    BYTES = (("GiB", GIB), ("MiB", MIB), ("KiB", KIB), ("B", 1))
    MS = (("y", YEAR), ("d", DAY), ("h", HOUR), ("min", MINUTE), ("s", SECOND), ("ms", 1))


_SINGULARS = {"bytes": "byte", "items": "item"}

_QUANTITY = r"(?P<number>[0-9][0-9_]*(?:\.[0-9]+)?) ?(?P<name>[A-Za-z]*)"


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return *number* with *noun*: ``1 item``, ``2 items``.  *plural* is for nouns without a regular plural."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def measured(number: int, unit: str) -> str:
    """Return *number* with *unit*, a plural or an abbreviation: ``2 bytes``, ``1 byte``, ``1 ms``."""
    return f"{number:,} {_SINGULARS.get(unit, unit) if number == 1 else unit}"


def quantity(value: int, unit: Unit) -> str:
    """Return *value* as text in the largest multiple of *unit* that divides it.  `parse` reads the text."""
    for name, size in unit.value:
        if value and value % size == 0:
            return f"{value // size:,} {name}".rstrip()
    return f"0 {unit.value[-1][0]}".rstrip()


def rounded_span(ms: float) -> str:
    """Return a span in the largest unit that it reaches, with one decimal: ``250 ms``, ``12.5 s``, ``3.1 h``."""
    if ms < 0:
        return f"-{rounded_span(-ms)}"
    for size, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (SECOND, "s")):
        if ms >= size:
            return f"{ms / size:,.1f} {name}"
    return f"{ms:.0f} ms"


def parse(text: str, unit: Unit) -> int:
    """
    Return the number in *text*: ``16 MiB``, ``0.5s``, ``7d``, or a plain number of bytes, milliseconds or pieces.

    Raises:
        ValueError: *text* is not a number, or not a whole number of the smallest unit.
    """
    sizes = dict(unit.value)
    found = re.fullmatch(_QUANTITY, text.replace(",", "").strip())
    size = found and (sizes.get(found["name"]) if found["name"] else 1)
    if not found or size is None:
        names = ", ".join(name for name in sizes if name)
        raise ValueError(f"{text!r} is not a number" + (f" with or without one of {names}" if names else ""))
    whole, _, part = found["number"].replace("_", "").partition(".")
    scale: int = 10 ** len(part)
    value = int(whole + part) * size
    if value % scale:
        name = unit.value[-1][0]
        raise ValueError(f"{text!r} is not a whole number" + (f" of {name}" if name else ""))
    return value // scale


def no_earlier_than(now: WallMs, span: SpanMs) -> WallMs:
    """
    Return a point that lies at least *span* after the present.

    *now* was rounded down to a whole millisecond, so the present may be up to
    one millisecond later.
    """
    return WallMs(now + span + 1)


def span_from(seconds: int, ms: int) -> SpanMs:
    """Return the span of a pair of wire fields: *ms* unless it is 0, else *seconds*."""
    return SpanMs(ms or seconds * MS_PER_SECOND)


def seconds_rounded_up(span: SpanMs) -> int:
    """Return *span* in whole seconds, rounded up."""
    return -(-span // MS_PER_SECOND)

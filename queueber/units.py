"""
Points in time and lengths of time, both whole milliseconds, and how quantities are written and read.

A point and a span are different types, because adding two points or sleeping
until a span is always a mistake.  Spans are rounded so that nothing is ever
shorter than asked.
"""

import re
from enum import Enum
from typing import NewType

WallMs = NewType("WallMs", int)
"""A point in queue time: milliseconds since the Unix epoch.  Goes to disk."""

SpanMs = NewType("SpanMs", int)
"""A length of time in milliseconds.  Never a point in time."""

MS_PER_SECOND = 1_000

SECOND = SpanMs(MS_PER_SECOND)
MINUTE = SpanMs(60 * SECOND)
HOUR = SpanMs(60 * MINUTE)
DAY = SpanMs(24 * HOUR)
YEAR = SpanMs(366 * DAY)
"""The longest year: a limit given in years must not fall short of one."""

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


class Unit(Enum):
    """What a number counts, and the multiples of it that have names, the largest first."""

    COUNT = (("", 1),)
    BYTES = (("GiB", GIB), ("MiB", MIB), ("KiB", KIB), ("B", 1))
    MS = (("y", YEAR), ("d", DAY), ("h", HOUR), ("min", MINUTE), ("s", SECOND), ("ms", 1))


_QUANTITY = re.compile(r"(?P<number>[0-9][0-9_]*(?:\.[0-9]+)?) ?(?P<name>[A-Za-z]*)\Z")


def counted(number: int, noun: str, plural: str = "") -> str:
    """*number* and *noun* for a person: ``1 item``, ``2 items``; *plural* where an s does not make it."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def quantity(value: int, unit: Unit) -> str:
    """*value* as a person writes it, in the largest multiple of *unit* that fits; `parse` reads it."""
    for name, size in unit.value:
        if value and value % size == 0:
            return f"{value // size:,} {name}".rstrip()
    return f"0 {unit.value[-1][0]}".rstrip()


def parse(text: str, unit: Unit) -> int:
    """
    The number that *text* means: ``16 MiB``, ``0.5s``, ``7d``, or a plain number of bytes, milliseconds or pieces.

    Raises:
        ValueError: it means none, or no whole one.
    """
    sizes = dict(unit.value)
    found = _QUANTITY.match(text.replace(",", "").strip())
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

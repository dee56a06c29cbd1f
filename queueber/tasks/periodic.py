"""
Times at which periodic tasks fire: intervals, and cron expressions in a time zone.

Both depend on the clock alone, so all schedulers agree on them without communicating:
an interval counts from the Unix epoch, not from the start of the program.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from queueber.errors import InvalidRequest
from queueber.tasks.options import Seconds, checked_span
from queueber.units import MS_PER_SECOND, SpanMs, WallMs

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

EVERY_MS_MIN: Final = SpanMs(MS_PER_SECOND)
"""The shortest interval: each firing is an add on the disk."""

FIELDS: Final = 5
"""The fields of a crontab; the library takes a sixth, of seconds."""


class Timing(Protocol):
    """The times at which a task fires."""

    def after(self, moment: WallMs) -> WallMs | None:
        """Return the first firing after *moment*; None if there is none in the next 50 years."""
        ...

    def latest(self, after: WallMs, until: WallMs) -> WallMs | None:
        """Return the last firing after *after* that is not after *until*."""
        ...


class Every(NamedTuple):
    """Fires at each multiple of *span* since the Unix epoch, in UTC: a day means midnight in UTC."""

    span: SpanMs

    def after(self, moment: WallMs) -> WallMs:
        """Return the first firing after *moment*."""
        return WallMs((moment // self.span + 1) * self.span)

    def latest(self, after: WallMs, until: WallMs) -> WallMs | None:
        """Return the last firing after *after* that is not after *until*."""
        found = WallMs(until // self.span * self.span)
        return found if found > after else None


class Cron(NamedTuple):
    """
    Fires when the clock of a time zone matches *expression*, five fields as in a crontab.

    When clocks are put forward, a firing at a fixed time that is left out comes
    right after the gap.  When they are put back, a firing at a fixed time comes
    once, at the first of the two.  An expression whose minute or hour begins
    with `*` follows the clock instead: `*/10` of all hours fires each ten
    minutes throughout, and nothing in an hour that is left out.  Where clocks
    change by half an hour, a step over hours may leave out a firing on that day.
    """

    expression: str
    zone: ZoneInfo

    def after(self, moment: WallMs) -> WallMs | None:
        """Return the first firing after *moment*; None if there is none in the next 50 years."""
        return next(self._from(moment), None)

    def latest(self, after: WallMs, until: WallMs) -> WallMs | None:
        """Return the last firing after *after* that is not after *until*."""
        found = None
        for firing in self._from(after):
            if firing > until:
                break
            found = firing
        return found

    def _from(self, moment: WallMs) -> Iterator[WallMs]:
        from cronsim import CronSim  # noqa: PLC0415  (an extra)

        last = moment
        for each in CronSim(self.expression, datetime.fromtimestamp(moment / MS_PER_SECOND, self.zone)):
            firing = WallMs(math.floor(each.timestamp()) * MS_PER_SECOND)
            # In the second of two equal hours, the first results are in the first one.
            if firing > last:
                yield (last := firing)


def checked_timing(every: Seconds | None, cron: str | None, tz: str | None) -> Every | Cron | None:
    """
    Return the timing of a task; None if it is not periodic.

    Raises:
        InvalidRequest: interval and expression are both given, or one cannot be understood.
    """
    if every is not None and cron is not None:
        raise InvalidRequest("every and cron are both given; a task has one of them")
    if tz is not None and cron is None:
        raise InvalidRequest("tz is given without cron; an interval has no time zone")
    if every is not None:
        span = checked_span("every", every)
        if span < EVERY_MS_MIN:
            least = EVERY_MS_MIN / MS_PER_SECOND
            raise InvalidRequest(f"every is {span / MS_PER_SECOND:g} s; the least is {least:g} s")
        return Every(span)
    return None if cron is None else _cron(cron, tz or "UTC")


def _cron(expression: str, tz: str) -> Cron:
    # Imported here, because few programs have time zones.
    from zoneinfo import ZoneInfo  # noqa: PLC0415

    try:
        from cronsim import CronSimError  # noqa: PLC0415  (an extra)
    except ImportError:
        raise InvalidRequest("cron needs a package that is not installed: pip install 'queueber[cron]'") from None
    try:
        zone = ZoneInfo(tz)
    except (OSError, ValueError, TypeError):
        raise InvalidRequest(f"tz is {tz!r}; it must be a time zone such as 'Europe/Berlin'") from None
    except KeyError:
        raise InvalidRequest(
            f"tz is {tz!r}; it must be a time zone such as 'Europe/Berlin', "
            "and on a system without time zones the package tzdata must be installed"
        ) from None
    found = Cron(expression, zone)
    try:
        if len(expression.split()) != FIELDS:
            raise CronSimError("Wrong number of fields")  # noqa: TRY301
        if found.after(WallMs(0)) is None:
            raise InvalidRequest(f"cron is {expression!r}, which never fires")
    except (CronSimError, AttributeError) as why:
        raise InvalidRequest(
            f"cron is {expression!r}; it must be five fields, "
            f"minute, hour, day of the month, month, day of the week: {why}"
        ) from None
    return found

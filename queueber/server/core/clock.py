"""
Queue time, and the reactor's.

Queue time is the wall clock at the first start plus monotonic time since:
steps of the wall clock while the server runs move no lease and no delay.
Every commit carries a mark that ties queue time to the time since boot and to
the wall clock.  A restart continues from the last mark:

| restart | time that has passed since the mark |
|---|---|
| on the same boot | that of the boot clock, exactly |
| after a reboot | the lesser of two readings of the wall clock, and no less than none |
| after a reboot, by more than `JUMP_MAX_SECONDS` | none |

One reading is how far the wall clock has moved since the mark.  It is right if
the clock was wrong when the server started and was set right before the mark.
The other is how far it is beyond queue time.  It is right if the clock was
right at the start and wrong at the mark.  The lesser ends no lease and no delay
early unless the clock is wrong now, or was wrong from the start up to the mark
by less than `JUMP_MAX_SECONDS`.  Where it is too small, leases and delays last
longer by as much as the machine was down, and by no more.

A step of the wall clock is marked within a second, by a commit of its own if
there is no other.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from attrs import define

from queueber.broker import TimeMark
from queueber.units import MS_PER_SECOND, WallMs

JUMP_MAX_SECONDS = 400 * 86_400.0
"""A machine that was down for longer was more likely not: its clock had lost its battery, or began at the epoch."""

STEP_SECONDS = 1.0
"""By how much the wall clock moves against the boot clock until that is marked."""

TOLD_SECONDS = 60.0
"""By how much queue time differs from the wall clock until the log of a start says so."""

_whole_ms: Callable[[float], WallMs] = int  # type: ignore[assignment]
"""Rounds down; `WallMs` itself would cost a call of Python."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def read_boot_id() -> bytes:
    """16 bytes that differ from boot to boot; zeros where the system does not tell."""
    try:
        return UUID(_BOOT_ID.read_text().strip()).bytes
    except (OSError, ValueError):
        return bytes(16)


read_boot_time: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Returns the seconds since boot, suspension included."""


def keep_monotonic(reactor: Any) -> None:  # noqa: ANN401  (reactors have no common type for this)
    """
    Make *reactor* schedule by the monotonic clock.

    Twisted's reactors schedule by the wall clock, so that a step of it would
    fire every timer at once or none for hours.  To be done before anything is
    scheduled.
    """
    reactor.seconds = time.monotonic


@define
class QueueClock:
    """Tells queue time once it has begun."""

    wall: Callable[[], float] = time.time  # noqa: TID251  (the one place that may ask)
    monotonic: Callable[[], float] = time.monotonic
    boot_time: Callable[[], float] = read_boot_time
    boot_id: bytes = b""
    _offset: float = 0.0
    _marked: float | None = None
    """The wall clock less the boot clock, at the last mark; None if that was made on another boot."""

    def begin(self, mark: TimeMark | None) -> str:
        """
        Go on from *mark*, which the last commit of the server before this one carried; None if there was none.

        Returns:
            What an operator should know, in a sentence; empty if there is nothing.
        """
        self.boot_id = self.boot_id or read_boot_id()
        start = wall = self.wall()
        told = ""
        if mark is None:
            self._marked = self._wall_less_boot()
        else:
            start = mark.queue_time / MS_PER_SECOND
            if mark.boot_id == self.boot_id and any(self.boot_id):
                start += max(0.0, self.boot_time() - mark.boot_time_ms / MS_PER_SECOND)
                self._marked = (mark.wall - mark.boot_time_ms) / MS_PER_SECOND
            else:
                passed = min(wall - start, wall - mark.wall / MS_PER_SECOND)
                if passed > JUMP_MAX_SECONDS:
                    told = (
                        f"the wall clock has moved by {passed / 86_400:,.0f} days since the last commit, which is not"
                        f" believed above {JUMP_MAX_SECONDS / 86_400:,.0f}: leases and delays go on from there"
                    )
                    passed = 0.0
                start += max(0.0, passed)
        self._offset = start - self.monotonic()
        if not told and abs(start - wall) > TOLD_SECONDS:
            where = "behind" if start < wall else "ahead of"
            told = (
                f"queue time is {abs(start - wall):,.0f} s {where} the wall clock; leases and delays keep their length"
            )
        return told

    def now(self) -> WallMs:
        """Queue time, rounded down to a millisecond; never smaller than before."""
        return _whole_ms((self._offset + self.monotonic()) * MS_PER_SECOND)

    def mark(self) -> TimeMark:
        """The present moment, for a commit to carry."""
        # Queue time first: should the thread be held up in between, it must not seem to run ahead of the other clocks.
        now = _whole_ms((self._offset + self.monotonic()) * MS_PER_SECOND)
        boot, wall = self.boot_time(), self.wall()
        self._marked = wall - boot
        # Zero stands for unknown, and a clock before the epoch for one that has lost its battery.
        return TimeMark(self.boot_id, int(boot * MS_PER_SECOND), now, _whole_ms(max(1.0, wall * MS_PER_SECOND)))

    def stepped(self) -> bool:
        """Whether the wall clock was set, or the machine was booted, since the last mark."""
        return self._marked is None or abs(self._wall_less_boot() - self._marked) > STEP_SECONDS

    def _wall_less_boot(self) -> float:
        return self.wall() - self.boot_time()

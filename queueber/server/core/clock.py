"""
Queue time, the time by which the reactor schedules, and its periodic timers.

Queue time is the wall clock at the first start plus monotonic time since then.
A step of the wall clock while the server runs changes no lease and no delay.
Every commit carries a mark that ties queue time to the time since boot and to
the wall clock.  A restart continues from the last mark:

| restart | time elapsed since the mark |
|---|---|
| on the same boot | exactly that of the boot clock |
| after a reboot | the lesser of two estimates by the wall clock, and at least 0 |
| after a reboot, if that is more than `JUMP_MAX_SECONDS` | 0 |

One estimate is how far the wall clock has moved since the mark.  It is right if
the clock was wrong when the server started and was corrected before the mark.
The other is how far the wall clock is ahead of queue time.  It is right if the
clock was right at the start and wrong at the mark.  The lesser ends no lease and
no delay early, unless the clock is wrong now, or was wrong from the start to the
mark by less than `JUMP_MAX_SECONDS`.  If the estimate is too small, leases and
delays last longer by at most the time that the machine was down.

A step of the wall clock is marked within a second, by a commit of its own if no
other is made.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from attrs import define
from twisted.application.internet import TimerService

from queueber.broker import TimeMark
from queueber.units import MS_PER_SECOND, WallMs

JUMP_MAX_SECONDS = 400 * 86_400.0
"""The longest credible downtime.  A clock that shows more has more likely lost its battery and begun at the epoch."""

STEP_SECONDS = 1.0
"""The change of the wall clock against the boot clock from which it is marked."""

WARNING_SECONDS = 60.0
"""The difference between queue time and the wall clock from which a start logs a warning."""

_whole_ms: Callable[[float], WallMs] = int  # type: ignore[assignment]
"""Rounds a non-negative number down.  `WallMs` itself would cost a Python call."""

_new: Final = tuple.__new__
"""Makes a named tuple from a plain one in a third of the time that its class takes."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def read_boot_id() -> bytes:
    """Return 16 bytes that differ from boot to boot; zeros if the system has no boot id."""
    try:
        return UUID(BOOT_ID.read_text().strip()).bytes
    except (OSError, ValueError):
        return bytes(16)


read_boot_time: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Returns the seconds since boot, suspension included."""


def use_monotonic_time(reactor: Any) -> None:  # noqa: ANN401  (reactors have no common type for this)
    """
    Make *reactor* schedule by the monotonic clock.

    Twisted's reactors schedule by the wall clock, so that a step of it would
    fire every timer at once, or none for hours.  To be called before anything
    is scheduled.
    """
    reactor.seconds = time.monotonic


@define
class QueueClock:
    """The clock of queue time.  It runs once `begin` was called."""

    wall: Callable[[], float] = time.time  # noqa: TID251  (the one place that may read it)
    monotonic: Callable[[], float] = time.monotonic
    boot_time: Callable[[], float] = read_boot_time
    boot_id: bytes = b""
    _offset: float = 0.0
    _marked: float | None = None
    """The wall clock minus the boot clock at the last mark; None if the mark was made on another boot."""

    def begin(self, mark: TimeMark | None) -> str:
        """
        Continue from *mark*, which the last commit of the previous process carried; None if there was no commit.

        Returns:
            A warning for the operator, in a sentence; empty if there is none.
        """
        self.boot_id = self.boot_id or read_boot_id()
        start = wall = self.wall()
        warning = ""
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
                    warning = (
                        f"the wall clock has moved by {passed / 86_400:,.0f} days since the last commit, which is not"
                        f" believed above {JUMP_MAX_SECONDS / 86_400:,.0f}: leases and delays go on from there"
                    )
                    passed = 0.0
                start += max(0.0, passed)
        self._offset = start - self.monotonic()
        if not warning and abs(start - wall) > WARNING_SECONDS:
            order = "earlier than" if start < wall else "later than"
            warning = (
                f"queue time is {abs(start - wall):,.0f} s {order} the wall clock; leases and delays keep their length"
            )
        return warning

    def now(self) -> WallMs:
        """Return queue time, rounded down to a millisecond; never less than before."""
        return _whole_ms((self._offset + self.monotonic()) * MS_PER_SECOND)

    def mark(self) -> TimeMark:
        """Return the mark of the present moment for a commit."""
        # Queue time first: if the thread is suspended in between, it must not seem to run ahead of the other clocks.
        now = _whole_ms((self._offset + self.monotonic()) * MS_PER_SECOND)
        boot, wall = self.boot_time(), self.wall()
        self._marked = wall - boot
        # At least 1, because 0 means unknown; a clock before the epoch has lost its battery.
        wall_ms = _whole_ms(max(1.0, wall * MS_PER_SECOND))
        return _new(TimeMark, (self.boot_id, int(boot * MS_PER_SECOND), now, wall_ms))

    def stepped(self) -> bool:
        """Return whether the wall clock was set, or the machine was booted, since the last mark."""
        return self._marked is None or abs(self._wall_less_boot() - self._marked) > STEP_SECONDS

    def _wall_less_boot(self) -> float:
        return self.wall() - self.boot_time()


def periodic_timer(reactor: object, seconds: float, function: Callable[[], object]) -> TimerService:
    """
    Return a service that calls *function* once it is started, and then every *seconds* of the clock *reactor*.

    A call that returns a Deferred is not repeated before that has fired.  An
    error of *function* is logged and ends the timer.
    """
    timer = TimerService(seconds, function)
    timer.clock = reactor
    return timer

"""
Queue time, and the reactor's.

Queue time is the wall clock at the first start plus monotonic time since:
steps of the wall clock while the server runs move no lease and no delay.
Every commit carries a mark that ties queue time to the time since boot, so
that after a restart on the same boot the time that passed meanwhile is exact,
and after a reboot queue time at least does not run backwards.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from attrs import define

from queueber.broker import TimeMark
from queueber.units import MS_PER_SECOND, WallMs

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def read_boot_id() -> bytes:
    """16 bytes that differ from boot to boot; zeros where the system does not tell."""
    try:
        return UUID(_BOOT_ID.read_text().strip()).bytes
    except (OSError, ValueError):
        return bytes(16)


def read_boot_time() -> float:
    """Seconds since boot, suspension included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


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

    def begin(self, mark: TimeMark | None) -> None:
        """Go on from *mark*, which the last commit of the server before this one carried; None if there was none."""
        self.boot_id = self.boot_id or read_boot_id()
        start = self.wall()
        if mark is not None:
            marked = mark.queue_time / MS_PER_SECOND
            if mark.boot_id == self.boot_id and any(self.boot_id):
                start = marked + max(0.0, self.boot_time() - mark.boot_time_ms / MS_PER_SECOND)
            else:
                start = max(start, marked)
        self._offset = start - self.monotonic()

    def now(self) -> WallMs:
        """Queue time, rounded down to a millisecond; never smaller than before."""
        return WallMs(int((self._offset + self.monotonic()) * MS_PER_SECOND))

    def mark(self) -> TimeMark:
        """The present moment, for a commit to carry."""
        # Queue time first: should the thread be held up in between, it must not seem to run ahead of the boot clock.
        now = self.now()
        return TimeMark(self.boot_id, int(self.boot_time() * MS_PER_SECOND), now)

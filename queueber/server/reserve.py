"""
The free space that is kept for everything but adds.

A full disk can make a restart impossible, because recovery writes about as
much as there is log to be read.  So below a reserve adds are refused, while
polls, removes and extends, which make room in the end, go on.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from attrs import define, field
from twisted.application.internet import TimerService
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from queueber.errors import Overloaded
from queueber.store.tuning import to_flush
from queueber.units import GIB

LOOK_SECONDS: Final = 1.0
"""Between two looks."""

# A fast disk takes more than a small reserve within a second, so there is a look for each such share of it too.
_LOOK_SHARE: Final = 16

# Each time makes a table file, however small.
_REST_TICKS: Final = 5

LIMIT: Final = "free_space_reserve"
"""The limit's name."""

# Four times what the log and the write buffers take at most (192 MiB), rounded up: a restart writes them out, the
# merging of table files needs room beside the old ones, and what is added twice, in the log and then in a table file.
RESERVE_BYTES: Final = GIB

# Of a file system that is not many times larger, that would be all, and adds would be refused on an empty disk.
SMALL_SHARE: Final = 10

# So that adds are not taken and refused in turn around one figure: a tenth more must be free for them to come back.
_HYSTERESIS_SHARE: Final = 10


@define
class Space:
    """Bytes of a file system."""

    free: int
    """As far as this user may use it."""

    total: int
    promised: int = 0
    """What is in memory, and will be written to files whatever comes."""

    @property
    def left(self) -> int:
        """What is free beside that."""
        return max(0, self.free - self.promised)

    def __str__(self) -> str:
        beside = f" and {self.promised:,} are needed for what is in memory" if self.promised else ""
        return f"{self.free:,} bytes are free{beside}"


def space_of(path: Path, *, promised: int = 0) -> Space:
    """That of the file system that *path* is on, where *promised* bytes will be written whatever comes."""
    found = os.statvfs(path)
    return Space(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, promised)


@define(eq=False)
class Reserve:
    """Whether there is room for adds."""

    _measure: Callable[[], Space]
    _wanted: int | None
    """Bytes; 0 for no reserve, None for what suits the file system."""

    _make_room: Callable[[], Deferred[None]] = field(default=lambda: succeed(None))
    """Lets go of the space of what was removed, for which what is in memory is written out; fires when that is done."""

    low: bool = field(default=False, init=False)
    """Too little is free."""

    space: Space = field(factory=lambda: Space(0, 0), init=False)
    """At the last look."""

    _asked: int = field(default=0, init=False)
    """Length of the adds since then."""

    _making: bool = field(default=False, init=False)
    _told: bool = field(default=False, init=False)
    """That room cannot be made."""

    _rest: int = field(default=0, init=False)
    """Ticks until room may be made again."""

    log = Logger()

    @property
    def bytes(self) -> int:
        """How much is to be kept free; 0 for nothing."""
        if self._wanted is None:
            return min(RESERVE_BYTES, self.space.total // SMALL_SHARE)
        return self._wanted

    def look(self) -> None:
        """See how much is free.  What cannot be seen stays as it was."""
        self._asked = 0
        try:
            self.space = self._measure()
        except OSError as why:
            self.log.warn("The free space cannot be told: {why}", why=str(why))
            return
        left, reserve = self.space.left, self.bytes
        if not self.low and left < reserve:
            self.low = True
            line = "Refusing adds: {space}, the reserve is {reserve:,} (free_space_reserve)"
            self.log.warn(line, space=str(self.space), reserve=reserve)
        elif self.low and left >= reserve + reserve // _HYSTERESIS_SHARE:
            self.low = self._told = False
            self.log.info("Taking adds again: {space}", space=str(self.space))

    def tick(self) -> None:
        """Look, and make room if there is none.  To be called every `LOOK_SECONDS`."""
        self.look()
        self._rest = max(0, self._rest - 1)
        if self.low and not self._rest and not self._making and self._has_room_to_write():
            self._rest, self._making = _REST_TICKS, True
            self._make_room().addErrback(self._no_room).addBoth(self._room_made)

    def _has_room_to_write(self) -> bool:
        """Whether what is in memory fits into what is free: a flush that fails ends the server."""
        if self.space.free >= to_flush(self.space.promised):
            return True
        if not self._told:
            self._told = True
            self.log.error(
                "The space of removed items cannot be had back: {space}, and that is too little to write it. The"
                " server goes on until its memory is full; make room",
                space=str(self.space),
            )
        return False

    def _no_room(self, failure: Failure) -> None:
        self.log.warn("Making room failed: {why}", why=failure.getErrorMessage())

    def _room_made(self, _: object) -> None:
        self._making = False

    def refuse(self, size: int) -> None:
        """
        Refuse an add of *size* bytes if there is too little room.

        Raises:
            Overloaded: there is.
        """
        self._asked += size
        if self._asked * _LOOK_SHARE > self.bytes > 0:
            self.look()
        if self.low:
            raise Overloaded(
                f"{self.space}, and {self.bytes:,} are kept in reserve ({LIMIT});"
                f" polls and removes go on, try again later",
                limit=LIMIT,
            )


def watching(reactor: Any, reserve: Reserve) -> TimerService:  # noqa: ANN401
    """What looks again and again, once started."""
    timer = TimerService(LOOK_SECONDS, reserve.tick)
    timer.clock = reactor
    return timer

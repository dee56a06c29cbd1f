"""
The free space that is kept for everything but adds.

A full disk can make a restart impossible, because recovery writes about as
much as there is log to be read.  So below a reserve adds are refused, while
polls, removes and extends, which make room in the end, go on.
"""

import os
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Final

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from queueber.errors import Overloaded, reason
from queueber.store.tuning import FLUSH_FILES, flush_bytes_max
from queueber.units import GIB, counted

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

# Every flush and every merge makes some files.  Of a file system with few, a share, as of one with little space.
RESERVE_INODES: Final = 256

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

    free_inodes: int = 0
    """Files that may still be made, as far as this user may."""

    inodes: int = 0
    """Files that there may be; 0 where the file system has no such bound."""

    @property
    def left(self) -> int:
        """What is free beside that."""
        return max(0, self.free - self.promised)

    def __str__(self) -> str:
        beside = f" and {counted(self.promised, 'is', 'are')} needed for what is in memory" if self.promised else ""
        return f"{counted(self.free, 'byte is', 'bytes are')} free{beside}"


def space_of(path: Path, *, promised: int = 0) -> Space:
    """That of the file system that *path* is on, where *promised* bytes will be written whatever comes."""
    found = os.statvfs(path)
    size = found.f_frsize
    return Space(found.f_bavail * size, found.f_blocks * size, promised, found.f_favail, found.f_files)


@define(eq=False)
class Reserve:
    """Whether there is room for adds."""

    _measure: Callable[[], Space]
    _wanted: int | None
    """Bytes; 0 for no reserve, None for what suits the file system."""

    _make_room: Callable[[], Deferred[None]] = field(default=lambda: succeed(None))
    """Lets go of the space of what was removed, for which what is in memory is written out; fires when that is done."""

    _few_bytes: bool = field(default=False, init=False)
    _few_inodes: bool = field(default=False, init=False)

    space: Space = field(factory=lambda: Space(0, 0), init=False)
    """At the last look."""

    _bytes_until_look: float = field(init=False)
    """The length of adds after which the free space is measured again, whatever the time."""

    _making: bool = field(default=False, init=False)
    _told: bool = field(default=False, init=False)
    """That room cannot be made."""

    _rest: int = field(default=0, init=False)
    """Ticks until room may be made again."""

    log = Logger()

    def __attrs_post_init__(self) -> None:
        """Begin to count adds."""
        self._bytes_until_look = self._share()

    def _share(self) -> float:
        return self.bytes / _LOOK_SHARE if self.bytes else inf

    @property
    def bytes(self) -> int:
        """How much is to be kept free; 0 for nothing."""
        if self._wanted is None:
            return min(RESERVE_BYTES, self.space.total // SMALL_SHARE)
        return self._wanted

    @property
    def inodes(self) -> int:
        """How many files must still be possible; 0 if it does not matter."""
        return min(RESERVE_INODES, self.space.inodes // SMALL_SHARE) if self.bytes else 0

    @property
    def low(self) -> bool:
        """Whether too little is free, so that adds are refused."""
        return self._few_bytes or self._few_inodes

    @property
    def lacking(self) -> str:
        """What adds are refused for, with what there is and what is kept in reserve; empty if they are not."""
        space = self.space
        bytes_ = f"{space}, and {counted(self.bytes, 'is', 'are')} kept in reserve"
        inodes = f"{_free(space)}, and {counted(self.inodes, 'is', 'are')} kept in reserve"
        return "; ".join([bytes_] * self._few_bytes + [inodes] * self._few_inodes)

    def look(self) -> None:
        """See how much is free.  What cannot be seen stays as it was."""
        failed = None
        try:
            self.space = self._measure()
        except OSError as why:
            failed = why
        self._bytes_until_look = self._share()
        if failed is not None:
            self.log.warn("The free space cannot be told: {why}", why=reason(failed))
            return
        before = self.low
        self._few_bytes = self.space.left < _needed(self.bytes, low=self._few_bytes)
        self._few_inodes = self.space.free_inodes < _needed(self.inodes, low=self._few_inodes)
        if self.low and not before:
            self.log.warn("Refusing adds: {lacking} (free_space_reserve)", lacking=self.lacking)
        elif before and not self.low:
            self._told = False
            inodes = f", {counted(self.space.free_inodes, 'inode')}" if self.inodes else ""
            self.log.info("Taking adds again: {space}{inodes}", space=str(self.space), inodes=inodes)

    def tick(self) -> None:
        """Look, and make room if there is none.  To be called every `LOOK_SECONDS`."""
        self.look()
        self._rest = max(0, self._rest - 1)
        if self.low and not self._rest and not self._making and self._has_room_to_write():
            self._rest, self._making = _REST_TICKS, True
            self._make_room().addErrback(self._no_room).addBoth(self._room_made)

    def _has_room_to_write(self) -> bool:
        """Whether what is in memory fits into what is free: a flush that fails ends the server."""
        inodes = not self.inodes or self.space.free_inodes >= FLUSH_FILES
        if inodes and self.space.free >= flush_bytes_max(self.space.promised):
            return True
        if not self._told:
            self._told = True
            self.log.error(
                "The space of removed items cannot be had back: {space}, and that is too little to write it. The"
                " server goes on until its memory is full; make room",
                space=str(self.space) if inodes else _free(self.space),
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
        self._bytes_until_look -= size
        if self._bytes_until_look < 0:
            self.look()
        if self._few_bytes or self._few_inodes:
            raise Overloaded(f"{self.lacking} ({LIMIT}); polls and removes go on, try again later", limit=LIMIT)


def _free(space: Space) -> str:
    """Return how many inodes are free, as a clause."""
    return f"{counted(space.free_inodes, 'inode is', 'inodes are')} free"


def _needed(reserve: int, *, low: bool) -> int:
    """How much must be free: a tenth more than *reserve*, and one at least, for adds to come back."""
    return reserve + max(1, reserve // _HYSTERESIS_SHARE) if low and reserve else reserve

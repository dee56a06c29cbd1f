"""
A reserve of free space, for everything but adds.

A full disk can make a restart impossible, because recovery writes about as
much as the log that it reads.  So adds are refused below the reserve, while
polls, removes and extends, which make room in the end, are carried out.
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

MEASURE_SECONDS: Final = 1.0
"""Between two measurements of the free space."""

_MEASURE_SHARE: Final = 16
"""The free space is also measured for each such share of the reserve that is added: a fast disk can take more than a
small reserve within a second."""

_PAUSE_TICKS: Final = 5
"""Between two attempts to make room.  Each makes a table file, however small."""

LIMIT: Final = "free_space_reserve"
"""The limit's name."""

RESERVE_BYTES: Final = GIB
"""
Four times the largest size of the log and the write buffers (192 MiB), rounded up.

A restart writes them out, a merge of table files needs room for new and old ones, and an added item is in the log and
later in a table file as well.
"""

SMALL_SHARE: Final = 10
"""At most a file system's size divided by this is reserved: more would refuse adds on a small empty disk."""

RESERVE_INODES: Final = 256
"""Every flush and every merge makes some files."""

_HYSTERESIS_SHARE: Final = 10
"""A tenth more than the reserve must be free before adds are taken again, so that the decision does not flap."""


@define
class Space:
    """The space of a file system, in bytes and inodes."""

    free: int
    """Bytes that this user may use."""

    total: int
    unflushed: int = 0
    """Bytes in memory that will be written to files in any case."""

    free_inodes: int = 0
    """Inodes that this user may use."""

    inodes: int = 0
    """All inodes; 0 if the file system has no such limit."""

    @property
    def available(self) -> int:
        """Free bytes after everything in memory is written."""
        return max(0, self.free - self.unflushed)

    def __str__(self) -> str:
        needed = f" and {counted(self.unflushed, 'is', 'are')} needed for what is in memory" if self.unflushed else ""
        return f"{counted(self.free, 'byte is', 'bytes are')} free{needed}"


def space_of(path: Path, *, unflushed: int = 0) -> Space:
    """Return the space of the file system of *path*, to which *unflushed* bytes will be written in any case."""
    found = os.statvfs(path)
    size = found.f_frsize
    return Space(found.f_bavail * size, found.f_blocks * size, unflushed, found.f_favail, found.f_files)


@define(eq=False)
class Reserve:
    """Decides whether the disk has room for adds."""

    _measure_space: Callable[[], Space]
    _wanted: int | None
    """Bytes; 0 for no reserve, None for the default of the file system's size."""

    _make_room: Callable[[], Deferred[None]] = field(default=lambda: succeed(None))
    """Releases the space of removed items by flushing what is in memory; fires when that is done."""

    _few_bytes: bool = field(default=False, init=False)
    _few_inodes: bool = field(default=False, init=False)
    space: Space = field(factory=lambda: Space(0, 0), init=False)
    """The last measurement."""

    _bytes_until_measured: float = field(init=False)
    """Bytes of adds until the free space is measured again, whatever the time."""

    _making_room: bool = field(default=False, init=False)
    _warned: bool = field(default=False, init=False)
    """The log says that no room can be made."""

    _pause_ticks: int = field(default=0, init=False)
    """Ticks until the next attempt to make room."""

    log = Logger()

    def __attrs_post_init__(self) -> None:
        """Begin to count adds."""
        self._bytes_until_measured = self._measured_share()

    def _measured_share(self) -> float:
        return self.bytes / _MEASURE_SHARE if self.bytes else inf

    @property
    def bytes(self) -> int:
        """The bytes to keep free; 0 for no reserve."""
        if self._wanted is None:
            return min(RESERVE_BYTES, self.space.total // SMALL_SHARE)
        return self._wanted

    @property
    def inodes(self) -> int:
        """The inodes to keep free; 0 for no reserve."""
        return min(RESERVE_INODES, self.space.inodes // SMALL_SHARE) if self.bytes else 0

    @property
    def low(self) -> bool:
        """Whether too little is free, so that adds are refused."""
        return self._few_bytes or self._few_inodes

    @property
    def shortage(self) -> str:
        """Why adds are refused, with the figures of what is free and what is reserved; empty if they are not."""
        space = self.space
        bytes_ = f"{space}, and {counted(self.bytes, 'is', 'are')} kept in reserve"
        inodes = f"{_free(space)}, and {counted(self.inodes, 'is', 'are')} kept in reserve"
        return "; ".join([bytes_] * self._few_bytes + [inodes] * self._few_inodes)

    def measure(self) -> None:
        """Measure the free space.  If that fails, the last measurement stays."""
        failed = None
        try:
            self.space = self._measure_space()
        except OSError as why:
            failed = why
        self._bytes_until_measured = self._measured_share()
        if failed is not None:
            self.log.warn("The free space cannot be measured: {why}", why=reason(failed))
            return
        before = self.low
        self._few_bytes = self.space.available < _needed(self.bytes, low=self._few_bytes)
        self._few_inodes = self.space.free_inodes < _needed(self.inodes, low=self._few_inodes)
        if self.low and not before:
            self.log.warn("Refusing adds: {shortage} (free_space_reserve)", shortage=self.shortage)
        elif before and not self.low:
            self._warned = False
            inodes = f", {counted(self.space.free_inodes, 'inode')}" if self.inodes else ""
            self.log.info("Taking adds again: {space}{inodes}", space=str(self.space), inodes=inodes)

    def tick(self) -> None:
        """Measure the free space, and make room if it is low.  To be called every `MEASURE_SECONDS`."""
        self.measure()
        self._pause_ticks = max(0, self._pause_ticks - 1)
        if self.low and not self._pause_ticks and not self._making_room and self._has_room_to_flush():
            self._pause_ticks, self._making_room = _PAUSE_TICKS, True
            self._make_room().addErrback(self._log_failure).addBoth(self._room_made)

    def _has_room_to_flush(self) -> bool:
        """Return whether what is in memory fits on the disk: a flush that fails ends the server."""
        inodes = not self.inodes or self.space.free_inodes >= FLUSH_FILES
        if inodes and self.space.free >= flush_bytes_max(self.space.unflushed):
            return True
        if not self._warned:
            self._warned = True
            self.log.error(
                "The space of removed items cannot be reclaimed: {space}, and that is too little to write it. The"
                " server goes on until its memory is full; make room",
                space=str(self.space) if inodes else _free(self.space),
            )
        return False

    def _log_failure(self, failure: Failure) -> None:
        self.log.warn("Making room failed: {why}", why=failure.getErrorMessage())

    def _room_made(self, _: object) -> None:
        self._making_room = False

    def refuse(self, size: int) -> None:
        """
        Refuse an add of *size* bytes if the disk has too little room.

        Raises:
            Overloaded: the free space is below the reserve.
        """
        self._bytes_until_measured -= size
        if self._bytes_until_measured < 0:
            self.measure()
        if self._few_bytes or self._few_inodes:
            raise Overloaded(f"{self.shortage} ({LIMIT}); polls and removes go on, try again later", limit=LIMIT)


def _free(space: Space) -> str:
    """Return how many inodes are free, as a clause."""
    return f"{counted(space.free_inodes, 'inode is', 'inodes are')} free"


def _needed(reserve: int, *, low: bool) -> int:
    """Return how much must be free; when it was *low*, a tenth more than *reserve*, and at least one more."""
    return reserve + max(1, reserve // _HYSTERESIS_SHARE) if low and reserve else reserve

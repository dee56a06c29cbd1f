"""
RocksDB's write-ahead logs and its manifest, looked at before RocksDB does, because it misses damage of three kinds.

One changed bit in the length of a record in a log's last block makes it look
like a torn end, and everything behind it is dropped without a word.  One in
the type of a record has RocksDB look for the next one for ever.  And a hole
that begins and ends between two records is stepped over.  The manifest is a log
too, of the changes to the set of tables, and is read in the same way.

So the structure is checked here: each record lies in its block, its parts
follow each other, and each batch begins with the number at which the one
before it ended.  Checksums are left to RocksDB, which is a hundred times
faster at them, but for the few that tell what a log's end once was.

A log is a row of blocks of 32 KiB, in which no record crosses a boundary: it
is split into a first, middle and last part.  A record has a checksum (CRC-32C,
rotated), a length (u16) and a type (u8); a batch of writes begins with the
number of its first (u64) and how many they are (u32).  All are little-endian.
The manifest's records are no batches, and are not looked into.
"""

import mmap
import re
from pathlib import Path
from struct import Struct
from typing import Final, TypeAlias

from attrs import define, frozen

from queueber.plyvel.errors import CorruptionError
from queueber.units import KIB

Content: TypeAlias = bytes | mmap.mmap
"""A log."""

_BLOCK: Final = 32 * KIB
_RECORD: Final = Struct("<IHB")
_BATCH: Final = Struct("<QI")

_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_BEGINS: Final = frozenset({_WHOLE, _FIRST})
_ENDS: Final = frozenset({_WHOLE, _LAST})
_KNOWN: Final = frozenset({_WHOLE, _FIRST, _MIDDLE, _LAST})
# Types from here on hold no writes, and are skipped by whoever does not know them.
_SKIPPABLE: Final = 0x80

_SEQUENCE_MAX: Final = 2**56 - 1
_TYPE_OF_A_BEGINNING: Final = re.compile(b"[\x01\x02]")


@frozen
class Look:
    """What a log is like."""

    end: int
    """Where its last whole batch ends."""

    following: int | None
    """The number that a write behind that would have; None if there is no whole batch."""

    damage: str | None
    """What is there behind the end that no process which died left there; None if nothing is."""


def logs_of(database: Path) -> list[Path]:
    """The logs in the directory *database*, in the order in which they were written."""
    return sorted((log for log in database.glob("*.log") if log.stem.isdecimal()), key=lambda log: int(log.stem))


def check_logs(database: Path) -> None:
    """
    Raise a `CorruptionError` for damage to logs and manifest in *database* that RocksDB would not tell, or not survive.

    Costs about a microsecond for each batch.
    """
    for log in logs_of(database):
        _check(log, look_at(content_of(log)))
    _check_manifest(database)


def _check_manifest(database: Path) -> None:
    current = database / "CURRENT"
    manifest = database / current.read_text(errors="replace").strip() if current.exists() else current
    # What CURRENT should say, and whether it is there, is for RocksDB to tell.
    if manifest.name.startswith("MANIFEST-") and manifest.is_file():
        _check(manifest, look_at(content_of(manifest), batches=False))


def _check(file: Path, look: Look) -> None:
    if look.damage is not None:
        raise CorruptionError(f"Corruption: {file.name}: {look.damage}")


def cut_off_damage(database: Path) -> None:
    """End each log in *database* before the first damage of that kind, durable or not; the manifest must be whole."""
    _check_manifest(database)
    for log in logs_of(database):
        look = look_at(content_of(log))
        if look.damage is not None:
            with log.open("r+b") as file:
                file.truncate(look.end)


def content_of(log: Path) -> Content:
    """What is in *log*, without reading all of it."""
    with log.open("rb") as file:
        # Nothing cannot be mapped.
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if log.stat().st_size else b""


def look_at(content: Content, *, checksums: bool = False, batches: bool = True) -> Look:
    """What the log *content* is like; with *checksums* damage to what it holds is told too, slowly."""
    walk = _Walk(content, checksums, batches)
    try:
        walk.to_the_end()
    except _DamagedError as damaged:
        return Look(walk.end, walk.following, str(damaged))
    return Look(walk.end, walk.following, None)


class _DamagedError(Exception):
    """What is there is not what RocksDB wrote."""


@define
class _Walk:
    """One look at one log."""

    content: Content
    checksums: bool
    batches: bool
    end: int = 0
    following: int | None = None
    head: bytes | None = None
    """Of the batch whose parts are being read, its first bytes."""

    def to_the_end(self) -> None:
        """Go over all records; a `_DamagedError` for those that cannot be."""
        content, size, at = self.content, len(self.content), 0
        while size - at >= _RECORD.size:
            room = _BLOCK - at % _BLOCK
            if room < _RECORD.size:
                at += room  # nothing fits there
                continue
            crc, length, kind = _RECORD.unpack_from(content, at)
            after = at + _RECORD.size + length
            if kind == 0 and length == 0:
                return self._check_nothing_follows(at)
            if kind not in _KNOWN and kind < _SKIPPABLE:
                raise _DamagedError(f"the record at {at:,} is of type {kind}")
            if after - at > room:
                raise _DamagedError(f"the record at {at:,} reaches over its block")
            if after > size:
                break
            if self.checksums and checksum(content[at + _RECORD.size - 1 : after]) != crc:
                raise _DamagedError(f"the checksum of the record at {at:,} does not match")
            if kind in _KNOWN:
                self._part(kind, at + _RECORD.size, after)
            at = after
        return self._check_torn(at)

    def _part(self, kind: int, begin: int, after: int) -> None:
        """All of a batch, or a part of it, lies between *begin* and *after*."""
        if (kind in _BEGINS) is not (self.head is None):
            raise _DamagedError(f"a part is missing before {begin:,}")
        self.head = ((self.head or b"") + self.content[begin : min(after, begin + _BATCH.size)])[: _BATCH.size]
        if kind in _ENDS:
            if self.batches:
                self._batch(self.head)
            self.head, self.end = None, after

    def _batch(self, head: bytes) -> None:
        """All of a batch that begins with *head* is there."""
        if len(head) < _BATCH.size:
            raise _DamagedError(f"the batch at {self.end:,} has no beginning")
        number, count = _BATCH.unpack(head)
        if self.following is not None and number != self.following:
            raise _DamagedError(f"write {self.following:,} is missing; the log goes on with {number:,} at {self.end:,}")
        self.following = number + count

    def _check_nothing_follows(self, at: int) -> None:
        """Room that was set aside may be at the end, and nowhere else, not in the middle of a batch either."""
        if self.head is not None or any(self.content[at:]):
            raise _DamagedError(f"there is a hole at {at:,}")

    def _check_torn(self, at: int) -> None:
        """Tell whether the record at *at* was cut by the death of who wrote it, or has a wrong length."""
        content = self.content
        if len(content) - at > _RECORD.size:
            crc, _, _ = _RECORD.unpack_from(content, at)
            if checksum(content[at + _RECORD.size - 1 :]) == crc:
                raise _DamagedError(f"the length of the record at {at:,} is wrong")
        later = batch_behind(content, self.end, self.following, batches=self.batches)
        if later is not None:
            raise _DamagedError(f"the record at {at:,} is cut, and another follows at {later:,}")


def batch_behind(content: Content, at: int, number: int | None, *, batches: bool = True) -> int | None:
    """
    Where in *content*, from *at* on, the first part of a batch lies that comes after write *number*; None if nowhere.

    Only one commit is under way at any time, so that such a batch is the proof that the one before it was synced.
    Without *batches* any record will do that begins behind *at*.
    """
    lowest = 0 if number is None else number + 1
    smallest = _BATCH.size if batches else 1
    for found in _TYPE_OF_A_BEGINNING.finditer(content, at + _RECORD.size):
        start = found.start() - _RECORD.size + 1
        if len(content) - start < _RECORD.size + smallest:
            return None
        crc, length, _ = _RECORD.unpack_from(content, start)
        sequence = _BATCH.unpack_from(content, start + _RECORD.size)[0] if batches else lowest
        after = start + _RECORD.size + length
        if (
            lowest <= sequence <= _SEQUENCE_MAX
            and length >= smallest
            and after - start <= _BLOCK - start % _BLOCK
            and after <= len(content)
            and checksum(content[found.start() : after]) == crc
        ):
            return start
    return None


def checksum(data: bytes) -> int:
    """As it stands in a record, of *data*: the type and what follows the head.  Ten megabytes take a second."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _remainder(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_TABLE: Final = tuple(_remainder(byte) for byte in range(256))

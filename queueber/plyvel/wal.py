"""
Checks of RocksDB's WAL files and manifest, made before RocksDB reads them, for damage that RocksDB mishandles.

RocksDB takes a wrong length in a record of the last block for a torn tail, and
silently drops all later records.  With a wrong type it may never finish
reading.  A hole that begins and ends at record boundaries it skips.

These checks find all three.  Each record must lie within its block, the parts
of a batch must follow each other, and the sequence number of each batch must
continue that of the previous one.  Checksums are left to RocksDB, which is a
hundred times faster, except for the few that distinguish a torn tail from
damage.  The manifest has the same format, and changes to the set of table files
in place of batches; only its records are checked.

A file is a sequence of blocks of 32 KiB.  A record does not cross a block
boundary; a longer batch is split into a first, middle and last part.  A record
has a checksum (masked CRC-32C of type and content), a length (u16) and a type
(u8).  A batch begins with the sequence number of its first write (u64) and the
count of its writes (u32).  All integers are little-endian.
"""

import mmap
import re
from pathlib import Path
from struct import Struct
from typing import Final, TypeAlias

from attrs import define, frozen

from queueber.plyvel.errors import CorruptionError
from queueber.units import KIB

WalContent: TypeAlias = bytes | mmap.mmap
"""Content of a WAL file."""

_BLOCK_BYTES: Final = 32 * KIB
_RECORD_HEADER: Final = Struct("<IHB")
_BATCH_HEADER: Final = Struct("<QI")

_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_BEGINNINGS: Final = frozenset({_FULL, _FIRST})
_ENDS: Final = frozenset({_FULL, _LAST})
_PARTS: Final = frozenset({_FULL, _FIRST, _MIDDLE, _LAST})
# Higher types hold no writes, and may be ignored by readers that do not know them.
_IGNORABLE_TYPES_FROM: Final = 0x80

_MAX_SEQUENCE: Final = 2**56 - 1
_BEGINNING_TYPE_BYTE: Final = re.compile(b"[\x01\x02]")


@frozen
class WalState:
    """The valid part of a WAL file, and the damage after it."""

    end: int
    """Offset of the end of the last complete batch."""

    next_sequence: int | None
    """Sequence number of the write that would follow; None if there is no complete batch."""

    damage: str | None
    """Description of the damage after the end; None if the rest is empty or a write that a dying process cut short."""


def wal_files(database: Path) -> list[Path]:
    """Return the WAL files in the directory *database*, oldest first."""
    return sorted((file for file in database.glob("*.log") if file.stem.isdecimal()), key=lambda file: int(file.stem))


def check_wal(database: Path) -> None:
    """
    Check the structure of the WAL files and of the manifest in the directory *database*, a microsecond per batch.

    Raises:
        CorruptionError: a file is damaged.
    """
    for file in wal_files(database):
        _refuse_damage(file, read_wal(map_file(file)))
    _check_manifest(database)


def _check_manifest(database: Path) -> None:
    current = database / "CURRENT"
    manifest = database / current.read_text(errors="replace").strip() if current.exists() else current
    # RocksDB itself reports a missing or damaged CURRENT, and a missing manifest.
    if manifest.name.startswith("MANIFEST-") and manifest.is_file():
        _refuse_damage(manifest, read_wal(map_file(manifest), batches=False))


def _refuse_damage(file: Path, state: WalState) -> None:
    if state.damage is not None:
        raise CorruptionError(f"Corruption: {file.name}: {state.damage}")


def truncate_damage(database: Path) -> None:
    """
    Truncate each WAL file in the directory *database* before its first damage, not necessarily durably.

    Raises:
        CorruptionError: the manifest is damaged; nothing was truncated.
    """
    _check_manifest(database)
    for path in wal_files(database):
        state = read_wal(map_file(path))
        if state.damage is not None:
            with path.open("r+b") as file:
                file.truncate(state.end)


def map_file(path: Path) -> WalContent:
    """Map the file *path* into memory, read-only."""
    with path.open("rb") as file:
        # An empty file cannot be mapped.
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""


def read_wal(content: WalContent, *, checksums: bool = False, batches: bool = True) -> WalState:
    """
    Check the structure of a WAL file.

    Args:
        content: the file.
        checksums: verify all checksums, too, at about ten megabytes a second.
        batches: check batch headers; False for a manifest, whose records have none.
    """
    reader = _Reader(content, checksums, batches)
    try:
        reader.read_all()
    except _DamageError as damage:
        return WalState(reader.end, reader.next_sequence, str(damage))
    return WalState(reader.end, reader.next_sequence, None)


class _DamageError(Exception):
    """The content is not what RocksDB wrote."""


@define
class _Reader:
    """One pass over a WAL file."""

    content: WalContent
    checksums: bool
    batches: bool
    end: int = 0
    next_sequence: int | None = None
    batch_start: bytes | None = None
    """The first bytes of the batch that is being read, at most its header; None between batches."""

    def read_all(self) -> None:
        """Read all records; raise `_DamageError` at the first damaged one."""
        content, size, at = self.content, len(self.content), 0
        while size - at >= _RECORD_HEADER.size:
            block_rest = _BLOCK_BYTES - at % _BLOCK_BYTES
            if block_rest < _RECORD_HEADER.size:
                at += block_rest  # padding
                continue
            crc, length, kind = _RECORD_HEADER.unpack_from(content, at)
            after = at + _RECORD_HEADER.size + length
            if kind == 0 and length == 0:
                return self._check_preallocated(at)
            if kind not in _PARTS and kind < _IGNORABLE_TYPES_FROM:
                raise _DamageError(f"the record at {at:,} is of type {kind}")
            if after - at > block_rest:
                raise _DamageError(f"the record at {at:,} reaches over its block")
            if after > size:
                break
            if self.checksums and checksum(content[at + _RECORD_HEADER.size - 1 : after]) != crc:
                raise _DamageError(f"the checksum of the record at {at:,} does not match")
            if kind in _PARTS:
                self._read_part(kind, at + _RECORD_HEADER.size, after)
            at = after
        return self._check_torn_record(at)

    def _read_part(self, kind: int, begin: int, after: int) -> None:
        """Read the part of a batch that lies from *begin* to *after*."""
        if (kind in _BEGINNINGS) is not (self.batch_start is None):
            raise _DamageError(f"a part is missing before {begin:,}")
        header_end = min(after, begin + _BATCH_HEADER.size)
        self.batch_start = ((self.batch_start or b"") + self.content[begin:header_end])[: _BATCH_HEADER.size]
        if kind in _ENDS:
            if self.batches:
                self._check_batch(self.batch_start)
            self.batch_start, self.end = None, after

    def _check_batch(self, start: bytes) -> None:
        """Check the header *start* of a complete batch."""
        if len(start) < _BATCH_HEADER.size:
            raise _DamageError(f"the batch at {self.end:,} has no beginning")
        sequence, count = _BATCH_HEADER.unpack(start)
        if self.next_sequence is not None and sequence != self.next_sequence:
            missing = f"write {self.next_sequence:,} is missing"
            raise _DamageError(f"{missing}; the log goes on with {sequence:,} at {self.end:,}")
        self.next_sequence = sequence + count

    def _check_preallocated(self, at: int) -> None:
        """Check that *at* is between two batches, and that only zeros, which are preallocated space, follow."""
        if self.batch_start is not None or any(self.content[at:]):
            raise _DamageError(f"there is a hole at {at:,}")

    def _check_torn_record(self, at: int) -> None:
        """Distinguish a record that a dying process cut short from one whose length is damaged."""
        content = self.content
        if len(content) - at > _RECORD_HEADER.size:
            crc, _, _ = _RECORD_HEADER.unpack_from(content, at)
            if checksum(content[at + _RECORD_HEADER.size - 1 :]) == crc:
                raise _DamageError(f"the length of the record at {at:,} is wrong")
        later = find_later_batch(content, self.end, self.next_sequence, batches=self.batches)
        if later is not None:
            raise _DamageError(f"the record at {at:,} is cut, and another follows at {later:,}")


def find_later_batch(content: WalContent, start: int, sequence: int | None, *, batches: bool = True) -> int | None:
    """
    Return the offset of a batch after the record at *start* with a sequence number above *sequence*; None if none.

    If each batch was synced before the next was written, everything before such a batch was synced.  With *sequence*
    None, any sequence number is accepted; without *batches*, for a manifest, any record.
    """
    lowest = 0 if sequence is None else sequence + 1
    min_length = _BATCH_HEADER.size if batches else 1
    for match in _BEGINNING_TYPE_BYTE.finditer(content, start + _RECORD_HEADER.size):
        record = match.start() - _RECORD_HEADER.size + 1
        if len(content) - record < _RECORD_HEADER.size + min_length:
            return None
        crc, length, _ = _RECORD_HEADER.unpack_from(content, record)
        found = _BATCH_HEADER.unpack_from(content, record + _RECORD_HEADER.size)[0] if batches else lowest
        after = record + _RECORD_HEADER.size + length
        if (
            lowest <= found <= _MAX_SEQUENCE
            and length >= min_length
            and after - record <= _BLOCK_BYTES - record % _BLOCK_BYTES
            and after <= len(content)
            and checksum(content[match.start() : after]) == crc
        ):
            return record
    return None


def checksum(data: bytes) -> int:
    """Return the masked CRC-32C of *data*, a record's type byte and content.  Processes ten megabytes a second."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _crc_table_entry(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC_TABLE: Final = tuple(_crc_table_entry(byte) for byte in range(256))

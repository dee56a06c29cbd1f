"""
What rows hold: an encoding byte, a checksum, then one struct of ``storage.capnp``.

The checksum covers the row's key, the encoding byte and the struct, so that a
value is noticed that was changed, and one that is whole but belongs to another
row.  It is a CRC-32: zlib's is the fastest that Python carries, and it only
has to find accidents that got past RocksDB's own checksums.

Every reading function raises `StorageError`, naming table and key, for a row
that is not exactly as it was written.  Both encodings are always readable.
"""

from collections.abc import Iterable
from enum import StrEnum
from struct import Struct
from typing import Final
from zlib import crc32

from queueber.broker.model import Item, Key, LeaseRecord, QueueNumber, QueueRecord, TimeMark
from queueber.store import structs
from queueber.store.keys import damaged, place, queue_number
from queueber.units import WallMs


class Encoding(StrEnum):
    """How structs are written from now on; what is there already may be either."""

    UNPACKED = "unpacked"
    PACKED = "packed"


_UNPACKED: Final = 1
_PACKED: Final = 2
_BYTES = {Encoding.UNPACKED: _UNPACKED, Encoding.PACKED: _PACKED}
_PREFIXES = {byte: bytes((byte,)) for byte in _BYTES.values()}

_HEAD = Struct(">BI")
_ENTRY = Struct(">Q16s")


def seal(row: bytes, struct: bytes, encoding: Encoding = Encoding.UNPACKED) -> bytes:
    """The value to be stored at *row* for *struct*."""
    byte = _BYTES[encoding]
    if byte == _PACKED:
        struct = structs.pack(struct)
    return _HEAD.pack(byte, crc32(struct, crc32(row + _PREFIXES[byte]))) + struct


def unseal(row: bytes, value: bytes) -> bytes:
    """The struct in *value*, which was found at *row*."""
    if len(value) < _HEAD.size:
        raise damaged(row, f"its value is only {len(value)} bytes long")
    byte, checksum = _HEAD.unpack_from(value)
    struct = value[_HEAD.size :]
    if byte not in _PREFIXES:
        raise damaged(row, f"its encoding byte is {byte}")
    if crc32(struct, crc32(row + _PREFIXES[byte])) != checksum:
        raise damaged(row, "its checksum does not match")
    return structs.unpack(struct) if byte == _PACKED else struct


def encode_item(row: bytes, item: Item, encoding: Encoding) -> bytes:
    """The value of *item*'s row."""
    return seal(row, structs.build_item(item.contents, item.added_at, item.attempts), encoding)


def decode_item(row: bytes, value: bytes) -> Item:
    """The item that was stored at *row*."""
    contents, added_at, attempts = structs.read_item(unseal(row, value))
    return Item(place(row), contents, WallMs(added_at), attempts)


def encode_lease(row: bytes, record: LeaseRecord, encoding: Encoding) -> bytes:
    """The value of a lease's row."""
    return seal(row, structs.build_lease(record.queue, record.deadline, _entries(record.keys)), encoding)


def decode_lease(row: bytes, value: bytes) -> LeaseRecord:
    """The lease that was stored at *row*."""
    queue, deadline, entries = structs.read_lease(unseal(row, value))
    return LeaseRecord(QueueNumber(queue), WallMs(deadline), _keys(row, entries))


def encode_queue(row: bytes, record: QueueRecord, encoding: Encoding) -> bytes:
    """The value of a queue's row."""
    name = record.name.encode()
    return seal(row, structs.build_queue(name, record.added, record.removed, _entries((record.floor,))), encoding)


def decode_queue(row: bytes, value: bytes) -> QueueRecord:
    """The queue that was stored at *row*."""
    name, added, removed, floor = structs.read_queue(unseal(row, value))
    keys = _keys(row, floor)
    if len(keys) != 1:
        raise damaged(row, "its floor is not one key")
    return QueueRecord(queue_number(row), name.decode(), added, removed, keys[0])


def encode_time(row: bytes, mark: TimeMark, encoding: Encoding) -> bytes:
    """The value of the time mark's row."""
    return seal(row, structs.build_mark(mark.boot_id, mark.boot_time_ms, mark.queue_time), encoding)


def decode_time(row: bytes, value: bytes) -> TimeMark:
    """The time mark that was stored at *row*."""
    boot_id, boot_time, queue_time = structs.read_mark(unseal(row, value))
    return TimeMark(boot_id, boot_time, WallMs(queue_time))


def _entries(keys: Iterable[Key]) -> bytes:
    return b"".join([_ENTRY.pack(due, item_id) for due, item_id in keys])


def _keys(row: bytes, entries: bytes) -> tuple[Key, ...]:
    if len(entries) % _ENTRY.size:
        raise damaged(row, "its list of keys is cut off")
    return tuple(map(Key._make, _ENTRY.iter_unpack(entries)))

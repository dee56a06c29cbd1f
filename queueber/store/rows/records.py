"""
What rows hold: an encoding byte, a checksum, then one struct of ``storage.capnp``.

The checksum covers the row's key, the encoding byte and the struct, so that a
value is noticed that was changed, and one that is whole but belongs to another
row.  It is a CRC-32: zlib's is the fastest that Python carries, and it only
has to find accidents that got past RocksDB's own checksums.

Every reading function raises `StorageError`, naming table and key, for a row
that is not exactly as it was written.  Both encodings are always readable.
"""

from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from itertools import starmap
from struct import Struct
from typing import Final, Protocol, TypeVar
from zlib import crc32

from queueber.broker.model import Item, Key, LeaseRecord, QueueRecord, TimeMark
from queueber.broker.storage import DeleteItem, DeleteLease, PutItem, PutLease, Write
from queueber.capnp.builder import BYTE_LIST, LIST_COUNT_SHIFT, PADDING
from queueber.capnp.packing import pack, unpack
from queueber.capnp.reader import WORD
from queueber.errors import RemoteProtocolError
from queueber.store.rows.keys import (
    ENTRY,
    ITEM_KEY_BYTES,
    ITEMS,
    LEASES,
    QUEUES,
    TIME_KEY,
    damaged,
    pack_place,
    pack_queue,
    place,
    queue_number,
)
from queueber.store.rows.structs import (
    COUNTLESS,
    FORMAT,
    LEASE_RECORD,
    QUEUE_RECORD,
    STORED_ITEM,
    SYNC_MARK,
    TIME_MARK,
)
from queueber.units import counted


class Encoding(StrEnum):
    """How structs are written from now on; what is there already may be either."""

    UNPACKED = "unpacked"
    PACKED = "packed"


_UNPACKED: Final = 1
_PACKED: Final = 2
_PREFIXES = {byte: bytes((byte,)) for byte in (_UNPACKED, _PACKED)}
_UNPACKED_PREFIX: Final = _PREFIXES[_UNPACKED]

_ITEM_HEAD, _ITEM_HEAD_FROM, _ITEM_ROOT = STORED_ITEM.pack, STORED_ITEM.unpack_from, STORED_ITEM.root

_ONE_WORD: Final = (1 << 32).to_bytes(WORD, "little")
"""The pointer to a struct of one word and no pointers."""

_HEAD = Struct(">BI")
_CONTENTS_AT: Final = _HEAD.size + STORED_ITEM.head_bytes
_COUNTERS = Struct("<2Q")
assert [QUEUE_RECORD.numbers[name].word for name in ("added", "removed")] == [0, 1]
assert (QUEUE_RECORD.data_words, QUEUE_RECORD.slots) == (2, {"name": 0, "floor": 1})

_new: Final = tuple.__new__
"""Makes a named tuple out of a plain one, in a third of the time that its class takes."""


def encode_row(row: bytes, struct: bytes, encoding: Encoding = Encoding.UNPACKED) -> bytes:
    """The value to be stored at *row* for *struct*."""
    # Not looked up in a table: an enumeration's members are hashed by code of Python's, several times in a row's life.
    if encoding is Encoding.PACKED:
        struct = pack(struct)
        return _HEAD.pack(_PACKED, crc32(struct, crc32(row + _PREFIXES[_PACKED]))) + struct
    return _HEAD.pack(_UNPACKED, crc32(struct, crc32(row + _UNPACKED_PREFIX))) + struct


_Fields_co = TypeVar("_Fields_co", covariant=True)


class _Readable(Protocol[_Fields_co]):
    """A struct's layout, or what is faster."""

    def read(self, struct: bytes, /) -> _Fields_co:
        """The fields."""


def decode_row(row: bytes, value: bytes, kind: _Readable[_Fields_co]) -> _Fields_co:
    """The fields of the struct in *value*, a *kind*, which was found at *row*."""
    if len(value) < _HEAD.size:
        raise damaged(row, f"its value is only {counted(len(value), 'byte')} long")
    byte, checksum = _HEAD.unpack_from(value)
    struct = value[_HEAD.size :]
    if byte not in _PREFIXES:
        raise damaged(row, f"its encoding byte is {byte}")
    if crc32(struct, crc32(row + _PREFIXES[byte])) != checksum:
        raise damaged(row, "its checksum does not match")
    try:
        return kind.read(unpack(struct) if byte == _PACKED else struct)
    except RemoteProtocolError as error:
        raise damaged(row, str(error)) from error


def encode_writes(writes: Sequence[Write], mark: TimeMark, encoding: Encoding) -> list[tuple[bytes, bytes | None]]:
    """
    Return the rows of one commit: the keys of *writes* in order and their values, None to delete, and *mark*'s row.

    Item rows are by far the most frequent, so they are made in this loop without a Python call for each.  The start of
    a key and the head of a struct are reused while items do not differ in them, as those of one add rarely do.
    """
    rows: list[tuple[bytes, bytes | None]] = []
    append, pack_head, packed = rows.append, _HEAD.pack, encoding is Encoding.PACKED
    queue = due = added_at = attempts = size = -1
    key_start, struct_head, padding = b"", b"", b""
    for write in writes:
        # Most frequent first; `match` would cost twice as much.
        if isinstance(write, PutItem):
            this_queue, ((this_due, item_id), contents, this_added_at, this_attempts) = write
            if this_queue != queue or this_due != due:
                queue, due = this_queue, this_due
                key_start = pack_place(ITEMS, queue, due)
            if len(contents) != size or this_added_at != added_at or this_attempts != attempts:
                size, added_at, attempts = len(contents), this_added_at, this_attempts
                struct_head = _ITEM_HEAD(_ITEM_ROOT, added_at, attempts, BYTE_LIST | size << LIST_COUNT_SHIFT)
                padding = PADDING[size % WORD]
            row, struct = key_start + item_id, struct_head + contents + padding
        elif isinstance(write, DeleteItem):
            other_queue, (other_due, item_id) = write
            append((pack_place(ITEMS, other_queue, other_due) + item_id, None))
            continue
        elif isinstance(write, PutLease):
            row, struct = LEASES + write.id, _lease_struct(write.record)
        elif isinstance(write, DeleteLease):
            append((LEASES + write.id, None))
            continue
        else:
            row, struct = pack_queue(QUEUES, write.record.number), _queue_struct(write.record)
        if packed:
            append((row, encode_row(row, struct, encoding)))
        else:
            append((row, pack_head(_UNPACKED, crc32(struct, crc32(row + _UNPACKED_PREFIX))) + struct))
    append((TIME_KEY, encode_time(mark, encoding)))
    return rows


def _lease_struct(record: LeaseRecord) -> bytes:
    """Return *record* as a struct."""
    return LEASE_RECORD.build(b"".join(starmap(ENTRY.pack, record.keys)), record.queue, record.deadline)


def _queue_struct(record: QueueRecord) -> bytes:
    """Return *record* as a struct."""
    # One is written with every commit, and of a queue always with the same name.
    before, after = _queue_template(record.name)
    return before + _COUNTERS.pack(record.added, record.removed) + after + ENTRY.pack(*record.floor)


@lru_cache(maxsize=1_024)
def _queue_template(name: str) -> tuple[bytes, bytes]:
    """Return the struct of a queue named *name* before its counters, and between those and its floor."""
    floor = bytes(ENTRY.size)
    struct = QUEUE_RECORD.build(name=name.encode(), added=0, removed=0, floor=floor)
    return struct[:WORD], struct[WORD + _COUNTERS.size : -len(floor)]


def decode_item(row: bytes, value: bytes) -> Item:
    """The item that was stored at *row*."""
    # `decode_row` and `read` in one, for the row as `encode_writes` writes it: there is none that is read as often.
    if len(value) >= _CONTENTS_AT and len(row) == ITEM_KEY_BYTES:
        byte, checksum = _HEAD.unpack_from(value)
        root, added_at, attempts, pointer = _ITEM_HEAD_FROM(value, _HEAD.size)
        end = _CONTENTS_AT + (pointer >> LIST_COUNT_SHIFT)
        if (
            byte == _UNPACKED
            and root == _ITEM_ROOT
            and pointer & COUNTLESS == BYTE_LIST
            and end <= len(value)
            and crc32(value[_HEAD.size :], crc32(row + _UNPACKED_PREFIX)) == checksum
        ):
            return _new(Item, (place(row), value[_CONTENTS_AT:end], added_at, attempts))
    contents, added_at, attempts = decode_row(row, value, STORED_ITEM)
    return Item(place(row), contents, added_at, attempts)


def decode_lease(row: bytes, value: bytes) -> LeaseRecord:
    """The lease that was stored at *row*."""
    entries, queue, deadline = decode_row(row, value, LEASE_RECORD)
    return LeaseRecord(queue, deadline, _keys(row, entries))


def decode_queue(row: bytes, value: bytes) -> QueueRecord:
    """The queue that was stored at *row*."""
    fields = decode_row(row, value, QUEUE_RECORD)
    keys = _keys(row, fields["floor"])
    if len(keys) != 1:
        raise damaged(row, "its floor is not one key")
    return QueueRecord(queue_number(row), fields["name"].decode(), fields["added"], fields["removed"], keys[0])


def encode_time(mark: TimeMark, encoding: Encoding) -> bytes:
    """Return the value of *mark*'s row."""
    return encode_row(TIME_KEY, TIME_MARK.build(mark.boot_id, mark.boot_time_ms, mark.queue_time, mark.wall), encoding)


def decode_time(row: bytes, value: bytes) -> TimeMark:
    """The time mark that was stored at *row*."""
    return TimeMark(*decode_row(row, value, TIME_MARK))


def encode_sequence(row: bytes, sequence: int, *, failed: bool = False) -> bytes:
    """The value of a mark that names a sequence number of the engine, and whether its writer was ending itself."""
    struct = SYNC_MARK.build(sequence=sequence, failed=failed)
    # Without a flag as it was written before there was one, and as Cap'n Proto's canonical form is: versions from then
    # take a note to be that long.
    return encode_row(row, struct if failed else _ONE_WORD + struct[WORD : 2 * WORD])


def decode_sequence(row: bytes, value: bytes) -> int:
    """The sequence number in the mark that was stored at *row*."""
    return decode_synced(row, value)[0]


def decode_synced(row: bytes, value: bytes) -> tuple[int, bool]:
    """The same, and whether the server that wrote it was ending itself for a failed write."""
    fields = decode_row(row, value, SYNC_MARK)
    return fields["sequence"], fields["failed"]


def encode_format(row: bytes, version: int, durability: str) -> bytes:
    """The value of the row that says what the rest is like."""
    return encode_row(row, FORMAT.build(version=version, durability=durability))


def decode_format(row: bytes, value: bytes) -> tuple[int, str]:
    """The version and the durability that were stored at *row*."""
    fields = decode_row(row, value, FORMAT)
    return fields["version"], fields["durability"]


def _keys(row: bytes, entries: bytes) -> tuple[Key, ...]:
    if len(entries) % ENTRY.size:
        raise damaged(row, "its list of keys is cut off")
    return tuple(map(Key._make, ENTRY.iter_unpack(entries)))

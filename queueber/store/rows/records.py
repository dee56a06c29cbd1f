"""
Values of rows: an encoding byte, a checksum, and a struct of ``storage.capnp``.

The checksum is a CRC-32 of the row's key, the encoding byte and the struct, so
it detects a changed value as well as a valid value in the wrong row.  CRC-32 is
zlib's, the fastest in Python's library, and only has to detect faults that
RocksDB's own checksums did not.

Every decoding function raises `Damaged`, with the table and the key, for a row
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
from queueber.broker.storage import DeleteItem, DeleteLease, PutItems, PutLease, Write
from queueber.capnp.builder import BYTE_LIST, LIST_COUNT_SHIFT, PADDING
from queueber.capnp.packing import pack, unpack
from queueber.capnp.reader import WORD
from queueber.errors import RemoteProtocolError
from queueber.store.rows.engine_port import KeyWrite
from queueber.store.rows.keys import (
    ENTRY,
    FORMAT_KEY,
    ITEM_ENTRY_AT,
    ITEM_KEY_BYTES,
    ITEMS,
    LEASES,
    QUEUES,
    TIME_KEY,
    damaged,
    decode_item_key,
    decode_queue_key,
    pack_item_prefix,
    pack_queue_prefix,
)
from queueber.store.rows.structs import (
    FORMAT,
    LEASE_RECORD,
    LIST_TAG_MASK,
    QUEUE_RECORD,
    STORED_ITEM,
    SYNC_MARK,
    TIME_MARK,
)
from queueber.units import counted


class Encoding(StrEnum):
    """The encoding of structs that are written from now on.  Existing rows may have either."""

    UNPACKED = "unpacked"
    PACKED = "packed"


_UNPACKED: Final = 1
_PACKED: Final = 2
_ENCODING_BYTES = {byte: bytes((byte,)) for byte in (_UNPACKED, _PACKED)}
_UNPACKED_BYTE: Final = _ENCODING_BYTES[_UNPACKED]
_PACKED_BYTE: Final = _ENCODING_BYTES[_PACKED]

_pack_item, _unpack_item_from, _ITEM_ROOT = STORED_ITEM.pack, STORED_ITEM.unpack_from, STORED_ITEM.root

_ONE_WORD_POINTER: Final = (1 << 32).to_bytes(WORD, "little")
"""The pointer to a struct of one word and no pointers."""

_HEAD = Struct(">BI")
_CONTENTS_AT: Final = _HEAD.size + STORED_ITEM.head_bytes
_COUNTERS = Struct("<2Q")
assert [QUEUE_RECORD.numbers[name].word for name in ("added", "removed")] == [0, 1]
assert QUEUE_RECORD.slots == {"name": 0, "floor": 1}

_new: Final = tuple.__new__
"""Makes a named tuple from a plain one, in a third of the time of a call of its class."""


def encode_row(row_key: bytes, struct: bytes, encoding: Encoding = Encoding.UNPACKED) -> bytes:
    """Return the value for *struct* in the row at *row_key*."""
    # Compared, not looked up in a dict: hashing a member of an enumeration is a Python call.
    if encoding is Encoding.PACKED:
        struct = pack(struct)
        return _HEAD.pack(_PACKED, crc32(struct, crc32(row_key + _PACKED_BYTE))) + struct
    return _HEAD.pack(_UNPACKED, crc32(struct, crc32(row_key + _UNPACKED_BYTE))) + struct


_Fields_co = TypeVar("_Fields_co", covariant=True)


class _StructReader(Protocol[_Fields_co]):
    """A struct's layout or its `FlatStruct`."""

    def read(self, struct: bytes, /) -> _Fields_co:
        """Return the fields of *struct*."""


def decode_row(row_key: bytes, value: bytes, reader: _StructReader[_Fields_co]) -> _Fields_co:
    """Return the fields of the struct in *value*, the value of the row at *row_key*, as *reader* reads them."""
    if len(value) < _HEAD.size:
        raise damaged(row_key, f"its value is only {counted(len(value), 'byte')} long")
    byte, checksum = _HEAD.unpack_from(value)
    struct = value[_HEAD.size :]
    if byte not in _ENCODING_BYTES:
        raise damaged(row_key, f"its encoding byte is {byte}")
    if crc32(struct, crc32(row_key + _ENCODING_BYTES[byte])) != checksum:
        raise damaged(row_key, "its checksum does not match")
    try:
        return reader.read(unpack(struct) if byte == _PACKED else struct)
    except RemoteProtocolError as error:
        raise damaged(row_key, str(error)) from error


def encode_writes(writes: Sequence[Write], mark: TimeMark, encoding: Encoding) -> list[KeyWrite]:
    """
    Return the rows of one commit: the keys of *writes* in order and their values, None to delete, and *mark*'s row.

    Item rows are by far the most frequent, so they are made in this loop without a Python call for each.  The start of
    a key and the head of a struct are reused while items do not differ in them, as those of one add rarely do.
    """
    rows: list[KeyWrite] = []
    append, pack_head, packed, join = rows.append, _HEAD.pack, encoding is Encoding.PACKED, b"".join
    queue = due = added_at = attempts = size = -1
    key_start, struct_start, padding, key_checksum = b"", b"", b"", 0
    for write in writes:
        # Most frequent first; `match` would cost twice as much.
        if isinstance(write, PutItems):
            this_queue, items = write
            for (this_due, item_id), contents, this_added_at, this_attempts, _facts in items:
                if this_queue != queue or this_due != due:
                    queue, due = this_queue, this_due
                    key_start = pack_item_prefix(ITEMS, queue, due)
                    key_checksum = crc32(key_start)
                if len(contents) != size or this_added_at != added_at or this_attempts != attempts:
                    size, added_at, attempts = len(contents), this_added_at, this_attempts
                    struct_start = _pack_item(_ITEM_ROOT, added_at, attempts, BYTE_LIST | size << LIST_COUNT_SHIFT)
                    padding = PADDING[size % WORD]
                row_key = key_start + item_id
                if packed:
                    append((row_key, encode_row(row_key, struct_start + contents + padding, encoding)))
                else:
                    # As `encode_row`, but with one copy of contents, which may be long, in place of three.
                    checksum = crc32(item_id + _UNPACKED_BYTE + struct_start, key_checksum)
                    checksum = crc32(padding, crc32(contents, checksum))
                    append((row_key, join((pack_head(_UNPACKED, checksum), struct_start, contents, padding))))
        elif isinstance(write, DeleteItem):
            other_queue, (other_due, item_id) = write
            append((pack_item_prefix(ITEMS, other_queue, other_due) + item_id, None))
        elif isinstance(write, DeleteLease):
            append((LEASES + write.id, None))
        else:
            if isinstance(write, PutLease):
                record = write.record
                entries = b"".join(starmap(ENTRY.pack, record.keys))
                row_key, struct = LEASES + write.id, LEASE_RECORD.build(entries, record.queue, record.deadline)
            else:
                row_key, struct = pack_queue_prefix(QUEUES, write.record.number), _queue_struct(write.record)
            append((row_key, encode_row(row_key, struct, encoding)))
    mark_struct = TIME_MARK.build(mark.boot_id, mark.boot_time_ms, mark.queue_time, mark.wall)
    append((TIME_KEY, encode_row(TIME_KEY, mark_struct, encoding)))
    return rows


def _queue_struct(record: QueueRecord) -> bytes:
    """Return *record* as a struct."""
    # Every commit writes at least one, and a queue's name does not change.
    before, after = _queue_template(record.name)
    return before + _COUNTERS.pack(record.added, record.removed) + after + ENTRY.pack(*record.floor)


@lru_cache(maxsize=1_024)
def _queue_template(name: str) -> tuple[bytes, bytes]:
    """
    Return two constant parts of the struct of queue *name*.

    They are the bytes before its counters, and the bytes between its counters and its floor.
    """
    floor = bytes(ENTRY.size)
    struct = QUEUE_RECORD.build(name=name.encode(), added=0, removed=0, floor=floor)
    return struct[:WORD], struct[WORD + _COUNTERS.size : -len(floor)]


def decode_item(row_key: bytes, value: bytes) -> Item:
    """Return the item in the row at *row_key*."""
    # Items are read most often, so the form that `encode_writes` gives them is decoded here, in one call.
    if len(value) >= _CONTENTS_AT and len(row_key) == ITEM_KEY_BYTES:
        byte, checksum = _HEAD.unpack_from(value)
        root, added_at, attempts, pointer = _unpack_item_from(value, _HEAD.size)
        end = _CONTENTS_AT + (pointer >> LIST_COUNT_SHIFT)
        if (
            byte == _UNPACKED
            and root == _ITEM_ROOT
            and pointer & LIST_TAG_MASK == BYTE_LIST
            and end <= len(value)
            and crc32(value[_HEAD.size :], crc32(row_key + _UNPACKED_BYTE)) == checksum
        ):
            key = _new(Key, ENTRY.unpack_from(row_key, ITEM_ENTRY_AT))
            return _new(Item, (key, value[_CONTENTS_AT:end], added_at, attempts, None))
    contents, added_at, attempts = decode_row(row_key, value, STORED_ITEM)
    return Item(decode_item_key(row_key), contents, added_at, attempts)


def decode_lease(row_key: bytes, value: bytes) -> LeaseRecord:
    """Return the lease in the row at *row_key*."""
    entries, queue, deadline = decode_row(row_key, value, LEASE_RECORD)
    return LeaseRecord(queue, deadline, _decode_entries(row_key, entries))


def decode_queue(row_key: bytes, value: bytes) -> QueueRecord:
    """Return the queue in the row at *row_key*."""
    fields = decode_row(row_key, value, QUEUE_RECORD)
    floor = _decode_entries(row_key, fields["floor"])
    if len(floor) != 1:
        raise damaged(row_key, "its floor is not one key")
    return QueueRecord(decode_queue_key(row_key), fields["name"].decode(), fields["added"], fields["removed"], floor[0])


def decode_time(row_key: bytes, value: bytes) -> TimeMark:
    """Return the time mark in the row at *row_key*."""
    return TimeMark(*decode_row(row_key, value, TIME_MARK))


def encode_sync_mark(row_key: bytes, sequence: int, *, failed: bool = False) -> bytes:
    """Return a mark that names *sequence*; *failed* if its server ends itself because of a failed write or sync."""
    struct = SYNC_MARK.build(sequence=sequence, failed=failed)
    # Without the flag, the struct is one word, as in Cap'n Proto's canonical form: versions from before the flag
    # expect a mark of that length.
    return encode_row(row_key, struct if failed else _ONE_WORD_POINTER + struct[WORD : 2 * WORD])


def decode_sync_mark(row_key: bytes, value: bytes) -> tuple[int, bool]:
    """Return the sequence number in a mark, and whether its server ended itself because of a failed write or sync."""
    fields = decode_row(row_key, value, SYNC_MARK)
    return fields["sequence"], fields["failed"]


def encode_format(version: int, durability: str) -> bytes:
    """Return the value of the row with the format version."""
    return encode_row(FORMAT_KEY, FORMAT.build(version=version, durability=durability))


def decode_format(value: bytes) -> tuple[int, str]:
    """Return the version and the durability in the row with the format version."""
    fields = decode_row(FORMAT_KEY, value, FORMAT)
    return fields["version"], fields["durability"]


def _decode_entries(row_key: bytes, entries: bytes) -> tuple[Key, ...]:
    if len(entries) % ENTRY.size:
        raise damaged(row_key, "its list of keys is cut off")
    return tuple(map(Key._make, ENTRY.iter_unpack(entries)))

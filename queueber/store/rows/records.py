"""
Rows of items and marks, and the rows of one commit.

Every decoding function raises `Damaged`, with the table and the key, for a row
that is not exactly as it was written.
"""

from collections.abc import Sequence
from typing import Final
from zlib import crc32

from queueber.broker.model import TIME_BYTES, Item, Key, TimeMark
from queueber.broker.storage import DeleteItem, DeleteLease, PutItems, PutLease, PutQueue, Write
from queueber.capnp.builder import BYTE_LIST, LIST_COUNT_SHIFT, PADDING
from queueber.capnp.reader import WORD
from queueber.store.rows.engine_port import KeyWrite
from queueber.store.rows.item_facts import ItemReader, build_item
from queueber.store.rows.keys import (
    ENTRY,
    FORMAT_KEY,
    ITEM_ENTRY_AT,
    ITEM_ID_AT,
    ITEM_KEY_BYTES,
    ITEMS_TABLE,
    LEASES_TABLE,
    PLACES_TABLE,
    QUEUES_TABLE,
    TIME_KEY,
    TIMES,
    decode_item_key,
    pack_item_prefix,
    pack_queue_prefix,
)
from queueber.store.rows.side_records import encode_place, encode_side_write
from queueber.store.rows.state_records import build_lease, build_queue
from queueber.store.rows.structs import (
    FORMAT_STRUCT,
    LIST_TAG_MASK,
    STORED_ITEM,
    SYNC_MARK,
    TIME_MARK,
)
from queueber.store.rows.values import HEAD, UNPACKED, UNPACKED_BYTE, Encoding, decode_row, encode_row

_pack_item, _unpack_item_from, _ITEM_ROOT = STORED_ITEM.pack, STORED_ITEM.unpack_from, STORED_ITEM.root

_ITEM_READER: Final = ItemReader()

_ONE_WORD_POINTER: Final = (1 << 32).to_bytes(WORD, "little")
"""The pointer to a struct of one word and no pointers."""

_TIME_AT: Final = ITEM_ID_AT - TIME_BYTES
"""Offset, in the key of an item's row, of the bytes of its due that an id has room for."""

_CONTENTS_AT: Final = HEAD.size + STORED_ITEM.head_bytes
_new: Final = tuple.__new__
"""Makes a named tuple from a plain one, in a third of the time of a call of its class."""


def encode_writes(  # noqa: C901, PLR0912 -- a call for each row would cost more than its work
    writes: Sequence[Write], mark: TimeMark, encoding: Encoding
) -> list[KeyWrite]:
    """
    Return the rows of one commit: the keys of *writes* in order and their values, None to delete, and *mark*'s row.

    Item rows are by far the most frequent, so they are made in this loop without a Python call for each.  The start of
    a key and the head of a struct are reused while items do not differ in them, as those of one add rarely do.
    An item whose due is not the time in its id gets a row with its place, which the deletion of its row deletes.  So an
    item that moves is deleted at its old key before it is put at the new one.
    """
    rows: list[KeyWrite] = []
    append, pack_head, packed, join = rows.append, HEAD.pack, encoding is Encoding.PACKED, b"".join
    queue = due = added_at = attempts = size = -1
    key_start, id_time, struct_start, padding, key_checksum = b"", b"", b"", b"", 0
    for write in writes:
        # Most frequent first; `match` would cost twice as much.
        if isinstance(write, PutItems):
            this_queue, items = write
            for (this_due, item_id), contents, this_added_at, this_attempts, facts in items:
                if this_queue != queue or this_due != due:
                    queue, due = this_queue, this_due
                    key_start = pack_item_prefix(ITEMS_TABLE, queue, due)
                    id_time = key_start[_TIME_AT:] if due < TIMES else b""
                    key_checksum = crc32(key_start)
                if len(contents) != size or this_added_at != added_at or this_attempts != attempts:
                    size, added_at, attempts = len(contents), this_added_at, this_attempts
                    struct_start = _pack_item(_ITEM_ROOT, added_at, attempts, BYTE_LIST | size << LIST_COUNT_SHIFT)
                    padding = PADDING[size % WORD]
                row_key = key_start + item_id
                if facts is not None:
                    append((row_key, encode_row(row_key, build_item(contents, added_at, attempts, facts), encoding)))
                elif packed:
                    append((row_key, encode_row(row_key, struct_start + contents + padding, encoding)))
                else:
                    # As `encode_row`, but with one copy of contents, which may be long, in place of three.
                    checksum = crc32(item_id + UNPACKED_BYTE + struct_start, key_checksum)
                    checksum = crc32(padding, crc32(contents, checksum))
                    append((row_key, join((pack_head(UNPACKED, checksum), struct_start, contents, padding))))
                if item_id[:TIME_BYTES] != id_time:
                    append(encode_place(item_id, this_queue, due, encoding))
        elif isinstance(write, DeleteItem):
            other_queue, (other_due, item_id) = write
            row_key = pack_item_prefix(ITEMS_TABLE, other_queue, other_due) + item_id
            append((row_key, None))
            if row_key[_TIME_AT:ITEM_ID_AT] != item_id[:TIME_BYTES] or other_due >= TIMES:
                append((PLACES_TABLE + item_id, None))
        elif isinstance(write, DeleteLease):
            append((LEASES_TABLE + write.id, None))
        elif isinstance(write, PutLease):
            row_key = LEASES_TABLE + write.id
            append((row_key, encode_row(row_key, build_lease(write.record), encoding)))
        elif isinstance(write, PutQueue):
            row_key = pack_queue_prefix(QUEUES_TABLE, write.record.number)
            append((row_key, encode_row(row_key, build_queue(write.record), encoding)))
        else:
            rows += encode_side_write(write, encoding)
    struct = TIME_MARK.build(mark.boot_id, mark.boot_time_ms, mark.queue_time, mark.wall)
    append((TIME_KEY, encode_row(TIME_KEY, struct, encoding)))
    return rows


def decode_item(row_key: bytes, value: bytes) -> Item:
    """Return the item in the row at *row_key*."""
    # Items are read most often, so the form that `encode_writes` gives them is decoded here, in one call.
    if len(value) >= _CONTENTS_AT and len(row_key) == ITEM_KEY_BYTES:
        byte, checksum = HEAD.unpack_from(value)
        root, added_at, attempts, pointer = _unpack_item_from(value, HEAD.size)
        end = _CONTENTS_AT + (pointer >> LIST_COUNT_SHIFT)
        if (
            byte == UNPACKED
            and root == _ITEM_ROOT
            and pointer & LIST_TAG_MASK == BYTE_LIST
            and end <= len(value)
            and crc32(value[HEAD.size :], crc32(row_key + UNPACKED_BYTE)) == checksum
        ):
            key = _new(Key, ENTRY.unpack_from(row_key, ITEM_ENTRY_AT))
            return _new(Item, (key, value[_CONTENTS_AT:end], added_at, attempts, None))
    contents, added_at, attempts, facts = decode_row(row_key, value, _ITEM_READER)
    return Item(decode_item_key(row_key), contents, added_at, attempts, facts)


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
    return encode_row(FORMAT_KEY, FORMAT_STRUCT.build(version=version, durability=durability))


def decode_format(value: bytes) -> tuple[int, str]:
    """Return the version and the durability in the row with the format version."""
    fields = decode_row(FORMAT_KEY, value, FORMAT_STRUCT)
    return fields["version"], fields["durability"]

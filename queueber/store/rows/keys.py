"""
Keys of rows: one byte for the table, then fields whose bytes sort as their values do.

This order is part of the format and does not change within a format version.
Item rows sort by queue, then due, then id, so that a scan of a queue's rows
returns items in the order in which they are to be delivered.
"""

from struct import Struct
from typing import Final

from queueber.broker.model import Key, LeaseId, QueueNumber
from queueber.errors import Damaged
from queueber.limits import ID_BYTES

ITEMS: Final = b"i"
LEASES: Final = b"l"
META: Final = b"m"
QUEUES: Final = b"q"

TABLES: Final = {ITEMS: "items", LEASES: "leases", META: "meta", QUEUES: "queues"}

FORMAT_KEY: Final = META + b"format"
TIME_KEY: Final = META + b"time"
CLEAN_KEY: Final = META + b"clean"

_QUEUE = Struct(">cI")
_ITEM = Struct(">cIQ")

pack_queue_prefix: Final = _QUEUE.pack
"""Packs a table and a queue's number."""

pack_item_prefix: Final = _ITEM.pack
"""Packs a table, a queue's number and a due; an item's key continues with the id."""

ENTRY: Final = Struct(f">Q{ID_BYTES}s")
"""Due and id of an item: the end of its row's key, and an element of a lease's list of items."""

ITEM_KEY_BYTES: Final = _ITEM.size + ID_BYTES
ITEM_ENTRY_AT: Final = _QUEUE.size
"""Offset of due and id in the key of an item's row."""

_LEASE_KEY_BYTES: Final = len(LEASES) + ID_BYTES

_new: Final = tuple.__new__
"""Makes a named tuple from a plain one, in a third of the time of a call of its class."""


def item_key(queue: QueueNumber, key: Key) -> bytes:
    """Return the row key of the item at *key* in *queue*."""
    return pack_item_prefix(ITEMS, queue, key.due) + key.id


def decode_item_key(row_key: bytes) -> Key:
    """Return the item key in *row_key*, a key of the items table."""
    if len(row_key) != ITEM_KEY_BYTES:
        raise damaged(row_key, "its key has an impossible length")
    return _new(Key, ENTRY.unpack_from(row_key, ITEM_ENTRY_AT))


def items_prefix(queue: QueueNumber) -> bytes:
    """Return the prefix that the row keys of all items of *queue* have, and no others."""
    return pack_queue_prefix(ITEMS, queue)


def items_end(queue: QueueNumber) -> bytes:
    """Return the lowest key above the row keys of all items of *queue*."""
    prefix = items_prefix(queue)
    return (int.from_bytes(prefix, "big") + 1).to_bytes(len(prefix), "big").rstrip(b"\0")


def lease_key(lease: LeaseId) -> bytes:
    """Return the row key of *lease*."""
    return LEASES + lease


def decode_lease_key(row_key: bytes) -> LeaseId:
    """Return the lease's id in *row_key*, a key of the leases table."""
    if len(row_key) != _LEASE_KEY_BYTES:
        raise damaged(row_key, "its key has an impossible length")
    return LeaseId(row_key[len(LEASES) :])


def queue_key(queue: QueueNumber) -> bytes:
    """Return the row key of *queue*."""
    return pack_queue_prefix(QUEUES, queue)


def decode_queue_key(row_key: bytes) -> QueueNumber:
    """Return the queue's number in *row_key*, a key of the queues table."""
    if len(row_key) != _QUEUE.size:
        raise damaged(row_key, "its key has an impossible length")
    return QueueNumber(int.from_bytes(row_key[len(QUEUES) :], "big"))


def damaged(row_key: bytes, why: str) -> Damaged:
    """Return the error for the row at *row_key*, which is not as it was written."""
    table = TABLES.get(row_key[:1], "unknown")
    return Damaged(f"damaged row in table {table}, key {row_key.hex()}: {why}")

"""
Keys of rows: one byte for the table, then fields whose bytes sort as their values do.

This order is part of the format and does not change within a format version.
Item rows sort by queue, then due, then id, so that a scan of a queue's rows
returns items in the order in which they are to be delivered.
"""

from struct import Struct
from typing import Final

from queueber.broker.model import TIME_BYTES, ItemId, Key, LeaseId, QueueNumber
from queueber.broker.storage import Digest, Ended, RequestId
from queueber.errors import Damaged
from queueber.fixed_limits import ID_BYTES
from queueber.units import WallMs

DEDUP_TABLE: Final = b"d"
ENDS_TABLE: Final = b"e"
ITEMS_TABLE: Final = b"i"
LEASES_TABLE: Final = b"l"
META_TABLE: Final = b"m"
PLACES_TABLE: Final = b"w"
QUEUES_TABLE: Final = b"q"
REQUESTS_TABLE: Final = b"a"
RETIRED_TABLE: Final = b"r"
SETTINGS_TABLE: Final = b"s"

TABLES: Final = {
    DEDUP_TABLE: "dedup",
    ENDS_TABLE: "ends",
    ITEMS_TABLE: "items",
    LEASES_TABLE: "leases",
    META_TABLE: "meta",
    PLACES_TABLE: "places",
    QUEUES_TABLE: "queues",
    REQUESTS_TABLE: "requests",
    RETIRED_TABLE: "retired",
    SETTINGS_TABLE: "settings",
}

FORMAT_KEY: Final = META_TABLE + b"format"
NUMBERS_KEY: Final = META_TABLE + b"numbers"
TIME_KEY: Final = META_TABLE + b"time"
CLEAN_KEY: Final = META_TABLE + b"clean"

_QUEUE = Struct(">cI")
_ITEM = Struct(">cIQ")

pack_queue_prefix: Final = _QUEUE.pack
"""Packs a table and a queue's number."""

pack_item_prefix: Final = _ITEM.pack
"""Packs a table, a queue's number and a due; an item's key continues with the id."""

ENTRY: Final = Struct(f">Q{ID_BYTES}s")
"""Due and id of an item: the end of its row's key, and an element of a lease's list of items."""

ITEM_ID_AT: Final = _ITEM.size
"""Offset of the id in the key of an item's row."""

ITEM_KEY_BYTES: Final = ITEM_ID_AT + ID_BYTES
ITEM_ENTRY_AT: Final = _QUEUE.size
"""Offset of due and id in the key of an item's row."""

_ID_KEY_BYTES: Final = 1 + ID_BYTES
"""Length of a key that consists of a table and an id."""

_DEDUP_KEY_BYTES: Final = _QUEUE.size + ID_BYTES
_END = Struct(f">cQI{ID_BYTES}s")

TIMES: Final = 1 << 8 * TIME_BYTES
"""The lowest due that no id has room for."""

_new: Final = tuple.__new__
"""Makes a named tuple from a plain one, in a third of the time of a call of its class."""


def item_key(queue: QueueNumber, key: Key) -> bytes:
    """Return the row key of the item at *key* in *queue*."""
    return pack_item_prefix(ITEMS_TABLE, queue, key.due) + key.id


def decode_item_key(row_key: bytes) -> Key:
    """Return the item key in *row_key*, a key of the items table."""
    if len(row_key) != ITEM_KEY_BYTES:
        raise damaged(row_key, "its key has an impossible length")
    return _new(Key, ENTRY.unpack_from(row_key, ITEM_ENTRY_AT))


def items_prefix(queue: QueueNumber) -> bytes:
    """Return the prefix that the row keys of all items of *queue* have, and no others."""
    return pack_queue_prefix(ITEMS_TABLE, queue)


def items_end(queue: QueueNumber) -> bytes:
    """Return the lowest key above the row keys of all items of *queue*."""
    prefix = items_prefix(queue)
    return (int.from_bytes(prefix, "big") + 1).to_bytes(len(prefix), "big").rstrip(b"\0")


def time_of(item: ItemId) -> WallMs:
    """Return the time in an item's id: the due of an item that was added without delay."""
    return WallMs(int.from_bytes(item[:TIME_BYTES], "big"))


def lease_key(lease: LeaseId) -> bytes:
    """Return the row key of *lease*."""
    return LEASES_TABLE + lease


def decode_lease_key(row_key: bytes) -> LeaseId:
    """Return the lease's id in *row_key*, a key of the leases table."""
    return LeaseId(_decode_id_key(row_key))


def queue_key(queue: QueueNumber) -> bytes:
    """Return the row key of *queue*."""
    return pack_queue_prefix(QUEUES_TABLE, queue)


def decode_queue_key(row_key: bytes) -> QueueNumber:
    """Return the queue's number, or id, in *row_key*, a key of the queues, settings or retired table."""
    _check_length(row_key, _QUEUE.size)
    return QueueNumber(_QUEUE.unpack(row_key)[1])


def place_key(item: ItemId) -> bytes:
    """Return the key of the row with the place of *item*."""
    return PLACES_TABLE + item


def decode_place_key(row_key: bytes) -> ItemId:
    """Return the item's id in *row_key*, a key of the places table."""
    return ItemId(_decode_id_key(row_key))


def settings_key(queue: QueueNumber) -> bytes:
    """Return the key of the row with the settings of the queue with the id *queue*."""
    return pack_queue_prefix(SETTINGS_TABLE, queue)


def retired_key(number: QueueNumber) -> bytes:
    """Return the key of the row of the retired *number*."""
    return pack_queue_prefix(RETIRED_TABLE, number)


def dedup_key(queue: QueueNumber, digest: Digest) -> bytes:
    """Return the row key of a deduplication key of the queue with the id *queue*."""
    return pack_queue_prefix(DEDUP_TABLE, queue) + digest


def decode_dedup_key(row_key: bytes) -> tuple[QueueNumber, Digest]:
    """Return the queue's id and the digest in *row_key*, a key of the dedup table."""
    _check_length(row_key, _DEDUP_KEY_BYTES)
    return QueueNumber(_QUEUE.unpack_from(row_key)[1]), Digest(row_key[_QUEUE.size :])


def request_key(request: RequestId) -> bytes:
    """Return the row key of a request id."""
    return REQUESTS_TABLE + request


def decode_request_key(row_key: bytes) -> RequestId:
    """Return the request id in *row_key*, a key of the requests table."""
    return RequestId(_decode_id_key(row_key))


def end_key(entry: Ended) -> bytes:
    """Return the row key of an entry of the index of ends."""
    return _END.pack(ENDS_TABLE, *entry)


def ends_after(now: WallMs) -> bytes:
    """Return a key above all entries of the index of ends that are not after *now*, and below all others."""
    return ENDS_TABLE + (now + 1).to_bytes(8, "big")


def decode_end_key(row_key: bytes) -> Ended:
    """Return the entry in *row_key*, a key of the ends table."""
    _check_length(row_key, _END.size)
    return Ended(*_END.unpack(row_key)[1:])


def record_key(entry: Ended) -> bytes:
    """Return the key of the row whose end *entry* is."""
    return dedup_key(entry.queue, Digest(entry.key)) if entry.queue else request_key(RequestId(entry.key))


def _decode_id_key(row_key: bytes) -> bytes:
    _check_length(row_key, _ID_KEY_BYTES)
    return row_key[1:]


def _check_length(row_key: bytes, length: int) -> None:
    if len(row_key) != length:
        raise damaged(row_key, "its key has an impossible length")


def damaged(row_key: bytes, why: str) -> Damaged:
    """Return the error for the row at *row_key*, which is not as it was written."""
    table = TABLES.get(row_key[:1], "unknown")
    return Damaged(f"damaged row in table {table}, key {row_key.hex()}: {why}")

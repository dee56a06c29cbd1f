"""
Where rows lie: one byte for the table, then fields whose bytes sort as the values do.

The order is the contract.  An item's row sorts by queue, then due, then id,
so that a walk over a queue's rows meets them in the order in which they are
to be handed out.  Nothing here may change within one format version.
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
_PLACE = Struct(">cIQ")
pack_queue: Final = _QUEUE.pack
"""Packs a table and the number of a queue."""

pack_place: Final = _PLACE.pack
"""Packs a table, the number of a queue and a due; in an item's key, the id follows."""

ENTRY = Struct(f">Q{ID_BYTES}s")
"""A key: in an item's row behind the queue, and in the list of a lease's."""


_new: Final = tuple.__new__
"""Makes a named tuple out of a plain one, in a third of the time that its class takes."""

ITEM_KEY_BYTES = _PLACE.size + ID_BYTES
_LEASE_KEY_BYTES = len(LEASES) + ID_BYTES


def item_key(queue: QueueNumber, key: Key) -> bytes:
    """The row of the item at *key* in *queue*."""
    return pack_place(ITEMS, queue, key.due) + key.id


def place(row: bytes) -> Key:
    """The item key that *row*, a row of the items table, lies at."""
    if len(row) != ITEM_KEY_BYTES:
        raise damaged(row, "its key has an impossible length")
    return _new(Key, ENTRY.unpack_from(row, _QUEUE.size))


def items_of(queue: QueueNumber) -> bytes:
    """What the keys of all items of *queue* begin with, and no others."""
    return pack_queue(ITEMS, queue)


def lease_key(lease: LeaseId) -> bytes:
    """The row of *lease*."""
    return LEASES + lease


def lease_id(row: bytes) -> LeaseId:
    """The lease that *row*, a row of the leases table, describes."""
    if len(row) != _LEASE_KEY_BYTES:
        raise damaged(row, "its key has an impossible length")
    return LeaseId(row[len(LEASES) :])


def queue_key(queue: QueueNumber) -> bytes:
    """The row of *queue*."""
    return pack_queue(QUEUES, queue)


def queue_number(row: bytes) -> QueueNumber:
    """The queue that *row*, a row of the queues table, describes."""
    if len(row) != _QUEUE.size:
        raise damaged(row, "its key has an impossible length")
    return QueueNumber(int.from_bytes(row[len(QUEUES) :], "big"))


def damaged(row: bytes, why: str) -> Damaged:
    """The error for a *row* that is not as it was written."""
    table = TABLES.get(row[:1], "unknown")
    return Damaged(f"damaged row in table {table}, key {row.hex()}: {why}")

"""
The values that a queue consists of.

An item's key is its position in the queue: `(due, id)`, compared as a pair.
While the item is not leased it is *delayed* until queue time reaches its due,
and *ready* from then on.  It is *leased* while a live lease names it.  The end
of a lease moves an item to a new key and so makes a new `Item`.  Contents
never change.
"""

from typing import Final, NamedTuple, NewType

from queueber.limits import ID_BYTES
from queueber.units import WallMs
from queueber.values import Death

new_tuple: Final = tuple.__new__
"""Makes a named tuple from a plain one in a third of the time that its class takes, for the values of every call."""

ItemId = NewType("ItemId", bytes)
"""16 bytes in UUIDv7 layout, strictly increasing within one process."""

LeaseId = NewType("LeaseId", bytes)
"""16 random bytes in UUIDv4 layout.  Holding them is the right to remove."""

QueueNumber = NewType("QueueNumber", int)
"""The queue's name in keys: an unsigned 32-bit integer, never reused."""


class Key(NamedTuple):
    """A position within one queue."""

    due: WallMs
    id: ItemId


LOWEST = Key(WallMs(0), ItemId(bytes(ID_BYTES)))
"""A key below every item's: no item's id is all zeros."""

HIGHEST = Key(WallMs(2**64 - 1), ItemId(b"\xff" * ID_BYTES))
"""A key above every item's."""


def just_below(key: Key) -> Key:
    """Return a key below *key* with no item of an earlier due in between."""
    return Key(key.due, LOWEST.id)


class Facts(NamedTuple):
    """The durable facts of an item beyond those in its row of format 1."""

    failures: int = 0
    """How many of its attempts failed; the others were lost."""

    first_leased_at: WallMs = WallMs(0)
    """0 before the first lease."""

    last_error: str = ""
    """At most 4 KiB of UTF-8."""

    headers: tuple[tuple[str, bytes], ...] = ()
    """At most 4 KiB of names and values."""

    expires_at: WallMs = WallMs(0)
    """0: never, unless its queue has a time to live."""

    dedup_digest: bytes = b""
    """16 bytes if its deduplication key is to be freed with the item, else none."""

    death: Death | None = None
    """Also of an item that was moved back from the dead items."""


class Item(NamedTuple):
    """An item at one position.  Items of one queue compare as their keys do, because no two have the same key."""

    key: Key
    contents: bytes
    added_at: WallMs
    attempts: int = 0
    """Leases on it that have expired or were released so far."""

    facts: Facts | None = None
    """Further durable facts; None for an item that was added without options and has not come back yet."""


class LeaseRecord(NamedTuple):
    """The durable fields of a lease."""

    queue: QueueNumber
    deadline: WallMs
    keys: tuple[Key, ...]
    """The items that it was given.  Those removed since may still be named."""


class QueueRecord(NamedTuple):
    """The durable fields of a queue."""

    number: QueueNumber
    name: str
    added: int
    removed: int
    floor: Key
    """A key below every unleased item, where the first scan after a start begins."""


_UNKNOWN: Final = WallMs(0)


class TimeMark(NamedTuple):
    """One moment, read from the machine's three clocks and in queue time."""

    boot_id: bytes
    """16 bytes that differ from boot to boot."""

    boot_time_ms: int
    """Milliseconds since boot, suspension included."""

    queue_time: WallMs

    wall: WallMs = _UNKNOWN
    """The wall clock; 0 if unknown, as in marks of versions that did not record it."""

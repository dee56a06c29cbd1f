"""
The values a queue is made of.

An item's key is its place in line: `(due, id)`, compared as a pair.  While it
is unleased it is *delayed* until queue time reaches its due and *ready* from
then on; it is *leased* while a live lease names it.  A lease that ends gives
an item a new place, and so a new `Item` value; contents are never changed.
"""

from typing import Final, NamedTuple, NewType

from attrs import frozen

from queueber.limits import ID_BYTES
from queueber.units import WallMs

ItemId = NewType("ItemId", bytes)
"""16 bytes in UUIDv7 layout, strictly increasing within one process."""

LeaseId = NewType("LeaseId", bytes)
"""16 random bytes in UUIDv4 layout: holding them is the right to remove."""

QueueNumber = NewType("QueueNumber", int)
"""What stands for a queue's name in keys: an unsigned 32-bit integer, never reused."""


class Key(NamedTuple):
    """A place in line within one queue."""

    due: WallMs
    id: ItemId


LOWEST = Key(WallMs(0), ItemId(bytes(ID_BYTES)))
"""Below every item's key: no item's id is all zeros."""

HIGHEST = Key(WallMs(2**64 - 1), ItemId(b"\xff" * ID_BYTES))
"""Above every item's key."""


def just_below(key: Key) -> Key:
    """A key below *key* with no item of another due between the two."""
    return Key(key.due, LOWEST.id)


class Item(NamedTuple):
    """An item at one place in line.  Those of one queue compare as their keys do, since no two have the same."""

    key: Key
    contents: bytes
    added_at: WallMs
    attempts: int = 0
    """Leases on it that have run out or been released so far."""


@frozen
class LeaseRecord:
    """What the disk keeps of a lease."""

    queue: QueueNumber
    deadline: WallMs
    keys: tuple[Key, ...]
    """The items it was given; those removed since are still named."""


class QueueRecord(NamedTuple):
    """What the disk keeps of a queue."""

    number: QueueNumber
    name: str
    added: int
    removed: int
    floor: Key
    """Every unleased item lies above it: where the first scan after a start begins."""


_UNKNOWN: Final = WallMs(0)


@frozen
class TimeMark:
    """One moment on the machine's three clocks and in queue time."""

    boot_id: bytes
    """16 bytes that differ from boot to boot."""

    boot_time_ms: int
    """Milliseconds since boot, suspension included."""

    queue_time: WallMs

    wall: WallMs = _UNKNOWN
    """The wall clock; 0 if unknown, as in marks of versions that did not keep it."""

"""
The values that a queue consists of.

An item's key is its position in the queue: `(due, id)`, compared as a pair.
While the item is not leased it is *delayed* until queue time reaches its due,
and *ready* from then on.  It is *leased* while a live lease names it.  The end
of a lease moves an item to a new key and so makes a new `Item`.  Contents
never change.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple, NewType

from queueber.fixed_limits import ID_BYTES
from queueber.units import SpanMs, WallMs
from queueber.values import Death

new_tuple: Final = tuple.__new__
"""Makes a named tuple from a plain one in a third of the time that its class takes, for the values of every call."""

ItemId = NewType("ItemId", bytes)
"""16 bytes in UUIDv7 layout, strictly increasing within one process."""

LeaseId = NewType("LeaseId", bytes)
"""16 random bytes in UUIDv4 layout.  Holding them is the right to remove."""

QueueNumber = NewType("QueueNumber", int)
"""The queue's name in keys: an unsigned 32-bit integer, never reused."""


NO_QUEUE: Final = QueueNumber(0)
"""The number of no queue."""

UNKNOWN_TIME: Final = WallMs(0)
NO_GRACE: Final = SpanMs(0)


class Key(NamedTuple):
    """A position within one queue."""

    due: WallMs
    id: ItemId


LOWEST = Key(WallMs(0), ItemId(bytes(ID_BYTES)))
"""A key below every item's: no item's id is all zeros."""

HIGHEST = Key(WallMs(2**64 - 1), ItemId(b"\xff" * ID_BYTES))
"""A key above every item's."""


class Leased(NamedTuple):
    """An item under a lease: its key, and the length of its contents."""

    due: WallMs
    id: ItemId
    size: int
    """Bytes; 0 if the lease was read from a directory that did not keep it."""


TIME_BYTES: Final = 6
"""The first bytes of an item's id: the millisecond of its add, if it was added without delay also its due."""


def off_time(key: Key | Leased) -> bool:
    """Return whether the due of *key* is not the time in its id, so that its row is not found by the id alone."""
    return key.due != int.from_bytes(key.id[:TIME_BYTES], "big")


def just_below(key: Key) -> Key:
    """Return a key below *key* with no item of an earlier due in between."""
    return Key(key.due, LOWEST.id)


class Facts(NamedTuple):
    """The durable facts of an item beyond those in its row of format 1."""

    failures: int = 0
    """The number of attempts that failed; the others were lost."""

    first_leased_at: WallMs = WallMs(0)
    """0 before the first lease."""

    last_error: str = ""
    """At most 4 KiB of UTF-8."""

    headers: tuple[tuple[str, bytes], ...] = ()
    """At most 4 KiB of names and values."""

    expires_at: WallMs = WallMs(0)
    """0: never, unless its queue has a time to live."""

    death: Death | None = None
    """Also of an item that was moved back from the dead items."""


_FACTS_BYTES: Final = 64
_HEADER_BYTES: Final = 40
_DEATH_BYTES: Final = 48
"""Upper bounds for the structs and the padding around the texts of an item's facts in a reply."""


class Item(NamedTuple):
    """An item at one position.  Items of one queue compare as their keys do, because no two have the same key."""

    key: Key
    contents: bytes
    added_at: WallMs
    attempts: int = 0
    """Leases on it that have expired or were released so far."""

    facts: Facts | None = None
    """Further durable facts; None for an item that was added without options and has not come back yet."""


def full_size(item: Item) -> int:
    """Return the bytes of *item* in memory and in a reply, beyond those that every item has."""
    facts, size = item.facts, len(item.contents)
    if facts is None:
        return size
    size += _FACTS_BYTES + len(facts.last_error.encode())
    for name, value in facts.headers:
        size += _HEADER_BYTES + len(name.encode()) + len(value)
    return size if facts.death is None else size + _DEATH_BYTES + len(facts.death.queue.encode())


def full_sizes(items: Iterable[Item]) -> list[int]:
    """Return `full_size` of each of *items*.  Few items have facts."""
    return [len(item.contents) if item.facts is None else full_size(item) for item in items]


class LeaseRecord(NamedTuple):
    """The durable fields of a lease."""

    queue: QueueNumber
    deadline: WallMs
    keys: tuple[Key, ...]
    """The items that it was given.  Those removed since may still be named."""

    sizes: tuple[int, ...] = ()
    """The length of each item's contents, in the order of `keys`; empty in records of format 1."""

    leased_at: WallMs = UNKNOWN_TIME
    """When it was made; 0 in records of format 1."""

    session: bytes = b""
    """The id of its session, 16 bytes; empty for a lease with a deadline of its own."""

    grace: SpanMs = NO_GRACE
    """The grace of that session."""


class QueueRecord(NamedTuple):
    """The durable fields of a queue."""

    number: QueueNumber
    name: str
    added: int
    removed: int
    floor: Key
    """A key below every unleased item, where the first scan after a start begins."""

    bytes: int = 0
    """The length of the contents of all items."""

    id: QueueNumber = NO_QUEUE
    """The first number that the queue had; 0 in records of format 1, whose queues have the number still."""

    dead_of: QueueNumber = NO_QUEUE
    """The id of the queue whose dead items these are; 0 for other queues."""

    off_time: int = 0
    """The number of items for which `off_time` is true."""


class TimeMark(NamedTuple):
    """One moment, read from the machine's three clocks and in queue time."""

    boot_id: bytes
    """16 bytes that differ from boot to boot."""

    boot_time_ms: int
    """Milliseconds since boot, suspension included."""

    queue_time: WallMs

    wall: WallMs = UNKNOWN_TIME
    """The wall clock; 0 if unknown, as in marks of versions that did not record it."""

"""
Reads of a queue's rows, a slice at a time, that change nothing: a count and a peek.

Both follow all plans that were not durable when the read began and all made
since, so the result is what a scan of all rows would return at the moment at
which the read ends, although slices are read at different moments.  A key up to
`after` has been read: a plan changes the result itself.  A plan that changes a
key above it is kept until the slice with that key has been read, because the
slice's snapshot may have it or not.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from attrs import define, field

from queueber.broker.leases import Lease
from queueber.broker.model import LOWEST, Item, ItemId, Key, QueueNumber, just_below
from queueber.broker.queue import Queue
from queueber.broker.storage import DeleteItem, PutItems, Scan, Write
from queueber.broker.window import overlay
from queueber.units import WallMs


def end_of(moment: WallMs) -> Key:
    """Return the lowest key of items that become due after *moment*."""
    return Key(WallMs(moment + 1), LOWEST.id)


@define(eq=False)
class Count:
    """
    A count of the items that are due at `now` and not leased.

    The caller reads the keys of rows above `after`, a slice at a time, until `done`.
    """

    queue: Queue
    number: QueueNumber
    now: WallMs
    after: Key = field(init=False)
    """Keys up to this one were counted."""

    done: bool = field(default=False, init=False)
    read: int = field(default=0, init=False)
    """The number of rows that were read, those of leased items and later ones included."""

    _start: Key = field(init=False)
    _rows: int = field(default=0, init=False)
    _below: set[Key] = field(factory=set, init=False)
    """Keys below `_start` that were written since: the other rows there are those of leased items, and not counted."""

    _log: dict[Key, bool] = field(factory=dict, init=False)
    """Keys above `after` that were written, and whether there is a row now."""

    def __attrs_post_init__(self) -> None:
        """Begin below all items that are not leased."""
        self._start = self.after = _below_unleased(self.queue, self.number)

    def note(self, writes: Sequence[Write]) -> None:
        """Note the writes of a plan."""
        for key, exists in _changes(writes, self.number):
            if key > self.after:
                if key < end_of(self.now):
                    self._log[key] = exists
            elif key > self._start:
                self._rows += 1 if exists else -1
            elif exists:
                self._below.add(key)
            else:
                self._below.discard(key)

    def add(self, keys: Sequence[Key], *, exhausted: bool) -> None:
        """Count a slice: the next *keys*, in order; *exhausted* if there are none above them."""
        end = end_of(self.now)
        covered_to = end if exhausted or keys[-1] >= end else keys[-1]
        rows = {key for key in keys if key < end}
        for key in [key for key in self._log if key <= covered_to]:
            if self._log.pop(key):
                rows.add(key)
            else:
                rows.discard(key)
        self._rows += len(rows)
        self.read += len(keys)
        self.after = covered_to
        self.done = covered_to == end

    @property
    def ready(self) -> int:
        """The number of items that are due and not leased, once all slices were counted."""
        if self.queue.number != self.number:
            # The items were purged meanwhile.  Those added since then are few, and all in memory.
            return self.queue.window.count_ready(self.now)
        end = end_of(self.now)
        leased = (
            Key(entry.due, entry.id)
            for item_id, lease in self.queue.held.items()
            if lease.queue == self.number
            for entry in (lease.keys[item_id],)
        )
        return (
            self._rows
            + len(self._below)
            - sum(key < end and (key > self._start or key in self._below) for key in leased)
        )


class Seen(NamedTuple):
    """An item that a peek returns."""

    item: Item
    """With the first bytes of its contents."""

    size: int
    """The length of the whole contents."""


@define(eq=False)
class Peek:
    """
    A look at unleased items in the order in which they become due.

    The caller scans the rows above `after`, a slice at a time, until `done`.
    """

    queue: Queue
    number: QueueNumber
    after: Key
    """Keys up to this one were read."""

    end: Key
    """Keys from this one on are not wanted."""

    limit: int
    contents_bytes: int
    """The most bytes of each item's contents to return."""

    bytes_max: int
    """Contents with which the result is long enough, after at least one item."""

    done: bool = field(default=False, init=False)
    wanted: int = field(init=False)
    """The rows to read next.  Leased items may be among them, so each slice asks for four times as many."""

    _start: Key = field(init=False)
    _found: dict[Key, Seen] = field(factory=dict, init=False)
    _log: list[Write] = field(factory=list, init=False)
    """Writes of keys above `after`."""

    def __attrs_post_init__(self) -> None:
        """Begin below all items that are not leased, or above them."""
        self.wanted = self.limit + 1
        self._start = self.after
        self.after = max(self.after, _below_unleased(self.queue, self.number))

    def note(self, writes: Sequence[Write]) -> None:
        """Note the writes of a plan."""
        for write in writes:
            if isinstance(write, PutItems) and write.queue == self.number:
                later = [item for item in write.items if item.key > self.after]
                if later:
                    self._log.append(PutItems(self.number, later))
                self._found |= {
                    item.key: self._see(item) for item in write.items if self._start < item.key <= self.after
                }
            elif isinstance(write, DeleteItem) and write.queue == self.number:
                if write.key > self.after:
                    self._log.append(write)
                else:
                    self._found.pop(write.key, None)

    def _see(self, item: Item) -> Seen:
        size = len(item.contents)
        return Seen(
            item if size <= self.contents_bytes else item._replace(contents=item.contents[: self.contents_bytes]), size
        )

    def add(self, scan: Scan) -> None:
        """Add a slice."""
        items, covered_to = overlay(
            scan, queue=self.number, above=self.after, log=self._log, held=_Delivered(self.queue.held)
        )
        self._found |= {item.key: self._see(item) for item in items}
        self.after = covered_to
        self._log = [kept for write in self._log if (kept := _above(write, covered_to)) is not None]
        self.wanted *= 4
        self.done = scan.exhausted or covered_to >= self.end or self._enough()

    def _enough(self) -> bool:
        seen = list(self._unleased())
        return len(seen) > self.limit or sum(len(each.item.contents) for each in seen) >= self.bytes_max

    def _unleased(self) -> Iterator[Seen]:
        held = self.queue.held
        return (seen for key, seen in self._found.items() if key.id not in held and key < self.end)

    def result(self) -> tuple[list[Seen], bool]:
        """Return the items, and whether there may be more, once all slices were read."""
        if self.queue.number != self.number:
            return [], False
        found = sorted(self._unleased())
        taken: list[Seen] = []
        size = 0
        for seen in found[: self.limit]:
            if taken and size + len(seen.item.contents) > self.bytes_max:
                break
            taken.append(seen)
            size += len(seen.item.contents)
        return taken, len(taken) < len(found) or self.after < self.end


@define(eq=False)
class _Delivered:
    """The items of leases that are live or have expired: those of the others may be given back without a write."""

    _held: dict[ItemId, Lease]

    def __contains__(self, item_id: object) -> bool:
        """Return whether the item is one of them."""
        lease = self._held.get(item_id)  # type: ignore[call-overload]
        return lease is not None and not lease.items


def _below_unleased(queue: Queue, number: QueueNumber) -> Key:
    """Return a key below all items of *queue* that are not leased, or may be given back without a write."""
    start = queue.floor
    for lease in set(queue.held.values()):
        if lease.items and lease.queue == number:
            start = min(start, just_below(lease.items[0].key))
    return start


def _changes(writes: Sequence[Write], number: QueueNumber) -> Iterator[tuple[Key, bool]]:
    """Return each key of *number* that *writes* change, in order, and whether there is a row then."""
    for write in writes:
        if isinstance(write, PutItems) and write.queue == number:
            yield from ((item.key, True) for item in write.items)
        elif isinstance(write, DeleteItem) and write.queue == number:
            yield write.key, False


def _above(write: Write, key: Key) -> Write | None:
    """Return what of *write*, of the log of a peek, concerns keys above *key*; None if nothing."""
    if isinstance(write, PutItems):
        items = [item for item in write.items if item.key > key]
        return PutItems(write.queue, items) if items else None
    return write if isinstance(write, DeleteItem) and write.key > key else None

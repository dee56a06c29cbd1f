"""
The head of one queue in memory.

A window holds *all* unleased items of its queue with keys up to `covered_to`,
delayed ones included.  Only the disk knows the items beyond.  A claim follows
from that sentence:

- the head is the next item to deliver, if it is due;
- otherwise the head's due is the time of the next wake-up;
- nothing due is missing if `covered_to` lies beyond now.

A put with a key up to `covered_to` must enter the window, a larger one must
not.  A refill scans the disk above `covered_to` and raises it.  Dropping the
tail lowers it.

A cursor that only moves forward would be simpler and wrong: a delayed item
that becomes due at a key it has passed would never be found.

`beyond_due`, when the first item beyond becomes due, is for statistics alone.
It is set by a trim or by one read of the first key; puts and removals maintain
it.  No claim depends on it.

An item that is removed by its key stays in place as a *dead* one until it would
come to the head, or until half of all are dead.  No dead item is ever at the
head of either collection, so only a window with dead ones looks for them.
"""

from collections import deque
from collections.abc import Container, Sequence
from heapq import heapify, heappop, heappush
from itertools import chain, islice, pairwise

from attrs import define

from queueber.broker.model import HIGHEST, Item, ItemId, Key, QueueNumber, full_size, full_sizes, just_below
from queueber.broker.storage import DeleteItem, PutItems, Scan, Write
from queueber.units import WallMs


@define
class Meter:
    """The memory that all windows together use."""

    item_overhead: int
    """The memory of an item in addition to its contents, bytes."""

    bytes: int = 0


class Window:
    """Items in the order of their keys, up to `covered_to`."""

    __slots__ = ("_dead", "_in_order", "_meter", "_out_of_order", "beyond_due", "bytes", "covered_to")

    def __init__(self, covered_to: Key, meter: Meter) -> None:
        self.covered_to = covered_to
        """Every unleased item with a key up to this one is here."""
        self.beyond_due: WallMs | None = None
        """The due of the first unleased item above `covered_to`; `HIGHEST.due` if there is none, None if unknown."""
        self.bytes = 0
        """The memory that the items use, dead ones included."""
        # Nearly all items arrive in the order in which they leave.  They go into a deque, which costs a tenth of a
        # heap.  The others, delayed items and those that came back, go into a heap.
        self._in_order: deque[Item] = deque()
        self._out_of_order: list[Item] = []
        self._dead: set[Key] = set()
        self._meter = meter

    def __len__(self) -> int:
        return len(self._in_order) + len(self._out_of_order) - len(self._dead)

    def put(self, item: Item) -> bool:
        """Add *item* if its key is at most `covered_to`; return whether it is."""
        if item.key > self.covered_to:
            self._come_beyond(item.key.due)
            return False
        if self._dead and item.key in self._dead:
            # It comes back to the place from which it was removed.
            self._drop_dead()
        heappush(self._out_of_order, item)
        self._charge(full_size(item) + self._meter.item_overhead)
        return True

    def append(self, items: Sequence[Item], size: int) -> None:
        """Add those of *items* with keys up to `covered_to`.  They are in order; *size* is the sum of `full_sizes`."""
        if items[-1].key > self.covered_to:
            if items[0].key > self.covered_to:
                # The usual case of a backlog that is larger than the window.
                self._come_beyond(items[0].key.due)
                return
            self._come_beyond(next(item.key.due for item in items if item.key > self.covered_to))
            items = [item for item in items if item.key <= self.covered_to]
            size = sum(full_sizes(items))
        if not self._in_order or self._in_order[-1] < items[0]:
            self._in_order.extend(items)
        else:
            for item in items:
                heappush(self._out_of_order, item)
        # As in `_charge`; the call would be a fifth of this method's time.
        cost = size + len(items) * self._meter.item_overhead
        self.bytes += cost
        self._meter.bytes += cost

    def holds(self, key: Key) -> bool:
        """Return whether the item at *key* is here.  O(n)."""
        return key not in self._dead and any(item.key == key for item in chain(self._in_order, self._out_of_order))

    def discard(self, key: Key) -> None:
        """
        Remove the unleased item at *key*, in constant time on average.

        An item above `covered_to` is not here, and any other one must be.
        """
        if key > self.covered_to:
            if key.due == self.beyond_due:
                # Another item may have the same due, and only the disk knows the next one.
                self.beyond_due = None
            return
        self._dead.add(key)
        if 2 * len(self._dead) > len(self._in_order) + len(self._out_of_order):
            self._drop_dead()
        else:
            self._drop_dead_heads()

    def _drop_dead(self) -> None:
        """Drop all dead items.  O(n)."""
        dead = [item for item in chain(self._in_order, self._out_of_order) if item.key in self._dead]
        self._charge(-sum(full_sizes(dead)) - len(dead) * self._meter.item_overhead)
        self._in_order = deque(item for item in self._in_order if item.key not in self._dead)
        self._out_of_order = [item for item in self._out_of_order if item.key not in self._dead]
        heapify(self._out_of_order)
        self._dead.clear()

    def _drop_dead_heads(self) -> None:
        """Drop dead items until both collections begin with a live one."""
        dead, in_order, out_of_order = self._dead, self._in_order, self._out_of_order
        while dead and in_order and in_order[0].key in dead:
            self._bury(in_order.popleft())
        while dead and out_of_order and out_of_order[0].key in dead:
            self._bury(heappop(out_of_order))

    def _bury(self, item: Item) -> None:
        self._dead.discard(item.key)
        self._charge(-full_size(item) - self._meter.item_overhead)

    def covers(self, now: WallMs) -> bool:
        """Return whether everything that is due at *now* is here."""
        return self.covered_to.due > now

    def _come_beyond(self, due: WallMs) -> None:
        """Note that an item above `covered_to` is due at *due*."""
        if self.beyond_due is not None and due < self.beyond_due:
            self.beyond_due = due

    def note_beyond(self, due: WallMs | None) -> None:
        """Note that the first unleased item above `covered_to` is due at *due*; None: there is none."""
        self.beyond_due = HIGHEST.due if due is None else due

    def none_due_beyond(self, now: WallMs) -> bool:
        """Return whether it is known, if only from `beyond_due`, that no item above `covered_to` is due at *now*."""
        return self.covers(now) or (self.beyond_due is not None and self.beyond_due > now)

    def first_due(self) -> WallMs | None:
        """Return the due of the first unleased item, here or beyond; None if there is none, or it is not known."""
        first = self._first()
        due = self.beyond_due if first is None else first.key.due
        return None if due == HIGHEST.due else due

    def _first(self) -> Item | None:
        in_order, out_of_order = self._in_order, self._out_of_order
        if not out_of_order:
            return in_order[0] if in_order else None
        return in_order[0] if in_order and in_order[0] < out_of_order[0] else out_of_order[0]

    def head(self, now: WallMs) -> Item | None:
        """Return the first item if it is due at *now*; None otherwise."""
        first = self._first()
        return first if first is not None and first.key.due <= now else None

    def count_ready(self, now: WallMs) -> int:
        """Return how many items here are due at *now*.  O(n)."""
        if not self.covers(now):
            return len(self)
        dead = self._dead
        return sum(item.key.due <= now and item.key not in dead for item in chain(self._in_order, self._out_of_order))

    def count_below(self, key: Key) -> int:
        """Return how many items here have smaller keys.  O(n)."""
        dead = self._dead
        return sum(item.key < key and item.key not in dead for item in chain(self._in_order, self._out_of_order))

    def pop_due(self, count: int, now: WallMs, bytes_max: int) -> list[Item]:
        """
        Remove and return up to *count* items that are due at *now*, from the head.

        The last one is that with which their sizes reach *bytes_max*, so one item is returned whatever its size.
        """
        in_order, out_of_order, dead = self._in_order, self._out_of_order, self._dead
        items: list[Item] = []
        size = 0
        # If the last of them is due and the heap is empty, all can be taken without a look at each.
        all_due = not (out_of_order or dead) and 0 < count <= len(in_order) and in_order[count - 1].key.due <= now
        while len(items) < count:
            if all_due:
                item = in_order.popleft()
            elif out_of_order and not (in_order and in_order[0] < out_of_order[0]):
                if out_of_order[0].key.due > now:
                    break
                item = heappop(out_of_order)
            elif in_order and in_order[0].key.due <= now:
                item = in_order.popleft()
            else:
                break
            items.append(item)
            size += len(item.contents) if item.facts is None else full_size(item)
            if dead:
                self._drop_dead_heads()
            if size >= bytes_max:
                break
        cost = size + len(items) * self._meter.item_overhead
        self.bytes -= cost
        self._meter.bytes -= cost
        return items

    def put_back(self, items: Sequence[Item]) -> None:
        """Return *items* to the head, from which `pop_due` has just removed them."""
        self._in_order.extendleft(reversed(items))
        self._charge(sum(full_sizes(items)) + len(items) * self._meter.item_overhead)

    def next_due(self) -> WallMs | None:
        """Return the earliest moment at which an item may become due; None if that takes a put."""
        first = self._first()
        if first is not None:
            return first.key.due
        return None if self.covered_to == HIGHEST else self.covered_to.due

    def extend(self, items: Sequence[Item], covered_to: Key) -> None:
        """Raise `covered_to`, and add *items*: all items between the old and the new bound, in order."""
        self.covered_to, self.beyond_due = covered_to, None
        if items:
            self.append(items, sum(full_sizes(items)))

    def clear(self) -> None:
        """Drop everything, and cover a queue that has no rows."""
        self._charge(-self.bytes)
        self._in_order.clear()
        self._out_of_order.clear()
        self._dead.clear()
        self.covered_to, self.beyond_due = HIGHEST, None

    def trim(self, bytes_max: int, floor: Key, *, keep: int = 0) -> None:
        """
        Drop the tail until the rest costs at most *bytes_max* or has at most *keep* items.

        *floor* is a key below every unleased item.  A window that becomes empty covers up to it, or to just below its
        last item, so that it is still known when the next item becomes due.
        """
        if self._dead:
            self._drop_dead()
        self._out_of_order.sort()
        while self.bytes > bytes_max and len(self) > keep:
            tail = self._tail()
            assert tail is not None
            dropped = tail.pop()
            self._charge(-full_size(dropped) - self._meter.item_overhead)
            tail = self._tail()
            self.covered_to = max(floor, just_below(dropped.key)) if tail is None else tail[-1].key
            self.beyond_due = dropped.key.due

    def _tail(self) -> deque[Item] | list[Item] | None:
        """Return the collection that ends with the last item, if the heap is sorted; None without items."""
        in_order, out_of_order = self._in_order, self._out_of_order
        if not out_of_order:
            return in_order or None
        return in_order if in_order and in_order[-1] > out_of_order[-1] else out_of_order

    def _charge(self, cost: int) -> None:
        self.bytes += cost
        self._meter.bytes += cost

    def check(self) -> None:
        """Raise AssertionError if the window contradicts itself.  O(n); for tests."""
        items = [*self._in_order, *self._out_of_order]
        assert self.bytes == sum(full_sizes(items)) + len(items) * self._meter.item_overhead
        assert all(item.key <= self.covered_to for item in items)
        assert self.beyond_due is None or self.beyond_due >= self.covered_to.due
        keys = {item.key for item in items}
        assert len(keys) == len(items), "an item is twice in the window"
        assert keys >= self._dead
        heads = *islice(self._in_order, 1), *self._out_of_order[:1]
        assert not any(head.key in self._dead for head in heads), "a dead item is at the head"
        assert all(one < other for one, other in pairwise(self._in_order))


def overlay(
    scan: Scan, *, queue: QueueNumber, above: Key, log: Sequence[Write], held: Container[ItemId]
) -> tuple[list[Item], Key]:
    """
    Return the items that a window gains by a scan which may lack the latest writes.

    Args:
        scan: the rows above *above* in a snapshot taken after the scan was requested.
        queue: the number of the queue that was scanned; writes of others are ignored.
        above: the window's `covered_to`.
        log: the writes, in order, of every plan that was not durable when the scan was requested or was made since.
            Older writes do no harm: the last write of a key is true whether the snapshot contains it or not.
        held: the ids of the items that are leased, or whose lease has expired and that have no new key yet.

    Returns:
        The unleased items between *above* and the new `covered_to`, in the order of their keys, and that `covered_to`.
    """
    covered_to = HIGHEST if scan.exhausted else scan.items[-1].key
    found = {item.key: item for item in scan.items}
    for write in log:
        if isinstance(write, PutItems):
            if write.queue == queue:
                found.update((item.key, item) for item in write.items if above < item.key <= covered_to)
        elif isinstance(write, DeleteItem) and write.queue == queue:
            # An older snapshot would bring a removed item back.
            found.pop(write.key, None)
    return [found[key] for key in sorted(found) if key.id not in held], covered_to

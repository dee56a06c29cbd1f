"""
The head of one queue in memory.

A window holds *all* unleased items of its queue with keys up to `covered_to`, delayed
ones included; beyond `covered_to` only the disk knows.  That one sentence answers
every question of the claim:

- the head is the next item to hand out, if its due has come;
- otherwise the head's due is the moment of the next wake;
- nothing is due now that the window lacks, if `covered_to` lies at or beyond now.

A put with a key up to `covered_to` must enter the window, a larger one must not.  A
refill scans the disk above `covered_to` and raises it; dropping the tail lowers it.

A cursor that only moves forward would be simpler and wrong: a delayed item
that falls due behind it would never be found.
"""

from collections import deque
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from heapq import heappop, heappush
from itertools import chain, islice, pairwise

from attrs import define

from queueber.broker.model import HIGHEST, Item, ItemId, Key
from queueber.broker.storage import DeleteItem, PutItem, Scan, Write
from queueber.units import WallMs


@define
class Meter:
    """What all windows together cost in memory."""

    item_overhead: int
    """What an item costs beside its contents, bytes."""

    bytes: int = 0


class Window:
    """Items in the order of their keys, as far as `covered_to`."""

    __slots__ = ("_in_order", "_meter", "_out_of_order", "bytes", "covered_to")

    def __init__(self, covered_to: Key, meter: Meter) -> None:
        self.covered_to = covered_to
        """Every unleased item with a key up to this one is here."""
        self.bytes = 0
        """What the items cost in memory."""
        # Nearly all items come in the order in which they leave.  Those go through a queue, which costs a tenth of what
        # a heap does; the others, delayed ones and those that came back, are a heap beside it.
        self._in_order: deque[Item] = deque()
        self._out_of_order: list[Item] = []
        self._meter = meter

    def __len__(self) -> int:
        return len(self._in_order) + len(self._out_of_order)

    def put(self, item: Item) -> bool:
        """Take *item* in if it belongs here; return whether it does."""
        if item.key > self.covered_to:
            return False
        heappush(self._out_of_order, item)
        self._charge(len(item.contents) + self._meter.item_overhead)
        return True

    def append(self, items: Sequence[Item], size: int) -> None:
        """Take in those of *items* that belong here; they are in order, and *size* is that of all their contents."""
        if items[-1].key > self.covered_to:
            if items[0].key > self.covered_to:
                # As of a backlog all are that is larger than the window.
                return
            items = [item for item in items if item.key <= self.covered_to]
            size = sum(len(item.contents) for item in items)
        if not self._in_order or self._in_order[-1] < items[0]:
            self._in_order.extend(items)
        else:
            for item in items:
                heappush(self._out_of_order, item)
        # As `_charge` does; a call would be a fifth of what this costs.
        cost = size + len(items) * self._meter.item_overhead
        self.bytes += cost
        self._meter.bytes += cost

    def covers(self, now: WallMs) -> bool:
        """Whether all that is due at *now* is here."""
        return self.covered_to.due > now

    def _first(self) -> Item | None:
        in_order, out_of_order = self._in_order, self._out_of_order
        if not out_of_order:
            return in_order[0] if in_order else None
        return in_order[0] if in_order and in_order[0] < out_of_order[0] else out_of_order[0]

    def head(self, now: WallMs) -> Item | None:
        """The item that has been due for longest at *now*; None when none is due."""
        first = self._first()
        return first if first is not None and first.key.due <= now else None

    def count_ready(self, now: WallMs) -> int:
        """How many items here are due at *now*.  O(n)."""
        if not self.covers(now):
            return len(self)
        return sum(item.key.due <= now for item in chain(self._in_order, self._out_of_order))

    def pop(self) -> Item:
        """Take the head out."""
        in_order, out_of_order = self._in_order, self._out_of_order
        from_heap = out_of_order and not (in_order and in_order[0] < out_of_order[0])
        item = heappop(out_of_order) if from_heap else in_order.popleft()
        self._charge(-len(item.contents) - self._meter.item_overhead)
        return item

    def take(self, count: int, now: WallMs, bytes_max: int) -> list[Item]:
        """
        Take the *count* items at the head out in one step.

        Empty, and nothing was taken, if that cannot be done in one step: they are not all due, their contents are more
        than *bytes_max*, or others come in between.  Then they have to be taken with `pop`.
        """
        in_order, out_of_order = self._in_order, self._out_of_order
        if not 0 < count <= len(in_order):
            return []
        last = in_order[count - 1]
        if last.key.due > now or (out_of_order and out_of_order[0] < last):
            return []
        items = list(islice(in_order, count))
        size = sum([len(item.contents) for item in items])
        if size > bytes_max:
            return []
        for _ in items:
            in_order.popleft()
        self._charge(-size - count * self._meter.item_overhead)
        return items

    def next_due(self) -> WallMs | None:
        """The earliest moment at which an item may become due; None when never without a put."""
        first = self._first()
        if first is not None:
            return first.key.due
        return None if self.covered_to == HIGHEST else self.covered_to.due

    def extend(self, items: Sequence[Item], covered_to: Key) -> None:
        """Take in *items*, which are all there are between the old `covered_to` and the new one, in order."""
        self.covered_to = covered_to
        if items:
            self.append(items, sum(len(item.contents) for item in items))

    def trim(self, bytes_max: int, floor: Key, *, keep: int = 0) -> None:
        """
        Drop the tail until the rest costs at most *bytes_max* or is no more than *keep* items.

        *floor* is a key that every unleased item lies above: what is still
        known of the queue when nothing is left.
        """
        self._out_of_order.sort()
        while self.bytes > bytes_max and len(self) > keep:
            tail = self._tail()
            assert tail is not None
            self._charge(-len(tail.pop().contents) - self._meter.item_overhead)
            tail = self._tail()
            self.covered_to = floor if tail is None else tail[-1].key

    def _tail(self) -> deque[Item] | list[Item] | None:
        """Where the last of all items is the last, once the strays have been sorted; None without any."""
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
        assert self.bytes == sum(len(item.contents) + self._meter.item_overhead for item in items)
        assert all(item.key <= self.covered_to for item in items)
        assert len({item.key for item in items}) == len(items), "an item is twice in the window"
        assert all(one < other for one, other in pairwise(self._in_order))


def overlay(scan: Scan, *, above: Key, log: Sequence[Write], held: AbstractSet[ItemId]) -> tuple[list[Item], Key]:
    """
    What a window gains by a scan that may have missed the latest writes.

    Args:
        scan: the rows above *above* in a snapshot that the disk took at some moment of the past.
        above: the window's `covered_to`.
        log: the writes of every plan, in order, that was not durable when the snapshot was taken.  More of the past
            does no harm: what a key's last write says is true whether the snapshot has it or not.
        held: the ids of the items that are leased, or whose lease has ended and that have no new place yet.

    Returns:
        The unleased items between *above* and the new `covered_to`, in the order of their keys, and that `covered_to`.
    """
    covered_to = HIGHEST if scan.exhausted else scan.items[-1].key
    found = {item.key: item for item in scan.items}
    for write in log:
        if isinstance(write, PutItem):
            if above < write.item.key <= covered_to:
                found[write.item.key] = write.item
        elif isinstance(write, DeleteItem):
            # An older snapshot would bring a removed item back.
            found.pop(write.key, None)
    return [found[key] for key in sorted(found) if key.id not in held], covered_to

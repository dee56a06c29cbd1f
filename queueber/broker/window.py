"""
The head of one queue in memory.

A window holds *all* unleased items of its queue with keys up to `hi`, delayed
ones included; beyond `hi` only the disk knows.  That one sentence answers
every question of the claim:

- the head is the next item to hand out, if its due has come;
- otherwise the head's due is the moment of the next wake;
- nothing is due now that the window lacks, if `hi` lies at or beyond now.

A put with a key up to `hi` must enter the window, a larger one must not.  A
refill scans the disk above `hi` and raises it; dropping the tail lowers it.

A cursor that only moves forward would be simpler and wrong: a delayed item
that falls due behind it would never be found.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from heapq import heappop, heappush

from attrs import define

from queueber.broker.model import HIGHEST, Item, ItemId, Key
from queueber.broker.port import DeleteItem, PutItem, Scan, Write
from queueber.units import WallMs


@define
class Meter:
    """What all windows together cost in memory."""

    item_overhead: int
    """What an item costs beside its contents, bytes."""

    bytes: int = 0


class Window:
    """Items in the order of their keys, as far as `hi`."""

    __slots__ = ("_heap", "_meter", "bytes", "hi")

    def __init__(self, hi: Key, meter: Meter) -> None:
        self.hi = hi
        """Every unleased item with a key up to this one is here."""
        self.bytes = 0
        """What the items cost in memory."""
        self._heap: list[tuple[Key, Item]] = []
        self._meter = meter

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, item: Item) -> bool:
        """Take *item* in if it belongs here; return whether it does."""
        if item.key > self.hi:
            return False
        heappush(self._heap, (item.key, item))
        # As `_charge` does; a call would be a tenth of what an add of many items costs.
        cost = len(item.contents) + self._meter.item_overhead
        self.bytes += cost
        self._meter.bytes += cost
        return True

    def covers(self, now: WallMs) -> bool:
        """Whether all that is due at *now* is here."""
        return self.hi.due > now

    def head(self, now: WallMs) -> Item | None:
        """The item that has been due for longest at *now*; None when none is due."""
        heap = self._heap
        return heap[0][1] if heap and heap[0][0].due <= now else None

    def count_ready(self, now: WallMs) -> int:
        """How many items here are due at *now*.  O(n)."""
        if not self.covers(now):
            return len(self._heap)
        return sum(key.due <= now for key, _ in self._heap)

    def pop(self) -> Item:
        """Take the head out."""
        item = heappop(self._heap)[1]
        self._charge(item, -1)
        return item

    def next_due(self) -> WallMs | None:
        """The earliest moment at which an item may become due; None when never without a put."""
        if self._heap:
            return self._heap[0][0].due
        return None if self.hi == HIGHEST else self.hi.due

    def extend(self, items: Iterable[Item], hi: Key) -> None:
        """Take in *items*, which are all there are between the old `hi` and the new one."""
        self.hi = hi
        for item in items:
            self.put(item)

    def trim(self, bytes_max: int, floor: Key, *, keep: int = 0) -> None:
        """
        Drop the tail until the rest costs at most *bytes_max* or is no more than *keep* items.

        *floor* is a key that every unleased item lies above: what is still
        known of the queue when nothing is left.
        """
        self._heap.sort()
        hi = self.hi
        while self.bytes > bytes_max and len(self._heap) > keep:
            self._charge(self._heap.pop()[1], -1)
            hi = self._heap[-1][0] if self._heap else floor
        self.hi = hi

    def _charge(self, item: Item, times: int) -> None:
        cost = times * (len(item.contents) + self._meter.item_overhead)
        self.bytes += cost
        self._meter.bytes += cost

    def check(self) -> None:
        """Raise AssertionError if the window contradicts itself.  O(n); for tests."""
        assert self.bytes == sum(len(item.contents) + self._meter.item_overhead for _, item in self._heap)
        assert all(key == item.key <= self.hi for key, item in self._heap)
        assert len({key for key, _ in self._heap}) == len(self._heap), "an item is twice in the window"


def overlay(scan: Scan, *, above: Key, log: Sequence[Write], held: AbstractSet[ItemId]) -> tuple[list[Item], Key]:
    """
    What a window gains by a scan that may have missed the latest writes.

    Args:
        scan: the rows above *above* in a snapshot that the disk took at some moment of the past.
        above: the window's `hi`.
        log: the writes of every plan, in order, that was not durable when the snapshot was taken.  More of the past
            does no harm: what a key's last write says is true whether the snapshot has it or not.
        held: the ids of the items that are leased, or whose lease has ended and that have no new place yet.

    Returns:
        The unleased items between *above* and the new `hi`, in the order of their keys, and that `hi`.
    """
    hi = HIGHEST if scan.exhausted else scan.items[-1].key
    found = {item.key: item for item in scan.items}
    for write in log:
        if isinstance(write, PutItem):
            if above < write.item.key <= hi:
                found[write.item.key] = write.item
        elif isinstance(write, DeleteItem):
            # An older snapshot would bring a removed item back.
            found.pop(write.key, None)
    return [found[key] for key in sorted(found) if key.id not in held], hi

"""One named queue: its counters, the head of its items, and the polls that wait for them."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import define, field

from queueber.broker.model import LOWEST, NO_QUEUE, Item, ItemId, Key, Leased, QueueNumber, just_below, off_time
from queueber.broker.storage import Gap, Write
from queueber.broker.waiter import Waiter
from queueber.broker.window import Window

if TYPE_CHECKING:
    from queueber.broker.leases import Lease


@define(eq=False)
class Refill:
    """A scan in progress, and all writes since its snapshot may have been taken."""

    queue: "Queue"
    number: QueueNumber
    after: Key
    """The window's `covered_to` when the scan was requested.  If it has moved since, the result is not used."""

    log: list[Write]


@define(eq=False, weakref_slot=True)
class Queue:
    """
    A queue's state in memory.

    A queue that was never added to has no number and no row.  It exists as
    long as something refers to it: a capability, or a waiting poll.
    """

    name: str
    window: Window
    number: QueueNumber | None = None
    """The name of its rows in keys; None before its first add."""

    id: QueueNumber | None = None
    """The first number that it had, to which its settings and its dead items belong."""

    dead_of: QueueNumber = NO_QUEUE
    """The id of the queue whose dead items these are; 0 for other queues."""

    added: int = 0
    removed: int = 0
    bytes: int = 0
    """The length of the contents of all items, leased ones included."""

    off_time: int = 0
    """The number of items, leased ones included, whose due is not the time in their id."""

    floor: Key = LOWEST
    """A key below every unleased item."""

    unreadable_above: Key | None = None
    """A key below the first rows that could not be read.  They are tried again after the next start."""

    held: "dict[ItemId, Lease]" = field(factory=dict)
    """The lease of each item that is leased, or whose lease has expired and that has no new key yet."""

    waiters: OrderedDict[Waiter, None] = field(factory=OrderedDict)
    """Waiting polls in the order in which they are served."""

    timed_out: dict[Waiter, None] = field(factory=dict)
    """Waiting polls whose wait is over, in that order: served by the next claim, or answered with no items."""

    refill: Refill | None = None
    """The only scan in progress."""

    refilled: bool = False
    """Whether a scan has returned since the last claim."""

    @property
    def items(self) -> int:
        """The number of items, leased ones included.  Not `__len__`, because a queue without items is not false."""
        return self.added - self.removed

    def put(self, item: Item) -> None:
        """Add an unleased item, at any position."""
        if item.key <= self.floor:
            self.floor = just_below(item.key)
        self.window.put(item)

    def discard(self, key: Key) -> None:
        """Take the unleased item at *key*, which is removed or moved, out of the window."""
        if self.unreadable_above is not None and key > self.unreadable_above and not self.window.holds(key):
            # A scan could not read its row, so the window lacks it.
            return
        self.window.discard(key)

    def append(self, items: Sequence[Item], size: int) -> None:
        """Add new items, which are in order, mostly at the end.  Their contents are *size* bytes."""
        first = items[0].key
        if first <= self.floor:
            self.floor = just_below(first)
        self.window.append(items, size)

    def count_removed(self, leased: Leased) -> None:
        """Count the end of an item, which was leased."""
        self.removed += 1
        self.bytes -= leased.size
        self.off_time -= off_time(leased)

    def raise_floor(self, key: Key) -> None:
        """Move the floor up to *key*: everything up to it has been leased."""
        self.floor = max(self.floor, key)
        if self.unreadable_above is not None:
            # Unreadable rows count as items of the queue, and a floor above them would hide them for good.
            self.floor = min(self.floor, self.unreadable_above)

    def note_unreadable(self, gaps: Sequence[Gap]) -> None:
        """Note the rows that a scan could not read."""
        for gap in gaps:
            self.unreadable_above = min(self.unreadable_above or gap.after, gap.after)

    def check(self) -> None:
        """Raise AssertionError if the parts disagree.  O(n); for tests."""
        self.window.check()
        unleased = self.items - len(self.held)
        assert len(self.window) <= unleased
        head = self.window.next_due()
        assert head is None or head >= self.floor.due
        if self.number is None:
            assert self.added == 0
        assert all(self in waiter.queues for waiter in self.waiters)

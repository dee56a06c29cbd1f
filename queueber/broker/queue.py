"""One named queue: its counters, the head of its items, and who waits for them."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from attrs import define, field

from queueber.broker.model import LOWEST, Item, ItemId, Key, QueueNumber, QueueRecord, just_below
from queueber.broker.storage import Gap, Write
from queueber.broker.waiter import Waiter
from queueber.broker.window import Window

_new: Final = tuple.__new__
"""Makes a named tuple out of a plain one, in a third of the time that its class takes."""


@define(eq=False)
class Refill:
    """A scan that is on its way, and all that was written since its snapshot may have been taken."""

    queue: "Queue"
    number: QueueNumber
    after: Key
    """The window's `covered_to` when the scan was asked for; if it has moved meanwhile, the result is of no use."""

    log: list[Write]


@define(eq=False, weakref_slot=True)
class Queue:
    """
    A queue's state in memory.

    A queue that was never added to has no number and no row.  It lives as
    long as somebody holds it: a capability, or a poll that waits.
    """

    name: str
    window: Window
    number: QueueNumber | None = None
    added: int = 0
    removed: int = 0
    floor: Key = LOWEST
    """Every unleased item lies above it."""

    unreadable_above: Key | None = None
    """Where the first rows lie that could not be read; they are tried again after the next start."""

    held: set[ItemId] = field(factory=set)
    """Items that are leased, or whose lease has ended and that have no new place yet."""

    waiters: OrderedDict[Waiter, None] = field(factory=OrderedDict)
    """Waiting polls in the order in which they are served."""

    timed_out: dict[Waiter, None] = field(factory=dict)
    """Waiting polls whose wait is over, in that order: served by the next claim, or answered with nothing."""

    refill: Refill | None = None
    """At most one scan is on its way."""

    refilled: bool = False
    """A scan has come back since the last claim."""

    @property
    def items(self) -> int:
        """How many there are, leased ones included.  Not its length: a queue without items is not false."""
        return self.added - self.removed

    def durable_number(self) -> QueueNumber:
        """The number of a queue that has one."""
        assert self.number is not None, "only a queue with items is asked for its number"
        return self.number

    def record(self) -> QueueRecord:
        """What the disk is to keep."""
        fields = self.durable_number(), self.name, self.added, self.removed, self.floor
        return _new(QueueRecord, fields)

    def put(self, item: Item) -> None:
        """An unleased item has a place in line: here too, if the window reaches that far."""
        if item.key <= self.floor:
            self.floor = just_below(item.key)
        self.window.put(item)

    def append(self, items: Sequence[Item], size: int) -> None:
        """New items, in order, with contents of *size* in all, have a place in line: mostly its end."""
        first = items[0].key
        if first <= self.floor:
            self.floor = just_below(first)
        self.window.append(items, size)

    def hold(self, items: Sequence[Item]) -> None:
        """*items*, fresh from the window's head, are leased."""
        self.floor = max(self.floor, items[-1].key)
        if self.unreadable_above is not None:
            # They count as items of the queue, and a floor above them would hide them for good.
            self.floor = min(self.floor, self.unreadable_above)
        self.held.update([item.key.id for item in items])

    def note_unreadable(self, gaps: Sequence[Gap]) -> None:
        """A scan has met rows that cannot be read."""
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
        assert not any(waiter.queue is not self for waiter in self.waiters)

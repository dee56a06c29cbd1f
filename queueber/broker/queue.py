"""One named queue: its counters, the head of its items, and the polls that wait for them."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import define, field

from queueber.broker.model import (
    LOWEST,
    NO_QUEUE,
    UNKNOWN_TIME,
    Item,
    ItemId,
    Key,
    Leased,
    QueueNumber,
    just_below,
    off_time,
)
from queueber.broker.settings import DEFAULT_SETTINGS, NOT_CONFIGURED, QueueConfig
from queueber.broker.storage import Gap, SettingFields, Write
from queueber.broker.waiter import Waiter
from queueber.broker.window import Window
from queueber.units import WallMs

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

    The dead items of a queue are a queue of their own, its *dead line*, which
    has the same name and no dead line.

    When a queue is purged or deleted, its number is *retired*: the rows under
    it are deleted in the background.  After a purge the queue goes on under a
    fresh number, and items that were leased come back to that.  After a delete
    the object is as one that was only asked for, and another one, which is
    *gone*, holds what is leased until those leases end.
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

    settings: QueueConfig = DEFAULT_SETTINGS
    configured: SettingFields = NOT_CONFIGURED
    """The settings that are not the server's defaults because they were configured, by the schema's names."""

    checks_adds: bool = False
    """Whether an add may be refused because of the settings, or because these are dead items."""

    paused: bool = False
    """Whether nothing is handed out, as the settings say."""

    may_expire: bool = False
    """Whether an item may have expired: there is a time to live, or an item with an end of its own was seen."""

    used_at: WallMs = UNKNOWN_TIME
    """The last call, or the last look that found a use; unknown after a start and a change of the settings."""

    keyed_until: WallMs | None = UNKNOWN_TIME
    """The end of the last deduplication record that has one; None: not known, because it may be from before a start."""

    owner: "Queue | None" = None
    """The queue whose dead items these are."""

    dead: "Queue | None" = None
    """The dead items; None before the first death."""

    formers: frozenset[QueueNumber] = frozenset()
    """Retired numbers whose leases are this queue's."""

    gone: bool = False
    """Whether it was deleted and only waits for the end of leases: nothing comes back to it, and it has no row."""

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

    def apply_settings(self, defaults: QueueConfig, configured: SettingFields) -> None:
        """Take *configured* settings, and the *defaults* for the others."""
        self.configured = configured
        self.settings = defaults.merged(configured) if configured else defaults
        self.checks_adds = self.settings.bounds_adds
        self.paused = self.settings.polls_paused
        self.may_expire = self.may_expire or self.settings.ttl_ms > 0

    def restart(self, number: QueueNumber | None) -> None:
        """Begin anew under *number*, without any item that is not leased."""
        self.number = number
        self.window.clear()
        self.floor, self.unreadable_above = LOWEST, None
        self.refill, self.refilled = None, False

    def has_ready(self, now: WallMs) -> bool:
        """Return whether an item in memory may be handed out at *now*."""
        return not self.paused and self.window.head(now) is not None

    def surely_empty(self, now: WallMs) -> bool:
        """Return whether it is certain that no item may be handed out at *now*."""
        return self.paused or (self.window.head(now) is None and self.window.covers(now))

    def servable_at(self) -> WallMs | None:
        """
        Return when an item may next be delivered, or when rows must be read to decide that.

        The moment may have passed.  None: not before an add, a return of items, or a change of the settings.
        """
        return None if self.paused else self.window.next_due()

    def put(self, item: Item) -> None:
        """Add an unleased item, at any position."""
        if item.key <= self.floor:
            self.floor = just_below(item.key)
        if item.facts is not None and item.facts.expires_at:
            self.may_expire = True
        self.window.put(item)

    def discard(self, key: Key) -> None:
        """Take the unleased item at *key*, which is removed or moved, out of the window."""
        above, window = self.unreadable_above, self.window
        if above is not None and above < key <= window.covered_to and not window.holds(key):
            # A scan could not read its row, so the window lacks it.
            return
        window.discard(key)

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
        assert self.bytes >= 0 <= self.off_time <= self.items
        if self.number is None:
            assert self.added == self.removed == self.bytes == 0
        assert all(self in waiter.queues for waiter in self.waiters)

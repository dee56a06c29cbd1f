"""
Who holds what, until when.

State model for leases
----------------------

1. UNSPOKEN  its items are taken and its record is on the way to the disk; nobody knows its id yet.
2. LIVE      the poll's reply has left.  Its holder may remove and extend until the deadline.
3. ENDED     the deadline has passed; its items are on the way to their new places.
4. gone      every item was removed, moved or given back, and the record's deletion is planned.

    state     | spoken | given back | last item removed | deadline passed | items moved
    ----------+--------+------------+-------------------+-----------------+------------
    UNSPOKEN  | LIVE   | gone       | -                 | -               | -
    LIVE      | -      | -          | gone              | ENDED           | -
    ENDED     | -      | -          | -                 | -               | gone

A lease that was not yet spoken is never swept: its holder could not have done
anything about it.  Each lease belongs to one poll alone, so on every path its
items have exactly one way out: removed one by one, given back together, or
moved together.
"""

from collections.abc import Iterator
from enum import Enum

from attrs import define, field

from queueber.broker.deadlines import Deadlines
from queueber.broker.model import Item, ItemId, Key, LeaseId, LeaseRecord, QueueNumber
from queueber.units import WallMs


class LeaseState(Enum):
    """Where a lease is in its life."""

    PENDING = "pending"
    LIVE = "live"
    EXPIRED = "expired"


# What an item takes in its lease's record: when it became due, and its id.
_ENTRY_BYTES = 24


@define(eq=False)
class Lease:
    """One poll's claim on its items."""

    id: LeaseId
    queue: QueueNumber
    deadline: WallMs
    keys: dict[ItemId, Key]
    """The items that have not been removed."""

    bytes: int | None = None
    """Contents of the items it was given; None when that is not known any more."""

    state: LeaseState = LeaseState.PENDING

    items: list[Item] = field(factory=list)
    """While UNSPOKEN, the items themselves, so that they can be given back."""

    def record(self) -> LeaseRecord:
        """What the disk is to keep."""
        return LeaseRecord(self.queue, self.deadline, tuple(self.keys.values()))

    @property
    def record_bytes(self) -> int:
        """About how long that is on the disk: a due and an id for each item."""
        return _ENTRY_BYTES * len(self.keys)


class LeaseTable:
    """All leases, by id and by deadline."""

    def __init__(self) -> None:
        self._leases: dict[LeaseId, Lease] = {}
        self._deadlines: Deadlines[LeaseId] = Deadlines()
        self.items = 0
        """Items that some lease names."""

    def __len__(self) -> int:
        return len(self._leases)

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._leases.values())

    def soonest(self, count: int) -> list[Lease]:
        """The *count* leases that end first, of those that were spoken."""
        return [self._leases[lease_id] for lease_id in self._deadlines.soonest(count)]

    def insert(self, lease: Lease) -> None:
        """Add a lease that nobody has heard of."""
        assert lease.id not in self._leases, "lease ids are never reused"
        self._leases[lease.id] = lease
        self.items += len(lease.keys)

    def restore(self, lease: Lease) -> None:
        """Add a lease found at start-up, which was spoken in another life."""
        assert lease.state is LeaseState.LIVE
        self.insert(lease)
        self._deadlines.set(lease.id, lease.deadline)

    def activate(self, lease: Lease) -> None:
        """From now on its holder may act under it, and it can end."""
        assert lease.state is LeaseState.PENDING
        lease.state = LeaseState.LIVE
        lease.items = []
        self._deadlines.set(lease.id, lease.deadline)

    def find_live(self, lease_id: LeaseId, queue: QueueNumber | None, now: WallMs) -> Lease | None:
        """The live lease of that id in that queue; None when there is none."""
        lease = self._leases.get(lease_id)
        if lease is None or lease.queue != queue or lease.state is not LeaseState.LIVE or lease.deadline <= now:
            return None
        return lease

    def extend(self, lease: Lease, deadline: WallMs) -> None:
        """Move the deadline of a live lease."""
        assert lease.state is LeaseState.LIVE
        lease.deadline = deadline
        self._deadlines.set(lease.id, deadline)

    def pop_expired(self, now: WallMs) -> Lease | None:
        """The lease whose deadline passed longest ago, which is ENDED from here on; None when none has."""
        lease_id = self._deadlines.pop_due(now)
        if lease_id is None:
            return None
        lease = self._leases[lease_id]
        lease.state = LeaseState.EXPIRED
        return lease

    def retry_sweep(self, lease: Lease, at: WallMs) -> None:
        """Let `pop_ended` give an ENDED lease once more, at *at*."""
        assert lease.state is LeaseState.EXPIRED
        self._deadlines.set(lease.id, at)

    def remove_item(self, lease: Lease, item_id: ItemId) -> None:
        """Forget one item of *lease*."""
        del lease.keys[item_id]
        self.items -= 1

    def remove(self, lease: Lease) -> None:
        """Forget *lease* and the items it still names."""
        del self._leases[lease.id]
        self._deadlines.discard(lease.id)
        self.items -= len(lease.keys)

    def check(self) -> None:
        """Raise AssertionError if the table contradicts itself.  O(n); for tests."""
        self._deadlines.check()
        assert self.items == sum(len(lease.keys) for lease in self)
        for lease in self:
            assert lease.keys, "a lease without items must be gone"
            assert (lease.state is LeaseState.PENDING) == bool(lease.items)
            assert all(key.id == item_id for item_id, key in lease.keys.items())

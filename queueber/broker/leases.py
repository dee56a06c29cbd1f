"""
Leases: which items each one holds, and until when.

State model for leases
----------------------

1. PENDING  its items are taken and its record waits for the disk.  No peer knows its id.
2. LIVE     the poll's reply was sent.  Its holder may remove and extend until the deadline.
3. EXPIRED  the deadline has passed.  Its items wait to be moved to their new keys.
4. GONE     every item was removed, moved or given back, and the deletion of the record is planned.

    state    | activated | given back | deadline passed | emptied
    ---------+-----------+------------+-----------------+--------
    PENDING  | LIVE      | GONE       | -               | -
    LIVE     | -         | -          | EXPIRED         | GONE
    EXPIRED  | -         | -          | EXPIRED         | GONE

The last item empties a lease: a live one if it is removed, an expired one if it
is moved.  A deadline passes again after a sweep that could not move all items.

A pending lease is never swept: its holder could not have used it yet.  Each
lease belongs to one poll alone, so on every path its items leave it in exactly
one way: removed one by one, given back together, or moved together.
"""

from collections.abc import Iterator
from enum import IntEnum, auto
from itertools import repeat

from attrs import define, field

from queueber.broker.deadlines import Deadlines
from queueber.broker.model import (
    NO_GRACE,
    UNKNOWN_TIME,
    Item,
    ItemId,
    Key,
    Leased,
    LeaseId,
    LeaseRecord,
    QueueNumber,
    new_tuple,
)
from queueber.broker.queue import Queue
from queueber.broker.session_table import SessionTable
from queueber.broker.waiter import Peer
from queueber.errors import Overloaded
from queueber.units import SpanMs, WallMs, no_earlier_than


class LeaseState(IntEnum):
    """States of a lease.  Integers, because the hash of other enums is a Python call."""

    PENDING = auto()
    LIVE = auto()
    EXPIRED = auto()
    GONE = auto()


class LeaseInput(IntEnum):
    """Inputs of a lease's state machine."""

    ACTIVATED = auto()
    GIVEN_BACK = auto()
    DEADLINE_PASSED = auto()
    EMPTIED = auto()


LEASE_TRANSITIONS = {
    (LeaseState.PENDING, LeaseInput.ACTIVATED): LeaseState.LIVE,
    (LeaseState.PENDING, LeaseInput.GIVEN_BACK): LeaseState.GONE,
    (LeaseState.LIVE, LeaseInput.DEADLINE_PASSED): LeaseState.EXPIRED,
    (LeaseState.LIVE, LeaseInput.EMPTIED): LeaseState.GONE,
    (LeaseState.EXPIRED, LeaseInput.DEADLINE_PASSED): LeaseState.EXPIRED,
    (LeaseState.EXPIRED, LeaseInput.EMPTIED): LeaseState.GONE,
}
"""Every transition of a lease.  Any other input is a bug of the broker, and a KeyError."""


FOREVER = WallMs(2**64 - 1)
"""The deadline of a session lease while its session is attached."""

GRACE_USED = SpanMs(1)
"""The grace in the row of a lease that gets none at a start."""

ENTRY_BYTES = 24
"""The size of an item in its lease's record: its due and its id."""


@define(eq=False)
class Lease:
    """One poll's claim on its items."""

    id: LeaseId
    queue: QueueNumber
    deadline: WallMs
    keys: dict[ItemId, Leased]
    """The items that it still holds."""

    leased_at: WallMs = UNKNOWN_TIME
    """When it was made; 0 if it was read from a directory that did not keep that."""

    size: int | None = None
    """The size of the contents of the items that it was given; None if it was read from a row without sizes."""

    state: LeaseState = LeaseState.PENDING

    peer: Peer | None = None
    """The peer that it was given to; None if it was read from the disk."""

    items: list[Item] = field(factory=list)
    """The items themselves while the lease is pending, so that they can be given back."""

    session: bytes = b""
    """The id of its session; empty for a lease with a deadline of its own."""

    grace: SpanMs = NO_GRACE
    """
    The grace of that session.

    For a lease with a deadline of its own, the grace that it was given at a start because it had ended while the
    server was down; it is given only once, so that a server that keeps crashing does not keep items for ever.  One
    that an operator has ended has `GRACE_USED` in its row: a start gives it none.
    """

    excused: bool = False
    """Whether its end counts no loss, because its deadline passed while the server was down."""

    latest_end: WallMs = FOREVER
    """The deadline of a session lease while its session is attached: its end at the latest."""

    ended: bool = False
    """Whether an operator has ended it.  Its row names no session then, and gets no grace at a start."""

    def record(self) -> LeaseRecord:
        """Return the durable fields."""
        dues, ids, sizes = zip(*self.keys.values(), strict=True)
        keys = tuple(map(new_tuple, repeat(Key), zip(dues, ids, strict=True)))
        session, grace = (b"", GRACE_USED) if self.ended else (self.session, self.grace)
        return new_tuple(LeaseRecord, (self.queue, self.deadline, keys, sizes, self.leased_at, session, grace))

    def rows(self) -> list[Key]:
        """Return the keys of its items."""
        return [new_tuple(Key, (due, item_id)) for due, item_id, _ in self.keys.values()]

    @property
    def record_bytes(self) -> int:
        """The approximate size of the record on the disk: a due and an id for each item."""
        return ENTRY_BYTES * len(self.keys)


def extended_deadline(lease: Lease, span: SpanMs, longest: SpanMs, now: WallMs) -> WallMs | None:
    """
    Return the end of *lease* that is extended to *span* from *now*.

    *longest* is the longest time for which it may be held, 0 for no bound.  Returns None if that is over.
    """
    deadline = no_earlier_than(now, span)
    if not longest or not lease.leased_at:
        return deadline
    last = WallMs(lease.leased_at + longest)
    return None if last <= now else min(deadline, last)


class LeaseTable:
    """All leases, by id and by deadline."""

    def __init__(self, items_max: int) -> None:
        self._leases: dict[LeaseId, Lease] = {}
        self._deadlines: Deadlines[LeaseId] = Deadlines()
        self.sessions = SessionTable()
        """The sessions, with their leases that are live."""
        self.items = 0
        """The number of items in all leases."""
        self.items_max = items_max
        """The limit of `items` from which on nothing more is leased."""

    def __len__(self) -> int:
        return len(self._leases)

    def __iter__(self) -> Iterator[Lease]:
        return iter(self._leases.values())

    @property
    def full(self) -> bool:
        """Whether no further item can be leased."""
        return self.items >= self.items_max

    def why_full(self) -> Overloaded | None:
        """Return why no further item can be leased; None if one can."""
        if self.items < self.items_max:
            return None
        return Overloaded(
            f"leased items: there are {self.items:,}; the limit is {self.items_max:,} (leased_items)",
            limit="leased_items",
        )

    def soonest(self, count: int) -> list[Lease]:
        """Return the *count* leases that are live and expire first, in order."""
        return [self._leases[lease_id] for lease_id in self._deadlines.soonest(count)]

    def insert(self, lease: Lease) -> None:
        """Add a new lease."""
        assert lease.id not in self._leases, "lease ids are never reused"
        self._leases[lease.id] = lease
        self.items += len(lease.keys)

    def restore(self, lease: Lease) -> None:
        """Add a live lease read from the disk at start."""
        assert lease.state is LeaseState.LIVE
        self.insert(lease)
        self._begin(lease)

    def activate(self, lease: Lease) -> None:
        """Make a pending lease live: its holder may use it, and it can expire."""
        lease.state = LEASE_TRANSITIONS[lease.state, LeaseInput.ACTIVATED]
        lease.items = []
        self._begin(lease)

    def _begin(self, lease: Lease) -> None:
        """Let a live lease expire at its deadline, and end with its session if it has one."""
        if lease.session:
            self.sessions.bind(lease)
            self.extend(lease, lease.deadline)
        else:
            self._deadlines.set(lease.id, lease.deadline)

    def find_live(self, lease_id: LeaseId, queue: Queue, now: WallMs) -> Lease | None:
        """Return the lease of that id if it is live at *now* and on items of *queue*; None otherwise."""
        lease = self._leases.get(lease_id)
        if lease is None or lease.state is not LeaseState.LIVE or lease.deadline <= now:
            return None
        return lease if lease.queue == queue.number or lease.queue in queue.formers else None

    def live(self, lease_id: LeaseId, now: WallMs) -> Lease | None:
        """Return the lease of that id if it is live at *now*, on items of whatever queue; None otherwise."""
        lease = self._leases.get(lease_id)
        return lease if lease is not None and lease.state is LeaseState.LIVE and lease.deadline > now else None

    def end(self, lease: Lease, now: WallMs) -> None:
        """
        Let *lease* end at *now*, or if it is pending as soon as it is live, and not come back at a start.

        The caller writes its row, or that of its queue's end.
        """
        lease.ended = True
        lease.deadline = lease.latest_end = min(lease.deadline, now)
        if lease.state is LeaseState.LIVE:
            self._deadlines.set(lease.id, lease.deadline)

    def extend(self, lease: Lease, deadline: WallMs) -> None:
        """Move the deadline of a live lease; `FOREVER` for a session lease whose session is attached."""
        assert lease.state is LeaseState.LIVE
        lease.deadline = deadline
        if deadline == FOREVER:
            self._deadlines.discard(lease.id)
        else:
            self._deadlines.set(lease.id, deadline)

    def leave_session(self, lease: Lease) -> None:
        """Take a live lease out of its session, if it has one, because its worker gives it a deadline of its own."""
        if lease.session:
            self.sessions.release(lease)
        lease.session, lease.grace, lease.excused = b"", NO_GRACE, False

    def pop_expired(self, now: WallMs) -> Lease | None:
        """Make the lease with the earliest deadline EXPIRED and return it; None if no deadline has passed."""
        lease_id = self._deadlines.pop_due(now)
        if lease_id is None:
            return None
        lease = self._leases[lease_id]
        if lease.session and lease.state is LeaseState.LIVE:
            self.sessions.release(lease, ended=True)
        lease.state = LEASE_TRANSITIONS[lease.state, LeaseInput.DEADLINE_PASSED]
        return lease

    def retry_sweep(self, lease: Lease, at: WallMs) -> None:
        """Let `pop_expired` return an expired lease once more, at *at*."""
        assert lease.state is LeaseState.EXPIRED
        self._deadlines.set(lease.id, at)

    def remove_item(self, lease: Lease, item_id: ItemId) -> bool:
        """Remove one item from *lease*, and the lease with its last item; return whether the lease is gone."""
        keys = lease.keys
        del keys[item_id]
        self.items -= 1
        if keys:
            return False
        if lease.session and lease.state is LeaseState.LIVE:
            self.sessions.release(lease)
        lease.state = LEASE_TRANSITIONS[lease.state, LeaseInput.EMPTIED]
        del self._leases[lease.id]
        self._deadlines.discard(lease.id)
        return True

    def remove(self, lease: Lease) -> None:
        """Remove a pending lease, whose items are given back."""
        lease.state = LEASE_TRANSITIONS[lease.state, LeaseInput.GIVEN_BACK]
        del self._leases[lease.id]
        self.items -= len(lease.keys)

    def check(self) -> None:
        """Raise AssertionError if the table contradicts itself.  O(n); for tests."""
        self._deadlines.check()
        self.sessions.check()
        assert self.items == sum(len(lease.keys) for lease in self)
        for lease in self:
            assert lease.keys, "a lease without items must be gone"
            assert (lease.state is LeaseState.PENDING) == bool(lease.items)
            assert all(leased.id == item_id for item_id, leased in lease.keys.items())

"""The end of leases that were not used up: how their items become ready again."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from attrs import define

from queueber.broker.leases import Lease, LeaseTable
from queueber.broker.model import Item, ItemId, Key, off_time
from queueber.broker.plans import Plan, UncommittedPlans
from queueber.broker.polls import Polls
from queueber.broker.queue import Queue
from queueber.broker.queues import Queues
from queueber.broker.storage import DeleteItem, DeleteLease, PutItems, PutLease, Write
from queueber.limits import Limits
from queueber.units import WallMs


@define(eq=False)
class Expiry:
    """Ends leases: expired ones a slice at a time, and those of abandoned polls."""

    _queues: Queues
    _leases: LeaseTable
    _uncommitted: UncommittedPlans
    _polls: Polls
    _limits: Limits

    def pop_expired(self, now: WallMs) -> list[Lease]:
        """
        Return a slice of the leases whose deadline has passed; empty if there are none.

        Calls under them return false from now on.  The caller reads their
        `rows` and passes them to `requeue`.  If it cannot read them, it
        passes the lease to `retry_sweep`.
        """
        expired: list[Lease] = []
        rows = size = 0
        while rows < self._limits.expiry_slice and size < self._limits.refill_bytes:
            lease = self._leases.pop_expired(now)
            if lease is None:
                break
            expired.append(lease)
            rows += len(lease.keys)
            # Of a lease read from the disk only the limit is known.
            size += self._limits.poll_bytes if lease.size is None else lease.size
        return expired

    def retry_sweep(self, lease: Lease, at: WallMs) -> None:
        """Let `pop_expired` return *lease* once more, at *at*, because its rows could not be read."""
        self._leases.retry_sweep(lease, at)

    def requeue(
        self, lease: Lease, items: Sequence[Item | None], *, unreadable: AbstractSet[ItemId] = frozenset()
    ) -> Plan[int]:
        """
        Move the items of an expired lease to keys that are due at its deadline, with one attempt more.

        *items* are its `rows`, in that order.  Items without a row
        are skipped.  The items in *unreadable*, which are not all of them, stay
        under the lease, and the caller passes it to `retry_sweep`.

        Returns:
            A plan whose reply is how many items moved.
        """
        queue = self._queues.by_number(lease.queue)
        writes: list[Write] = [DeleteLease(lease.id)]
        moved = size = 0
        for leased, item in zip(list(lease.keys.values()), items, strict=True):
            if leased.id in unreadable:
                continue
            del queue.held[leased.id]
            self._leases.remove_item(lease, leased.id)
            if item is None:
                queue.count_removed(leased)
                continue
            key = item.key
            # Strictly later than the old key, which the lease's record names.  With the same key, and the deletion of
            # the record lost, the item would count as leased again.
            due = max(lease.deadline, WallMs(key.due + 1))
            again = Item(Key(due, key.id), item.contents, item.added_at, item.attempts + 1, item.facts)
            writes += (DeleteItem(lease.queue, key), PutItems(lease.queue, [again]))
            queue.off_time += off_time(again.key) - off_time(key)
            queue.put(again)
            moved += 1
            size += len(item.contents)
        if lease.keys:
            writes[0] = PutLease(lease.id, lease.record())
        self._queues.enforce_budget(queue)
        self._polls.mark_runnable(queue)
        return self._uncommitted.plan(queue, writes, moved, size)

    def give_back(self, queue: Queue, lease: Lease) -> Plan[None]:
        """Put the items of a pending lease back at their keys.  This counts no attempt and loses no position."""
        self._leases.remove(lease)
        for item in lease.items:
            del queue.held[item.key.id]
            queue.put(item)
        self._queues.enforce_budget(queue)
        self._polls.mark_runnable(queue)
        return self._uncommitted.plan(queue, [DeleteLease(lease.id)], None)

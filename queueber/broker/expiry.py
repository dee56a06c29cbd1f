"""Leases whose deadline has passed, and how their items become ready again."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from attrs import define

from queueber.broker.leases import Lease, LeaseTable
from queueber.broker.model import Item, ItemId, Key
from queueber.broker.plans import Plan, UncommittedPlans
from queueber.broker.polls import Polls
from queueber.broker.queues import Queues
from queueber.broker.storage import DeleteItem, DeleteLease, PutItem, PutLease, Write
from queueber.limits import Limits
from queueber.units import WallMs


@define(eq=False)
class Expiry:
    """Ends leases and requeues their items, a slice at a time."""

    _queues: Queues
    _leases: LeaseTable
    _uncommitted: UncommittedPlans
    _polls: Polls
    _limits: Limits

    def pop_expired(self, now: WallMs) -> list[Lease]:
        """
        Leases whose deadline has passed, a slice of them: from here on their holders' calls are answered with false.

        The caller reads the rows of their `keys` and gives them to `requeue`,
        or the leases to `sweep_again` if that fails.  Empty when none is left.
        """
        ended: list[Lease] = []
        rows = size = 0
        while rows < self._limits.expiry_slice and size < self._limits.refill_bytes:
            lease = self._leases.pop_expired(now)
            if lease is None:
                break
            ended.append(lease)
            rows += len(lease.keys)
            # Of a lease from another life only the bound is known.
            size += self._limits.poll_bytes if lease.bytes is None else lease.bytes
        return ended

    def retry_sweep(self, lease: Lease, at: WallMs) -> None:
        """Let `pop_ended` give *lease* once more, at *at*: its rows could not be read."""
        self._leases.retry_sweep(lease, at)

    def requeue(
        self, lease: Lease, items: Sequence[Item | None], *, unreadable: AbstractSet[ItemId] = frozenset()
    ) -> Plan[int]:
        """
        Move the items of an ended lease to where they became due when it ended, with one more attempt to their name.

        *items* are the rows of its `keys`, in that order; one that does not
        exist any more is passed over.  Those in *unreadable*, not all of them, stay
        under the lease, which is then for `sweep_again`.  The plan's reply is how
        many moved.
        """
        queue = self._queues.by_number(lease.queue)
        writes: list[Write] = [DeleteLease(lease.id)]
        moved = size = 0
        for key, item in zip(list(lease.keys.values()), items, strict=True):
            if key.id in unreadable:
                continue
            queue.held.discard(key.id)
            self._leases.remove_item(lease, key.id)
            if item is None:
                queue.removed += 1
                continue
            # Strictly later than its old place, which the lease's record names: were it the same and the deletion of
            # the record lost, the item would count as leased again.
            due = max(lease.deadline, WallMs(key.due + 1))
            again = Item(Key(due, key.id), item.contents, item.added_at, item.attempts + 1)
            writes += (DeleteItem(lease.queue, key), PutItem(lease.queue, again))
            queue.put(again)
            moved += 1
            size += len(item.contents)
        if lease.keys:
            writes[0] = PutLease(lease.id, lease.record())
        else:
            self._leases.remove(lease)
        self._queues.enforce_budget(queue)
        self._polls.mark_runnable(queue)
        return self._uncommitted.plan(queue, writes, moved, size=size)

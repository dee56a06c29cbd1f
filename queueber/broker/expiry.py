"""The end of leases that were not used up: how their items become ready again."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

from attrs import define

from queueber.broker.deaths import NO_FACTS
from queueber.broker.leases import Lease, LeaseTable
from queueber.broker.model import Item, ItemId, Key
from queueber.broker.moves import Changes, Moves, backoff
from queueber.broker.plans import Plan
from queueber.broker.queue import Queue
from queueber.broker.queues import Queues
from queueber.broker.storage import DeleteLease, PutLease
from queueber.limits import Limits
from queueber.units import WallMs
from queueber.values import DeathReason


@define(eq=False)
class Expiry:
    """Ends leases: expired ones a slice at a time, and those of abandoned polls."""

    _queues: Queues
    _leases: LeaseTable
    _moves: Moves
    _below: Callable[[int], int]
    """Returns a random number below its argument."""

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
            # Of a lease that format 1 wrote only the limit is known.
            size += self._limits.poll_bytes if lease.size is None else lease.size
        return expired

    def retry_sweep(self, lease: Lease, at: WallMs) -> None:
        """Let `pop_expired` return *lease* once more, at *at*, because its rows could not be read."""
        self._leases.retry_sweep(lease, at)

    def requeue(
        self, lease: Lease, items: Sequence[Item | None], now: WallMs, *, unreadable: AbstractSet[ItemId] = frozenset()
    ) -> Plan[int]:
        """
        Move the items of an expired lease to keys that are due at its deadline, or later if its queue says so.

        An item whose last attempt this was dies.  *items* are its `rows`, in that order.  Items without a row
        are skipped.  The items in *unreadable*, which are not all of them, stay under the lease, and the caller passes
        it to `retry_sweep`.

        Returns:
            A plan whose reply is how many items moved.
        """
        queue = self._queues.by_number(lease.queue)
        changes = Changes(queue, [DeleteLease(lease.id)])
        moved = 0
        for leased, item in zip(list(lease.keys.values()), items, strict=True):
            if leased.id in unreadable:
                continue
            del queue.held[leased.id]
            self._leases.remove_item(lease, leased.id)
            if item is None:
                queue.count_removed(leased)
                continue
            self._lose(changes, lease, item, now)
            moved += 1
        if lease.keys:
            changes.writes[0] = PutLease(lease.id, lease.record())
        return self._moves.plan(changes, moved)

    def _lose(self, changes: Changes, lease: Lease, item: Item, now: WallMs) -> None:
        """Move *item*, whose lease has ended by itself."""
        queue, key = changes.queue, item.key
        settings = queue.settings
        counts = queue.owner is None and not lease.excused
        attempts = item.attempts + counts
        facts = item.facts or NO_FACTS
        if not facts.first_leased_at and lease.leased_at:
            facts = facts._replace(first_leased_at=lease.leased_at)
        lost = item._replace(attempts=attempts, facts=None if facts == NO_FACTS else facts)
        if counts and 0 < settings.max_attempts <= attempts:
            self._moves.die(changes, lease.queue, lost, DeathReason.LOST, now)
            return
        # Strictly later than the old key, which the lease's record names.  With the same key, and the deletion of
        # the record lost, the item would count as leased again.
        due = max(lease.deadline, WallMs(key.due + 1))
        if counts and settings.backoff_on_loss:
            due = WallMs(due + backoff(attempts, settings.backoff_base_ms, settings.backoff_cap_ms, self._below))
        self._moves.come_back(changes, lease.queue, lost, Key(due, key.id))

    def give_back(self, queue: Queue, lease: Lease) -> Plan[None]:
        """Put the items of a pending lease back at their keys.  This counts no attempt and loses no position."""
        self._leases.remove(lease)
        holder = self._queues.by_number(lease.queue)
        changes = Changes(holder, [DeleteLease(lease.id)])
        for item in lease.items:
            del holder.held[item.key.id]
            if lease.queue == queue.number:
                queue.put(item)
            else:
                # The number was retired meanwhile.
                self._moves.come_back(changes, lease.queue, item, item.key)
        return self._moves.plan(changes, None)

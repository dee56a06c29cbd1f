"""
The broker: every decision, no deed.

Time and fresh ids are arguments, the disk is somebody else's.  A method
decides at once against memory and gives back a `Plan`; the caller submits the
plans in the order in which they were made, tells when they are durable
(`committed`), and speaks their replies then.

Rules for editors.  Validate first, then change, then build the plan: between
the first change and the plan nothing may raise.  A plan that changes a queue
carries the queue's record as it is after that plan, because a commit may end
behind any plan and what is on disk must be true by itself.  The items that
one claim takes from a queue are one plan, so that the floor in its record
never passes an item that is not leased yet.
"""

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Final, Protocol

from attrs import asdict

from queueber.broker.claim import ClaimBounds
from queueber.broker.journal import Journal
from queueber.broker.leases import Lease, LeaseState, LeaseTable
from queueber.broker.model import Item, ItemId, Key, LeaseId
from queueber.broker.plan import Plan
from queueber.broker.polls import Delivery, Polls
from queueber.broker.port import DeleteItem, DeleteLease, PutItem, PutLease, Recovered, Scan, Write
from queueber.broker.queue import Queue, Refill
from queueber.broker.queues import Queues
from queueber.broker.survey import Stats, lease_line, queue_line
from queueber.broker.validation import validate_add, validate_lease_id, validate_lease_span
from queueber.broker.waiters import Peer, PollInput, PollState, Waiter
from queueber.errors import QueueberError
from queueber.limits import DEFAULTS, Limits
from queueber.units import SpanMs, WallMs, no_earlier_than

DEFAULT_QUEUE = "default"
DEFAULT_BOUNDS = ClaimBounds()

_new: Final = tuple.__new__
"""Makes a named tuple out of a plain one, in a third of the time that its class takes."""


class Ids(Protocol):
    """Where fresh ids come from."""

    def items(self, now: WallMs, count: int) -> list[ItemId]:
        """Ids of *count* items, each larger than all that this process was given before."""

    def lease(self) -> LeaseId:
        """A lease's id that nobody can guess."""


class Broker:
    """Queues, leases and waiting polls.  Not thread-safe: one thread decides."""

    def __init__(self, ids: Ids, *, limits: Limits = DEFAULTS, bounds: ClaimBounds = DEFAULT_BOUNDS) -> None:
        self._ids = ids
        self.limit_hits: Counter[str] = Counter()
        """How often a limit changed what a call got without failing it, by the limit's name."""
        self._limits = limits
        self._queues = Queues(limits)
        self._leases = LeaseTable()
        self._journal = Journal(self._queues)
        self.polls = Polls(
            queues=self._queues,
            leases=self._leases,
            fresh_lease_id=ids.lease,
            journal=self._journal,
            limits=limits,
            bounds=bounds,
            limit_hits=self.limit_hits,
        )
        """The waiting polls: to pause, to resume, to cancel and to distribute."""
        self.queues, self.leases = self._queues, self._leases
        """To be counted, walked through and looked up in, and to be changed by nobody else."""

        self.take_refills = self._journal.take_refills
        self.committed = self._journal.committed

    def restore(self, recovered: Recovered) -> list[Plan[None]]:
        """
        Begin where the store left off.

        Leases go on, those that ended meanwhile included, until they are swept.

        Returns:
            Plans that delete the records of leases none of whose items exist any more.
        """
        assert not self._queues, "a broker is restored before anything else"
        for record in recovered.queues:
            self._queues.restore(record)
        plans = []
        for found in recovered.leases:
            queue = self._queues.numbered(found.queue)
            keys = {key.id: key for key in found.keys}
            if not keys:
                plans.append(self._journal.plan(queue, [DeleteLease(found.id)], None))
                continue
            queue.held.update(keys)
            self._leases.restore(Lease(found.id, found.queue, found.deadline, keys, state=LeaseState.LIVE))
        return plans

    def queue(self, name: str) -> Queue:
        """
        The queue of that name.

        Raises:
            InvalidRequest: the name is not 1 to 255 bytes of UTF-8.
        """
        return self._queues.named(name)

    # Calls

    def add(self, queue: Queue, items: Sequence[tuple[bytes, SpanMs]], now: WallMs) -> Plan[list[ItemId]]:
        """
        Add an item for each pair of contents and delay; the reply is their ids in the same order.

        Raises:
            InvalidRequest: there are too many, one is too large or delayed for too long, or all are too large together.
            Overloaded: there are as many queues as there may be.
        """
        size = validate_add(self._limits, items)
        return self._take_in(queue, items, size, now) if items else self._journal.plan(queue, [], [])

    def add_each(self, queue: Queue, items: Sequence[tuple[bytes, SpanMs]], now: WallMs) -> Plan[list[ItemId]]:
        """
        What `add` does for each of *items*, of which there are some, as a call of its own: in one plan.

        Raises:
            InvalidRequest: one is too large or delayed for too long; nothing was changed.
            Overloaded: there are as many queues as there may be.
        """
        return self._take_in(queue, items, sum([validate_add(self._limits, (item,)) for item in items]), now)

    def _take_in(
        self, queue: Queue, items: Sequence[tuple[bytes, SpanMs]], size: int, now: WallMs
    ) -> Plan[list[ItemId]]:
        self._queues.refuse_if_full(queue)
        number = self._queues.make_durable(queue)
        ids = self._ids.items(now, len(items))
        added: list[Item] = []
        writes: list[Write] = []
        delayed = False
        for item_id, (contents, delay) in zip(ids, items, strict=True):
            due = now
            if delay:
                due = no_earlier_than(now, delay)
                delayed = True
            item = _new(Item, (_new(Key, (due, item_id)), contents, now, 0))
            added.append(item)
            writes.append(_new(PutItem, (number, item)))
        if delayed:
            for item in added:
                queue.put(item)
        else:
            queue.append(added, size)
        queue.added += len(ids)
        self._queues.grown(queue)
        self.polls.stir(queue)
        return self._journal.plan(queue, writes, ids, size=size)

    def remove(self, queue: Queue, item_id: ItemId, lease_id: LeaseId, now: WallMs) -> Plan[bool]:
        """
        Remove an item held under a live lease; the reply is whether it was.

        Raises:
            InvalidRequest: the lease is not 16 bytes.
        """
        writes: list[Write] = []
        removed = self._take_out(queue, item_id, self._find_live(queue, lease_id, now), writes)
        return self._journal.plan(queue, writes, removed)

    def remove_each(self, queue: Queue, pairs: Sequence[tuple[ItemId, LeaseId]], now: WallMs) -> Plan[list[bool]]:
        """
        What `remove` does for each item and lease of *pairs*, in this order and in one plan.

        Raises:
            InvalidRequest: a lease is not 16 bytes; nothing was changed.
        """
        for _, lease_id in pairs:
            validate_lease_id(lease_id)
        writes: list[Write] = []
        removed = [
            self._take_out(queue, item_id, self._leases.find_live(lease_id, queue.number, now), writes)
            for item_id, lease_id in pairs
        ]
        return self._journal.plan(queue, writes, removed)

    def _take_out(self, queue: Queue, item_id: ItemId, lease: Lease | None, writes: list[Write]) -> bool:
        """Remove an item held under *lease*; whether it was."""
        key = lease.keys.get(item_id) if lease is not None else None
        if lease is None or key is None:
            return False
        writes.append(DeleteItem(lease.queue, key))
        self._leases.remove_item(lease, item_id)
        if not lease.keys:
            self._leases.remove(lease)
            writes.append(DeleteLease(lease.id))
        queue.held.discard(item_id)
        queue.removed += 1
        return True

    def extend(self, queue: Queue, lease_id: LeaseId, span: SpanMs, now: WallMs) -> Plan[bool]:
        """
        Move the deadline of a live lease to *span* from now; the reply is whether it was.

        Raises:
            InvalidRequest: the lease is not 16 bytes, or the span is 0 or too long.
        """
        validate_lease_span(self._limits, span)
        lease = self._find_live(queue, lease_id, now)
        if lease is None:
            return self._journal.plan(queue, [], reply=False)
        self._leases.extend(lease, no_earlier_than(now, span))
        return self._journal.plan(queue, [PutLease(lease.id, lease.record())], reply=True, size=lease.record_bytes)

    def poll(
        self,
        queue: Queue,
        *,
        wanted: int,
        span: SpanMs,
        wait: SpanMs | None,
        peer: Peer,
        now: WallMs,
    ) -> Waiter:
        """
        Let a poll for *wanted* items wait in line for as long as *wait*: 0 for not at all, None for ever.

        It is served, or answered with nothing, by `polls.distribute`.  It
        must be told when its peer loses interest (`polls.cancel`).

        Raises:
            InvalidRequest: the lease's span is 0 or too long.
            Overloaded: too many polls wait, or too many items are leased.
        """
        validate_lease_span(self._limits, span)
        until = None if wait is None else WallMs(now + self._clamped("wait_ms", wait))
        waiter = Waiter(queue, max(1, self._clamped("poll_items", wanted)), span, until, peer)
        self.polls.park(waiter, passing=wait == 0)
        if wait == 0:
            self.polls.tick(now)
        return waiter

    def _clamped(self, name: str, value: int) -> int:
        limit: int = getattr(self._limits, name)
        if value > limit:
            self.limit_hits[name] += 1
        return min(value, limit)

    def _find_live(self, queue: Queue, lease_id: LeaseId, now: WallMs) -> Lease | None:
        validate_lease_id(lease_id)
        return self._leases.find_live(lease_id, queue.number, now)

    # What follows a commit

    def settle(self, delivery: Delivery) -> Plan[None] | None:
        """
        The claim behind *delivery* is durable: from now on it may be spoken, and its lease can end.

        Returns:
            None.  But if the poll is gone, the plan that gives its items back: nothing must be spoken then.
        """
        gone = delivery.waiter.state is PollState.GONE
        delivery.waiter.advance(PollInput.SETTLED)
        lease = delivery.lease
        if lease is None:
            return None
        if not gone:
            self._leases.speak(lease)
            return None
        return self._give_back(delivery.waiter.queue, lease)

    def _give_back(self, queue: Queue, lease: Lease) -> Plan[None]:
        """Put the items at the places they came from: no attempt is burnt, no place in line is lost."""
        self._leases.remove(lease)
        for item in lease.items:
            queue.held.discard(item.key.id)
            queue.put(item)
        self._queues.grown(queue)
        self.polls.stir(queue)
        return self._journal.plan(queue, [DeleteLease(lease.id)], None)

    # What the disk answers

    def refilled(self, refill: Refill, scan: Scan) -> None:
        """A scan has come back: its queue's window reaches further."""
        self._journal.finish_refill(refill, scan)
        self.polls.stir(refill.queue)

    def refill_failed(self, refill: Refill, error: QueueberError) -> list[Delivery]:
        """A scan has failed: its queue's waiting polls end with *error*, instead of with a lie about an empty queue."""
        self._journal.finish_refill(refill, None)
        return self.polls.fail(refill.queue, error)

    def fail_polls(self, error: QueueberError) -> list[Delivery]:
        """End every poll that waits with *error*."""
        return [delivery for queue in list(self._queues) for delivery in self.polls.fail(queue, error)]

    # Expiry

    def pop_ended(self, now: WallMs) -> list[Lease]:
        """
        Leases whose deadline has passed, a slice of them: from here on their holders' calls are answered with false.

        The caller reads the rows of their `keys` and gives them to `requeue`,
        or the leases to `sweep_again` if that fails.  Empty when none is left.
        """
        ended: list[Lease] = []
        rows = size = 0
        while rows < self._limits.expiry_slice and size < self._limits.refill_bytes:
            lease = self._leases.pop_ended(now)
            if lease is None:
                break
            ended.append(lease)
            rows += len(lease.keys)
            # Of a lease from another life only the bound is known.
            size += self._limits.poll_bytes if lease.bytes is None else lease.bytes
        return ended

    def sweep_again(self, lease: Lease, at: WallMs) -> None:
        """Let `pop_ended` give *lease* once more, at *at*: its rows could not be read."""
        self._leases.sweep_again(lease, at)

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
        queue = self._queues.numbered(lease.queue)
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
        self._queues.grown(queue)
        self.polls.stir(queue)
        return self._journal.plan(queue, writes, moved, size=size)

    # Self-knowledge

    def stats(self) -> Stats:
        """How much there is of everything, now."""
        return Stats(
            queues=len(self._queues),
            items=sum(queue.items for queue in self._queues),
            leases=len(self._leases),
            leased_items=self._leases.items,
            waiting_polls=self.polls.waiting,
            window_bytes=self._queues.window_bytes,
            undurable_plans=len(self._journal),
        )

    def dump(self) -> str:
        """The whole state for a person, a line for each thing."""
        sizes = " ".join(f"{name}={value}" for name, value in asdict(self.stats()).items())
        return "\n".join([sizes, *map(queue_line, self._queues), *map(lease_line, self._leases)])

    def check(self) -> None:
        """Raise AssertionError if the parts disagree.  O(n); for tests."""
        self._queues.check()
        self._leases.check()
        self.polls.check()
        held: dict[int | None, set[ItemId]] = {}
        for lease in self._leases:
            held.setdefault(lease.queue, set()).update(lease.keys)
        for queue in self._queues:
            assert queue.held == held.get(queue.number, set()), "an item is held by no lease, or leased and not held"
            assert queue.refill is not None or queue.number is None or len(queue.window) <= queue.items

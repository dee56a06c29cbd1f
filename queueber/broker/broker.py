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
from typing import Final, Protocol

from attrs import asdict

from queueber.broker.claim import ClaimBounds
from queueber.broker.expiry import Expiry
from queueber.broker.leases import Lease, LeaseState, LeaseTable
from queueber.broker.model import Item, ItemId, Key, LeaseId
from queueber.broker.plans import Plan, UncommittedPlans
from queueber.broker.polls import Delivery, Polls
from queueber.broker.queue import Queue, Refill
from queueber.broker.queues import Queues
from queueber.broker.stats import Stats, lease_line, queue_line
from queueber.broker.storage import DeleteItem, DeleteLease, PutItem, PutLease, Recovered, Scan, Write
from queueber.broker.validation import validate_add, validate_lease_duration, validate_lease_id
from queueber.broker.waiter import Peer, PollInput, PollState, Waiter
from queueber.errors import InvalidRequest, QueueberError
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
        self._uncommitted = UncommittedPlans(self._queues)
        self.polls = Polls(
            queues=self._queues,
            leases=self._leases,
            new_lease_id=ids.lease,
            uncommitted=self._uncommitted,
            limits=limits,
            bounds=bounds,
            limit_hits=self.limit_hits,
        )
        """The waiting polls: to pause, to resume, to cancel and to distribute."""
        self.queues, self.leases = self._queues, self._leases
        """To be counted, walked through and looked up in, and to be changed by nobody else."""

        expiry = Expiry(self._queues, self._leases, self._uncommitted, self.polls, limits)
        self.pop_expired, self.retry_sweep, self.requeue = expiry.pop_expired, expiry.retry_sweep, expiry.requeue
        self.take_refills = self._uncommitted.take_refills
        self.committed = self._uncommitted.committed

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
            queue = self._queues.by_number(found.queue)
            keys = {key.id: key for key in found.keys}
            if not keys:
                plans.append(self._uncommitted.plan(queue, [DeleteLease(found.id)], None))
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

    def add(
        self, queue: Queue, calls: Sequence[Sequence[tuple[bytes, SpanMs]]], now: WallMs
    ) -> Plan[list[list[ItemId] | QueueberError]]:
        """
        Add an item for each pair of contents and delay; all items of one call, or none.

        Returns:
            A plan whose reply has for each call the ids of its items, in the
            same order, or why it is refused: `InvalidRequest` (there are too
            many items, one is too large or delayed for too long, or all are too
            large together) or `Overloaded` (there are as many queues as there
            may be).
        """
        replies: list[list[ItemId] | QueueberError] = []
        items: list[tuple[bytes, SpanMs]] = []
        size = 0
        for call in calls:
            try:
                size += self._validate_add(queue, call)
            except QueueberError as why:
                replies.append(why)
            else:
                replies.append([])
                items += call
        if not items:
            return self._uncommitted.plan(queue, [], replies)
        ids = self._ids.items(now, len(items))
        at = 0
        for place, call in enumerate(calls):
            if isinstance(replies[place], list):
                replies[place] = ids[at : at + len(call)]
                at += len(call)
        return self._uncommitted.plan(queue, self._take_in(queue, items, ids, size, now), replies, size=size)

    def _validate_add(self, queue: Queue, items: Sequence[tuple[bytes, SpanMs]]) -> int:
        size = validate_add(self._limits, items)
        if items:
            self._queues.check_queue_limit(queue)
        return size

    def _take_in(
        self, queue: Queue, items: Sequence[tuple[bytes, SpanMs]], ids: Sequence[ItemId], size: int, now: WallMs
    ) -> list[Write]:
        """Put *items*, whose contents are *size* bytes together, into *queue*."""
        number = self._queues.assign_number(queue)
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
        self._queues.enforce_budget(queue)
        self.polls.mark_runnable(queue)
        return writes

    def remove(
        self, queue: Queue, pairs: Sequence[tuple[ItemId, LeaseId]], now: WallMs
    ) -> Plan[list[bool | QueueberError]]:
        """
        Remove items held under live leases, one after the other.

        Returns:
            A plan whose reply has for each pair of item and lease whether the
            item was removed, or `InvalidRequest`: the lease is not 16 bytes.
        """
        writes: list[Write] = []
        replies: list[bool | QueueberError] = []
        for item_id, lease_id in pairs:
            try:
                lease = self._find_live(queue, lease_id, now)
            except InvalidRequest as why:
                replies.append(why)
            else:
                replies.append(self._take_out(queue, item_id, lease, writes))
        return self._uncommitted.plan(queue, writes, replies)

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

    def extend(
        self, queue: Queue, requests: Sequence[tuple[LeaseId, SpanMs]], now: WallMs
    ) -> Plan[list[bool | QueueberError]]:
        """
        Move the deadlines of live leases, each to a span from now.

        Returns:
            A plan whose reply has for each pair of lease and span whether the
            lease was extended, or `InvalidRequest`: the lease is not 16 bytes,
            or the span is 0 or too long.
        """
        writes: dict[LeaseId, Write] = {}
        """A lease that is extended several times is written once: its record is as long as it has items."""
        replies: list[bool | QueueberError] = []
        size = 0
        for lease_id, lease_duration in requests:
            try:
                validate_lease_duration(self._limits, lease_duration)
                lease = self._find_live(queue, lease_id, now)
            except InvalidRequest as why:
                replies.append(why)
                continue
            replies.append(lease is not None)
            if lease is not None:
                self._leases.extend(lease, no_earlier_than(now, lease_duration))
                size += 0 if lease_id in writes else lease.record_bytes
                writes[lease_id] = PutLease(lease.id, lease.record())
        return self._uncommitted.plan(queue, list(writes.values()), replies, size=size)

    def poll(
        self,
        queue: Queue,
        *,
        wanted: int,
        lease_duration: SpanMs,
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
        validate_lease_duration(self._limits, lease_duration)
        wait_until = None if wait is None else WallMs(now + self._clamped("wait_ms", wait))
        waiter = Waiter(queue, max(1, self._clamped("poll_items", wanted)), lease_duration, wait_until, peer)
        self.polls.enqueue(waiter, no_wait=wait == 0)
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

    def confirm_delivery(self, delivery: Delivery) -> Plan[None] | None:
        """
        The claim behind *delivery* is durable: from now on it may be spoken, and its lease can end.

        Returns:
            None.  But if the poll is gone, the plan that gives its items back: nothing must be spoken then.
        """
        gone = delivery.waiter.state is PollState.ABANDONED
        delivery.waiter.advance(PollInput.CONFIRMED)
        lease = delivery.lease
        if lease is None:
            return None
        if not gone:
            self._leases.activate(lease)
            return None
        return self._give_back(delivery.waiter.queue, lease)

    def _give_back(self, queue: Queue, lease: Lease) -> Plan[None]:
        """Put the items at the places they came from: no attempt is burnt, no place in line is lost."""
        self._leases.remove(lease)
        for item in lease.items:
            queue.held.discard(item.key.id)
            queue.put(item)
        self._queues.enforce_budget(queue)
        self.polls.mark_runnable(queue)
        return self._uncommitted.plan(queue, [DeleteLease(lease.id)], None)

    # What the disk answers

    def refilled(self, refill: Refill, scan: Scan) -> None:
        """A scan has come back: its queue's window reaches further."""
        self._uncommitted.finish_refill(refill, scan)
        self.polls.mark_runnable(refill.queue)

    def refill_failed(self, refill: Refill, error: QueueberError) -> list[Delivery]:
        """A scan has failed: its queue's waiting polls end with *error*, instead of with a lie about an empty queue."""
        self._uncommitted.finish_refill(refill, None)
        return self.polls.fail(refill.queue, error)

    def fail_polls(self, error: QueueberError) -> list[Delivery]:
        """End every poll that waits with *error*."""
        return [delivery for queue in list(self._queues) for delivery in self.polls.fail(queue, error)]

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
            uncommitted_plans=len(self._uncommitted),
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

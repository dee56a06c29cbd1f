"""
An operator's decisions: about one item that was looked up, about a queue, about a lease.

Nothing here leases an item.  An item that is leased stays with its worker.
"""

from hashlib import blake2b
from typing import NamedTuple

from attrs import define

from queueber.broker.leases import Lease, LeaseState, LeaseTable
from queueber.broker.lifecycle import Lifecycle
from queueber.broker.model import Item, Key, LeaseId, QueueNumber
from queueber.broker.moves import Changes, Moves
from queueber.broker.plans import Plan, UncommittedPlans
from queueber.broker.polls import Polls
from queueber.broker.queue import Queue
from queueber.broker.queues import Queues
from queueber.broker.storage import Found, PutLease
from queueber.errors import InvalidRequest
from queueber.limits import Limits
from queueber.units import Unit, WallMs, quantity
from queueber.values import ControlOutcome, ItemState


class Located(NamedTuple):
    """An item, and where it is."""

    line: Queue
    """The item's queue, or the queue's dead items."""

    number: QueueNumber
    """The number under which its row is; that of a leased item may be retired."""

    item: Item
    lease: Lease | None
    """The lease that holds it."""

    state: ItemState


def handle_of(lease: LeaseId) -> bytes:
    """Return 16 bytes that stand for a lease and give no right to its items: it cannot be computed from them."""
    return blake2b(lease, digest_size=16, person=b"queueber lease").digest()


def leases_of(queue: Queue) -> list[Lease]:
    """Return the leases on items of *queue* and on its dead items, in any order.  O(leased items)."""
    return list(dict.fromkeys(lease for line in _lines(queue) for lease in line.held.values()))


@define(eq=False)
class Control:
    """Decides an operator's calls."""

    _queues: Queues
    _leases: LeaseTable
    _polls: Polls
    _uncommitted: UncommittedPlans
    _moves: Moves
    _lifecycle: Lifecycle
    _limits: Limits

    # Items

    def locate(self, queue: Queue, found: Found | None, now: WallMs) -> Located | None:
        """Return where the item is that was looked up in *queue*; None if it is not there."""
        if found is None:
            return None
        item = found.item
        for line in _lines(queue):
            lease = line.held.get(item.key.id)
            if lease is not None and lease.queue == found.queue:
                return Located(line, found.queue, item, lease, ItemState.LEASED)
            if found.queue == line.number:
                ready = ItemState.READY if item.key.due <= now else ItemState.DELAYED
                return Located(line, found.queue, item, None, ready if line is queue else ItemState.DEAD)
        return None

    def cancel(self, queue: Queue, found: Found | None, now: WallMs) -> Plan[ControlOutcome]:
        """Remove an item that is not leased."""
        located = self.locate(queue, found, now)
        outcome = _outcome(located)
        if located is None or outcome is not ControlOutcome.DONE:
            return self._uncommitted.plan(queue, [], outcome)
        changes = Changes(located.line)
        located.line.discard(located.item.key)
        self._moves.drop(changes, located.number, located.item)
        return self._moves.plan(changes, outcome)

    def kick(self, queue: Queue, found: Found | None, now: WallMs) -> Plan[ControlOutcome]:
        """Make a delayed item ready.  One that is ready stays where it is."""
        return self._move(queue, found, now, earlier_only=True, due=now)

    def reschedule(self, queue: Queue, found: Found | None, due: WallMs, now: WallMs) -> Plan[ControlOutcome]:
        """
        Move an item that is neither leased nor dead to *due*, or to now if that has passed.

        Raises:
            InvalidRequest: the moment is further away than an item may be delayed, or the item expires before it.
        """
        if due - now > self._limits.delay_ms:
            limit = quantity(self._limits.delay_ms, Unit.MS)
            raise InvalidRequest(f"dueMs is {due:,}, {due - now:,} ms from now; the limit is {limit} (delay_ms)")
        return self._move(queue, found, now, earlier_only=False, due=max(now, due))

    def _move(
        self, queue: Queue, found: Found | None, now: WallMs, *, earlier_only: bool, due: WallMs
    ) -> Plan[ControlOutcome]:
        located = self.locate(queue, found, now)
        outcome = _outcome(located)
        if located is None or outcome is not ControlOutcome.DONE:
            return self._uncommitted.plan(queue, [], outcome)
        item = located.item
        if located.state is ItemState.DEAD:
            # Dead items are in the order of their deaths.
            return self._uncommitted.plan(queue, [], ControlOutcome.NOT_FOUND)
        if item.key.due == due or (earlier_only and item.key.due < due):
            return self._uncommitted.plan(queue, [], outcome)
        expires_at = 0 if earlier_only or item.facts is None else item.facts.expires_at
        if 0 < expires_at <= due:
            # A kick is not refused: an item that has expired dies by it, and can be redriven then.
            raise InvalidRequest(
                f"dueMs is {due:,}, {due - now:,} ms from now; it must be earlier than the expiresAtMs of the item,"
                f" which is {expires_at:,}"
            )
        changes = Changes(queue)
        queue.discard(item.key)
        self._moves.come_back(changes, located.number, item, Key(due, item.key.id))
        return self._moves.plan(changes, outcome)

    def ahead(self, located: Located) -> int:
        """Return at most how many items are before a located one: exact if its queue's window reaches that far."""
        line, key = located.line, located.item.key
        if located.lease is not None:
            return 0
        if key <= line.window.covered_to:
            return line.window.count_below(key)
        return max(0, line.items - len(line.held) - 1)

    # Queues

    def purge(self, queue: Queue, *, dead: bool) -> Plan[int]:
        """Remove all items of *queue*, or its dead ones, that are not leased; return how many."""
        line = queue.dead if dead else queue
        return self._uncommitted.plan(queue, [], 0) if line is None else self._lifecycle.purge(line)

    def delete(self, queue: Queue, now: WallMs, *, force: bool) -> Plan[ControlOutcome]:
        """
        Delete *queue* with its settings and its dead items.

        Unless *force*, only if it has no items, dead ones included, and no waiting polls.  With *force* the leases on
        its items end, and polls wait on.
        """
        if not force and any(line.items or self._polls.waiters_of(line) for line in _lines(queue)):
            return self._uncommitted.plan(queue, [], ControlOutcome.NOT_EMPTY)
        if queue.number is None:
            return self._uncommitted.plan(queue, [], ControlOutcome.NOT_FOUND)
        return self._lifecycle.delete(queue, now).with_reply(ControlOutcome.DONE)

    # Leases

    def end_lease(self, queue: Queue, lease: Lease | None, now: WallMs) -> Plan[bool]:
        """End *lease* now, as if it had run out.  The reply is whether there was one on items of *queue* to end."""
        if lease is None or lease.state not in {LeaseState.PENDING, LeaseState.LIVE}:
            return self._uncommitted.plan(queue, [], reply=False)
        holder = self._queues.by_number(lease.queue)
        if holder not in _lines(queue):
            return self._uncommitted.plan(queue, [], reply=False)
        self._leases.end(lease, now)
        return self._uncommitted.plan(holder, [PutLease(lease.id, lease.record())], reply=True, size=lease.record_bytes)


def _lines(queue: Queue) -> list[Queue]:
    return [queue] if queue.dead is None else [queue, queue.dead]


def _outcome(located: Located | None) -> ControlOutcome:
    if located is None:
        return ControlOutcome.NOT_FOUND
    return ControlOutcome.DONE if located.lease is None else ControlOutcome.LEASED

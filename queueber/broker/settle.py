"""
Settles: the ends of leases that workers ask for, many at a time and in one plan.

Removes and extends are decided at once.  The other actions move items, whose
contents are not kept while they are leased: `rows_of` returns the rows to read,
and `settle` decides when they are there.  The row of a leased item never
changes, so by then only the leases are checked again.

`settle` judges all entries first, in order and each as if those before it were
done, and changes nothing until it is certain that the call is not refused.

Every item that leaves its lease in another way than by a remove is taken out of
the lease's row in the same plan.  So it may get any key again, its old one too:
a row that still named it would claim it once more after a crash.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from attrs import define

from queueber.broker.adds import Adding, Adds
from queueber.broker.deaths import NO_FACTS
from queueber.broker.leases import Lease, LeaseTable, extended_deadline
from queueber.broker.model import Item, ItemId, Key, Leased, LeaseId, QueueNumber
from queueber.broker.moves import Changes, Moves, backoff
from queueber.broker.plans import Plan, UncommittedPlans
from queueber.broker.queue import Queue
from queueber.broker.queues import Queues
from queueber.broker.storage import DeleteItem, DeleteLease, PutLease
from queueber.errors import InvalidRequest, QueueberError, too_large
from queueber.limits import Limits
from queueber.units import WallMs, no_earlier_than
from queueber.values import Action, DeathReason, Outcome, Settled, Settlement

_NEVER = WallMs(0)


class SettleReply(NamedTuple):
    """The outcome of a settle."""

    settled: Sequence[Settled]
    """One for each entry."""

    added: Sequence[Sequence[ItemId]] = ()
    """The ids of the items of each add; empty if the call was refused."""

    changed: bool = False
    """False if the call was refused because of an entry, or had nothing to change."""


@define(eq=False)
class _Judged:
    """An entry whose outcome is `DONE`."""

    place: int
    entry: Settlement
    lease: Lease
    queue: Queue
    items: Sequence[Leased] = ()
    """The items that leave the lease, none for `EXTEND`."""

    deadline: WallMs | None = None
    """The new end of the lease, for `EXTEND`."""


@define(eq=False)
class Settles:
    """Decides settles."""

    _queues: Queues
    _leases: LeaseTable
    _moves: Moves
    _uncommitted: UncommittedPlans
    _adds: Adds
    _below: Callable[[int], int]
    """Returns a random number below its argument."""

    _limits: Limits

    def rows_of(
        self, queue: Queue | None, entries: Sequence[Settlement], now: WallMs
    ) -> tuple[dict[QueueNumber, list[Key]], int]:
        """
        Return the rows that `settle` needs, of each queue number, and how many bytes it may write.

        Without any row it can decide at once.

        *queue* is the queue whose leases may be settled; None for all.

        Raises:
            InvalidRequest: an `EXTEND` has an item or no span, or too many items or bytes of contents would be moved.
        """
        needed: dict[QueueNumber, dict[Key, None]] = {}
        records: dict[LeaseId, int] = {}
        items = moved = 0
        for place, entry in enumerate(entries):
            _check(place, entry)
            lease = self._find(entry, queue, now)
            if lease is None:
                continue
            if entry.action is not Action.REMOVE:
                records[lease.id] = lease.record_bytes
            if entry.action is Action.EXTEND:
                continue
            leased = _items(lease, entry)
            items += len(leased)
            if entry.action is not Action.REMOVE:
                moved += sum(each.size for each in leased)
                keys = needed.setdefault(lease.queue, {})
                keys.update((Key(each.due, each.id), None) for each in leased)
        limits = self._limits
        if items > max(limits.items_per_add, limits.poll_items) and len(entries) > 1:
            limit = max(limits.items_per_add, limits.poll_items)
            raise too_large("items of all entries", value=items, limit=limit, unit="items")
        if moved > max(limits.add_bytes, limits.poll_bytes):
            limit = max(limits.add_bytes, limits.poll_bytes)
            raise too_large("contents of the items that are moved", value=moved, limit=limit, unit="bytes")
        size = moved + sum(records.values())
        return {number: list(keys) for number, keys in needed.items() if keys}, size

    def settle(
        self,
        queue: Queue | None,
        entries: Sequence[Settlement],
        adds: Sequence[Adding],
        rows: Mapping[ItemId, Item],
        now: WallMs,
        *,
        all_or_nothing: bool = False,
    ) -> Plan[SettleReply | QueueberError]:
        """
        Decide *entries*, which `rows_of` has accepted, in order, and add items.

        Args:
            queue: the queue whose leases may be settled; None for all.
            entries: the settlements, each of one item or of a whole lease.
            adds: queues, and the items to add to each; with any, the call is all or nothing.
            rows: the rows that `rows_of` named, as far as they could be read.
            now: queue time.
            all_or_nothing: whether an entry with another outcome than `DONE` refuses the call.

        Returns:
            A plan whose reply is the refusal of an add, or what was done.
        """
        outcomes, judged = self._judge(queue, entries, rows, now)
        settled = [Settled(outcome) for outcome in outcomes]
        if (adds or all_or_nothing) and len(judged) < len(entries):
            return Plan([], (), SettleReply(settled))
        if adds and (why := self._adds.why_not(adds, _freed(judged), now)) is not None:
            return Plan([], (), why)
        changes: dict[Queue, Changes] = {}
        for each in judged:
            of_queue = changes.setdefault(each.queue, Changes(each.queue))
            settled[each.place] = self._apply(each, rows, now, of_queue)
        plans: list[Plan[Any]] = []
        if changes:
            plans.append(self._moves.plan(_merged(changes, judged), None))
        added: list[Sequence[ItemId]] = []
        for target, items in adds:
            plan = self._adds.add(target, [items], now, checked=True)
            (ids,) = plan.reply
            assert not isinstance(ids, QueueberError), "`why_not` has refused it"
            plans.append(plan)
            added.append(ids)
        changed = any(plan.writes for plan in plans)
        return self._uncommitted.join(plans, SettleReply(settled, added, changed))

    def _judge(
        self, queue: Queue | None, entries: Sequence[Settlement], rows: Mapping[ItemId, Item], now: WallMs
    ) -> tuple[list[Outcome], list[_Judged]]:
        """Return the outcome of each entry, and the entries to carry out.  Changes nothing."""
        outcomes: list[Outcome] = []
        judged: list[_Judged] = []
        gone: dict[LeaseId, set[ItemId]] = {}
        """The items that earlier entries take from each lease."""
        for place, entry in enumerate(entries):
            lease = self._find(entry, queue, now)
            taken = gone.setdefault(LeaseId(entry.lease), set())
            if lease is None or len(taken) == len(lease.keys):
                outcomes.append(Outcome.LEASE_LOST)
                continue
            holder = self._queues.by_number(lease.queue)
            found = _Judged(place, entry, lease, holder)
            outcome = Outcome.DONE
            if entry.action is Action.EXTEND:
                assert entry.delay is not None, "`rows_of` has refused the others"
                found.deadline = extended_deadline(lease, entry.delay, holder.settings.max_lease_ms, now)
                if found.deadline is None:
                    outcome = Outcome.LEASE_LOST
            else:
                items = _items(lease, entry)
                found.items = [each for each in items if each.id not in taken and _may_move(entry.action, each, rows)]
                taken.update([each.id for each in found.items])
                if not found.items:
                    outcome = Outcome.NOT_FOUND
            outcomes.append(outcome)
            if outcome is Outcome.DONE:
                judged.append(found)
        return outcomes, judged

    def _find(self, entry: Settlement, queue: Queue | None, now: WallMs) -> Lease | None:
        """Return the live lease of *entry*, if it is on *queue*; None otherwise."""
        lease_id = LeaseId(entry.lease)
        return self._leases.live(lease_id, now) if queue is None else self._leases.find_live(lease_id, queue, now)

    def _apply(self, judged: _Judged, rows: Mapping[ItemId, Item], now: WallMs, changes: Changes) -> Settled:
        """Make the changes of one entry in memory."""
        entry, lease, queue = judged.entry, judged.lease, judged.queue
        queue.used_at = now
        if judged.deadline is not None:
            self._leases.leave_session(lease)
            self._leases.extend(lease, judged.deadline)
            return Settled(Outcome.DONE, due=lease.deadline)
        died = False
        dues: list[WallMs] = []
        for leased in judged.items:
            self._leases.remove_item(lease, leased.id)
            del queue.held[leased.id]
            if entry.action is Action.REMOVE:
                queue.count_removed(leased)
                changes.writes.append(DeleteItem(lease.queue, Key(leased.due, leased.id)))
                continue
            item = _after_lease(rows[leased.id], lease, entry, counts=queue.owner is None)
            reason = _why_dies(item, entry.action, queue)
            if reason is not None:
                self._moves.die(changes, lease.queue, item, reason, now)
                died = True
            else:
                due = self._due(item, entry, queue, now)
                self._moves.come_back(changes, lease.queue, item, Key(due, leased.id))
                dues.append(due)
        return Settled(Outcome.DONE, died, min(dues, default=_NEVER))

    def _due(self, item: Item, entry: Settlement, queue: Queue, now: WallMs) -> WallMs:
        """Return when *item*, which has left its lease and does not die, becomes due."""
        delay = entry.delay
        if delay is None:
            if entry.action is not Action.FAIL:
                return item.key.due
            settings, failures = (queue.owner or queue).settings, item.facts.failures if item.facts is not None else 0
            delay = backoff(max(1, failures), settings.backoff_base_ms, settings.backoff_cap_ms, self._below)
        return no_earlier_than(now, delay) if delay else now


def _freed(judged: Sequence[_Judged]) -> dict[Queue, list[int]]:
    """Return the sizes of the items that leave each queue for ever."""
    freed: dict[Queue, list[int]] = {}
    for each in judged:
        if each.entry.action is Action.REMOVE:
            freed.setdefault(each.queue, []).extend([leased.size for leased in each.items])
    return freed


def _merged(changes: Mapping[Queue, Changes], judged: Sequence[_Judged]) -> Changes:
    """Return the changes of all queues as one, with the rows of the leases that have changed."""
    first, *rest = changes.values()
    leases = {each.lease.id: each.lease for each in judged}
    # Removes leave a lease's row as it is: an entry without an item has been removed.
    rewritten = {each.lease.id for each in judged if each.entry.action is not Action.REMOVE}
    merged = Changes(first.queue, list(chain.from_iterable(each.writes for each in changes.values())))
    for lease in leases.values():
        if not lease.keys:
            merged.writes.append(DeleteLease(lease.id))
        elif lease.id in rewritten:
            merged.writes.append(PutLease(lease.id, lease.record()))
            merged.size += lease.record_bytes
    for each in changes.values():
        merged.size += each.size
        merged.others.update(each.others)
    merged.others.update(dict.fromkeys(each.queue for each in rest))
    return merged


def _check(place: int, entry: Settlement) -> None:
    """Raise `InvalidRequest` if *entry* can never be done."""
    if entry.action is Action.EXTEND:
        if entry.id:
            raise InvalidRequest(f"entries[{place}].id is not empty; extend moves the end of the whole lease")
        if not entry.delay:
            raise InvalidRequest(f"entries[{place}].delayMs is not given or 0; a lease must last longer (> 0)")


def _items(lease: Lease, entry: Settlement) -> list[Leased]:
    """Return the items of *lease* that *entry* names."""
    if not entry.id:
        return list(lease.keys.values())
    leased = lease.keys.get(ItemId(entry.id))
    return [] if leased is None else [leased]


def _may_move(action: Action, leased: Leased, rows: Mapping[ItemId, Item]) -> bool:
    """Return whether the row that *action* needs exists."""
    if action is Action.REMOVE:
        return True
    item = rows.get(leased.id)
    # A lease that was not live when the rows were read may hold the same item at another key.
    return item is not None and item.key.due == leased.due


def _after_lease(item: Item, lease: Lease, entry: Settlement, *, counts: bool) -> Item:
    """Return *item* with the facts that it has after its lease."""
    facts = item.facts or NO_FACTS
    if not facts.first_leased_at:
        facts = facts._replace(first_leased_at=lease.leased_at)
    attempts = item.attempts
    if entry.action is not Action.DEFER:
        if counts:
            attempts += 1
            facts = facts._replace(failures=facts.failures + 1)
        if counts or entry.error:
            # A dead item keeps the error that killed it unless there is another.
            facts = facts._replace(last_error=entry.error)
    return item._replace(attempts=attempts, facts=None if facts == NO_FACTS else facts)


def _why_dies(item: Item, action: Action, queue: Queue) -> DeathReason | None:
    """Return why *item*, whose attempt has just ended with *action*, dies; None if it does not."""
    if queue.owner is not None or action is Action.DEFER:
        # Dead items do not die again.
        return None
    if action is Action.REJECT:
        return DeathReason.REJECTED
    attempts_max = queue.settings.max_attempts
    return DeathReason.ATTEMPTS if 0 < attempts_max <= item.attempts else None

"""
Claims: who is served what, and the leases for it.

An empty reply states that no item was due.  So it is given only when the
window covers everything that is due now, and none of it is left.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import NamedTuple

from attrs import define

from queueber.broker.allocation import Budget, ClaimBounds, allocate_round_robin
from queueber.broker.expired import Expirations
from queueber.broker.leases import ENTRY_BYTES, Lease, LeaseTable
from queueber.broker.model import LOWEST, Item, ItemId, Leased, LeaseId, new_tuple
from queueber.broker.moves import Changes, Moves
from queueber.broker.plans import Plan, UncommittedPlans
from queueber.broker.polls import Polls
from queueber.broker.queue import Queue
from queueber.broker.queues import Queues
from queueber.broker.storage import PutLease, Write
from queueber.broker.waiter import PollInput, Waiter
from queueber.errors import QueueberError
from queueber.limits import Limits
from queueber.units import WallMs, no_earlier_than


class Delivery(NamedTuple):
    """The result of one poll."""

    waiter: Waiter
    items: Sequence[Item] = ()
    """In the order in which they became due; empty if the wait is over."""

    lease: Lease | None = None
    error: QueueberError | None = None
    """Why the poll fails."""


@define(eq=False)
class Claims:
    """Serves the waiting polls of runnable queues."""

    _queues: Queues
    _leases: LeaseTable
    _polls: Polls
    _uncommitted: UncommittedPlans
    _moves: Moves
    _expirations: Expirations
    _new_lease_id: Callable[[], LeaseId]
    _limits: Limits
    _bounds: ClaimBounds
    _limit_hits: Counter[str]

    def distribute(self, now: WallMs) -> list[Plan[list[Delivery]]]:
        """Serve the runnable queues in one claim.  Those beyond its bounds stay runnable."""
        if not self._polls.waiting:
            return []
        bounds, leases = self._bounds, self._leases
        budget = Budget(bounds.polls, bounds.items, bounds.bytes, leases.items_max - leases.items)
        plans: list[Plan[list[Delivery]]] = []
        served: list[Queue] = []
        runnable = self._polls.take_runnable()
        for queue in runnable:
            if (budget.used or budget.expiring) and budget.exhausted and not leases.full:
                # Looking at queues that this claim cannot serve would make every claim as long as the list of queues.
                break
            plan = self.serve(queue, now, budget)
            served.append(queue)
            if plan is not None:
                plans.append(plan)
            if self._polls.choosing:
                runnable += self._polls.take_moved()
        if len(runnable) > 1:
            self._polls.put_off(runnable[len(served) :], served)
        return plans

    def serve(  # noqa: C901  (the path of each poll, without a further call)
        self, queue: Queue, now: WallMs, budget: Budget | None = None
    ) -> Plan[list[Delivery]] | None:
        """Serve one queue.  Return the plan; None if no poll can be answered yet."""
        if queue.paused:
            return self._serve_paused(queue, now)
        window, bounds, leases = queue.window, self._bounds, self._leases
        budget = budget or Budget(bounds.polls, bounds.items, bounds.bytes, leases.items_max - leases.items)
        covered = window.covered_to.due > now  # as `covers` without a call
        if not covered and not self._window_suffices(queue, now):
            self._uncommitted.start_refill(queue)
            return None
        writes: list[Write] = []
        deliveries: list[Delivery] = []
        highest, size = LOWEST, 0
        waiters = self._polls.candidates(queue, min(budget.polls, budget.leases))
        if self._polls.choosing:
            waiters = self._polls.choose(queue, waiters, now)
        changes = unexpired = None
        if queue.may_expire and waiters:
            changes = Changes(queue, writes)
            unexpired = self._expirations.sift(queue, max(budget.items, waiters[0].wanted), now, changes, budget)
            highest = unexpired.past
        allocations = allocate_round_robin(
            unexpired or window,
            waiters,
            now=now,
            budget=budget,
            reply_bytes_max=self._limits.poll_bytes,
        )
        for waiter, items, contents_bytes in allocations:
            lease = self._lease(waiter, items, contents_bytes, now)
            writes.append(new_tuple(PutLease, (lease.id, lease.record())))
            deliveries.append(new_tuple(Delivery, (waiter, items, lease, None)))
            highest = max(highest, items[-1].key)
            size += ENTRY_BYTES * len(items)
        if unexpired is not None:
            window.put_back(unexpired.rest())
        if writes:
            queue.raise_floor(highest)
            queue.refilled = False
            self._queues.windows.touch(queue)
        if budget.full_replies:
            self._limit_hits["poll_bytes"] += budget.full_replies
            budget.full_replies = 0
        if queue.timed_out:
            deliveries += self._answer_timed_out(queue, now)
        # While no item can be leased, the rows of a scan may be more than the window can hold: they would be dropped,
        # and the next scan would return the same.
        # The same holds while nothing can be served because the peers of all polls are paused.
        looks_ahead = leases.items < leases.items_max and (allocations or queue.waiters)
        if looks_ahead and not covered and 2 * len(window) < self._limits.refill_items:
            self._uncommitted.start_refill(queue)
        if queue.waiters or queue.timed_out:
            self._polls.schedule(queue, now)
        if changes is not None and changes.others:
            changes.size += size
            return self._moves.plan(changes, deliveries)
        return self._uncommitted.plan(queue, writes, deliveries, size) if deliveries or writes else None

    def _serve_paused(self, queue: Queue, now: WallMs) -> Plan[list[Delivery]] | None:
        """Answer the polls of a paused queue whose wait is over."""
        waiters = [each for each in queue.timed_out if each.choice is None or self._polls.ends_empty(each, now)]
        deliveries = self._end(waiters, None)
        return self._uncommitted.plan(queue, [], deliveries) if deliveries else None

    def _window_suffices(self, queue: Queue, now: WallMs) -> bool:
        """Return whether a window that does not cover *now* has enough for this claim, or as much as it may hold."""
        window = queue.window
        if window.bytes >= self._limits.refill_bytes:
            return True
        if queue.refilled and window.head(now) is not None:
            # One scan for each claim: it delivers what the scan returned, however little, so that every claim delivers.
            return True
        demand = 1 if queue.timed_out else 0
        for waiter in queue.waiters:
            demand += waiter.wanted
            if demand > len(window):
                break
        return len(window) >= min(demand, self._bounds.items)

    def _lease(self, waiter: Waiter, items: list[Item], size: int, now: WallMs) -> Lease:
        queue = waiter.queue
        number = queue.number
        assert number is not None, "a queue with items has a number"
        keys: dict[ItemId, Leased] = {}
        for (due, item_id), contents, _, _, _ in items:
            keys[item_id] = new_tuple(Leased, (due, item_id, len(contents)))
        duration, longest = waiter.lease_duration, queue.settings.max_lease_ms
        deadline = no_earlier_than(now, longest if 0 < longest < duration else duration)
        lease = Lease(self._new_lease_id(), number, deadline, keys, now, size, items=items, peer=waiter.peer)
        if waiter.session is not None:
            if longest:
                lease.latest_end = no_earlier_than(now, longest)
            lease.session, lease.grace, lease.deadline = waiter.session.id, waiter.session.grace, lease.latest_end
        self._leases.insert(lease)
        queue.held.update(zip(keys, repeat(lease)))
        self._polls.remove(waiter)
        waiter.advance(PollInput.CLAIMED)
        return lease

    def _answer_timed_out(self, queue: Queue, now: WallMs) -> list[Delivery]:
        """End the polls of *queue* that have timed out, if it is certain that they receive no item."""
        error = None
        if not queue.surely_empty(now):
            error = self._leases.why_full()
            if error is None:
                # Another claim delivers the items, or a scan has to show whether there are any.
                return []
        waiters = list(queue.timed_out)
        if self._polls.choosing and error is None:
            waiters = [waiter for waiter in waiters if waiter.choice is None or self._polls.ends_empty(waiter, now)]
        return self._end(waiters, error)

    def fail(self, queue: Queue, error: QueueberError) -> list[Delivery]:
        """End all polls that wait for *queue* with *error*, because its items cannot be read."""
        return self._end(self._polls.waiters_of(queue), error)

    def fail_all(self, error: QueueberError) -> list[Delivery]:
        """End all waiting polls with *error*."""
        return self._end(self._polls.all_waiters(), error)

    def _end(self, waiters: list[Waiter], error: QueueberError | None) -> list[Delivery]:
        for waiter in waiters:
            self._polls.remove(waiter)
            waiter.advance(PollInput.CLAIMED)
        return [Delivery(waiter, error=error) for waiter in waiters]

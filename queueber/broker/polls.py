"""
The polls that wait, and the moment at which they are served.

A poll is never answered on the spot.  It joins its queue's line, and whatever
may have changed what a line can get *stirs* the queue: a put, a refill, items
coming back, the clock.  `distribute` serves the stirred queues, all in one
claim, so that every poll that arrived in one turn of the reactor shares one
commit without any artificial wait.

An empty answer says that nothing was due.  It may therefore be given only
when the window covers all that is due now and none of it is left.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from attrs import frozen

from queueber.broker.claim import Allocation, Budget, ClaimBounds, allocate_round_robin
from queueber.broker.deadlines import Deadlines
from queueber.broker.leases import Lease, LeaseTable
from queueber.broker.model import Item, LeaseId
from queueber.broker.plans import Plan, UncommittedPlans
from queueber.broker.queue import Queue
from queueber.broker.queues import Queues
from queueber.broker.storage import PutLease, Write
from queueber.broker.waiter import Peer, PollInput, PollState, Waiter
from queueber.errors import Overloaded, QueueberError
from queueber.limits import Limits
from queueber.units import WallMs, counted, no_earlier_than


@frozen(eq=False)
class Delivery:
    """How one poll ends."""

    waiter: Waiter
    items: Sequence[Item] = ()
    """In the order in which they became due; none when the wait ran out."""

    lease: Lease | None = None
    error: QueueberError | None = None
    """Why the poll fails instead."""


class Polls:
    """Every poll that has not been claimed for yet."""

    def __init__(
        self,
        *,
        queues: Queues,
        leases: LeaseTable,
        new_lease_id: Callable[[], LeaseId],
        uncommitted: UncommittedPlans,
        limits: Limits,
        bounds: ClaimBounds,
        limit_hits: Counter[str],
    ) -> None:
        self._queues = queues
        self._leases = leases
        self._new_lease_id = new_lease_id
        self._uncommitted = uncommitted
        self._limits = limits
        self._bounds = bounds
        self._limit_hits = limit_hits
        # A dict for its order: the queue stirred first is served first.
        self._runnable: dict[Queue, None] = {}
        self._wakes: Deadlines[Queue] = Deadlines()
        self._timeouts: Deadlines[Waiter] = Deadlines()
        # Queues with ready items and polls, for which there was no room among the leases.
        self._blocked_on_lease_limit: dict[Queue, None] = {}
        self._suspended: dict[Peer, list[Waiter]] = {}
        self._of_peer: dict[Peer, int] = {}
        self.waiting = 0
        """Polls in the state WAITING."""

    @property
    def has_runnable(self) -> bool:
        """Whether `distribute` may find something to do."""
        return bool(self._runnable or (self._blocked_on_lease_limit and not self._leases_full))

    @property
    def _leases_full(self) -> bool:
        return self._leases.items >= self._limits.leased_items

    def enqueue(self, waiter: Waiter, *, no_wait: bool = False) -> None:
        """
        Let *waiter* join its queue's line.  One without a deadline waits for ever; a *passing* one not at all.

        Raises:
            Overloaded: too many polls wait already, of this peer or of all, or too many items are leased.
        """
        if 2 * self.waiting >= self._limits.waiting_polls:
            self._check_waiting_limit(waiter.peer, no_wait=no_wait)
        if self._leases_full:
            raise self._too_many_leases()
        waiter.queue.waiters[waiter] = None
        self.waiting += 1
        self._of_peer[waiter.peer] = self._of_peer.get(waiter.peer, 0) + 1
        if waiter.wait_until is not None:
            self._timeouts.set(waiter, waiter.wait_until)
        self.mark_runnable(waiter.queue)

    def _check_waiting_limit(self, peer: Peer, *, no_wait: bool) -> None:
        """
        Half of all places have gone: a peer may have half as many as are left, so that those who come find one.

        A poll that passes by takes no place.  While the disk stands still even those wait, so they are bounded too.
        """
        limit = self._limits.waiting_polls
        if self.waiting >= (2 * limit if no_wait else limit):
            raise Overloaded(
                f"waiting polls: {counted(self.waiting, 'waits', 'wait')} already;"
                f" the limit is {limit:,} (waiting_polls)",
                limit="waiting_polls",
            )
        share = max(1, (limit - self.waiting) // 2)
        if not no_wait and (held := self._of_peer.get(peer, 0)) >= share:
            raise Overloaded(
                f"waiting polls: {self.waiting:,} of {limit:,} wait (waiting_polls), {held:,} of them of"
                f" this connection; with so few places left it may have {share:,}",
                limit="waiting_polls",
            )

    def _too_many_leases(self) -> Overloaded:
        return Overloaded(
            f"leased items: there are {self._leases.items:,}; the limit is {self._limits.leased_items:,}"
            " (leased_items)",
            limit="leased_items",
        )

    def cancel(self, waiter: Waiter) -> None:
        """Its peer lost interest: nothing will be claimed for it any more."""
        if waiter.state is PollState.WAITING:
            self._dequeue(waiter)
        waiter.advance(PollInput.CANCELLED)

    def _dequeue(self, waiter: Waiter) -> None:
        self.waiting -= 1
        left = self._of_peer.pop(waiter.peer) - 1
        if left:
            self._of_peer[waiter.peer] = left
        waiter.queue.waiters.pop(waiter, None)
        waiter.queue.timed_out.pop(waiter, None)
        self._timeouts.discard(waiter)
        if suspended := self._suspended.get(waiter.peer):
            suspended[:] = [other for other in suspended if other is not waiter]

    def pause(self, peer: Peer) -> None:
        """Serve none of the polls of *peer* until `resume`."""
        self._suspended.setdefault(peer, [])

    def resume(self, peer: Peer) -> None:
        """Put the polls of *peer* back in line, as those that have waited longest."""
        for waiter in reversed(self._suspended.pop(peer, [])):
            waiter.queue.waiters[waiter] = None
            waiter.queue.waiters.move_to_end(waiter, last=False)
            self.mark_runnable(waiter.queue)

    def mark_runnable(self, queue: Queue) -> None:
        """Something has changed for those who wait at *queue*."""
        if queue.waiters or queue.timed_out:
            self._runnable[queue] = None

    def tick(self, now: WallMs) -> None:
        """Stir the queues for which the time has come."""
        while (waiter := self._timeouts.pop_due(now)) is not None:
            waiter.queue.timed_out[waiter] = None
            self.mark_runnable(waiter.queue)
        while (queue := self._wakes.pop_due(now)) is not None:
            self.mark_runnable(queue)

    def next_tick(self) -> WallMs | None:
        """When `tick` will have something to do, if nothing else happens before; None for never."""
        ticks = [tick for tick in (self._timeouts.next(), self._wakes.next()) if tick is not None]
        return min(ticks, default=None)

    def distribute(self, now: WallMs) -> list[Plan[list[Delivery]]]:
        """Serve the stirred queues in one claim.  Those it did not come to stay stirred."""
        budget = self._budget()
        if not self._leases_full:
            self._runnable |= self._blocked_on_lease_limit
            self._blocked_on_lease_limit = {}
        runnable, self._runnable = list(self._runnable), {}
        plans = []
        served: dict[Queue, None] = {}
        for at, queue in enumerate(runnable):
            if budget.spent and budget.exhausted and not self._leases_full:
                # Looking at all that this claim cannot come to would make every claim as long as the line of queues.
                self._runnable = dict.fromkeys(runnable[at:]) | self._runnable
                break
            plan = self.serve(queue, now, budget)
            if plan is not None:
                plans.append(plan)
                if queue in self._runnable:
                    served[queue] = None
        # Behind those that this claim did not come to: a queue that is always busy must not keep it to itself.
        for queue in served:
            del self._runnable[queue]
        self._runnable |= served
        return plans

    def _budget(self) -> Budget:
        bounds = self._bounds
        return Budget(bounds.polls, bounds.items, bounds.bytes, room=self._limits.leased_items - self._leases.items)

    def serve(self, queue: Queue, now: WallMs, budget: Budget | None = None) -> Plan[list[Delivery]] | None:
        """Serve one queue: the plan that does it, or None when nobody can be answered yet."""
        budget = budget or self._budget()
        if not self._window_suffices(queue, now):
            self._uncommitted.start_refill(queue)
            return None
        writes: list[Write] = []
        deliveries: list[Delivery] = []
        allocations = allocate_round_robin(
            queue.window,
            self._take_waiters(queue),
            now=now,
            budget=budget,
            reply_bytes_max=self._limits.poll_bytes,
        )
        if budget.full_replies:
            self._limit_hits["poll_bytes"] += budget.full_replies
            budget.full_replies = 0
        for allocation in allocations:
            lease = self._lease(queue, allocation, now)
            deliveries.append(Delivery(allocation.waiter, allocation.items, lease))
            writes.append(PutLease(lease.id, lease.record()))
        if allocations:
            queue.refilled = False
            self._queues.touch(queue)
        deliveries += self._answer_timed_out(queue, now)
        self._schedule_next(queue, now)
        if not deliveries:
            return None
        size = sum(each.lease.record_bytes for each in deliveries if each.lease is not None)
        return self._uncommitted.plan(queue, writes, deliveries, size=size)

    def _window_suffices(self, queue: Queue, now: WallMs) -> bool:
        """Whether the window has all that is due, all this claim can hand out, or as much as is worth waiting for."""
        window = queue.window
        if window.covers(now) or window.bytes >= self._limits.refill_bytes:
            return True
        if queue.refilled and window.head(now) is not None:
            # One scan a claim: what it brought is handed out, however little, so that every round gets on.
            return True
        demand = 1 if queue.timed_out else 0
        for waiter in queue.waiters:
            demand += waiter.wanted
            if demand > len(window):
                break
        return len(window) >= min(demand, self._bounds.items)

    def _take_waiters(self, queue: Queue) -> Iterator[Waiter]:
        """Those in line, each leaving it as it is asked for; polls of paused peers are set aside on the way."""
        while queue.waiters:
            waiter, _ = queue.waiters.popitem(last=False)
            if (suspended := self._suspended.get(waiter.peer)) is not None:
                suspended.append(waiter)
            else:
                yield waiter

    def _lease(self, queue: Queue, allocation: Allocation, now: WallMs) -> Lease:
        waiter = allocation.waiter
        lease = Lease(
            self._new_lease_id(),
            queue.durable_number(),
            no_earlier_than(now, waiter.lease_duration),
            {key.id: key for key, _, _, _ in allocation.items},
            allocation.bytes,
            items=allocation.items,
        )
        self._leases.insert(lease)
        queue.hold(allocation.items)
        self._mark_claimed(waiter)
        return lease

    def _mark_claimed(self, waiter: Waiter) -> None:
        self._dequeue(waiter)
        waiter.advance(PollInput.CLAIMED)

    def _answer_timed_out(self, queue: Queue, now: WallMs) -> list[Delivery]:
        """End the polls that will not wait longer, if it is certain that there is nothing for them."""
        if not queue.timed_out:
            return []
        error = None
        if queue.window.head(now) is not None:
            if not self._leases_full:
                # There is something, and another claim will hand it out.
                return []
            error = self._too_many_leases()
        elif not queue.window.covers(now):
            return []
        timed_out = list(queue.timed_out)
        for waiter in timed_out:
            self._mark_claimed(waiter)
        return [Delivery(waiter, error=error) for waiter in timed_out]

    def _schedule_next(self, queue: Queue, now: WallMs) -> None:
        """See to it that the queue is served again when there is cause."""
        window = queue.window
        # While nobody can be served, what a scan brings may be more than the window can hold: it would be dropped, and
        # the next scan bring the same.
        if not window.covers(now) and 2 * len(window) < self._limits.refill_items and not self._leases_full:
            self._uncommitted.start_refill(queue)
        if not queue.waiters and not queue.timed_out:
            self._wakes.discard(queue)
        elif self._leases_full and (window.head(now) is not None or not window.covers(now)):
            self._blocked_on_lease_limit[queue] = None
        elif window.head(now) is not None:
            if queue.waiters:
                self.mark_runnable(queue)
        elif (due := window.next_due()) is not None and window.covers(now):
            self._wakes.set(queue, due)
        else:
            self._wakes.discard(queue)

    def fail(self, queue: Queue, error: QueueberError) -> list[Delivery]:
        """End all polls that wait at *queue* with *error*: its items cannot be read."""
        suspended = [waiter for waiters in self._suspended.values() for waiter in waiters if waiter.queue is queue]
        # One that has lapsed is still in line or set aside.
        waiters = [*suspended, *queue.waiters]
        for waiter in waiters:
            self._mark_claimed(waiter)
        return [Delivery(waiter, error=error) for waiter in waiters]

    def check(self) -> None:
        """Raise AssertionError if the parts disagree.  O(n); for tests."""
        self._wakes.check()
        self._timeouts.check()
        in_line = [waiter for queue in self._queues for waiter in queue.waiters]
        suspended = [waiter for waiters in self._suspended.values() for waiter in waiters]
        assert all(waiter.state is PollState.WAITING for waiter in [*in_line, *suspended])
        assert len({*in_line, *suspended}) == len(in_line) + len(suspended) == self.waiting
        assert self._of_peer == dict(Counter(waiter.peer for waiter in [*in_line, *suspended]))
        timed_out = {waiter for queue in self._queues for waiter in queue.timed_out}
        assert timed_out <= {*in_line, *suspended}

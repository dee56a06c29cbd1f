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

from queueber.broker.claim import Budget, ClaimBounds, Share, allocate_round_robin
from queueber.broker.deadlines import Deadlines
from queueber.broker.leases import Lease, LeaseTable
from queueber.broker.model import Item, LeaseId
from queueber.broker.plan import Plan
from queueber.broker.port import PutLease, Write
from queueber.broker.queue import Queue
from queueber.broker.queues import Queues
from queueber.broker.uncommitted_plans import UncommittedPlans
from queueber.broker.wait_queue import Peer, PollInput, PollState, Waiter
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
        fresh_lease_id: Callable[[], LeaseId],
        journal: UncommittedPlans,
        limits: Limits,
        bounds: ClaimBounds,
        limit_hits: Counter[str],
    ) -> None:
        self._queues = queues
        self._leases = leases
        self._fresh_lease_id = fresh_lease_id
        self._journal = journal
        self._limits = limits
        self._bounds = bounds
        self._limit_hits = limit_hits
        # A dict for its order: the queue stirred first is served first.
        self._stirred: dict[Queue, None] = {}
        self._wakes: Deadlines[Queue] = Deadlines()
        self._timeouts: Deadlines[Waiter] = Deadlines()
        # Queues with ready items and polls, for which there was no room among the leases.
        self._starved: dict[Queue, None] = {}
        self._aside: dict[Peer, list[Waiter]] = {}
        self._of_peer: dict[Peer, int] = {}
        self.waiting = 0
        """Polls in the state WAITING."""

    @property
    def stirred(self) -> bool:
        """Whether `distribute` may find something to do."""
        return bool(self._stirred or (self._starved and not self._leases_full))

    @property
    def _leases_full(self) -> bool:
        return self._leases.items >= self._limits.leased_items

    def park(self, waiter: Waiter, *, passing: bool = False) -> None:
        """
        Let *waiter* join its queue's line.  One without a deadline waits for ever; a *passing* one not at all.

        Raises:
            Overloaded: too many polls wait already, of this peer or of all, or too many items are leased.
        """
        if 2 * self.waiting >= self._limits.waiting_polls:
            self._refuse_crowds(waiter.peer, passing=passing)
        if self._leases_full:
            raise self._too_many_leases()
        waiter.queue.line.join(waiter)
        self.waiting += 1
        self._of_peer[waiter.peer] = self._of_peer.get(waiter.peer, 0) + 1
        if waiter.until is not None:
            self._timeouts.set(waiter, waiter.until)
        self.stir(waiter.queue)

    def _refuse_crowds(self, peer: Peer, *, passing: bool) -> None:
        """
        Half of all places have gone: a peer may have half as many as are left, so that those who come find one.

        A poll that passes by takes no place.  While the disk stands still even those wait, so they are bounded too.
        """
        limit = self._limits.waiting_polls
        if self.waiting >= (2 * limit if passing else limit):
            raise Overloaded(
                f"waiting polls: {counted(self.waiting, 'waits', 'wait')} already;"
                f" the limit is {limit:,} (waiting_polls)",
                limit="waiting_polls",
            )
        share = max(1, (limit - self.waiting) // 2)
        if not passing and (held := self._of_peer.get(peer, 0)) >= share:
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
            self._unpark(waiter)
        waiter.advance(PollInput.CANCELLED)

    def _unpark(self, waiter: Waiter) -> None:
        self.waiting -= 1
        left = self._of_peer.pop(waiter.peer) - 1
        if left:
            self._of_peer[waiter.peer] = left
        waiter.queue.line.leave(waiter)
        waiter.queue.line.lapsed.pop(waiter, None)
        self._timeouts.discard(waiter)
        if aside := self._aside.get(waiter.peer):
            aside[:] = [other for other in aside if other is not waiter]

    def pause(self, peer: Peer) -> None:
        """Serve none of the polls of *peer* until `resume`."""
        self._aside.setdefault(peer, [])

    def resume(self, peer: Peer) -> None:
        """Put the polls of *peer* back in line, as those that have waited longest."""
        for waiter in reversed(self._aside.pop(peer, [])):
            waiter.queue.line.rejoin(waiter)
            self.stir(waiter.queue)

    def stir(self, queue: Queue) -> None:
        """Something has changed for those who wait at *queue*."""
        if queue.line or queue.line.lapsed:
            self._stirred[queue] = None

    def tick(self, now: WallMs) -> None:
        """Stir the queues for which the time has come."""
        while (waiter := self._timeouts.pop_due(now)) is not None:
            waiter.queue.line.lapsed[waiter] = None
            self.stir(waiter.queue)
        while (queue := self._wakes.pop_due(now)) is not None:
            self.stir(queue)

    def next_tick(self) -> WallMs | None:
        """When `tick` will have something to do, if nothing else happens before; None for never."""
        ticks = [tick for tick in (self._timeouts.next(), self._wakes.next()) if tick is not None]
        return min(ticks, default=None)

    def distribute(self, now: WallMs) -> list[Plan[list[Delivery]]]:
        """Serve the stirred queues in one claim.  Those it did not come to stay stirred."""
        budget = self._budget()
        if not self._leases_full:
            self._stirred |= self._starved
            self._starved = {}
        stirred, self._stirred = list(self._stirred), {}
        plans = []
        served: dict[Queue, None] = {}
        for at, queue in enumerate(stirred):
            if budget.spent and budget.exhausted and not self._leases_full:
                # Looking at all that this claim cannot come to would make every claim as long as the line of queues.
                self._stirred = dict.fromkeys(stirred[at:]) | self._stirred
                break
            plan = self.serve(queue, now, budget)
            if plan is not None:
                plans.append(plan)
                if queue in self._stirred:
                    served[queue] = None
        # Behind those that this claim did not come to: a queue that is always busy must not keep it to itself.
        for queue in served:
            del self._stirred[queue]
        self._stirred |= served
        return plans

    def _budget(self) -> Budget:
        bounds = self._bounds
        return Budget(bounds.polls, bounds.items, bounds.bytes, room=self._limits.leased_items - self._leases.items)

    def serve(self, queue: Queue, now: WallMs, budget: Budget | None = None) -> Plan[list[Delivery]] | None:
        """Serve one queue: the plan that does it, or None when nobody can be answered yet."""
        budget = budget or self._budget()
        if not self._has_enough(queue, now):
            self._journal.start_refill(queue)
            return None
        writes: list[Write] = []
        deliveries: list[Delivery] = []
        shares = allocate_round_robin(
            queue.window,
            self._servable(queue),
            now=now,
            budget=budget,
            reply_bytes_max=self._limits.poll_bytes,
        )
        if budget.full_replies:
            self._limit_hits["poll_bytes"] += budget.full_replies
            budget.full_replies = 0
        for share in shares:
            lease = self._lease(queue, share, now)
            deliveries.append(Delivery(share.waiter, share.items, lease))
            writes.append(PutLease(lease.id, lease.record()))
        if shares:
            queue.refilled = False
            self._queues.claimed_from(queue)
        deliveries += self._answer_lapsed(queue, now)
        self._look_ahead(queue, now)
        if not deliveries:
            return None
        size = sum(each.lease.record_bytes for each in deliveries if each.lease is not None)
        return self._journal.plan(queue, writes, deliveries, size=size)

    def _has_enough(self, queue: Queue, now: WallMs) -> bool:
        """Whether the window has all that is due, all this claim can hand out, or as much as is worth waiting for."""
        window = queue.window
        if window.covers(now) or window.bytes >= self._limits.refill_bytes:
            return True
        if queue.refilled and window.head(now) is not None:
            # One scan a claim: what it brought is handed out, however little, so that every round gets on.
            return True
        demand = 1 if queue.line.lapsed else 0
        for waiter in queue.line:
            demand += waiter.wanted
            if demand > len(window):
                break
        return len(window) >= min(demand, self._bounds.items)

    def _servable(self, queue: Queue) -> Iterator[Waiter]:
        """Those in line, each leaving it as it is asked for; polls of paused peers are set aside on the way."""
        while (waiter := queue.line.first()) is not None:
            queue.line.leave(waiter)
            if (aside := self._aside.get(waiter.peer)) is not None:
                aside.append(waiter)
            else:
                yield waiter

    def _lease(self, queue: Queue, share: Share, now: WallMs) -> Lease:
        waiter = share.waiter
        lease = Lease(
            self._fresh_lease_id(),
            queue.durable_number(),
            no_earlier_than(now, waiter.span),
            {key.id: key for key, _, _, _ in share.items},
            share.bytes,
            items=share.items,
        )
        self._leases.insert(lease)
        queue.hold(share.items)
        self._claimed(waiter)
        return lease

    def _claimed(self, waiter: Waiter) -> None:
        self._unpark(waiter)
        waiter.advance(PollInput.CLAIMED)

    def _answer_lapsed(self, queue: Queue, now: WallMs) -> list[Delivery]:
        """End the polls that will not wait longer, if it is certain that there is nothing for them."""
        if not queue.line.lapsed:
            return []
        error = None
        if queue.window.head(now) is not None:
            if not self._leases_full:
                # There is something, and another claim will hand it out.
                return []
            error = self._too_many_leases()
        elif not queue.window.covers(now):
            return []
        lapsed = list(queue.line.lapsed)
        for waiter in lapsed:
            self._claimed(waiter)
        return [Delivery(waiter, error=error) for waiter in lapsed]

    def _look_ahead(self, queue: Queue, now: WallMs) -> None:
        """See to it that the queue is served again when there is cause."""
        window = queue.window
        # While nobody can be served, what a scan brings may be more than the window can hold: it would be dropped, and
        # the next scan bring the same.
        if not window.covers(now) and 2 * len(window) < self._limits.refill_items and not self._leases_full:
            self._journal.start_refill(queue)
        if not queue.line and not queue.line.lapsed:
            self._wakes.discard(queue)
        elif self._leases_full and (window.head(now) is not None or not window.covers(now)):
            self._starved[queue] = None
        elif window.head(now) is not None:
            if queue.line:
                self.stir(queue)
        elif (due := window.next_due()) is not None and window.covers(now):
            self._wakes.set(queue, due)
        else:
            self._wakes.discard(queue)

    def fail(self, queue: Queue, error: QueueberError) -> list[Delivery]:
        """End all polls that wait at *queue* with *error*: its items cannot be read."""
        aside = [waiter for waiters in self._aside.values() for waiter in waiters if waiter.queue is queue]
        # One that has lapsed is still in line or set aside.
        waiters = [*aside, *queue.line]
        for waiter in waiters:
            self._claimed(waiter)
        return [Delivery(waiter, error=error) for waiter in waiters]

    def check(self) -> None:
        """Raise AssertionError if the parts disagree.  O(n); for tests."""
        self._wakes.check()
        self._timeouts.check()
        in_line = [waiter for queue in self._queues for waiter in queue.line]
        aside = [waiter for waiters in self._aside.values() for waiter in waiters]
        assert all(waiter.state is PollState.WAITING for waiter in [*in_line, *aside])
        assert len({*in_line, *aside}) == len(in_line) + len(aside) == self.waiting
        assert self._of_peer == dict(Counter(waiter.peer for waiter in [*in_line, *aside]))
        lapsed = {waiter for queue in self._queues for waiter in queue.line.lapsed}
        assert lapsed <= {*in_line, *aside}

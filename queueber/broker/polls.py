"""
The waiting polls.

A poll is never answered at once.  It joins the waiters of its queue, and every
event that may give them items makes the queue *runnable*: a put, a refill,
items that come back, the clock.  The next claim serves all runnable queues, so
that all polls of one turn of the reactor share a commit without an artificial
delay.

A waiting poll is in these indexes:

- `Queue.waiters`, for the order of service, or instead in `_suspended` of its
  peer, so that no claim looks at polls that may not be served;
- `Queue.timed_out` once its wait is over, so that a claim finds the polls that
  it has to answer;
- `_timeouts`, if its wait ends, for the next time-out of all;
- `_of_peer`, a count, for the peer's share of the places.

Two indexes outside of the broker hold it until its reply is returned, so past
its claim: `Dispatcher._waiting`, by poll, for the call and the callback that
takes the delivery, and `RpcProtocol._waiters`, by the number of the call, for
the Finish or the end of a connection that cancels it.

A poll of several queues is one waiter in the indexes of each of them.  When a
claim reaches it in one queue, it chooses among all that have an item.  If it
chooses another one it is moved to the head of that queue's waiters, and served
there.  It leaves all of them when it is claimed, and ends with no items only if
it is certain that none of them has any.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from weakref import WeakKeyDictionary

from attrs import define, field

from queueber.broker.deadlines import Deadlines
from queueber.broker.leases import LeaseTable
from queueber.broker.queue import Queue
from queueber.broker.queues import Queues
from queueber.broker.waiter import Peer, PollInput, PollState, QueueChoice, Waiter
from queueber.errors import Overloaded
from queueber.limits import Limits
from queueber.units import WallMs, counted


@define(eq=False)
class Polls:
    """All polls that have not been claimed for yet, and the queues that the next claim serves."""

    _queues: Queues
    _leases: LeaseTable
    _limits: Limits
    _runnable: dict[Queue, None] = field(factory=dict, init=False)
    """An ordered set: the queue that became runnable first is served first."""

    _blocked_on_lease_limit: dict[Queue, None] = field(factory=dict, init=False)
    """Queues that will be runnable once further items can be leased."""

    _wakes: Deadlines[Queue] = field(factory=Deadlines, init=False)
    """When the head of a queue becomes due.  A wake of a queue without waiting polls does nothing."""

    _timeouts: Deadlines[Waiter] = field(factory=Deadlines, init=False)
    _suspended: dict[Peer, dict[Waiter, None]] = field(factory=dict, init=False)
    """The paused peers, each with those of its polls that claims have met since."""

    _of_peer: dict[Peer, int] = field(factory=dict, init=False)
    waiting: int = field(default=0, init=False)
    """
    The number of waiting polls, of several queues counted once for each.

    Without any there is nothing to serve and no next tick.
    """

    choosing: int = field(default=0, init=False)
    """The number of waiting polls of several queues."""

    _moved: dict[Queue, None] = field(factory=dict, init=False)
    """Queues that the claim under way serves as well, because polls of several queues choose or wait for them."""

    _turns: WeakKeyDictionary[Queue, int] = field(factory=WeakKeyDictionary, init=False)
    """For polls that choose by weight: what each queue has gained by its weight and has not been chosen for."""

    def enqueue(self, waiter: Waiter, *, no_wait: bool = False) -> None:
        """
        Add *waiter* to its queue.  With *no_wait* its wait is over at once.

        Raises:
            Overloaded: too many polls wait already, of this peer or of all, or too many items are leased.
        """
        if 2 * self.waiting >= self._limits.waiting_polls:
            self._check_waiting_limit(waiter.peer, no_wait=no_wait)
        if (why := self._leases.why_full()) is not None:
            raise why
        queue, peer = waiter.queue, waiter.peer
        queue.waiters[waiter] = None
        self._runnable[queue] = None
        self.waiting += 1
        self._of_peer[peer] = self._of_peer.get(peer, 0) + 1
        if no_wait:
            queue.timed_out[waiter] = None
        elif waiter.wait_until is not None:
            self._timeouts.set(waiter, waiter.wait_until)
        if waiter.choice is not None:
            self._enqueue_elsewhere(waiter, waiter.choice, no_wait=no_wait)

    def _enqueue_elsewhere(self, waiter: Waiter, choice: QueueChoice, *, no_wait: bool) -> None:
        """Add *waiter*, which is in one of its queues, to the others."""
        self.choosing += 1
        self.waiting += len(choice.queues) - 1
        self._of_peer[waiter.peer] += len(choice.queues) - 1
        for queue in choice.queues:
            queue.waiters[waiter] = None
            if no_wait:
                queue.timed_out[waiter] = None
            self._runnable[queue] = None

    def _check_waiting_limit(self, peer: Peer, *, no_wait: bool) -> None:
        """
        Refuse a poll if all places are taken, or if *peer* already holds half of the free ones.

        Called once half of the places are taken.

        So new peers find a place.  A poll that does not wait takes no place, but while the disk stalls even those
        wait, so twice the limit bounds them.
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

    def cancel(self, waiter: Waiter) -> None:
        """Claim nothing more for *waiter*: its peer does not want the reply any more."""
        if waiter.state is PollState.WAITING:
            self.remove(waiter)
        waiter.advance(PollInput.CANCELLED)

    def remove(self, waiter: Waiter) -> None:
        """Remove *waiter*, which is claimed or cancelled, from all indexes."""
        queue, peer = waiter.queue, waiter.peer
        queue.waiters.pop(waiter, None)
        if queue.timed_out:
            queue.timed_out.pop(waiter, None)
        if waiter.wait_until is not None:
            self._timeouts.discard(waiter)
        if self._suspended and (suspended := self._suspended.get(peer)):
            suspended.pop(waiter, None)
        places = 1 if waiter.choice is None else self._leave_all(waiter, waiter.choice)
        left = self._of_peer.pop(peer) - places
        if left:
            self._of_peer[peer] = left
        self.waiting -= places
        if not self.waiting:
            # Callers skip the claim while no poll waits, so nothing may be left here that keeps a queue in memory.
            self._runnable.clear()
            self._moved.clear()
            self._blocked_on_lease_limit.clear()

    def _leave_all(self, waiter: Waiter, choice: QueueChoice) -> int:
        """Remove *waiter* from all its queues; return how many there are."""
        self.choosing -= 1
        for queue in choice.queues:
            queue.waiters.pop(waiter, None)
            queue.timed_out.pop(waiter, None)
        return len(choice.queues)

    def choose(self, queue: Queue, waiters: Sequence[Waiter], now: WallMs) -> list[Waiter]:
        """
        Return those of *waiters*, which a claim has reached in *queue*, that choose this queue.

        The others are moved to the heads of the queues that they choose, and served there.
        """
        choices = [queue if waiter.choice is None else self._choice_of(waiter.choice, now) for waiter in waiters]
        for waiter, chosen in zip(reversed(waiters), reversed(choices), strict=True):
            if chosen is queue:
                waiter.queue = queue
            elif chosen is not None:
                chosen.waiters.move_to_end(waiter, last=False)
                self._moved[chosen] = None
        return [waiter for waiter, chosen in zip(waiters, choices, strict=True) if chosen is queue]

    def take_moved(self) -> list[Queue]:
        """Return the queues to which polls have moved since the last call."""
        moved, self._moved = self._moved, {}
        return list(moved)

    def _choice_of(self, choice: QueueChoice, now: WallMs) -> Queue | None:
        """Return the queue that a poll chooses; None if it has to wait."""
        if choice.weights:
            return self._turn_of(choice, now)
        for queue in choice.queues:
            if queue.has_ready(now):
                return queue
            if not queue.surely_empty(now):
                if queue.refill is None:
                    # A scan shows whether this one has an item.
                    self._moved[queue] = None
                return None
        return None

    def _turn_of(self, choice: QueueChoice, now: WallMs) -> Queue | None:
        """
        Return the queue whose turn it is among those of *choice* that have an item.

        Each gains its weight, and the chosen one loses as much as all of them gain.  So each is chosen in proportion to
        its weight, as evenly as possible, and one without items gains nothing.
        """
        if choice.chosen is not None and choice.chosen.has_ready(now):
            return choice.chosen
        turns = self._turns
        if choice.chosen is not None:
            # Others took the items first.
            for queue, weight in choice.passed_over:
                turns[queue] -= weight
                turns[choice.chosen] += weight
        ready = [
            (queue, weight) for queue, weight in zip(choice.queues, choice.weights, strict=True) if queue.has_ready(now)
        ]
        if not ready:
            choice.chosen = None
            return None
        chosen = max(ready, key=lambda each: turns.get(each[0], 0) + each[1])[0]
        choice.chosen, choice.passed_over = chosen, [each for each in ready if each[0] is not chosen]
        turns.setdefault(chosen, 0)
        for queue, weight in choice.passed_over:
            turns[queue] = turns.get(queue, 0) + weight
            turns[chosen] -= weight
        return chosen

    def ends_empty(self, waiter: Waiter, now: WallMs) -> bool:
        """Return whether it is certain that none of the queues of *waiter* has an item."""
        return all(queue.surely_empty(now) for queue in waiter.queues)

    def pause(self, peer: Peer) -> None:
        """Serve no polls of *peer* until `resume`."""
        self._suspended.setdefault(peer, {})

    def resume(self, peer: Peer) -> None:
        """Serve the polls of *peer* again, before those that arrived later."""
        for waiter in reversed(self._suspended.pop(peer, {})):
            for queue in waiter.queues:
                queue.waiters[waiter] = None
                queue.waiters.move_to_end(waiter, last=False)
                self._runnable[queue] = None

    def mark_runnable(self, queue: Queue) -> None:
        """Let the next claim serve *queue*, if polls wait for it."""
        if queue.waiters or queue.timed_out:
            self._runnable[queue] = None

    @property
    def has_runnable(self) -> bool:
        """Whether a claim may find a poll to serve."""
        return bool(self._runnable or self._moved or (self._blocked_on_lease_limit and not self._leases.full))

    def take_runnable(self) -> list[Queue]:
        """Return the queues that a claim has to serve, in order, and make them not runnable."""
        runnable = self._runnable
        if self._blocked_on_lease_limit and not self._leases.full:
            runnable |= self._blocked_on_lease_limit
            self._blocked_on_lease_limit = {}
        if self._moved:
            runnable = self._moved | runnable
            self._moved = {}
        self._runnable = {}
        return list(runnable)

    def put_off(self, unserved: list[Queue], served: list[Queue]) -> None:
        """
        Order the queues for the next claim: the *unserved* ones of this one first, the *served* ones last.

        So a queue that is always busy does not starve the others.
        """
        if not self.waiting:
            return
        # A queue to which polls of several have moved may be served twice.
        again = [queue for queue in dict.fromkeys(served) if queue in self._runnable]
        for queue in again:
            del self._runnable[queue]
        self._runnable = dict.fromkeys([*unserved, *self._runnable, *again])

    def candidates(self, queue: Queue, most: int) -> list[Waiter]:
        """Return the first *most* waiters that may be served.  The polls of paused peers among them are suspended."""
        if not self._suspended:
            return list(islice(queue.waiters, max(0, most)))
        candidates: list[Waiter] = []
        suspended: list[Waiter] = []
        for waiter in queue.waiters:
            if len(candidates) >= most:
                break
            (suspended if waiter.peer in self._suspended else candidates).append(waiter)
        for waiter in suspended:
            del queue.waiters[waiter]
            self._suspended[waiter.peer][waiter] = None
        return candidates

    def schedule(self, queue: Queue, now: WallMs) -> None:
        """Schedule the next time that *queue* is served: polls still wait for it."""
        window = queue.window
        covered, ready = window.covers(now), window.head(now) is not None
        if (ready or not covered) and self._leases.full:
            self._blocked_on_lease_limit[queue] = None
        elif ready:
            if queue.waiters:
                self._runnable[queue] = None
        elif covered and (due := queue.servable_at()) is not None:
            self._wakes.set(queue, due)
        else:
            self._wakes.discard(queue)

    def waiters_of(self, queue: Queue) -> list[Waiter]:
        """Return all polls that wait for *queue*, those of paused peers included."""
        suspended = [waiter for waiters in self._suspended.values() for waiter in waiters if queue in waiter.queues]
        return list(dict.fromkeys([*suspended, *queue.waiters]))

    def all_waiters(self) -> list[Waiter]:
        """Return all waiting polls, those of paused peers included."""
        suspended = [waiter for waiters in self._suspended.values() for waiter in waiters]
        return list(dict.fromkeys(suspended + [waiter for queue in self._queues.lines() for waiter in queue.waiters]))

    def tick(self, now: WallMs) -> None:
        """Make the queues runnable whose head has become due or whose polls have timed out."""
        if not self.waiting:
            return
        timeouts, wakes = self._timeouts, self._wakes
        while timeouts.heap and timeouts.heap[0][0] <= now and (waiter := timeouts.pop_due(now)) is not None:
            for queue in waiter.queues:
                queue.timed_out[waiter] = None
                self._runnable[queue] = None
        while wakes.heap and wakes.heap[0][0] <= now and (woken := wakes.pop_due(now)) is not None:
            self.mark_runnable(woken)

    def next_tick(self) -> WallMs | None:
        """Return when `tick` will have something to do if nothing else happens before; None for never."""
        if not self.waiting:
            return None
        timeout, wake = self._timeouts.next(), self._wakes.next()
        if timeout is None or wake is None:
            return wake if timeout is None else timeout
        return min(timeout, wake)

    def check(self) -> None:
        """Raise AssertionError if the indexes disagree.  O(n); for tests."""
        self._wakes.check()
        self._timeouts.check()
        waiters = self.all_waiters()
        assert all(waiter.state is PollState.WAITING for waiter in waiters)
        places = [waiter for waiter in waiters for _ in waiter.queues]
        assert len(places) == self.waiting
        assert self.choosing == sum(waiter.choice is not None for waiter in waiters)
        assert self._of_peer == dict(Counter(waiter.peer for waiter in places))
        assert {waiter for queue in self._queues.lines() for waiter in queue.timed_out} <= set(waiters)
        assert self.waiting or not (self._runnable or self._blocked_on_lease_limit or len(self._timeouts))

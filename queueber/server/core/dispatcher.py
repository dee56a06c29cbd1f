"""
Serves waiting polls as soon as there are items for them.

A round is one claim over all queues that have something for a waiting poll.
The next round does not begin before every delivery of this one is durable
and was returned: while the disk is slow, nothing more is claimed.  A round does
not wait until peers have taken their replies.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from attrs import define, field
from twisted.logger import Logger
from twisted.python.failure import Failure

from queueber.broker import Broker, Delivery, Peer, Queue, Refill, Scan, Store, Waiter
from queueber.errors import QueueberError
from queueber.limits import Limits
from queueber.rpc import AnswerId
from queueber.server.core.clock import QueueClock
from queueber.server.core.committer import Committer
from queueber.server.core.pool import Pool
from queueber.server.core.read_failures import ReadFailures, is_damage, unreadable
from queueber.units import MS_PER_SECOND, WallMs

TIMER_SECONDS_MAX = 86_400.0
"""The longest timer: longer spans overflow the argument of select(), and waking up early does no harm."""


EndedPoll: TypeAlias = tuple[AnswerId, float, Delivery | None]
"""A poll, when it arrived, in the reactor's seconds, and its delivery; None if it was cancelled."""

TakePolls: TypeAlias = Callable[[list[EndedPoll]], None]
"""Returns the replies of polls of one connection."""


@define(eq=False)
class Dispatcher:
    """
    Serves waiting polls.

    It registers `serve` with the committer, which calls it at each of its cuts.  When a poll's wait or an item's delay
    ends, a timer wakes the committer.
    """

    _reactor: Any
    _broker: Broker
    _store: Store
    _pool: Pool
    _clock: QueueClock
    _limits: Limits
    _committer: Committer
    _waiting: dict[Waiter, tuple[AnswerId, TakePolls, float]] = field(factory=dict, init=False)
    """The polls without an answer, in order of arrival: the call and the callback of each, and when it arrived."""

    unreadable: int = field(default=0, init=False)
    """Scans that had to pass over rows, since the start."""

    _claims: int = field(default=0, init=False)
    """Plans of the round under way whose deliveries were not returned yet."""

    _timer: Any = field(default=None, init=False)
    _timer_at: WallMs | None = field(default=None, init=False)
    """When the timer fires, in queue time; None if it is not set."""

    _failures: ReadFailures = field(init=False)
    log = Logger()

    def __attrs_post_init__(self) -> None:
        """Bound the log, and join the committer's cuts."""
        self._failures = ReadFailures(self.log, self._reactor.seconds)
        self._committer.call_at_cuts(self.serve)

    def wait(self, waiter: Waiter, answer: AnswerId, now: float, take: TakePolls) -> None:
        """
        Serve *waiter*, the call *answer*, which arrived at *now*, in the reactor's seconds.

        *take* is called once for the poll: with its delivery when it is durable, or with None if the poll was
        cancelled.  The polls of one peer have equal callbacks.  One call takes all polls
        whose deliveries become durable together.
        """
        self._waiting[waiter] = answer, take, now
        self._committer.wake()

    def unanswered(self) -> Iterator[tuple[Waiter, float]]:
        """
        Return the polls without an answer, in order of arrival, and when each arrived, in the reactor's seconds.

        None may come or go during the iteration.
        """
        return ((waiter, arrived_at) for waiter, (_, _, arrived_at) in self._waiting.items())

    def cancel(self, waiter: Waiter) -> None:
        """Forget a poll whose peer lost interest; items claimed for it are given back once the claim is durable."""
        self._broker.polls.cancel(waiter)
        if waiter.done and waiter in self._waiting:
            answer, take, arrived_at = self._waiting.pop(waiter)
            take([(answer, arrived_at, None)])

    def end_waiting(self, error: QueueberError) -> None:
        """Answer every waiting poll with *error*."""
        self._deliver(self._broker.fail_polls(error))

    def serve(self) -> None:
        """Begin a round unless one is under way.  Called at each cut while polls wait."""
        polls, now = self._broker.polls, self._clock.now()
        polls.tick(now)
        if not self._claims and polls.has_runnable:
            plans = self._broker.claims.distribute(now)
            self._claims = len(plans)
            for plan in plans:
                self._committer.submit(plan, self._deliver_round, calls=len(plan.reply))
            if refills := self._broker.take_refills():
                self._start_scans(refills)
        if polls.waiting:
            self._set_timer(now)

    def serve_no_wait(self, queue: Queue) -> None:
        """
        Serve the polls at *queue* that do not wait or wait no longer, if the window has all they need.

        A later call of their connection must not change their result.
        """
        if queue.timed_out:
            plan = self._broker.claims.serve(queue, self._clock.now())
            if plan is not None:
                self._committer.submit(plan, self._deliver, calls=len(plan.reply))
            self._start_scans(self._broker.take_refills())

    def _deliver_round(self, deliveries: list[Delivery]) -> None:
        self._deliver(deliveries)
        self._claims -= 1
        polls = self._broker.polls
        if not self._claims and polls.waiting and polls.has_runnable:
            self._committer.wake()

    def _deliver(self, deliveries: list[Delivery]) -> None:
        ended: dict[Peer, tuple[TakePolls, list[EndedPoll]]] = {}
        for delivery in deliveries:
            waiter = delivery.waiter
            give_back = self._broker.confirm_delivery(delivery)
            answer, take, arrived_at = self._waiting.pop(waiter)
            if give_back is not None:
                self._committer.submit(give_back, _ignore)
            _, polls = ended.setdefault(waiter.peer, (take, []))
            polls.append((answer, arrived_at, delivery if give_back is None else None))
        for take, polls in ended.values():
            take(polls)

    def start_scans(self) -> None:
        """Start the scans that were requested outside of a round."""
        self._start_scans(self._broker.take_refills())

    def _start_scans(self, refills: Iterable[Refill]) -> None:
        for refill in refills:
            scan = self._pool.run(
                self._store.scan,
                refill.number,
                refill.after,
                items_max=self._limits.refill_items,
                bytes_max=self._limits.refill_bytes,
            )
            scan.addCallbacks(self._refilled, self._refill_failed, callbackArgs=(refill,), errbackArgs=(refill,))
            scan.addErrback(self._committer.bug)

    def _refilled(self, scan: Scan, refill: Refill) -> None:
        for gap in scan.gaps:
            self.unreadable += 1
            self.log.error(
                "Items of queue {queue!r} cannot be read and are skipped: {why}; `queueber verify` lists them",
                queue=refill.queue.name,
                why=gap.why,
            )
        self._broker.refilled(refill, scan)
        self._committer.wake()

    def _refill_failed(self, failure: Failure, refill: Refill) -> None:
        name = refill.queue.name
        then = "" if is_damage(failure) else "; nothing is skipped, it is read again for the next poll"
        self._failures.note("Reading queue {queue!r} failed", failure, name, then=then, queue=name)
        self._deliver(self._broker.refill_failed(refill, unreadable(f"queue {name!r}", failure)))
        self._committer.wake()

    def _set_timer(self, now: WallMs) -> None:
        """
        Wake the committer when the next poll's wait or item's delay ends.

        A timer that is set for an earlier moment stays: most polls are served long before their wait ends, and waking
        up early does no harm.
        """
        at = self._broker.polls.next_tick()
        if at is None or (self._timer_at is not None and self._timer_at <= at):
            return
        self.stop()
        self._timer_at = at
        seconds = min(max(0, at - now) / MS_PER_SECOND, TIMER_SECONDS_MAX)
        self._timer = self._reactor.callLater(seconds, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer_at = None
        self._committer.wake()

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer_at is not None:
            self._timer_at = None
            self._timer.cancel()


def _ignore(_: object) -> None:
    """Do nothing."""

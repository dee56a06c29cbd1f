"""
Wakes all polls that wait, once there is something for them.

A round is one claim over all stirred queues.  Its deliveries are gathered in
a `DeferredList`, and the next round does not begin before each of them was
spoken or given up: what a slow disk has not taken yet is never added to.
Whether a peer has drained its replies plays no part in that.
"""

from collections.abc import Iterator
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from queueber.broker import Broker, Delivery, Plan, Queue, Refill, Scan, Store, Waiter
from queueber.errors import Damaged, Kind, QueueberError, StorageError, Withheld
from queueber.limits import Limits
from queueber.server.core.clock import QueueClock
from queueber.server.core.committer import Committer
from queueber.server.core.pool import Pool
from queueber.server.net.log_rate_limit import LogRateLimiter
from queueber.units import MS_PER_SECOND


class Unreadable(QueueberError):
    """The queue's items cannot be read, for damage; the server's log says where."""


class UnreadableNow(QueueberError):
    """The same for a reason that may pass; they are read again for the next poll."""

    kind = Kind.OVERLOADED


@define(eq=False)
class Dispatcher:
    """Serves waiting polls, at each cut and whenever time brings something."""

    _reactor: Any
    _broker: Broker
    _store: Store
    _pool: Pool
    _clock: QueueClock
    _limits: Limits

    committer: Committer

    _waiting: dict[Waiter, Deferred[Delivery | None]] = field(factory=dict, init=False)
    unreadable: int = field(default=0, init=False)
    """How often a scan had to pass over rows, since the start."""

    _round: Deferred[Any] | None = field(default=None, init=False)
    _timer: Any = field(default=None, init=False)
    _throttle: LogRateLimiter = field(init=False)
    log = Logger()

    def __attrs_post_init__(self) -> None:
        """Take part in each cut, and bound the log."""
        self.committer.before_each_cut(self.round)
        self._throttle = LogRateLimiter(self._reactor.seconds)

    def wait(self, waiter: Waiter) -> Deferred[Delivery | None]:
        """Fires with what the poll gets once that is durable, or with None once nobody wants it any more."""
        answer: Deferred[Delivery | None] = Deferred()
        self._waiting[waiter] = answer
        waiter.arrived_at = self._reactor.seconds()
        self.committer.wake()
        return answer

    def unanswered(self) -> Iterator[Waiter]:
        """Polls that have had no answer, those that came first first.  None may come or go meanwhile."""
        return iter(self._waiting)

    def cancel(self, waiter: Waiter) -> None:
        """The poll's peer has lost interest; what was claimed for it is given back when the disk has caught up."""
        self._broker.polls.cancel(waiter)
        if waiter.done:
            self._fire(waiter, None)

    def end_waiting(self, error: QueueberError) -> None:
        """Answer every poll that still waits with *error*."""
        self._speak(self._broker.fail_polls(error))

    def round(self) -> None:
        """Serve whom the broker can serve now.  To be called at each cut."""
        now = self._clock.now()
        self._broker.polls.tick(now)
        if self._round is None:
            spoken = [self._submit(plan) for plan in self._broker.claims.distribute(now)]
            deferreds = [each for deferreds in spoken for each in deferreds]
            if deferreds:
                gathered: Deferred[Any] = DeferredList(deferreds)
                self._round = gathered
                gathered.addCallback(self._round_over)
        self.look_ahead()

    def serve_now(self, queue: Queue) -> None:
        """Decide the polls on *queue* that do not wait, before a later call of the same connection changes anything."""
        if queue.timed_out:
            plan = self._broker.claims.serve(queue, self._clock.now())
            if plan is not None:
                self._submit(plan)

    def _submit(self, plan: Plan[list[Delivery]]) -> list[Deferred[Delivery | None]]:
        # Looked up before it is submitted: a plan that writes nothing may be spoken at once.
        deferreds = [self._waiting[delivery.waiter] for delivery in plan.reply]
        self.committer.submit(plan, self._speak, calls=len(plan.reply))
        return deferreds

    def _round_over(self, _: object) -> None:
        self._round = None
        if self._broker.polls.has_runnable:
            self.committer.wake()

    def _speak(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            give_back = self._broker.confirm_delivery(delivery)
            if give_back is None:
                self._fire(delivery.waiter, delivery)
            else:
                self._fire(delivery.waiter, None)
                self.committer.submit(give_back, lambda _: None)

    def _fire(self, waiter: Waiter, delivery: Delivery | None) -> None:
        answer = self._waiting.pop(waiter, None)
        if answer is not None:
            answer.callback(delivery)

    def look_ahead(self) -> None:
        """Start the scans that were asked for, and set the timer for the next moment that may bring something."""
        for refill in self._broker.take_refills():
            scan = self._pool.run(
                self._store.scan,
                refill.number,
                refill.after,
                items_max=self._limits.refill_items,
                bytes_max=self._limits.refill_bytes,
            )
            scan.addCallbacks(self._refilled, self._refill_failed, callbackArgs=(refill,), errbackArgs=(refill,))
            scan.addErrback(self.committer.bug)
        self._set_timer()

    def _refilled(self, scan: Scan, refill: Refill) -> None:
        for gap in scan.gaps:
            self.unreadable += 1
            self.log.error(
                "Items of queue {queue!r} cannot be read and are passed over: {why}; `queueber verify` tells which",
                queue=refill.queue.name,
                why=gap.why,
            )
        self._broker.refilled(refill, scan)
        self.committer.wake()

    def _refill_failed(self, failure: Failure, refill: Refill) -> None:
        name = refill.queue.name
        damaged = failure.check(Damaged) and not failure.check(Withheld)
        if failure.check(StorageError, MemoryError) is None:
            self.log.failure("Reading queue {queue!r} failed", failure, queue=name)
        elif (more := self._throttle.passes(name, "unreadable")) is not None:
            line = "Reading queue {queue!r} failed: {why}{next}{more}"
            again = "" if damaged else "; nothing is passed over, it is read again for the next poll"
            self.log.error(
                line, queue=name, why=failure.getErrorMessage() or repr(failure.value), next=again, more=more
            )
        # What the engine says names files and keys, which are none of a peer's business.
        kind = Unreadable if damaged else UnreadableNow
        error = kind(f"queue {name!r} cannot be read at the moment; the server's log says why")
        self._speak(self._broker.refill_failed(refill, error))
        self.committer.wake()

    def _set_timer(self) -> None:
        at = self._broker.polls.next_tick()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if at is not None:
            # Longer spans than this overflow what select() takes; waking up early does no harm.
            seconds = min(max(0, at - self._clock.now()) / MS_PER_SECOND, 86_400)
            self._timer = self._reactor.callLater(seconds, self.committer.wake)

    def stop(self) -> None:
        """Leave no timer behind."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

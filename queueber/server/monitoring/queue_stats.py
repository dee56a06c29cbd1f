"""
Statistics of all queues: the largest queues, and the sum of the others.

Reading 100,000 queues takes a fifth of a second.  So it is done in slices, between
which the reactor does other work, and the result is reused for a second.
"""

import time
from collections.abc import Callable, Iterator
from heapq import heappush, heappushpop
from itertools import islice
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from queueber.broker import Broker, Queue
from queueber.broker.stats import QueueState, state_of
from queueber.server.core.clock import QueueClock
from queueber.units import WallMs

TOP = 100
"""The number of queues that are shown by name.  The others are shown as one."""

OTHER_QUEUES = "other"
"""The name of the others.  A queue of this name is always one of them."""

SLICE = 500
"""Queues read in one iteration of the reactor."""

FRESH_SECONDS = 1.0


@frozen
class QueueStats:
    """The statistics of all queues."""

    at: WallMs
    queues: int
    """The number of queues that hold or held items."""

    added: int
    """Items added since the data directory was created."""

    removed: int
    total: QueueState
    top: tuple[QueueState, ...]
    """The queues with the most items, by decreasing number of items and then of waiting polls."""

    rest: QueueState
    """
    The sum of all other queues that are not empty, with the name `OTHER_QUEUES`.

    Its `oldest` is the first of those that are known.
    """

    unknown_age: int
    """Queues with unread items whose first one's due is not known: their states have no `oldest`."""

    seconds: float
    """The reactor's time that was spent."""


@define
class _Sum:
    """The sum of several queues."""

    ready: int = 0
    delayed: int = 0
    leased: int = 0
    unread: int = 0
    waiting: int = 0
    oldest: WallMs | None = None

    def add(self, state: QueueState) -> None:
        """Add a queue."""
        self.ready += state.ready
        self.delayed += state.delayed
        self.leased += state.leased
        self.unread += state.unread
        self.waiting += state.waiting
        if state.oldest is not None and (self.oldest is None or state.oldest < self.oldest):
            self.oldest = state.oldest

    def state(self, name: str) -> QueueState:
        """Return the sum, as one queue with *name*."""
        return QueueState(name, self.ready, self.delayed, self.leased, self.unread, self.waiting, self.oldest)


@define
class Accumulator:
    """Statistics during their collection."""

    at: WallMs
    _want: Callable[[Queue], None]
    """Called with each queue whose first item's due is not known."""

    _queues: int = field(default=0, init=False)
    _added: int = field(default=0, init=False)
    _removed: int = field(default=0, init=False)
    _unknown_age: int = field(default=0, init=False)
    _rest: _Sum = field(factory=_Sum, init=False)
    _top: list[tuple[int, int, str, QueueState]] = field(factory=list, init=False)

    def count(self, queue: Queue) -> None:
        """Add *queue*."""
        if queue.number is not None:
            self._queues += 1
            self._added += queue.added
            self._removed += queue.removed
        if queue.items or queue.waiters:
            state = state_of(queue, self.at)
            if state.unread and state.oldest is None:
                self._unknown_age += 1
                self._want(queue)
            entry = (state.items, state.waiting, state.name, state)
            if state.name == OTHER_QUEUES:
                self._rest.add(state)
            elif len(self._top) < TOP:
                heappush(self._top, entry)
            else:
                self._rest.add(heappushpop(self._top, entry)[-1])

    def result(self, seconds: float) -> QueueStats:
        """Return the statistics of the queues so far."""
        top = tuple(entry[-1] for entry in sorted(self._top, reverse=True))
        total, rest = _Sum(), self._rest.state(OTHER_QUEUES)
        for state in (*top, rest):
            total.add(state)
        sums = self._queues, self._added, self._removed, total.state("")
        return QueueStats(self.at, *sums, top, rest, self._unknown_age, seconds)


class Collector:
    """The collector of statistics, which runs once at a time."""

    def __init__(self, reactor: Any, broker: Broker, clock: QueueClock) -> None:  # noqa: ANN401
        self._reactor = reactor
        self._broker = broker
        self._clock = clock
        self._last: QueueStats | None = None
        self._expires = 0.0
        self._spent = 0.0
        self._waiting: list[Deferred[QueueStats]] = []

    def collect(self) -> Deferred[QueueStats]:
        """Return statistics that are no older than `FRESH_SECONDS`.  Up to `SLICE` queues are read at once."""
        if self._last is not None and self._reactor.seconds() < self._expires:
            return succeed(self._last)
        waiting: Deferred[QueueStats] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            self._spent = 0.0
            # A copy, because queues are created and deleted meanwhile.
            accumulator = Accumulator(self._clock.now(), self._broker.first_dues.want)
            self._step(iter(list(self._broker.queues)), accumulator)
        return waiting

    def _step(self, queues: Iterator[Queue], accumulator: Accumulator) -> None:
        try:
            done = self._slice(queues, accumulator)
        except Exception:  # noqa: BLE001  (passed on to the callers)
            self._finish(Failure())
            return
        if not done:
            self._reactor.callLater(0, self._step, queues, accumulator)
            return
        self._last = accumulator.result(self._spent)
        self._expires = self._reactor.seconds() + FRESH_SECONDS
        self._finish(self._last)

    def _slice(self, queues: Iterator[Queue], accumulator: Accumulator) -> bool:
        """Add the next slice of *queues*, and return whether it was the last."""
        began = time.monotonic()
        count = 0
        for queue in islice(queues, SLICE):
            accumulator.count(queue)
            count += 1
        self._spent += time.monotonic() - began
        return count < SLICE

    def _finish(self, outcome: QueueStats | Failure) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(outcome)

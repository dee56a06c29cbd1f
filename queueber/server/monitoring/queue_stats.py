"""
What all queues together hold: who has the most, and how much the others have.

Looking at a hundred thousand queues takes a fifth of a second.  So it is done
a slice at a time, with the reactor's other work in between, and what was found
is good for a second, however many ask.
"""

import time
from collections.abc import Iterator
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
"""Queues that are told apart by name; the rest are one more."""

OTHER = "other"
"""What the rest are called.  A queue of this name is always among them."""

SLICE = 500
"""Queues looked at in one turn of the reactor."""

FRESH_SECONDS = 1.0


@frozen
class QueueStats:
    """What was found."""

    at: WallMs
    queues: int
    """Those that hold or held items."""

    added: int
    """Items, since the data directory was made."""

    removed: int
    total: QueueState
    top: tuple[QueueState, ...]
    """Those with the most items, most first, and of equal ones those with more polls waiting."""

    rest: QueueState
    """All others that are not empty, by the name of `OTHER`."""

    seconds: float
    """Of the reactor's time that it took."""


@define
class _Sum:
    """Several queues together."""

    ready: int = 0
    delayed: int = 0
    leased: int = 0
    unread: int = 0
    waiting: int = 0
    oldest: WallMs | None = None

    def add(self, state: QueueState) -> None:
        """One more."""
        self.ready += state.ready
        self.delayed += state.delayed
        self.leased += state.leased
        self.unread += state.unread
        self.waiting += state.waiting
        if state.oldest is not None and (self.oldest is None or state.oldest < self.oldest):
            self.oldest = state.oldest

    def state(self, name: str) -> QueueState:
        """All of them, as if they were one by that name."""
        return QueueState(name, self.ready, self.delayed, self.leased, self.unread, self.waiting, self.oldest)


@define
class Accumulator:
    """A survey while it is being made."""

    at: WallMs
    _queues: int = field(default=0, init=False)
    _added: int = field(default=0, init=False)
    _removed: int = field(default=0, init=False)
    _rest: _Sum = field(factory=_Sum, init=False)
    _top: list[tuple[int, int, str, QueueState]] = field(factory=list, init=False)

    def count(self, queue: Queue) -> None:
        """Take *queue* into account."""
        if queue.number is not None:
            self._queues += 1
            self._added += queue.added
            self._removed += queue.removed
        if queue.items or queue.waiters:
            state = state_of(queue, self.at)
            entry = (state.items, state.waiting, state.name, state)
            if state.name == OTHER:
                self._rest.add(state)
            elif len(self._top) < TOP:
                heappush(self._top, entry)
            else:
                self._rest.add(heappushpop(self._top, entry)[-1])

    def result(self, seconds: float) -> QueueStats:
        """All that was counted."""
        top = tuple(entry[-1] for entry in sorted(self._top, reverse=True))
        total, rest = _Sum(), self._rest.state(OTHER)
        for state in (*top, rest):
            total.add(state)
        return QueueStats(self.at, self._queues, self._added, self._removed, total.state(""), top, rest, seconds)


class Collector:
    """Makes surveys, one at a time."""

    def __init__(self, reactor: Any, broker: Broker, clock: QueueClock) -> None:  # noqa: ANN401
        self._reactor = reactor
        self._broker = broker
        self._clock = clock
        self._last: QueueStats | None = None
        self._expires = 0.0
        self._spent = 0.0
        self._waiting: list[Deferred[QueueStats]] = []

    def collect(self) -> Deferred[QueueStats]:
        """Fires with a survey that is no older than `FRESH_SECONDS`; at once, if there are no more than `SLICE`."""
        if self._last is not None and self._reactor.seconds() < self._expires:
            return succeed(self._last)
        waiting: Deferred[QueueStats] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            self._spent = 0.0
            # A list, because queues come and go meanwhile.
            self._step(iter(list(self._broker.queues)), Accumulator(self._clock.now()))
        return waiting

    def _step(self, queues: Iterator[Queue], tally: Accumulator) -> None:
        try:
            done = self._slice(queues, tally)
        except Exception:  # noqa: BLE001  (whoever asked is told)
            self._tell(Failure())
            return
        if not done:
            self._reactor.callLater(0, self._step, queues, tally)
            return
        self._last = tally.result(self._spent)
        self._expires = self._reactor.seconds() + FRESH_SECONDS
        self._tell(self._last)

    def _slice(self, queues: Iterator[Queue], tally: Accumulator) -> bool:
        """Count some of *queues*; return whether that were all."""
        began = time.monotonic()
        count = 0
        for queue in islice(queues, SLICE):
            tally.count(queue)
            count += 1
        self._spent += time.monotonic() - began
        return count < SLICE

    def _tell(self, outcome: QueueStats | Failure) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(outcome)

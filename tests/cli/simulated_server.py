"""A simulated queue of a server, on a clock that the test advances."""

from collections import deque
from time import process_time

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from queueber.client import Batch, PolledItem
from queueber.loadgen.clients import Fleet

CPU_SECONDS_MAX = 20.0
"""Bound of a simulation, which a faulty load would otherwise exceed by minutes.  The longest needs 2 s."""


@define(eq=False, slots=False)
class SimulatedServer:
    """
    A `Client` and all its queues.

    A faulty server loses the contents in *loses* and delivers those in *repeats* twice.
    """

    clock: Clock = field(factory=Clock)
    loses: set = field(factory=set)
    repeats: set = field(factory=set)
    ready: deque = field(factory=deque)
    leases: dict = field(factory=dict)
    waiting: deque = field(factory=deque)
    made: int = 0
    """Ids of items and leases drawn so far."""

    closed: int = 0
    cpu_deadline: float = float("inf")

    @property
    def default(self):
        return self

    def queue(self, name):
        return self

    def fleet(self):
        return Fleet(self.clock, lambda: self, None, [])

    def close(self):
        self.closed += 1
        return succeed(None)

    def add(self, *contents):
        ids = []
        for content in contents:
            self.made += 1
            ids.append(self.made.to_bytes(16, "big"))
            if content not in self.loses:
                self.ready.append((ids[-1], content))
        self.serve()
        return succeed(ids)

    def poll(self, n, *, lease_ms, wait_ms=None):
        assert process_time() < self.cpu_deadline, "the load does not end"
        self.expire()
        if not self.ready and wait_ms == 0:
            return succeed(Batch((), b"", 0))
        waiter = Deferred(lambda each: self.waiting.remove((each, n, lease_ms)))
        self.waiting.append((waiter, n, lease_ms))
        if wait_ms is not None:
            self.clock.callLater(wait_ms / 1_000, self.give_up, waiter)
        self.serve()
        return waiter

    def give_up(self, waiter):
        for entry in [each for each in self.waiting if each[0] is waiter]:
            self.waiting.remove(entry)
            waiter.callback(Batch((), b"", 0))

    def serve(self):
        while self.ready and self.waiting:
            waiter, n, lease_ms = self.waiting.popleft()
            items = [self.ready.popleft() for _ in range(min(n, len(self.ready)))]
            self.made += 1
            lease, deadline = self.made.to_bytes(16, "little"), int(self.clock.seconds() * 1_000) + lease_ms
            self.leases[lease] = [deadline, dict(items)]
            self.ready.extend(item for item in items if item[1] in self.repeats)
            self.repeats -= {content for _, content in items}
            self.clock.callLater(lease_ms / 1_000 + 0.01, self.expire)
            found = tuple(PolledItem(content, number, 1, 0) for number, content in items)
            waiter.callback(Batch(found, lease, deadline))

    def expire(self):
        now = self.clock.seconds() * 1_000
        for lease in [lease for lease, (deadline, _) in self.leases.items() if deadline <= now]:
            self.ready.extend(self.leases.pop(lease)[1].items())
        self.serve()

    def remove(self, item_id, lease):
        return succeed(self.leases.get(lease, [0, {}])[1].pop(item_id, None) is not None)

    def extend(self, lease, lease_ms):
        if lease not in self.leases:
            return succeed(False)
        self.leases[lease][0] = int(self.clock.seconds() * 1_000) + lease_ms
        return succeed(True)

    def until(self, work, seconds=200):
        """Advance the clock until *work* is done, by *seconds* at most, and return its result."""
        results = []
        self.cpu_deadline = process_time() + CPU_SECONDS_MAX
        done = Deferred.fromCoroutine(work).addBoth(results.append)
        for _ in range(int(seconds * 50)):
            if results:
                break
            assert process_time() < self.cpu_deadline, "the load does not end"
            self.clock.advance(0.02)
        else:
            done.cancel()
            raise AssertionError(f"the load has not ended after {seconds} s")
        if hasattr(results[0], "raiseException"):
            results[0].raiseException()
        return results[0]


@define
class RecordedProgress:
    """A progress reporter that records its calls."""

    begun: list = field(factory=list)
    lines: list = field(factory=list)
    ends: int = 0
    latest: float = 0.0
    total: float | None = None
    by_items: bool = False
    items: list = field(factory=list)
    """Phase, last progress and total of each phase that counts items."""

    def begin(self, what, total, *, items=False):
        self.begun.append((what, total))
        self.by_items = items
        if items:
            self.items.append((what, 0, total))

    def at(self, done, total=None):
        self.latest = done
        self.total = total
        if self.by_items:
            what, _, of = self.items.pop()
            self.items.append((what, done, of))

    def line(self, text):
        self.lines.append(text)

    def end(self):
        self.ends += 1

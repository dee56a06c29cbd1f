"""The model of a queue as a server, on a clock that the test advances."""

from collections import deque
from time import process_time

from attrs import define, field
from queue_model import QueueModel
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from queueber.broker.model import Item, Key
from queueber.client import Batch, PolledItem
from queueber.loadgen.clients import Fleet
from queueber.units import MS_PER_SECOND

CPU_SECONDS_MAX = 20.0
"""Bound of a simulation, which a faulty load would otherwise exceed by minutes.  The longest needs 2 s."""

QUEUE = "queue"


@define(eq=False, slots=False)
class SimulatedServer:
    """
    A `Client` and all its queues.

    A faulty server loses the contents in *loses* and delivers those in *repeats* twice.
    """

    clock: Clock = field(factory=Clock)
    loses: set = field(factory=set)
    repeats: set = field(factory=set)
    model: QueueModel = field(factory=QueueModel)
    waiting: deque = field(factory=deque)
    made: int = 0
    """Ids of items and leases drawn so far."""

    closed: int = 0
    cpu_deadline: float = float("inf")

    @property
    def now(self):
        return int(self.clock.seconds() * MS_PER_SECOND)

    @property
    def ready(self):
        """The contents of all items that are not leased, in order."""
        return [self.model.items[QUEUE, key].contents for key in self.model.unleased(QUEUE)]

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

    def new_id(self):
        self.made += 1
        return self.made.to_bytes(16, "big")

    def add(self, *contents):
        items = [Item(Key(self.now, self.new_id()), each, self.now) for each in contents]
        self.model.add(QUEUE, [item for item in items if item.contents not in self.loses])
        self.serve()
        return succeed([item.key.id for item in items])

    def poll(self, n, *, lease_ms, wait_ms=None):
        assert process_time() < self.cpu_deadline, "the load does not end"
        self.expire()
        if wait_ms == 0 and not self.model.unleased(QUEUE):
            return succeed(Batch((), b"", 0))
        waiter = Deferred(lambda each: self.waiting.remove((each, n, lease_ms)))
        self.waiting.append((waiter, n, lease_ms))
        if wait_ms is not None:
            self.clock.callLater(wait_ms / MS_PER_SECOND, self.give_up, waiter)
        self.serve()
        return waiter

    def give_up(self, waiter):
        for entry in [each for each in self.waiting if each[0] is waiter]:
            self.waiting.remove(entry)
            waiter.callback(Batch((), b"", 0))

    def serve(self):
        while self.waiting and (keys := self.model.unleased(QUEUE)):
            waiter, n, lease_ms = self.waiting.popleft()
            items = [self.model.items[QUEUE, key] for key in keys[:n]]
            lease, deadline = self.new_id(), self.now + lease_ms
            self.model.claim(QUEUE, lease, [item.key for item in items], deadline)
            for item in items:
                if item.contents in self.repeats:
                    self.repeats.discard(item.contents)
                    self.model.put(QUEUE, item._replace(key=Key(item.key.due + 1, item.key.id)))
            self.clock.callLater(lease_ms / MS_PER_SECOND + 0.01, self.expire)
            found = (PolledItem(item.contents, item.key.id, item.attempts + 1, item.added_at) for item in items)
            waiter.callback(Batch(tuple(found), lease, deadline))

    def expire(self):
        for lease, _ in self.model.ended_leases(self.now):
            self.model.expire(lease)
        self.serve()

    def remove(self, item_id, lease):
        held = self.model.holds(QUEUE, lease, item_id)
        if held:
            self.model.remove(lease, item_id)
        return succeed(held)

    def extend(self, lease, lease_ms):
        if lease not in self.model.leases:
            return succeed(False)
        self.model.extend(lease, self.now + lease_ms)
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

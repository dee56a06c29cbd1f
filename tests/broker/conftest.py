"""A broker with counted ids, and a disk whose commits the test controls."""

import contextlib

import pytest
from attrs import define, field
from queue_model import ModelStore

from queueber.broker import Broker, ClaimBounds, ItemId, LeaseId, Plan
from queueber.broker.model import TIME_BYTES
from queueber.broker.settings import DEFAULT_SETTINGS, QueueConfig
from queueber.broker.storage import DeleteQueue
from queueber.errors import Overloaded, QueueberError
from queueber.limits import DEFAULTS, Limits
from queueber.units import SpanMs, WallMs
from queueber.values import ItemOptions, NewItem

START = WallMs(1_000_000)


@define
class CountedIds:
    """A source of the ids 1, 2, 3, …, those of items after the time."""

    count: int = 0

    def items(self, now: WallMs, count: int) -> list[ItemId]:
        self.count += count
        time = now.to_bytes(TIME_BYTES, "big")
        return [ItemId(time + number.to_bytes(10, "big")) for number in range(self.count - count + 1, self.count + 1)]

    def lease(self) -> LeaseId:
        self.count += 1
        return LeaseId(b"L" + self.count.to_bytes(15, "big"))

    def below(self, bound: int) -> int:
        return bound - 1


@define
class BrokerHarness:
    """A broker and its disk, driven step by step."""

    broker: Broker
    ids: CountedIds
    limits: Limits = DEFAULTS
    settings: QueueConfig = DEFAULT_SETTINGS
    rows: ModelStore = field(factory=ModelStore)
    deaths: list = field(factory=list)
    """The queue, the dead item and the reason of each death."""

    now: WallMs = START
    pending: list[Plan] = field(factory=list)

    @property
    def queue(self):
        return self.broker.queue("default")

    def submit(self, plan):
        self.pending.append(plan)
        return plan

    def commit_all(self) -> None:
        """Commit all plans and confirm all deliveries, until none are left."""
        while self.pending:
            self.commit(len(self.pending))

    def commit(self, count: int) -> None:
        plans, self.pending = self.pending[:count], self.pending[count:]
        for plan in plans:
            self.rows.apply([*plan.writes, *map(DeleteQueue, plan.dropped)], plan.records)
        self.broker.committed([plan for plan in plans if plan.writes])
        self.rows.check()
        for plan in plans:
            if isinstance(plan.reply, list) and plan.reply and hasattr(plan.reply[0], "waiter"):
                for delivery in plan.reply:
                    back = self.broker.confirm_delivery(delivery)
                    if back is not None:
                        self.pending.append(back)

    def refill(self) -> int:
        """Answer every scan that was requested; return how many there were."""
        refills = self.broker.take_refills()
        for refill in refills:
            self.broker.refilled(refill, self.rows.scan(refill.number, refill.after, items_max=3))
        return len(refills)

    def distribute(self):
        """Make claims and refills until there is nothing more to do; return the deliveries."""
        self.broker.polls.tick(self.now)
        deliveries = []
        for _ in range(1_000):
            for plan in self.broker.claims.distribute(self.now):
                self.submit(plan)
                deliveries += plan.reply
            self.broker.check()
            if not self.refill() and not self.broker.polls.has_runnable:
                return deliveries
        raise AssertionError("there is no end to it")

    def add(self, *contents: bytes, delay: int = 0, name: str = "default"):
        items = [NewItem(each, SpanMs(delay)) for each in contents]
        return self.submit_one(self.broker.add(self.broker.queue(name), [items], self.now))

    def add_with(self, *contents: bytes, delay: int = 0, name: str = "default", **options):
        """Add items with options."""
        items = [NewItem(each, SpanMs(delay), ItemOptions(**options)) for each in contents]
        return self.submit_one(self.broker.add(self.broker.queue(name), [items], self.now))

    def pause(self, *, adds=False, polls=False, paused=True) -> None:
        self.submit(self.broker.lifecycle.pause(self.queue, adds=adds, polls=polls, paused=paused))

    def submit_one(self, plan):
        """Submit the plan of one call and return its reply, or raise it if it is an error."""
        (reply,) = self.submit(plan).reply
        if isinstance(reply, QueueberError):
            raise reply
        return reply

    def poll(self, wanted=1, *, lease_duration=1000, wait=0, peer=None, name="default"):
        return self.broker.poll(
            self.broker.queue(name),
            wanted=wanted,
            lease_duration=SpanMs(lease_duration),
            wait=wait,
            peer=peer,
            now=self.now,
        )

    def polls_of(self, peer):
        """Make as many waiting polls as *peer* may have."""
        with contextlib.suppress(Overloaded):
            while True:
                yield self.poll(wait=None, peer=peer)

    def take(self, wanted=1, *, lease_duration=1000, name="default"):
        """Poll once, commit, and return the contents and the live lease."""
        self.poll(wanted, lease_duration=lease_duration, name=name)
        (delivery,) = self.distribute()
        self.commit_all()
        return [item.contents for item in delivery.items], delivery.lease

    def remove(self, item_id, lease_id, name="default"):
        return self.submit_one(self.broker.remove(self.broker.queue(name), [(item_id, lease_id)], self.now))

    def extend(self, lease_id, lease_duration=1000, name="default"):
        return self.submit_one(
            self.broker.extend(self.broker.queue(name), [(lease_id, SpanMs(lease_duration))], self.now)
        )

    def settle(self, *entries, adds=(), name="default", all_or_nothing=False):
        """Settle the *entries*, on all queues if *name* is None; *adds* are tuples of a queue's name and contents."""
        queue = None if name is None else self.broker.queue(name)
        needed, _ = self.broker.settles.rows_of(queue, entries, self.now)
        return self.decide_settle(queue, entries, self.read(needed), adds, all_or_nothing=all_or_nothing)

    def read(self, needed):
        """Return the items in the rows that a settle needs, by id."""
        items = [item for number, keys in needed.items() for item in self.rows.read(number, keys)]
        return {item.key.id: item for item in items if item is not None}

    def decide_settle(self, queue, entries, rows, adds=(), *, all_or_nothing=False):
        targets = [(self.broker.queue(to), [NewItem(each, SpanMs(0)) for each in contents]) for to, *contents in adds]
        plan = self.broker.settles.settle(queue, entries, targets, rows, self.now, all_or_nothing=all_or_nothing)
        self.submit(plan)
        self.broker.check()
        if isinstance(plan.reply, QueueberError):
            raise plan.reply
        return plan.reply

    def sweep(self) -> int:
        """Move the items of expired leases; return how many moved."""
        moved = 0
        while ended := self.broker.pop_expired(self.now):
            for lease in ended:
                # The rows are on the disk: a lease is swept only once it is live, so after its items were durable.
                moved += self.submit(
                    self.broker.requeue(lease, self.rows.read(lease.queue, lease.rows()), self.now)
                ).reply
            self.broker.check()
        return moved

    def configure(self, name="default", reset=(), **changes):
        """Configure a queue; the names of settings are the schema's."""
        reply = self.submit(self.broker.lifecycle.configure(self.broker.queue(name), changes, reset)).reply
        if isinstance(reply, QueueberError):
            raise reply
        self.commit_all()
        return reply

    def purge(self, queue=None) -> int:
        return self.submit(self.broker.lifecycle.purge(queue or self.queue)).reply

    def delete(self) -> None:
        self.submit(self.broker.lifecycle.delete(self.queue, self.now))

    def clear(self) -> None:
        """Delete the rows of all retired numbers, two at a time."""
        lifecycle = self.broker.lifecycle
        while (retired := lifecycle.next_retired()) is not None:
            keys = self.rows.keys(retired.number, retired.after, items_max=2)
            self.submit(lifecycle.clear(retired, keys, exhausted=len(keys) < 2))
            self.commit_all()
        for plan in lifecycle.forget_cleared():
            self.submit(plan)
        self.commit_all()
        self.broker.check()

    def lose(self, wanted=1, *, name="default") -> int:
        """Take items and let their lease end by itself; return how many there were."""
        items, _ = self.take(wanted, lease_duration=10, name=name)
        self.now = WallMs(self.now + 12)
        assert self.sweep() == len(items)
        self.commit_all()
        return len(items)

    def drop_window(self) -> None:
        """Drop the whole window of the default queue, as when memory is short."""
        self.queue.window.trim(0, self.queue.floor)

    def crash(self, *, bounds: ClaimBounds | None = None, grace=0) -> None:
        """Lose everything that is not on the disk, and start again."""
        self.pending = []
        self.broker = Broker(self.ids, limits=self.limits, bounds=bounds or ClaimBounds(), settings=self.settings)
        for plan in self.broker.restore(self.rows.recover(), self.now, SpanMs(grace)):
            self.submit(plan)
        self.broker.check()


def begin(bounds: ClaimBounds, limits: Limits, settings: QueueConfig) -> BrokerHarness:
    """Return a harness with a new broker."""
    ids, deaths = CountedIds(), []
    broker = Broker(ids, limits=limits, bounds=bounds, settings=settings, on_death=lambda *each: deaths.append(each))
    return BrokerHarness(broker, ids, limits, settings, deaths=deaths)


@pytest.fixture
def harness() -> BrokerHarness:
    return begin(ClaimBounds(), DEFAULTS, DEFAULT_SETTINGS)


@pytest.fixture
def make_harness():
    """Return a function that makes a harness with other limits or bounds."""

    def make(bounds: ClaimBounds | None = None, settings: QueueConfig = DEFAULT_SETTINGS, **limits) -> BrokerHarness:
        return begin(bounds or ClaimBounds(), Limits(**limits), settings)

    return make

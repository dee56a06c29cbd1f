"""A broker with counted ids, and a disk whose commits the test controls."""

import contextlib
from collections.abc import Sequence

import pytest
from attrs import define, field

from queueber.broker import Broker, ClaimBounds, Item, ItemId, Key, LeaseId, Plan
from queueber.broker.model import LOWEST, TIME_BYTES, LeaseRecord, QueueNumber, QueueRecord, off_time
from queueber.broker.storage import (
    DeleteItem,
    DeleteLease,
    PutItems,
    PutLease,
    Recovered,
    RecoveredLease,
    Scan,
    Write,
)
from queueber.errors import Overloaded, QueueberError
from queueber.limits import DEFAULTS, Limits
from queueber.units import SpanMs, WallMs

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
class Rows:
    """The rows on a disk, in dictionaries: the simplest store."""

    items: dict[tuple[QueueNumber, Key], Item] = field(factory=dict)
    leases: dict[LeaseId, LeaseRecord] = field(factory=dict)
    queues: dict[QueueNumber, QueueRecord] = field(factory=dict)

    def apply(self, plan: Plan) -> None:
        for write in plan.writes:
            self._write(write)
        for record in plan.records:
            self.queues[record.number] = record

    def _write(self, write: Write) -> None:
        match write:
            case PutItems(queue, items):
                self.items |= {(queue, item.key): item for item in items}
            case DeleteItem(queue, key):
                del self.items[queue, key]
            case PutLease(lease_id, record):
                self.leases[lease_id] = record
            case DeleteLease(lease_id):
                del self.leases[lease_id]

    def copy(self) -> "Rows":
        return Rows(dict(self.items), dict(self.leases), dict(self.queues))

    def scan(self, queue: QueueNumber, after: Key, items_max: int, bytes_max: int = 10**9) -> Scan:
        found = sorted((key for number, key in self.items if number == queue and key > after))
        taken: list[Item] = []
        size = 0
        for key in found:
            if len(taken) == items_max or size >= bytes_max:
                break
            taken.append(self.items[queue, key])
            size += len(taken[-1].contents)
        return Scan(taken, exhausted=len(taken) == len(found))

    def read(self, queue: QueueNumber, keys: Sequence[Key]) -> list[Item | None]:
        return [self.items.get((queue, key)) for key in keys]

    def recover(self) -> Recovered:
        leases = [
            RecoveredLease(
                lease_id,
                record.queue,
                record.deadline,
                *self._existing(record),
                record.leased_at,
                record.session,
                record.grace,
            )
            for lease_id, record in self.leases.items()
        ]
        return Recovered(list(self.queues.values()), leases, None)

    def _existing(self, record: LeaseRecord) -> tuple[tuple[Key, ...], tuple[int, ...]]:
        """Return the keys of the items that exist, and the sizes of these."""
        keys = tuple(key for key in record.keys if (record.queue, key) in self.items)
        return keys, tuple(len(self.items[record.queue, key].contents) for key in keys)

    def check(self, broker: Broker) -> None:
        """Check that the rows agree: no unleased item lies at or below a floor, and counters are exact."""
        leased = {(record.queue, key) for record in self.leases.values() for key in record.keys}
        for number, record in self.queues.items():
            mine = [key for queue, key in self.items if queue == number]
            assert record.added - record.removed == len(mine)
            assert record.bytes == sum(len(self.items[number, key].contents) for key in mine)
            assert record.off_time == sum(map(off_time, mine))
            assert all(key > record.floor for key in mine if (number, key) not in leased)
        assert all(key > LOWEST for _, key in self.items)
        for record in self.leases.values():
            for key, size in zip(record.keys, record.sizes, strict=True):
                item = self.items.get((record.queue, key))
                assert item is None or size == len(item.contents)


@define
class BrokerHarness:
    """A broker and its disk, driven step by step."""

    broker: Broker
    ids: CountedIds
    limits: Limits = DEFAULTS
    rows: Rows = field(factory=Rows)
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
            self.rows.apply(plan)
        self.broker.committed([plan for plan in plans if plan.writes])
        self.rows.check(self.broker)
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
            self.broker.refilled(refill, self.rows.scan(refill.number, refill.after, 3))
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
        items = [(each, SpanMs(delay)) for each in contents]
        return self.submit_one(self.broker.add(self.broker.queue(name), [items], self.now))

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

    def sweep(self) -> int:
        """Move the items of expired leases; return how many moved."""
        moved = 0
        while ended := self.broker.pop_expired(self.now):
            for lease in ended:
                # The rows are on the disk: a lease is swept only once it is live, so after its items were durable.
                moved += self.submit(self.broker.requeue(lease, self.rows.read(lease.queue, lease.rows()))).reply
            self.broker.check()
        return moved

    def drop_window(self) -> None:
        """Drop the whole window of the default queue, as when memory is short."""
        self.queue.window.trim(0, self.queue.floor)

    def crash(self, *, bounds: ClaimBounds | None = None) -> None:
        """Lose everything that is not on the disk, and start again."""
        self.pending = []
        self.broker = Broker(self.ids, limits=self.limits, bounds=bounds or ClaimBounds())
        for plan in self.broker.restore(self.rows.recover()):
            self.submit(plan)
        self.broker.check()


@pytest.fixture
def harness() -> BrokerHarness:
    ids = CountedIds()
    return BrokerHarness(Broker(ids), ids)


@pytest.fixture
def make_harness():
    """Return a function that makes a harness with other limits or bounds."""

    def make(bounds: ClaimBounds | None = None, **limits) -> BrokerHarness:
        ids = CountedIds()
        chosen = Limits(**limits)
        return BrokerHarness(Broker(ids, limits=chosen, bounds=bounds or ClaimBounds()), ids, chosen)

    return make

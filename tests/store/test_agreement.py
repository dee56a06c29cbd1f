"""Whatever the broker decides, the rows on the disk are consistent by the rules of `queueber verify`."""

from collections import deque

from attrs import define, field
from hypothesis import example, given
from hypothesis import strategies as st
from rows_in_memory import RowsInMemory

from queueber.broker import Broker
from queueber.broker.model import TIME_BYTES, ItemId, LeaseId, TimeMark
from queueber.broker.storage import DeleteQueue, PutQueue
from queueber.store.maintenance.verification import verify_rows
from queueber.store.rows.kv_store import Durability, KeyValueStore
from queueber.store.rows.meta import write_format
from queueber.store.rows.values import Encoding
from queueber.units import SECOND, SpanMs, WallMs
from queueber.values import Action, DeathReason, ItemOptions, NewItem, Settlement

MARK = TimeMark(b"b" * 16, 0, WallMs(0))
START = WallMs(1_000_000)


@define
class Ids:
    """Ids in order, those of items of their time."""

    count: int = 0

    def items(self, now, count):
        self.count += count
        time = now.to_bytes(TIME_BYTES, "big")
        return [ItemId(time + number.to_bytes(10, "big")) for number in range(self.count - count + 1, self.count + 1)]

    def lease(self):
        self.count += 1
        return LeaseId(b"L" + self.count.to_bytes(15, "big"))

    def below(self, bound):
        return bound // 2


@define
class Machine:
    """A broker whose plans are committed to rows in memory, and verified there."""

    db: RowsInMemory = field(factory=RowsInMemory)
    ids: Ids = field(factory=Ids)
    now: WallMs = START
    plans: deque = field(factory=deque)
    leases: list = field(factory=list)
    store: KeyValueStore = field(init=False)
    broker: Broker = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.store = KeyValueStore(self.db, durability=Durability.OS, encoding=Encoding.UNPACKED)
        write_format(self.db, "")
        self.crash()

    @property
    def queue(self):
        return self.broker.queue("mail")

    def submit(self, plan):
        if plan.writes:
            self.plans.append(plan)
        return plan.reply

    def commit(self, count=None) -> None:
        """Commit some plans, one by one, and verify after each."""
        for _ in range(len(self.plans) if count is None else min(count, len(self.plans))):
            plan = self.plans.popleft()
            dropped = [DeleteQueue(number) for number in plan.dropped]
            self.store.commit([*plan.writes, *map(PutQueue, plan.records), *dropped], MARK)
            self.broker.committed([plan])
            assert verify_rows(self.db).findings == []

    def crash(self, _=None) -> None:
        self.plans.clear()
        self.leases.clear()
        self.broker = Broker(self.ids)
        for plan in self.broker.restore(self.store.recover()):
            self.submit(plan)

    def add(self, delays) -> None:
        items = [
            NewItem(bytes(delay % 7), SpanMs(delay), ItemOptions(headers=(("a", b"b"),)) if delay == 1 else None)
            for delay in delays
        ]
        self.submit(self.broker.add(self.queue, [items], self.now))

    def lease(self, dead) -> None:
        queue = self.broker.queues.dead_line(self.queue) if dead else self.queue
        self.broker.poll(queue, wanted=3, lease_duration=SpanMs(SECOND), wait=SpanMs(0), peer=1, now=self.now)
        while self.broker.polls.waiting:
            for plan in self.broker.claims.distribute(self.now):
                for delivery in self.submit(plan):
                    self.commit()
                    self.broker.confirm_delivery(delivery)
                    if delivery.lease is not None:
                        self.leases.append((queue, delivery.lease.id, [each.key.id for each in delivery.items]))
            for refill in self.broker.take_refills():
                scan = self.store.scan(refill.number, refill.after, items_max=2, bytes_max=99)
                self.broker.refilled(refill, scan)

    def remove(self, _) -> None:
        for queue, lease, items in self.leases[:1]:
            self.submit(self.broker.remove(queue, [(items[0], lease)], self.now))

    def settle(self, how) -> None:
        """Settle the last item of the first lease."""
        action, delay = how
        for queue, lease, items in self.leases[:1]:
            entries = [Settlement(lease, b"" if action is Action.EXTEND else items[-1], action, delay, "why")]
            wanted, _ = self.broker.settles.rows_of(queue, entries, self.now)
            found = [item for number, keys in wanted.items() for item in self.store.read(number, keys)]
            rows = {item.key.id: item for item in found if item is not None}
            self.submit(self.broker.settles.settle(queue, entries, [], rows, self.now))

    def redrive(self, _) -> None:
        search = self.broker.dead_letters.begin(self.queue, self.queue, (), DeathReason.NONE, 2)
        while search is not None and not search.done:
            search.add_slice(self.store.scan(search.number, search.after, items_max=2, bytes_max=99))
        if search is not None:
            self.submit(self.broker.dead_letters.redrive(search, self.now))

    def expire(self, _) -> None:
        self.commit()
        self.now += 2 * SECOND
        for lease in self.broker.pop_expired(self.now):
            items = self.store.read(lease.queue, lease.rows())
            self.submit(self.broker.requeue(lease, items, now=self.now))

    def configure(self, attempts) -> None:
        self.submit(self.broker.lifecycle.configure(self.queue, {"maxAttempts": attempts, "deadTtlMs": 5 * SECOND}))

    def purge(self, dead) -> None:
        self.submit(self.broker.lifecycle.purge(self.broker.queues.dead_line(self.queue) if dead else self.queue))

    def delete(self, _) -> None:
        self.submit(self.broker.lifecycle.delete(self.queue, self.now))

    def clear(self, _) -> None:
        self.commit()
        while (retired := self.broker.lifecycle.next_retired()) is not None:
            keys = self.store.keys(retired.number, retired.after, items_max=2)
            self.submit(self.broker.lifecycle.clear(retired, keys, exhausted=len(keys) < 2))
        for plan in self.broker.lifecycle.forget_cleared():
            self.submit(plan)


flags = st.booleans()
steps = st.lists(
    st.one_of(
        st.tuples(st.just(Machine.add), st.lists(st.sampled_from([0, 0, 1, 1_500, 10**6]), min_size=1, max_size=4)),
        st.tuples(st.sampled_from([Machine.lease, Machine.purge]), flags),
        st.tuples(st.just(Machine.commit), st.integers(1, 3)),
        st.tuples(st.just(Machine.configure), st.integers(0, 2)),
        st.tuples(
            st.just(Machine.settle),
            st.sampled_from(
                [
                    (Action.FAIL, None),
                    (Action.FAIL, SECOND),
                    (Action.DEFER, None),
                    (Action.DEFER, SECOND),
                    (Action.REJECT, None),
                    (Action.EXTEND, 3 * SECOND),
                ]
            ),
        ),
        st.tuples(st.just(Machine.redrive), st.none()),
        st.tuples(
            st.sampled_from(
                [Machine.remove, Machine.expire, Machine.expire, Machine.delete, Machine.clear, Machine.crash]
            ),
            st.none(),
        ),
    ),
    max_size=30,
)


@given(steps)
@example(
    [
        (Machine.add, [0, 1_500, 0]),
        (Machine.lease, False),
        (Machine.purge, False),
        (Machine.commit, 9),
        (Machine.expire, None),
        (Machine.clear, None),
        (Machine.crash, None),
        (Machine.lease, False),
        (Machine.remove, None),
    ]
)
@example(
    [
        (Machine.add, [0, 0, 0]),
        (Machine.lease, False),
        (Machine.settle, (Action.REJECT, None)),
        (Machine.settle, (Action.EXTEND, 3 * SECOND)),
        (Machine.purge, False),
        (Machine.redrive, None),
        (Machine.expire, None),
        (Machine.crash, None),
        (Machine.redrive, None),
    ]
)
@example(
    [
        (Machine.configure, 1),
        (Machine.add, [0, 0]),
        (Machine.lease, False),
        (Machine.expire, None),
        (Machine.commit, 9),
        (Machine.lease, True),
        (Machine.purge, True),
        (Machine.commit, 9),
        (Machine.delete, None),
        (Machine.clear, None),
    ]
)
def test_every_commit_leaves_consistent_rows(steps):
    machine = Machine()
    for step, argument in steps:
        step(machine, argument)
        machine.broker.check()
    machine.commit()

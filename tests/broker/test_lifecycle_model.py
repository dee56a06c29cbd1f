"""
One queue and its dead items, driven at random through settings, deaths, purges, deletes and crashes.

The model is a dictionary of items and one of leases.  As in `test_model`, the effect of a plan is a function that is
applied to one model when the plan is made and to another when it is durable.  After a crash the second is right.
"""

from copy import deepcopy

import pytest
from attrs import define, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from queueber.broker.storage import DeleteItem
from queueber.errors import InvalidRequest, Overloaded, QueueberError
from queueber.units import SpanMs, WallMs
from queueber.values import ItemOptions, NewItem
from tests.support.broker_machine import BrokerMachine

LINES = ("queue", "dead")
QUIET = st.sampled_from([True, False, False])
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "maxAttempts": st.sampled_from([0, 1, 2]),
        "ttlMs": st.sampled_from([0, 0, 50]),
        "dropExpired": st.booleans(),
        "maxItems": st.sampled_from([0, 0, 6]),
        "maxLeaseMs": st.sampled_from([0, 0, 25]),
    },
)
RESET = st.sets(st.sampled_from(["maxAttempts", "ttlMs", "dropExpired", "maxItems", "maxLeaseMs"]), max_size=2)


@define
class ItemState:
    """One item that exists."""

    line: str
    due: int
    contents: bytes
    added: int
    expires: int
    attempts: int = 0
    lease: bytes | None = None


@define
class State:
    """Everything that there is."""

    items: dict = field(factory=dict)
    leases: dict = field(factory=dict)
    """Line, deadline and ids by lease."""

    chosen: dict = field(factory=dict)
    """The settings."""

    def die(self, item_id, now):
        item = self.items[item_id]
        item.line, item.expires = "dead", 0
        item.due = max(now, int.from_bytes(item_id[:6], "big") + 1)

    def is_expired(self, item, now):
        ttl = self.chosen.get("ttlMs", 0)
        return item.line == "queue" and (item.expires <= now if item.expires else 0 < ttl <= now - item.added)

    def ready(self, line, now):
        return sorted(
            (item.due, item_id)
            for item_id, item in self.items.items()
            if item.line == line and item.lease is None and item.due <= now and not self.is_expired(item, now)
        )

    def release(self, lease_id):
        line, deadline, ids = self.leases.pop(lease_id)
        for item_id in ids:
            self.items[item_id].lease = None
        return line, deadline, ids

    # Effects

    def configure(self, changes, reset):
        self.chosen = {name: value for name, value in {**self.chosen, **changes}.items() if name not in reset}

    def expire(self, ids, now):
        for item_id in ids:
            assert self.is_expired(self.items[item_id], now)
            if self.chosen.get("dropExpired"):
                del self.items[item_id]
            else:
                self.die(item_id, now)

    def claim(self, lease_id, line, deadline, ids):
        self.leases[lease_id] = (line, deadline, list(ids))
        for item_id in ids:
            assert self.items[item_id].lease is None
            self.items[item_id].lease = lease_id

    def remove(self, lease_id, item_id):
        del self.items[item_id]
        self.leases[lease_id][2].remove(item_id)
        if not self.leases[lease_id][2]:
            del self.leases[lease_id]

    def lose(self, lease_id, now, excused):
        line, deadline, ids = self.release(lease_id)
        most = self.chosen.get("maxAttempts", 0)
        for item_id in ids:
            item = self.items[item_id]
            counts = line == "queue" and not excused
            item.attempts += counts
            if counts and 0 < most <= item.attempts:
                self.die(item_id, now)
            else:
                item.due = max(item.due + 1, deadline)

    def purge(self, line):
        for item_id in [each for each, item in self.items.items() if item.line == line and item.lease is None]:
            del self.items[item_id]

    def delete(self):
        self.items, self.leases, self.chosen = {}, {}, {}


class LifeMachine(BrokerMachine):
    """Calls, settings, time, commits and crashes in any order."""

    @initialize(tight=st.booleans(), changes=CHANGES)
    def start(self, tight, changes):
        limits = {"expiry_slice": 2, "refill_items": 3, "queue_window_bytes": 60, "item_overhead": 10} if tight else {}
        self.harness = self.make_harness(**limits)
        self.now_model, self.durable = State(), State()
        self.effects, self.known = {}, []
        self.live, self.excused = set(), set()
        self.configure(changes)

    def line(self, name):
        return self.harness.queue if name == "queue" else self.broker.queues.dead_line(self.harness.queue)

    @rule(count=st.integers(1, 4), span=st.sampled_from([0, 0, 0, 20, 200]), delay=st.sampled_from([0, 0, 0, 30]))
    def add(self, count, span, delay=0):
        now, due = self.now, self.now + delay + 1 if delay else self.now
        options = ItemOptions(expires_at=WallMs(now + span)) if span else None
        items = [NewItem(b"%d" % number, SpanMs(delay), options) for number in range(count)]
        plan = self.broker.add(self.harness.queue, [items], now)
        (reply,) = plan.reply
        most, there = self.now_model.chosen.get("maxItems", 0), self.items_of("queue")
        doomed = 0 < span <= due - now
        assert isinstance(reply, InvalidRequest) == doomed
        assert isinstance(reply, Overloaded) == (not doomed and 0 < most < there + count)
        ids = [] if isinstance(reply, QueueberError) else reply
        added = {
            item_id: ItemState("queue", due, item.contents, now, now + span if span else 0)
            for item_id, item in zip(ids, items, strict=False)
        }
        self.submit(plan, lambda model: model.items.update(deepcopy(added)))

    def items_of(self, line):
        return sum(item.line == line for item in self.now_model.items.values())

    @rule(changes=CHANGES, reset=RESET)
    def configure(self, changes, reset=()):
        reset = [name for name in reset if name not in changes]
        plan = self.broker.lifecycle.configure(self.harness.queue, changes, reset)
        self.submit(plan, lambda model: model.configure(changes, reset))

    @rule(line=st.sampled_from(LINES), wanted=st.integers(1, 4), span=st.sampled_from([10, 400]), more=st.booleans())
    def work(self, line, wanted, span, more):
        """Poll without a wait, until there is an answer, perhaps after an add; the reply may be durable or not."""
        if more:
            self.add(2, 0)
        queue, now = self.line(line), self.now
        self.broker.poll(queue, wanted=wanted, lease_duration=SpanMs(span), wait=0, peer=1, now=now)
        longest = self.now_model.chosen.get("maxLeaseMs", 0) if line == "queue" else 0
        for _ in range(40):
            for plan in self.broker.claims.distribute(now):
                self.check_claim(plan, line, wanted, min(span, longest) if longest else span)
            if not self.broker.polls.waiting:
                break
            # Scans read what is durable.
            self.commit(len(self.harness.pending))
            self.harness.refill()
        else:
            raise AssertionError("the poll is not answered")
        if more:
            self.commit(len(self.harness.pending) or 1)

    def check_claim(self, plan, line, wanted, span):
        now, number = self.now, self.line(line).number
        expired = [write.key.id for write in plan.writes if isinstance(write, DeleteItem) and write.queue == number]
        claims = []
        for delivery in plan.reply:
            given = [(item.key.due, item.key.id) for item in delivery.items]
            assert given == self.now_model.ready(line, now)[: len(given)]
            assert bool(given) == bool(self.now_model.ready(line, now))
            assert len(given) <= wanted
            assert [item.attempts for item in delivery.items] == [
                self.now_model.items[each].attempts for _, each in given
            ]
            if given:
                lease, ids = delivery.lease, [item_id for _, item_id in given]
                assert lease.deadline == now + span + 1
                claims.append((lease.id, line, lease.deadline, ids))
                self.known += [(line, lease.id, item_id) for item_id in ids]

        def effect(model):
            model.expire(expired, now)
            for claim in claims:
                model.claim(*claim)

        self.submit(plan, effect)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def remove(self, data):
        line, lease_id, item_id = data.draw(st.sampled_from(self.known[-10:]))
        plan = self.broker.remove(self.line(line), [(item_id, lease_id)], self.now)
        lease = self.now_model.leases.get(lease_id)
        may = lease is not None and lease_id in self.live and lease[1] > self.now and item_id in lease[2]
        assert plan.reply == [may]
        self.submit(plan, lambda model: model.remove(lease_id, item_id) if may else None)

    @rule(ms=st.sampled_from([1, 12, 45]))
    def advance(self, ms):
        self.harness.now = WallMs(self.now + ms)

    @rule(ms=st.sampled_from([0, 12, 12, 401]))
    def sweep(self, ms=0):
        self.advance(ms)
        now = self.now
        while ended := self.broker.pop_expired(now):
            for lease in ended:
                rows = self.harness.rows.read(lease.queue, lease.rows())
                plan = self.broker.requeue(lease, rows, now)
                known, excused = lease.id in self.now_model.leases, lease.id in self.excused
                # The leases of a deleted queue end without any effect.
                self.submit(
                    plan,
                    lambda model, lease_id=lease.id, known=known, excused=excused: (
                        model.lose(lease_id, now, excused) if known else None
                    ),
                )

    @rule(line=st.sampled_from(LINES), really=QUIET, more=st.booleans())
    def purge(self, line, really, more):
        """Purge, perhaps while an item is leased."""
        if really:
            if more:
                self.work(line, 1, 400, more=True)
            unleased = [each for each in self.now_model.items.values() if each.line == line and each.lease is None]
            plan = self.broker.lifecycle.purge(self.line(line))
            assert plan.reply == len(unleased)
            self.submit(plan, lambda model: model.purge(line))
            if more:
                self.commit_all()
                self.clear()
                self.commit_all()

    @rule(really=QUIET)
    def delete(self, really):
        if really:
            self.submit(self.broker.lifecycle.delete(self.harness.queue, self.now), lambda model: model.delete())

    @rule()
    def clear(self):
        """Delete a slice of the rows of a retired number, as soon as that may be done."""
        lifecycle = self.broker.lifecycle
        if (retired := lifecycle.next_retired()) is not None:
            keys = self.harness.rows.keys(retired.number, retired.after, items_max=2)
            self.submit(lifecycle.clear(retired, keys, exhausted=len(keys) < 2))
        for plan in lifecycle.forget_cleared():
            self.submit(plan)

    @rule(line=st.sampled_from(LINES))
    def drop_window(self, line):
        queue = self.line(line)
        if queue.number is not None:
            queue.window.trim(0, queue.floor)

    @precondition(lambda self: self.harness.pending)
    @rule(count=st.integers(1, 4))
    def commit(self, count):
        plans = self.harness.pending[:count]
        self.harness.commit(count)
        for plan in plans:
            self.made_durable(plan)
            if isinstance(plan.reply, list):
                self.live |= {each.lease.id for each in plan.reply if getattr(each, "lease", None) is not None}
        self.check_disk()

    def commit_all(self):
        while self.harness.pending:
            self.commit(9)

    def check_disk(self):
        """Check that the items and the leases on the disk are those of the model, except rows that will be deleted."""
        rows, there = self.harness.rows, {}
        gone = {number for number, queue in rows.retired.items() if not queue}
        for (number, key), item in rows.items.items():
            holder = rows.holder(number, key)
            if number in gone or (number in rows.retired and holder is None):
                continue
            there[key.id] = (key.due, item.contents, item.attempts, holder)
        expected = {
            item_id: (item.due, item.contents, item.attempts, item.lease)
            for item_id, item in self.durable.items.items()
        }
        assert there == expected

    @rule(really=QUIET, passed=st.sampled_from([0, 30, 30]), durable=st.booleans())
    def crash(self, really, passed, durable):
        """Start again, perhaps with nothing lost, and perhaps after a while in which leases have ended."""
        if really:
            if durable:
                self.commit_all()
            self.advance(passed)
            self.effects = {}
            self.harness.crash()
            assert not self.harness.pending
            self.now_model = deepcopy(self.durable)
            self.live = set(self.durable.leases)
            self.excused = {lease_id for lease_id, lease in self.durable.leases.items() if lease[1] <= self.now}

    @rule(really=QUIET)
    def settle_down(self, really):
        """Once all is done, the disk has exactly what the model has, and nothing of retired numbers without leases."""
        if not really:
            return
        for _ in range(2):
            self.commit_all()
            self.advance(401)
            self.sweep()
        for _ in range(40):
            self.clear()
            self.commit_all()
        rows = self.harness.rows
        assert rows.retired == {}
        assert {key.id for _, key in rows.items} == self.now_model.items.keys()
        assert rows.leases == {} == self.now_model.leases

    @invariant()
    def agrees(self):
        if hasattr(self, "harness"):
            self.broker.check()
            self.harness.rows.check()
            dead = self.harness.queue.dead
            assert self.harness.queue.items == self.items_of("queue")
            assert (dead.items if dead is not None else 0) == self.items_of("dead")


@pytest.mark.untraced
@pytest.mark.slow
def test_the_life_of_a_queue_agrees_with_the_model(make_harness):
    run_state_machine_as_test(
        lambda: LifeMachine(make_harness),
        settings=settings(max_examples=250, stateful_step_count=30, deadline=None),
    )

"""
One queue and its dead items, driven at random through settings, deaths, purges, deletes and crashes.

As in `test_model`, the effect of a plan is a function that is applied to one model when the plan is made and to another
when it is durable.  After a crash the second is right.
"""

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
from queue_model import QueueModel, dead, died

from queueber.broker.model import Facts, Item, Key
from queueber.broker.storage import DeleteItem
from queueber.errors import InvalidRequest, Overloaded, QueueberError
from queueber.units import SpanMs, WallMs
from queueber.values import DeathReason, ItemOptions, NewItem
from tests.support.broker_machine import BrokerMachine

QUEUE = "queue"
DEAD = dead(QUEUE)
LINES = (QUEUE, DEAD)
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
class LifeModel(QueueModel):
    """A queue and its dead items, with the settings that may end items."""

    chosen: dict = field(factory=dict)
    """The settings."""

    def is_expired(self, line, item, now):
        ttl, expires = self.chosen.get("ttlMs", 0), item.facts.expires_at if item.facts is not None else 0
        return line == QUEUE and (expires <= now if expires else 0 < ttl <= now - item.added_at)

    def served(self, line, now):
        """Return the keys of the items that a poll may be given at *now*, in order."""
        return [key for key in self.ready(line, now) if not self.is_expired(line, self.items[line, key], now)]

    # Effects

    def configure(self, changes, reset):
        self.chosen = {name: value for name, value in {**self.chosen, **changes}.items() if name not in reset}
        if most := self.chosen.get("maxAttempts", 0):
            self.attempts_max[QUEUE] = most
        else:
            self.attempts_max.pop(QUEUE, None)

    def end(self, ids, now):
        """Let expired items die, or be dropped."""
        for item_id in ids:
            item = self.find(QUEUE, item_id)
            assert self.is_expired(QUEUE, item, now)
            self.delete(QUEUE, item.key)
            if not self.chosen.get("dropExpired"):
                self.put(DEAD, died(item, QUEUE, DeathReason.EXPIRED, now))

    def purge(self, line):
        for key in [*self.unleased(line)]:
            self.delete(line, key)

    def delete_queue(self):
        for lease_id in [*self.leases]:
            self.release(lease_id)
        for line in LINES:
            self.purge(line)
        self.configure({}, [*self.chosen])


class LifeMachine(BrokerMachine):
    """Calls, settings, time, commits and crashes in any order."""

    @initialize(tight=st.booleans(), changes=CHANGES)
    def start(self, tight, changes):
        limits = {"expiry_slice": 2, "refill_items": 3, "queue_window_bytes": 60, "item_overhead": 10} if tight else {}
        self.harness = self.make_harness(**limits)
        self.now_model, self.durable = LifeModel(), LifeModel()
        self.effects, self.known = {}, []
        self.live, self.excused = set(), set()
        self.configure(changes)

    def line(self, name):
        return self.harness.queue if name == QUEUE else self.broker.queues.dead_line(self.harness.queue)

    @rule(count=st.integers(1, 4), span=st.sampled_from([0, 0, 0, 20, 200]), delay=st.sampled_from([0, 0, 0, 30]))
    def add(self, count, span, delay=0):
        now, due = self.now, self.now + delay + 1 if delay else self.now
        options = ItemOptions(expires_at=WallMs(now + span)) if span else None
        items = [NewItem(b"%d" % number, SpanMs(delay), options) for number in range(count)]
        plan = self.broker.add(self.harness.queue, [items], now)
        (reply,) = plan.reply
        most, there = self.now_model.chosen.get("maxItems", 0), self.now_model.count(QUEUE)
        doomed = 0 < span <= due - now
        assert isinstance(reply, InvalidRequest) == doomed
        assert isinstance(reply, Overloaded) == (not doomed and 0 < most < there + count)
        ids = [] if isinstance(reply, QueueberError) else reply
        facts = Facts(expires_at=options.expires_at) if options is not None else None
        added = [
            Item(Key(due, item_id), item.contents, now, 0, facts) for item_id, item in zip(ids, items, strict=False)
        ]
        self.submit(plan, lambda model: model.add(QUEUE, added))

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
        longest = self.now_model.chosen.get("maxLeaseMs", 0) if line == QUEUE else 0
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
            given, served = [item.key for item in delivery.items], self.now_model.served(line, now)
            assert given == served[: len(given)]
            assert bool(given) == bool(served)
            assert len(given) <= wanted
            assert [item.attempts for item in delivery.items] == [
                self.now_model.items[line, key].attempts for key in given
            ]
            if given:
                lease = delivery.lease
                assert lease.deadline == now + span + 1
                claims.append((line, lease.id, given, lease.deadline, now))
                self.known += [(line, lease.id, key.id) for key in given]

        def effect(model):
            model.end(expired, now)
            for claim in claims:
                model.claim(*claim)

        self.submit(plan, effect)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def remove(self, data):
        line, lease_id, item_id = data.draw(st.sampled_from(self.known[-10:]))
        plan = self.broker.remove(self.line(line), [(item_id, lease_id)], self.now)
        may = self.now_model.holds(line, lease_id, item_id) and lease_id in self.live
        may = may and self.now_model.leases[lease_id].deadline > self.now
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
                known = self.now_model.leases.get(lease.id)
                counts = known is not None and known.queue == QUEUE and lease.id not in self.excused
                # The leases of a deleted queue end without any effect.
                self.submit(
                    plan,
                    lambda model, lease_id=lease.id, known=known, counts=counts: (
                        None if known is None else model.expire(lease_id, counts=counts, now=now)
                    ),
                )

    @rule(line=st.sampled_from(LINES), really=QUIET, more=st.booleans())
    def purge(self, line, really, more):
        """Purge, perhaps while an item is leased."""
        if really:
            if more:
                self.work(line, 1, 400, more=True)
            plan = self.broker.lifecycle.purge(self.line(line))
            assert plan.reply == len(self.now_model.unleased(line))
            self.submit(plan, lambda model: model.purge(line))
            if more:
                self.commit_all()
                self.clear()
                self.commit_all()

    @rule(really=QUIET)
    def delete(self, really):
        if really:
            self.submit(self.broker.lifecycle.delete(self.harness.queue, self.now), lambda model: model.delete_queue())

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
        assert there == {
            key.id: (key.due, item.contents, item.attempts, self.durable.holder(line, key))
            for (line, key), item in self.durable.items.items()
        }

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
            self.now_model = self.durable.copy()
            self.live = set(self.durable.leases)
            self.excused = {lease_id for lease_id, _ in self.durable.ended_leases(self.now)}

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
        assert {key.id for _, key in rows.items} == {key.id for _, key in self.now_model.items}
        assert rows.leases == {} == self.now_model.leases

    @invariant()
    def agrees(self):
        if hasattr(self, "harness"):
            self.broker.check()
            self.harness.rows.check()
            letters = self.harness.queue.dead
            assert self.harness.queue.items == self.now_model.count(QUEUE)
            assert (letters.items if letters is not None else 0) == self.now_model.count(DEAD)


@pytest.mark.untraced
@pytest.mark.slow
def test_the_life_of_a_queue_agrees_with_the_model(make_harness):
    run_state_machine_as_test(
        lambda: LifeMachine(make_harness),
        settings=settings(max_examples=250, stateful_step_count=30, deadline=None),
    )

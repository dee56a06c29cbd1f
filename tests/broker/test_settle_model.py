"""
Settles, deaths and redrives at random, with reads, other plans, commits and crashes in between, against the model.

The effect of each plan is a list of functions of a model, as in `test_model`: applied to one model when the plan is
made, and to another when it is durable.
"""

from collections.abc import Callable

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
from queueber.errors import QueueberError
from queueber.units import SpanMs, WallMs
from queueber.values import Action, DeathReason, NewItem, Outcome, Settled, Settlement
from tests.support.broker_machine import BrokerMachine

LIMITED, ENDLESS = QUEUES = ("limited", "endless")
ATTEMPTS_MAX = 2
BASE_MS, CAP_MS = 4, 10
LEASE_MS = 40
TIGHT = {"queue_window_bytes": 60, "window_bytes": 80, "item_overhead": 10, "refill_items": 3, "refill_bytes": 40}

SELDOM = st.sampled_from([False, False, False, True])

Effect = Callable[[QueueModel], object]


def is_dead(queue):
    return isinstance(queue, tuple)


@define
class Expected:
    """The expected effects of a settle, and its outcomes."""

    model: QueueModel
    """The model as it is once the effects so far have happened."""

    settled: list[Settled] = field(factory=list)
    effects: list[Effect] = field(factory=list)

    def do(self, effect):
        self.effects.append(effect)
        return effect(self.model)


class SettleMachine(BrokerMachine):
    """Workers that settle, and an operator who redrives."""

    @initialize(tight=st.booleans(), items=st.integers(1, 6))
    def start(self, tight, items):
        self.harness = self.make_harness(**(TIGHT if tight else {}))
        self.now_model, self.durable = QueueModel(), QueueModel()
        self.effects = {}
        self.leased_at: dict[bytes, int] = {}
        self.known: list[tuple[object, bytes, bytes]] = []
        """Queue, lease and item of each delivery."""
        self.excused: set[bytes] = set()
        self.reads: list = []
        """Settles whose rows have been read, and redrives."""
        self.harness.configure(LIMITED, maxAttempts=ATTEMPTS_MAX, backoffBaseMs=BASE_MS, backoffCapMs=CAP_MS)
        for name in QUEUES:
            self.add(name, [b"x"] * items)
            self.work(name, 3)

    def line(self, queue):
        """The broker's queue for a queue of the model; None if there are no dead items yet."""
        return self.broker.queue(queue[1]).dead if is_dead(queue) else self.broker.queue(queue)

    # Calls

    @rule(name=st.sampled_from(QUEUES), contents=st.lists(st.binary(max_size=8), min_size=1, max_size=3))
    def add(self, name, contents):
        plan = self.broker.add(self.broker.queue(name), [[NewItem(each, SpanMs(0)) for each in contents]], self.now)
        items = self.added(plan.reply[0], contents)
        self.submit(plan, lambda model: model.add(name, items))

    def added(self, ids, contents):
        now = self.now
        return [Item(Key(now, item_id), each, now) for item_id, each in zip(ids, contents, strict=True)]

    @rule(queue=st.sampled_from([*QUEUES, *QUEUES, *map(dead, QUEUES)]), wanted=st.integers(1, 4))
    def work(self, queue, wanted):
        """Poll, and receive what is ready."""
        line = self.line(queue)
        if line is None:
            return
        waiter = self.broker.poll(
            line, wanted=wanted, lease_duration=SpanMs(LEASE_MS), wait=SpanMs(0), peer=None, now=self.now
        )
        self.broker.polls.tick(self.now)
        while not waiter.done and self.broker.polls.has_runnable:
            for plan in self.broker.claims.distribute(self.now):
                (delivery,) = plan.reply
                self.submit(plan, *self.claimed(queue, delivery))
            for refill in self.broker.take_refills():
                self.broker.refilled(refill, self.harness.rows.scan(refill.number, refill.after, items_max=3))
            self.commit(all_of_them=True)
        assert waiter.done

    def claimed(self, queue, delivery):
        keys = [item.key for item in delivery.items]
        assert keys == self.now_model.ready(queue, self.now)[: len(keys)]
        for item in delivery.items:
            assert item == self.now_model.items[queue, item.key]
        if not keys:
            assert not self.now_model.ready(queue, self.now)
            return []
        lease = delivery.lease
        self.leased_at[lease.id] = self.now
        self.known += [(queue, lease.id, key.id) for key in keys]
        return [lambda model: model.claim(queue, lease.id, keys, lease.deadline)]

    @rule(
        data=st.data(),
        count=st.integers(1, 4),
        worker=st.sampled_from([None, *QUEUES, dead(LIMITED), dead(ENDLESS)]),
        at_once=st.sampled_from([True, True, False]),
        all_or_nothing=st.booleans(),
        adds=st.sampled_from([(), (), ((ENDLESS, b"n"),), ((LIMITED, b"n", b"m"), (ENDLESS,))]),
        scoped=st.booleans(),
    )
    def settle(self, data, count, worker, at_once, all_or_nothing, adds, scoped):
        """Settle some of the items that were delivered last, perhaps after one more poll."""
        if worker is not None:
            self.work(worker, 2)
        live = [each for each in self.known if self.now_model.holds(each[0], *each[1:])]
        entries = []
        for _ in range(count):
            recent = live if live and data.draw(st.integers(0, 4)) else self.known[-8:]
            queue, lease_id, item_id = data.draw(st.sampled_from(recent))
            action = data.draw(st.sampled_from(Action))
            delay = data.draw(st.sampled_from([None, 0, 7]))
            if action is Action.EXTEND:
                item_id, delay = b"", 30
            elif data.draw(st.integers(0, 3)) == 0:
                item_id = b""
            entries.append(Settlement(lease_id, item_id, action, delay, data.draw(st.sampled_from(["", "broken"]))))
        scope = queue if scoped else None
        line = None if scope is None else self.line(scope)
        needed, _ = self.broker.settles.rows_of(line, entries, self.now)
        self.reads.append((scope, entries, self.harness.read(needed), adds, all_or_nothing))
        if at_once:
            self.decide(0)

    @precondition(lambda self: self.reads)
    @rule(at=st.integers(0, 9))
    def decide(self, at):
        """Decide a settle whose rows were read a while ago."""
        scope, entries, rows, adds, all_or_nothing = self.reads.pop(at % len(self.reads))
        line = None if scope is None else self.line(scope)
        if scope is not None and line is None:
            return
        expected = self.expect(scope, entries, rows)
        targets = [(self.broker.queue(to), [NewItem(each, SpanMs(0)) for each in contents]) for to, *contents in adds]
        plan = self.broker.settles.settle(line, entries, targets, rows, self.now, all_or_nothing=all_or_nothing)
        reply = plan.reply
        assert not isinstance(reply, QueueberError)
        outcomes = [settled.outcome for settled in expected.settled]
        if (adds or all_or_nothing) and set(outcomes) - {Outcome.DONE}:
            assert [settled.outcome for settled in reply.settled] == outcomes
            assert not reply.changed
            assert not plan.writes
            self.submit(plan)
            return
        assert reply.settled == expected.settled
        for (name, *contents), ids in zip(adds, reply.added, strict=True):
            items = self.added(ids, contents)
            expected.do(lambda model, name=name, items=items: model.add(name, items))
        assert reply.changed == bool(expected.effects and plan.writes)
        self.submit(plan, *expected.effects)

    def expect(self, scope, entries, rows):
        expected = Expected(self.now_model.copy())
        for entry in entries:
            record = expected.model.leases.get(entry.lease)
            if record is None or record.deadline <= self.now or scope not in {None, record.queue}:
                expected.settled.append(Settled(Outcome.LEASE_LOST))
            elif entry.action is Action.EXTEND:
                self.expect_extend(expected, entry)
            else:
                held = [item for item in expected.model.held(entry.lease) if entry.id in {b"", item.key.id}]
                if entry.action is not Action.REMOVE:
                    # A row is read when the settle arrives, and only for leases that live then.
                    held = [item for item in held if rows.get(item.key.id) == item]
                self.expect_leaving(expected, entry, record.queue, held)
        return expected

    def expect_extend(self, expected, entry):
        deadline = WallMs(self.now + entry.delay + 1)
        self.excused.discard(entry.lease)
        expected.do(lambda model: model.extend(entry.lease, deadline))
        expected.settled.append(Settled(Outcome.DONE, due=deadline))

    def expect_leaving(self, expected, entry, queue, items):
        if not items:
            expected.settled.append(Settled(Outcome.NOT_FOUND))
            return
        died, dues = False, []
        for item in items:
            if entry.action is Action.REMOVE:
                expected.do(lambda model, item=item: model.remove(entry.lease, item.key.id))
                continue
            to, moved = self.moved(item, entry, queue)
            expected.do(lambda model, item=item: model.leave(entry.lease, item.key.id))
            expected.do(lambda model, to=to, moved=moved: model.put(to, moved))
            if to == queue:
                dues.append(moved.key.due)
            else:
                died = True
        expected.settled.append(Settled(Outcome.DONE, died, min(dues, default=WallMs(0))))

    def moved(self, item, entry, queue):
        """The queue and the item as they are after `entry`."""
        facts = item.facts or Facts()
        facts = facts._replace(first_leased_at=facts.first_leased_at or self.leased_at[entry.lease])
        attempts, counts = item.attempts, not is_dead(queue) and entry.action is not Action.DEFER
        if counts:
            attempts += 1
            facts = facts._replace(failures=facts.failures + 1, last_error=entry.error)
        elif entry.error and entry.action is not Action.DEFER:
            facts = facts._replace(last_error=entry.error)
        item = item._replace(attempts=attempts, facts=facts)
        if counts and (entry.action is Action.REJECT or (queue == LIMITED and attempts >= ATTEMPTS_MAX)):
            reason = DeathReason.REJECTED if entry.action is Action.REJECT else DeathReason.ATTEMPTS
            return self.died(item, queue, reason)
        due = item.key.due
        if entry.delay is not None:
            due = self.now + entry.delay + 1 if entry.delay else self.now
        elif entry.action is Action.FAIL:
            limited = LIMITED in {queue, *queue} if is_dead(queue) else queue == LIMITED
            base, cap = (BASE_MS, CAP_MS) if limited else (1_000, 3_600_000)
            due = self.now + min(cap, base << max(0, facts.failures - 1)) + 1
        return queue, item._replace(key=Key(WallMs(due), item.key.id))

    def died(self, item, queue, reason):
        return dead(queue), died(item, queue, reason, self.now)

    # Time

    @rule(ms=st.sampled_from([1, 5, 5, 12, 12, 45]))
    def advance(self, ms):
        self.harness.now = WallMs(self.now + ms)

    @rule()
    def sweep(self):
        """Requeue the items of leases that have ended."""
        while ended := self.broker.pop_expired(self.now):
            for lease in ended:
                effects = self.lost(lease.id, self.now_model.leases[lease.id])
                rows = self.harness.rows.read(lease.queue, lease.rows())
                self.submit(self.broker.requeue(lease, rows, self.now), *effects)

    def lost(self, lease_id, record):
        effects = []
        for item in self.now_model.held(lease_id):
            facts = item.facts or Facts()
            facts = facts._replace(first_leased_at=facts.first_leased_at or self.leased_at[lease_id])
            counts = not is_dead(record.queue) and lease_id not in self.excused
            lost = item._replace(attempts=item.attempts + counts, facts=facts)
            due = max(item.key.due + 1, record.deadline)
            to, moved = record.queue, lost._replace(key=Key(WallMs(due), item.key.id))
            if counts and to == LIMITED and lost.attempts >= ATTEMPTS_MAX:
                to, moved = self.died(lost, to, DeathReason.LOST)
            effects.append(lambda model, item=item: model.leave(lease_id, item.key.id))
            effects.append(lambda model, to=to, moved=moved: model.put(to, moved))
        return effects

    # Operators

    @rule(name=st.sampled_from(QUEUES), to=st.sampled_from(QUEUES), limit=st.integers(1, 3), between=st.booleans())
    def redrive(self, name, to, limit, between):
        queue = self.broker.queue(name)
        search = self.broker.dead_letters.begin(queue, self.broker.queue(to), (), DeathReason.NONE, limit)
        if search is None:
            assert not self.now_model.count(dead(name))
            return
        while not search.done:
            search.add_slice(self.harness.rows.scan(search.number, search.after, items_max=2))
            if between:
                self.work(dead(name), 1)
        plan = self.broker.dead_letters.redrive(search, self.now)
        waiting = list(self.now_model.unleased(dead(name)))
        assert plan.reply == (min(limit, len(waiting)), len(waiting) > limit)
        effects = []
        for key in waiting[:limit]:
            item = self.now_model.items[dead(name), key]
            facts = item.facts._replace(failures=0)
            revived = item._replace(key=Key(self.now, key.id), attempts=0, facts=facts)
            effects.append(lambda model, key=key: model.delete(dead(name), key))
            effects.append(lambda model, revived=revived: model.put(to, revived))
        self.submit(plan, *effects)

    # The disk

    @rule(count=st.integers(1, 3), all_of_them=st.booleans())
    def commit(self, count=1, all_of_them=False):
        plans = self.harness.pending if all_of_them else self.harness.pending[:count]
        for plan in plans:
            self.made_durable(plan)
        self.harness.commit(len(plans))
        assert self.harness.rows.state(self.name_of) == self.durable.state()

    @rule(really=SELDOM)
    def crash(self, really):
        if not really:
            return
        self.effects = {}
        self.harness.crash()
        self.commit(all_of_them=True)
        self.now_model = self.durable.copy()
        self.excused |= {lease_id for lease_id, _ in self.now_model.ended_leases(self.now)}
        self.reads = []

    @rule(name=st.sampled_from(QUEUES))
    def drop_window(self, name):
        queue = self.broker.queue(name)
        queue.window.trim(0, queue.floor)

    @invariant()
    def agrees(self):
        if not hasattr(self, "harness"):
            return
        self.broker.check()
        assert len(self.broker.leases) == len(self.now_model.leases)
        for name in QUEUES:
            queue = self.broker.queue(name)
            assert queue.items == self.now_model.count(name)
            assert (queue.dead.items if queue.dead else 0) == self.now_model.count(dead(name))


@pytest.mark.untraced
@pytest.mark.slow
def test_settles_agree_with_the_model(make_harness):
    run_state_machine_as_test(
        lambda: SettleMachine(make_harness),
        settings=settings(max_examples=250, stateful_step_count=40, deadline=None),
    )

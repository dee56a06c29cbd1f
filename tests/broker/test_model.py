"""
The broker, driven at random, compared with the model of a queue in `queue_model`.

The effect of a plan is a function.  It is applied to one model when the plan
is made, and to another when the plan is durable.  After a crash the second
model is right.
"""

from typing import Any

import pytest
from attrs import define
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from queue_model import QueueModel, dead

from queueber.broker import ClaimBounds, Item, Key, Refill
from queueber.broker.waiter import PollState
from queueber.errors import InvalidRequest, Overloaded, StorageError
from queueber.units import WallMs
from queueber.values import Action, NewItem, Outcome, Settlement
from tests.support.broker_machine import BrokerMachine

QUEUES = ("one", "two")
FRAIL = "two"
"""The queue whose items die after some attempts."""

ATTEMPTS_MAX = 2
PEERS = ("quick", "slow")
BOUNDS = ClaimBounds(polls=3, items=4, bytes=30)
LARGEST = 8
ROOMY = {"leased_items": 8, "poll_items": 5, "poll_bytes": 12}
TIGHT = ROOMY | {
    "queue_window_bytes": 60,
    "window_bytes": 80,
    "item_overhead": 10,
    "refill_items": 3,
    "refill_bytes": 40,
    "expiry_slice": 2,
}
# Most adds have no delay.  Small numbers make many ties.
ITEMS = st.lists(st.tuples(st.binary(max_size=LARGEST), st.sampled_from([0, 0, 0, 1, 20, 200])), min_size=1, max_size=5)

SELDOM = st.sampled_from([False, False, False, False, False, True])


@define
class AskedFor:
    """A scan in progress, and the disk as it was when the scan was requested."""

    refill: Refill
    old: Any


class CallsMachine(BrokerMachine):
    """Calls, time, commits, scans and crashes in any order."""

    @initialize(tight=st.booleans(), first=ITEMS, second=ITEMS, durable=st.booleans())
    def start(self, tight, first, second, durable):
        self.harness = self.make_harness(BOUNDS, **(TIGHT if tight else ROOMY))
        self.limits = self.harness.limits
        self.harness.configure(FRAIL, maxAttempts=ATTEMPTS_MAX)
        self.now_model, self.durable = (QueueModel(attempts_max={FRAIL: ATTEMPTS_MAX}) for _ in range(2))
        self.effects = {}
        self.known: list[tuple[str, bytes, bytes]] = []
        """Queue, lease and item of every delivery decided so far, confirmed or not."""
        self.forget_life()
        self.add("one", [first])
        self.add("two", [second])
        if durable:
            self.commit(2)

    def forget_life(self):
        self.waiting: list = []
        self.claimed: list = []
        self.refills: list[AskedFor] = []
        self.ended: list = []
        self.excused = {lease_id for lease_id, _ in self.durable.ended_leases(self.now)}
        """Leases that ended while the server was down."""
        self.paused: set[str] = set()
        self.live = set(self.durable.leases)
        self.queues = [self.harness.broker.queue(name) for name in QUEUES]
        """References to the queues, such as capabilities are."""

    # Calls

    @rule(name=st.sampled_from(QUEUES), calls=st.lists(ITEMS, min_size=1, max_size=3))
    def add(self, name, calls):
        batch = [[NewItem(*each) for each in items] for items in calls]
        plan = self.broker.add(self.broker.queue(name), batch, self.now)
        now, added = self.now, []
        for items, reply in zip(calls, plan.reply, strict=True):
            for item_id, (contents, delay) in zip(reply, items, strict=True):
                added.append(Item(Key(now + delay + 1 if delay else now, item_id), contents, now))
        self.submit(plan, lambda model: model.add(name, added))

    @rule(name=st.sampled_from(QUEUES), wanted=st.integers(1, 5), data=st.data())
    def work(self, name, wanted, data):
        """Poll, be served, and remove some of the items."""
        self.poll(name, wanted, 300, 0, "quick", serve_now=False)
        self.distribute()
        self.commit(len(self.harness.pending))
        if self.refills and data.draw(st.booleans()):
            self.answer_scan(old=True, fails=False, data=data)
            self.distribute()
        for _ in range(data.draw(st.integers(0, 2))):
            self.remove(data, astray=1)

    @rule(
        name=st.sampled_from(QUEUES),
        wanted=st.integers(0, 7),
        lease_duration=st.sampled_from([1, 30, 300]),
        wait=st.sampled_from([0, 0, 25, None, None]),
        peer=st.sampled_from(PEERS),
        serve_now=st.booleans(),
    )
    def poll(self, name, wanted, lease_duration, wait, peer, serve_now):
        full = self.now_model.leased_items() >= self.limits.leased_items
        try:
            waiter = self.harness.poll(wanted, lease_duration=lease_duration, wait=wait, peer=peer, name=name)
        except Overloaded:
            assert full
            return
        assert not full
        self.waiting.append(waiter)
        if wait == 0 and serve_now:
            self.decided([self.broker.claims.serve(waiter.queue, self.now)])
            self.ask()

    def may_act(self, name, lease_id):
        lease = self.now_model.leases.get(lease_id)
        return lease is not None and lease_id in self.live and lease.queue == name and lease.deadline > self.now

    @precondition(lambda self: self.known)
    @rule(data=st.data(), astray=st.integers(0, 5), count=st.integers(1, 3))
    def remove(self, data, astray, count=1):
        """Several removes in one plan, perhaps of the same item, perhaps with an id that is not 16 bytes."""
        if not self.known:
            return
        name, lease_id, item_id = data.draw(st.sampled_from(self.known[-12:]))
        pairs = [(item_id, lease_id)]
        if astray == 0:
            name = data.draw(st.sampled_from(QUEUES))
            pairs = [(data.draw(st.sampled_from(self.known))[2], lease_id), (item_id, b"short")]
        pairs += [data.draw(st.sampled_from(self.known[-12:]))[:0:-1] for _ in range(count - 1)]
        plan = self.broker.remove(self.broker.queue(name), pairs, self.now)
        removed = {}
        for (item_id, lease_id), reply in zip(pairs, plan.reply, strict=True):
            if lease_id == b"short":
                assert isinstance(reply, InvalidRequest)
                continue
            may = self.may_act(name, lease_id) and self.now_model.holds(name, lease_id, item_id)
            assert reply == (may and item_id not in removed)
            if reply:
                removed[item_id] = lease_id
        self.submit(plan, lambda model: [model.remove(lease_id, item_id) for item_id, lease_id in removed.items()])

    @precondition(lambda self: self.known)
    @rule(data=st.data(), spans=st.lists(st.sampled_from([1, 100, 0]), min_size=1, max_size=3))
    def extend(self, data, spans):
        """Several extends in one plan, perhaps of one lease; a span of 0 is refused."""
        name, _, _ = data.draw(st.sampled_from(self.known[-12:]))
        requests = [(data.draw(st.sampled_from(self.known[-12:]))[1], lease_duration) for lease_duration in spans]
        plan = self.broker.extend(self.broker.queue(name), requests, self.now)
        deadlines = {}
        for (lease_id, lease_duration), reply in zip(requests, plan.reply, strict=True):
            assert isinstance(reply, InvalidRequest) if not lease_duration else reply == self.may_act(name, lease_id)
            if reply is True:
                deadlines[lease_id] = self.now + lease_duration + 1
        self.submit(plan, lambda model: [model.extend(*each) for each in deadlines.items()])

    @precondition(lambda self: self.known)
    @rule(
        data=st.data(),
        action=st.sampled_from([Action.FAIL, Action.FAIL, Action.DEFER, Action.REJECT, Action.REMOVE]),
        delay=st.sampled_from([None, 0, 7]),
        count=st.integers(1, 3),
    )
    def settle(self, data, action, delay, count):
        """Several settlements in one plan, perhaps of one item, perhaps under a lease that is over."""
        name, *_ = data.draw(st.sampled_from(self.known[-12:]))
        delay = 0 if action is Action.FAIL and delay is None else delay
        pairs = [data.draw(st.sampled_from(self.known[-12:]))[1:] for _ in range(count)]
        entries = [Settlement(lease_id, item_id, action, delay, "broken") for lease_id, item_id in pairs]
        queue, now = self.broker.queue(name), self.now
        needed, _ = self.broker.settles.rows_of(queue, entries, now)
        plan = self.broker.settles.settle(queue, entries, [], self.harness.read(needed), now)
        done = []
        for (lease_id, item_id), settled in zip(pairs, plan.reply.settled, strict=True):
            may = self.may_act(name, lease_id) and self.now_model.holds(name, lease_id, item_id)
            if expected := may and (lease_id, item_id) not in done:
                done.append((lease_id, item_id))
            assert (settled.outcome is Outcome.DONE) == expected
        due = None if delay is None else WallMs(now + delay + 1 if delay else now)

        def effect(model):
            for lease_id, item_id in done:
                if action is Action.REMOVE:
                    model.remove(lease_id, item_id)
                else:
                    model.settle(lease_id, item_id, action, due, "broken", now)

        self.submit(plan, effect)

    # Memory

    @rule(name=st.sampled_from(QUEUES), wanted=st.integers(1, 5), gone=st.booleans())
    def drop_window(self, name, wanted, gone):
        """Memory is short, and a poll waits for a scan.  Perhaps a claim was given back before."""
        if gone and self.claimed:
            self.cancel_one(self.claimed[0])
            self.commit(len(self.harness.pending))
        queue = self.broker.queue(name)
        queue.window.trim(0, queue.floor)
        self.poll(name, wanted, 30, None, "quick", serve_now=False)
        self.distribute()

    # Peers

    @precondition(lambda self: self.waiting or self.claimed)
    @rule(data=st.data(), claimed=st.booleans())
    def cancel(self, data, claimed):
        self.cancel_one(data.draw(st.sampled_from((claimed and self.claimed) or self.waiting or self.claimed)))

    def cancel_one(self, waiter):
        self.broker.polls.cancel(waiter)
        if waiter in self.waiting:
            self.waiting.remove(waiter)
            assert waiter.done

    @rule(peer=st.just("slow"))
    def pause(self, peer):
        self.paused.add(peer)
        self.broker.polls.pause(peer)

    @precondition(lambda self: self.paused)
    @rule(peer=st.just("slow"))
    def resume(self, peer):
        self.paused.discard(peer)
        self.broker.polls.resume(peer)

    # Time

    @rule(ms=st.sampled_from([1, 5, 26, 60, 400]))
    def advance(self, ms):
        self.harness.now = WallMs(self.now + ms)

    @precondition(lambda self: self.live & self.now_model.leases.keys())
    @rule(again=SELDOM, wait=st.booleans(), at_once=st.booleans())
    def end_leases(self, again, wait, at_once):
        if wait:
            self.advance(301)
        ended = self.broker.pop_expired(self.now)
        assert all(lease.deadline <= self.now for lease in ended)
        for lease in ended:
            if again:
                self.broker.retry_sweep(lease, WallMs(self.now + 3))
            else:
                self.ended.append((lease, self.harness.rows.read(lease.queue, lease.rows())))
        if at_once:
            self.requeue()

    @precondition(lambda self: self.ended)
    @rule()
    def requeue(self):
        for lease, rows in self.ended:
            now, counts = self.now, lease.id not in self.excused
            plan = self.broker.requeue(lease, rows, now)
            assert plan.reply == len(rows)
            more = {"counts": counts, "now": now}
            self.submit(plan, lambda model, lease_id=lease.id, more=more: model.expire(lease_id, **more))
        self.ended = []

    # Serving

    @rule()
    def distribute(self):
        self.broker.polls.tick(self.now)
        first_wanted = max((waiter.wanted for waiter in self.waiting), default=0)
        plans = self.broker.claims.distribute(self.now)
        given = [delivery for plan in plans for delivery in plan.reply if delivery.items]
        assert len(given) <= BOUNDS.polls
        assert sum(len(delivery.items) for delivery in given) <= max(BOUNDS.items, first_wanted)
        self.decided(plans)
        self.ask()

    def ask(self):
        self.refills += [AskedFor(refill, self.harness.rows.copy()) for refill in self.broker.take_refills()]

    def decided(self, plans):
        for plan in plans:
            if plan is not None:
                self.check_plan(plan)

    def check_plan(self, plan):
        (name,) = {delivery.waiter.queue.name for delivery in plan.reply}
        given = [delivery for delivery in plan.reply if delivery.items]
        self.check_allocation(name, given)
        claims = []
        for delivery in given:
            lease = delivery.lease
            assert lease.deadline == self.now + delivery.waiter.lease_duration + 1
            claims.append((lease.id, [item.key for item in delivery.items], lease.deadline, self.now))
            for item in delivery.items:
                assert item == self.now_model.items[name, item.key]
                self.known.append((name, lease.id, item.key.id))
        self.submit(plan, lambda model: [model.claim(name, *claim) for claim in claims])
        self.check_timed_out(name, [delivery for delivery in plan.reply if not delivery.items])
        for delivery in plan.reply:
            self.waiting.remove(delivery.waiter)
            self.claimed.append(delivery.waiter)

    def check_allocation(self, name, given):
        """Polls take turns, the head goes first, and the polls that have waited longest are served unless paused."""
        rounds = max((len(delivery.items) for delivery in given), default=0)
        allocated = [
            delivery.items[turn].key for turn in range(rounds) for delivery in given if turn < len(delivery.items)
        ]
        assert allocated == self.now_model.ready(name, self.now)[: len(allocated)]
        for delivery in given:
            assert len(delivery.items) <= delivery.waiter.wanted
            size = sum(len(item.contents) for item in delivery.items)
            assert len(delivery.items) == 1 or size <= self.limits.poll_bytes
        for peer in PEERS:
            served = [delivery.waiter for delivery in given if delivery.waiter.peer == peer]
            waiters = [waiter for waiter in self.waiting if (waiter.queue.name, waiter.peer) == (name, peer)]
            assert served == waiters[: len(served)]
            assert not served or peer not in self.paused

    def check_timed_out(self, name, timed_out):
        """A poll ends without items only when its wait is over and none are ready, or none can be leased."""
        for delivery in timed_out:
            assert delivery.waiter.wait_until <= self.now
            if delivery.error is None:
                assert not self.now_model.ready(name, self.now)
            else:
                assert self.now_model.leased_items() >= self.limits.leased_items

    # The disk

    @precondition(lambda self: self.harness.pending)
    @rule(count=st.integers(1, 4))
    def commit(self, count):
        plans = self.harness.pending[:count]
        delivered = [
            delivery
            for plan in plans
            if isinstance(plan.reply, list) and plan.reply and hasattr(plan.reply[0], "waiter")
            for delivery in plan.reply
        ]
        gone = [each for each in delivered if each.waiter.state is PollState.ABANDONED and each.lease is not None]
        self.live |= {each.lease.id for each in delivered if each.lease is not None and each not in gone}
        self.harness.commit(count)
        for plan in plans:
            self.made_durable(plan)
        for delivery in delivered:
            assert delivery.waiter.done
            self.claimed.remove(delivery.waiter)
        given_back = self.harness.pending[len(self.harness.pending) - len(gone) :]
        for plan, delivery in zip(given_back, gone, strict=True):
            lease_id = delivery.lease.id

            def effect(model, lease_id=lease_id):
                model.give_back(lease_id)

            effect(self.now_model)
            self.effects[plan] = (effect,)
        self.check_disk()

    def check_disk(self):
        assert self.harness.rows.state(self.name_of) == self.durable.state()

    @precondition(lambda self: self.refills)
    @rule(old=st.booleans(), fails=SELDOM, data=st.data())
    def answer_scan(self, old, fails, data):
        if fails:
            self.fail_scan()
            return
        asked_for = self.refills.pop(data.draw(st.integers(0, len(self.refills) - 1)))
        rows = asked_for.old if old else self.harness.rows
        refill = asked_for.refill
        bounds = {"items_max": self.limits.refill_items, "bytes_max": self.limits.refill_bytes}
        self.broker.refilled(refill, rows.scan(refill.number, refill.after, **bounds))

    def fail_scan(self):
        refill = self.refills.pop().refill
        error = StorageError("a row is damaged")
        for delivery in self.broker.refill_failed(refill, error):
            assert (delivery.error, delivery.waiter.queue) == (error, refill.queue)
            self.waiting.remove(delivery.waiter)
            assert self.broker.confirm_delivery(delivery) is None
        assert not [waiter for waiter in self.waiting if waiter.queue is refill.queue]

    @precondition(lambda self: self.durable.items)
    @rule(really=SELDOM)
    def crash(self, really):
        if not really:
            # With too many crashes, no example lives long enough to be interesting.
            return
        self.effects = {}
        self.harness.crash(bounds=BOUNDS)
        assert not self.harness.pending, "no lease is without items"
        self.now_model = self.durable.copy()
        self.forget_life()

    # What must hold

    @rule(really=SELDOM)
    def quiesce(self, really):
        """Once the disk has caught up, no poll waits that could be served."""
        if not really:
            return
        for _ in range(100):
            self.commit(len(self.harness.pending) or 1)
            while self.refills:
                self.refills.sort(key=lambda each: each.refill.number)
                refill = self.refills.pop().refill
                scan = self.harness.rows.scan(refill.number, refill.after, items_max=self.limits.refill_items)
                self.broker.refilled(refill, scan)
            self.distribute()
            if not (self.harness.pending or self.refills or self.broker.polls.has_runnable):
                break
        else:
            raise AssertionError("there is no end to it")
        full = self.now_model.leased_items() >= self.limits.leased_items
        for waiter in self.waiting:
            ready = self.now_model.ready(waiter.queue.name, self.now)
            assert not ready or full or waiter.peer in self.paused
            # A poll of a paused peer may have timed out: it is answered when its peer reads replies again.
            assert (
                waiter.wait_until is None
                or waiter.wait_until > self.now
                or (ready and not full)
                or waiter.peer in self.paused
            )
            self.check_next_tick(waiter)

    def check_next_tick(self, waiter):
        tick = self.broker.polls.next_tick()
        if waiter.wait_until is not None and waiter.wait_until > self.now:
            assert tick <= waiter.wait_until
        unleased = self.now_model.unleased(waiter.queue.name)
        if waiter.peer not in self.paused and unleased and unleased[0].due > self.now:
            assert tick <= unleased[0].due

    @invariant()
    def agrees(self):
        if not hasattr(self, "harness"):
            return
        self.broker.check()
        self.harness.rows.check()
        stats = self.broker.stats()
        buried = {name: self.now_model.count(dead(name)) for name in QUEUES}
        assert stats.items == len(self.now_model.items) - sum(buried.values())
        assert stats.leases == len(self.now_model.leases)
        assert stats.leased_items == self.now_model.leased_items()
        assert stats.waiting_polls == len(self.waiting)
        windows = [each.window for queue in self.queues for each in (queue, queue.dead) if each is not None]
        # The head of a window stays whatever its size, and a dead item has a size of its own.
        assert stats.window_bytes <= self.limits.window_bytes + 18 or sum(map(len, windows)) == 1
        for name, queue in zip(QUEUES, self.queues, strict=True):
            assert self.broker.queue(name) is queue
            assert queue.items == self.now_model.count(name)
            assert (queue.dead.items if queue.dead is not None else 0) == buried[name]


@pytest.mark.untraced
@pytest.mark.slow
def test_the_broker_agrees_with_the_model(make_harness):
    run_state_machine_as_test(
        lambda: CallsMachine(make_harness),
        settings=settings(max_examples=200, stateful_step_count=40, deadline=None),
    )


class Choices:
    """Fixed answers in place of hypothesis's `data`."""

    def __init__(self, *values):
        self.values = list(values)

    def draw(self, _):
        return self.values.pop(0)


def test_a_dead_item_that_is_larger_than_all_windows_stays_in_its_window(make_harness):
    """Found by the machine: the error and the name of the queue are part of the item."""
    state = CallsMachine(make_harness)
    state.start(tight=True, first=[(b"", 0)], second=[(b"", 0)], durable=False)
    for name in QUEUES:
        state.work(data=Choices(0), name=name, wanted=1)
    state.settle(action=Action.REJECT, count=1, data=Choices(state.known[0], state.known[0]), delay=None)
    state.agrees()
    state.teardown()


def test_a_poll_that_has_timed_out_and_whose_peer_is_paused_starts_no_scan_after_another(make_harness):
    """Found by the machine: the window has room for one of the ready items, so each scan's rows are dropped."""
    state = CallsMachine(make_harness)
    state.start(tight=True, first=[(b"", 0)], second=[(b"", 0)], durable=True)
    state.drop_window(gone=False, name="two", wanted=1)
    state.pause(peer="slow")
    state.answer_scan(data=Choices(0), fails=False, old=False)
    state.drop_window(gone=False, name="one", wanted=1)
    state.distribute()
    state.add(calls=[[(b"", 0), (bytes(8), 0), (bytes(8), 0)]], name="two")
    state.work(data=Choices(False, 0), name="two", wanted=1)
    state.poll(lease_duration=1, name="two", peer="slow", serve_now=False, wait=0, wanted=0)
    state.add(calls=[[(b"", 0), (bytes(5), 0)]], name="two")
    state.agrees()
    state.quiesce(really=True)
    state.teardown()

"""Traps of other work queues, by the numbers of the table in docs/reliability.md."""

import random

import pytest

from queueber.units import SpanMs, WallMs
from queueber.values import Action, DeathReason, Outcome, Settlement

LEASE = 1_000


def entry(action, lease, item=b"", delay=None):
    return Settlement(lease.id, item, action, None if delay is None else SpanMs(delay), "")


def redrive(harness, *, to=None, before_decision=lambda: None):
    """Move the dead items of the default queue; *before_decision* is called after their rows were read."""
    letters, queue = harness.broker.dead_letters, harness.queue
    search = letters.begin(queue, to or queue, (), DeathReason.NONE, 1_000)
    while not search.done:
        search.add_slice(harness.rows.scan(search.number, search.after, items_max=9))
    before_decision()
    reply = harness.submit(letters.redrive(search, harness.now)).reply
    harness.broker.check()
    harness.commit_all()
    return reply


def dead_items(harness):
    return 0 if harness.queue.dead is None else harness.queue.dead.items


@pytest.fixture
def dead(harness):
    """A harness with an item that died of its only attempt."""
    harness.configure(maxAttempts=1)
    harness.add(b"a")
    harness.lose()
    assert (harness.queue.items, dead_items(harness)) == (0, 1)
    return harness


def test_a_redriven_item_has_its_attempts_again(harness):
    """Trap 1: with those that it has used up, it would die again of its first failure."""
    harness.configure(maxAttempts=2)
    (item_id,) = harness.add(b"a")
    harness.lose()
    harness.lose()
    assert redrive(harness) == (1, False)

    contents, lease = harness.take(lease_duration=LEASE)
    assert contents == [b"a"]
    harness.settle(entry(Action.FAIL, lease, item_id, delay=0))
    harness.commit_all()

    assert dead_items(harness) == 0
    assert harness.take()[0] == [b"a"]


@pytest.mark.parametrize("durable", [False, True])
def test_a_target_that_is_deleted_during_a_redrive_loses_no_item(dead, durable):
    """Trap 2: the item is in the target, which is made anew, or is still dead."""
    dead.add(b"other", name="other")
    dead.commit_all()
    other = dead.broker.queue("other")

    def delete():
        dead.submit(dead.broker.lifecycle.delete(other, dead.now))
        if durable:
            dead.commit_all()

    redrive(dead, to=other, before_decision=delete)
    dead.crash()
    dead.clear()

    assert dead_items(dead) == 0
    assert dead.take(9, name="other")[0] == [b"a"]


def test_a_dead_item_that_was_removed_stays_removed(dead):
    """Trap 3: its row, its place and its count are gone after a start."""
    line = dead.queue.dead
    dead.broker.poll(line, wanted=1, lease_duration=SpanMs(LEASE), wait=0, peer=None, now=dead.now)
    (delivery,) = dead.distribute()
    dead.commit_all()
    (item,) = delivery.items
    assert dead.submit_one(dead.broker.remove(line, [(item.key.id, delivery.lease.id)], dead.now))
    dead.commit_all()

    dead.crash()

    assert (dead_items(dead), dead.rows.items, dead.broker.stats().items) == (0, {}, 0)


def test_no_item_vanishes_when_its_attempts_are_used_up(harness):
    """Trap 4: at any time the items that were added are those removed, dead and waiting or leased."""
    chance = random.Random(4)
    harness.configure(maxAttempts=2, backoffBaseMs=0)
    removed = 0
    added = len(harness.add(*(b"%d" % number for number in range(30))))
    for _ in range(40):
        _, lease = harness.take(3, lease_duration=LEASE)
        actions = [Action.REMOVE, Action.FAIL, Action.REJECT, Action.DEFER, None]
        settled = [(chance.choice(actions), item_id) for item_id in (lease.keys if lease else ())]
        entries = [entry(action, lease, item_id) for action, item_id in settled if action is not None]
        if entries:
            reply = harness.settle(*entries)
            assert {each.outcome for each in reply.settled} == {Outcome.DONE}
        removed += sum(action is Action.REMOVE for action, _ in settled)
        if chance.random() < 0.3:
            harness.commit_all()
            harness.crash()
        harness.now = WallMs(harness.now + LEASE + 2)
        harness.sweep()
        harness.commit_all()
        assert removed + dead_items(harness) + harness.queue.items == added
        assert len(harness.rows.items) == added - removed
    assert harness.queue.items == 0
    assert removed and dead_items(harness)
    dead = harness.queue.dead
    found = set()
    for _ in range(added - removed):
        harness.broker.poll(dead, wanted=1, lease_duration=SpanMs(LEASE), wait=0, peer=None, now=harness.now)
        (delivery,) = harness.distribute()
        harness.commit_all()
        found |= {item.key.id for item in delivery.items}
    assert len(found) == added - removed


@pytest.mark.parametrize("action", [Action.FAIL, Action.DEFER])
def test_an_extend_after_a_settle_leaves_the_delay(harness, action):
    """Trap 5: a heartbeat that arrives late does not bring an item back under its lease, or forward."""
    (item_id,) = harness.add(b"a")
    _, lease = harness.take(lease_duration=LEASE)
    (settled,) = harness.settle(entry(action, lease, item_id, delay=5_000)).settled

    assert not harness.extend(lease.id, 60_000)
    (late,) = harness.settle(entry(Action.EXTEND, lease, delay=60_000)).settled
    harness.commit_all()

    assert late.outcome is Outcome.LEASE_LOST
    harness.now = WallMs(settled.due - 1)
    assert harness.take()[0] == []
    harness.now = settled.due
    assert harness.take()[0] == [b"a"]


def test_extends_hold_all_items_of_a_poll(harness):
    """Trap 6: items that a worker has taken and not begun are extended with those at which it works."""
    contents = [b"%d" % number for number in range(10)]
    harness.add(*contents)
    taken, lease = harness.take(10, lease_duration=LEASE)
    for item_id in list(lease.keys):
        harness.now = WallMs(harness.now + LEASE - 100)
        assert harness.sweep() == 0
        assert harness.take(10)[0] == []
        assert harness.remove(item_id, lease.id)
        harness.extend(lease.id, LEASE)
    harness.commit_all()

    assert taken == contents
    assert harness.rows.items == {}


def test_a_delay_much_longer_than_the_lease_is_one_delivery(harness):
    """Trap 11: a delayed item is not delivered and held meanwhile, neither at first nor after a defer."""
    (item_id,) = harness.add(b"a", delay=10 * LEASE)
    deliveries = []
    for _ in range(2_200 // 100):
        harness.now = WallMs(harness.now + LEASE)
        harness.sweep()
        contents, lease = harness.take(lease_duration=LEASE)
        if contents:
            deliveries.append(harness.now)
            harness.settle(entry(Action.DEFER, lease, item_id, delay=10 * LEASE))
        harness.commit_all()

    assert len(deliveries) == 2
    assert deliveries[1] - deliveries[0] == 11 * LEASE


def test_items_come_when_they_are_due_however_many_are_delayed(make_harness):
    """Trap 12: most of them are on the disk; a scan has three."""
    harness = make_harness(queue_window_bytes=20 * 512, window_bytes=40 * 512)
    dues = [WallMs(harness.now + 1_000 * (1 + number)) for number in range(200)]
    shuffled = random.Random(12).sample(dues, len(dues))
    for due in shuffled:
        harness.add_with(b"%d" % due, due=due)
        harness.commit_all()

    for due in dues:
        harness.now = WallMs(due - 1)
        assert harness.take()[0] == []
        harness.now = due
        assert harness.take(2, lease_duration=10**6)[0] == [b"%d" % due]

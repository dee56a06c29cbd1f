"""Dead lines, purges and deletes, and the rows that these leave."""

import gc
import weakref

import pytest

from queueber.broker.model import Facts, Key
from queueber.broker.settings import DEFAULT_SETTINGS
from queueber.units import SpanMs, WallMs
from queueber.values import Action, DeathReason, ItemOptions, NewItem, Settlement


def facts_of(harness):
    """Take one item and return it."""
    harness.poll()
    (delivery,) = harness.distribute()
    harness.commit_all()
    return delivery.items[0]


def take_dead(harness, lease_duration=1000):
    """Take the first dead item, and return it with its lease."""
    dead = harness.broker.queues.dead_line(harness.queue)
    harness.broker.poll(dead, wanted=1, lease_duration=lease_duration, wait=0, peer=1, now=harness.now)
    (delivery,) = harness.distribute()
    harness.commit_all()
    return delivery.items[0], delivery.lease


class TestLosses:
    def test_are_counted_and_the_first_lease_is_remembered(self, harness):
        harness.add(b"a")
        first = harness.now
        for _ in range(3):
            harness.lose()
            harness.crash()
        item = facts_of(harness)
        assert (item.attempts, item.facts) == (3, Facts(first_leased_at=first))

    def test_the_last_attempt_that_is_lost_kills(self, harness):
        """Trap 8: the item did not fail, so it is kept with its contents, and its reason says so."""
        harness.configure(maxAttempts=2)
        (item_id,) = harness.add(b"abc")
        first = harness.now
        harness.lose()
        assert (harness.queue.items, harness.queue.dead) == (1, None)
        harness.lose()
        queue, dead = harness.queue, harness.queue.dead
        assert (queue.items, queue.bytes, queue.off_time) == (0, 0, 0)
        assert (dead.items, dead.bytes, dead.off_time, dead.owner, dead.dead_of) == (1, 3, 1, queue, queue.id)
        assert harness.broker.deaths.counts == {("default", DeathReason.LOST): 1}
        ((died_in, item, reason),) = harness.deaths
        assert (died_in.name, item.key.id, reason) == ("default", item_id, DeathReason.LOST)

        harness.crash()

        assert harness.queue.dead.owner is harness.queue
        assert harness.queue.dead.items == 1
        item, lease = take_dead(harness)
        assert item.key == Key(harness.now, item_id)
        assert (item.contents, item.attempts) == (b"abc", 2)
        assert item.facts.first_leased_at == first
        assert item.facts.death == (DeathReason.LOST, harness.now, "default")
        assert harness.submit_one(harness.broker.remove(harness.queue.dead, [(item_id, lease.id)], harness.now))
        harness.commit_all()
        assert harness.queue.dead.items == 0

    def test_of_dead_items_count_nothing(self, harness):
        harness.configure(maxAttempts=1)
        harness.add(b"a")
        harness.lose()
        for _ in range(2):
            item, _ = take_dead(harness, lease_duration=10)
            assert item.attempts == 1
            harness.now = WallMs(harness.now + 12)
            assert harness.sweep() == 1
            harness.commit_all()
        assert harness.queue.dead.items == 1

    def test_make_items_wait_if_the_queue_says_so(self, harness):
        harness.configure(backoffOnLoss=True, backoffBaseMs=100, backoffCapMs=150)
        harness.add(b"a")
        for most in (100, 150, 150):
            items, lease = harness.take(lease_duration=10)
            assert items == [b"a"]
            harness.now = WallMs(harness.now + 12)
            harness.sweep()
            harness.commit_all()
            (due,) = [key.due for _, key in harness.rows.items]
            assert lease.deadline <= due <= lease.deadline + most
            assert due == lease.deadline + harness.ids.below(most + 1)
            harness.now = due

    def test_while_the_server_was_down_count_nothing(self, harness):
        """Trap 8: an outage of the server is no attempt of a worker."""
        harness.configure(maxAttempts=1)
        harness.add(b"a")
        harness.take(lease_duration=10)
        harness.now = WallMs(harness.now + 1_000)
        harness.crash()
        assert harness.sweep() == 1
        item = facts_of(harness)
        assert item.attempts == 0
        assert harness.queue.dead is None


def test_deaths_in_queues_beyond_a_number_are_counted_together(harness, monkeypatch):
    monkeypatch.setattr("queueber.broker.deaths.COUNTED_QUEUES_MAX", 1)
    for name in ("first", "second", "third", "first"):
        harness.configure(maxAttempts=1, name=name)
        harness.add(b"a", name=name)
        harness.lose(name=name)
    assert harness.broker.deaths.counts == {("first", DeathReason.LOST): 2, ("", DeathReason.LOST): 2}


class TestGraceAtStart:
    def test_a_lease_that_ended_meanwhile_can_be_extended(self, harness):
        (item,) = harness.add(b"a")
        _, lease = harness.take(lease_duration=5_000)
        harness.now = WallMs(harness.now + 60_000)
        harness.crash(grace=1_000)
        harness.commit_all()
        assert harness.sweep() == 0
        harness.now = WallMs(harness.now + 999)
        assert harness.extend(lease.id, 300)
        harness.commit_all()
        assert harness.rows.leases[lease.id].grace == 0
        harness.now = WallMs(harness.now + 400)
        harness.sweep()
        harness.commit_all()
        assert facts_of(harness).attempts == 1, "it has been extended, so its end is a loss"
        assert not harness.remove(item, lease.id)

    def test_is_given_once(self, harness):
        harness.add(b"a")
        harness.take(lease_duration=5_000)
        harness.now = WallMs(harness.now + 60_000)
        for _ in range(3):
            harness.crash(grace=1_000)
            harness.commit_all()
            harness.now = WallMs(harness.now + 600)
        assert harness.sweep() == 1
        assert facts_of(harness).attempts == 0

    def test_is_no_longer_than_the_lease(self, harness):
        harness.add(b"a")
        _, lease = harness.take(lease_duration=10)
        harness.crash(grace=1_000)
        assert harness.rows.leases[lease.id].deadline == lease.deadline
        harness.now = WallMs(harness.now + 5)
        harness.crash(grace=1_000)
        harness.commit_all()
        assert harness.rows.leases[lease.id].deadline == lease.deadline + 5

    def test_a_lease_of_unknown_length_gets_the_whole(self, harness):
        harness.add(b"a")
        _, lease = harness.take(lease_duration=10)
        record = harness.rows.leases[lease.id]
        harness.rows.leases[lease.id] = record._replace(leased_at=0)
        harness.crash(grace=1_000)
        harness.commit_all()
        assert harness.rows.leases[lease.id].deadline == harness.now + 1_000


class TestPurge:
    def test_removes_all_but_leased_items(self, harness):
        (item,) = harness.add(b"leased", delay=1)
        harness.now = WallMs(harness.now + 5)
        _, lease = harness.take(lease_duration=10)
        harness.add(b"a", b"b")
        harness.add(b"c", delay=50)
        before = harness.queue.number
        assert harness.purge() == 3
        assert (harness.queue.items, harness.queue.bytes, harness.queue.off_time) == (1, 6, 1)
        harness.broker.check()
        harness.add(b"new")
        assert harness.take(3)[0] == [b"new"]
        assert harness.extend(lease.id, 10)
        harness.clear()
        assert list(harness.rows.retired) == [before], "a lease is still on one of its items"
        assert harness.remove(item, lease.id)
        harness.commit_all()
        harness.clear()
        assert harness.rows.retired == {}
        assert {number for number, _ in harness.rows.items} == {harness.queue.number} == set(harness.rows.queues)
        assert harness.queue.id == before
        assert harness.purge() == 0

    def test_what_was_leased_comes_back_to_the_queue(self, harness):
        harness.add(b"leased", b"a")
        harness.take(lease_duration=10)
        harness.purge()
        harness.commit_all()
        harness.clear()
        assert [item.contents for item in harness.rows.items.values()] == [b"leased"]
        harness.now = WallMs(harness.now + 12)
        assert harness.sweep() == 1
        harness.commit_all()
        harness.clear()
        assert harness.rows.retired == {}
        assert facts_of(harness).attempts == 1

    def test_what_is_given_back_comes_back_to_the_queue(self, harness):
        harness.add(b"leased", b"a")
        harness.commit_all()
        waiter = harness.poll()
        harness.distribute()
        harness.purge()
        harness.broker.polls.cancel(waiter)
        harness.commit_all()
        harness.clear()
        assert harness.take(5)[0] == [b"leased"]
        assert harness.rows.retired == {}

    def test_goes_on_after_a_crash_at_any_point(self, harness):
        (item,) = harness.add(b"leased")
        _, lease = harness.take(lease_duration=10_000)
        harness.add(b"a", b"b", b"c", b"d")
        harness.commit_all()
        harness.purge()
        harness.crash()
        assert harness.queue.items == 5
        harness.purge()
        harness.commit_all()
        harness.crash()
        assert harness.queue.items == 1
        retired = harness.broker.lifecycle.next_retired()
        keys = harness.rows.keys(retired.number, retired.after, items_max=2)
        harness.submit(harness.broker.lifecycle.clear(retired, keys, exhausted=False))
        harness.commit_all()
        harness.crash()
        harness.clear()
        harness.crash()
        harness.clear()
        assert harness.remove(item, lease.id)
        harness.commit_all()
        harness.clear()
        assert (harness.rows.items, harness.rows.retired) == ({}, {})
        highest = harness.rows.next_number
        harness.crash()
        harness.add(b"", name="other")
        assert harness.broker.queue("other").number == highest

    def test_rows_that_are_not_durable_yet_are_deleted_too(self, harness):
        harness.add(b"a")
        harness.commit_all()
        harness.add(b"b")
        harness.purge()
        assert harness.broker.lifecycle.next_retired() is None
        harness.commit(1)
        assert harness.broker.lifecycle.next_retired() is None
        harness.commit_all()
        harness.clear()
        assert harness.rows.items == {}

    def test_a_scan_that_began_before_brings_nothing(self, harness):
        harness.add(b"a", b"b")
        harness.commit_all()
        harness.drop_window()
        harness.poll(wait=None)
        harness.broker.claims.distribute(harness.now)
        (refill,) = harness.broker.take_refills()
        scan = harness.rows.scan(refill.number, refill.after, items_max=3)
        harness.purge()
        harness.broker.refilled(refill, scan)
        assert harness.distribute() == []
        harness.broker.check()

    def test_of_dead_items(self, harness):
        harness.configure(maxAttempts=1)
        harness.add(b"a", b"b", b"c")
        harness.lose(3)
        take_dead(harness)
        assert harness.purge(harness.queue.dead) == 2
        harness.commit_all()
        harness.crash()
        assert harness.queue.dead.items == 1
        harness.add(b"d")
        harness.lose()
        assert harness.queue.dead.items == 2
        harness.clear()
        assert len(harness.rows.items) == 2


class TestDelete:
    def test_leaves_a_queue_that_was_only_asked_for(self, harness):
        harness.configure(maxAttempts=1)
        harness.add(b"a", b"b")
        harness.lose(2)
        (item,) = harness.add(b"c")
        _, lease = harness.take()
        harness.add(b"d")
        take_dead(harness)
        queue, number = harness.queue, harness.queue.number
        harness.delete()
        assert (queue.number, queue.id, queue.items, queue.dead, queue.settings) == (
            None,
            None,
            0,
            None,
            DEFAULT_SETTINGS,
        )
        assert harness.broker.queue("default") is queue
        assert not harness.remove(item, lease.id)
        harness.broker.check()
        assert harness.broker.stats().leased_items == 2
        harness.commit_all()
        assert harness.sweep() == 2
        harness.commit_all()
        harness.clear()
        rows = harness.rows
        assert (rows.items, rows.leases, rows.queues, rows.settings, rows.retired) == ({}, {}, {}, {}, {})
        harness.add(b"new")
        assert queue.number > number
        assert harness.take()[0] == [b"new"]

    def test_goes_on_after_a_crash(self, harness):
        harness.add(b"a", b"b")
        harness.take()
        harness.add(b"c")
        harness.purge()
        harness.delete()
        harness.commit_all()
        harness.crash()
        assert len(harness.broker.queues) == 0
        assert harness.sweep() == 1
        harness.commit_all()
        harness.clear()
        assert (harness.rows.items, harness.rows.leases, harness.rows.retired) == ({}, {}, {})

    def test_what_is_given_back_is_gone(self, harness):
        harness.add(b"a")
        harness.commit_all()
        waiter = harness.poll()
        harness.distribute()
        harness.delete()
        harness.broker.polls.cancel(waiter)
        harness.commit_all()
        harness.clear()
        assert (harness.rows.items, harness.rows.leases, harness.rows.retired) == ({}, {}, {})

    def test_of_a_queue_without_a_row_does_nothing(self, harness):
        assert harness.broker.lifecycle.delete(harness.queue, harness.now).writes == []
        assert harness.purge() == 0

    def test_a_queue_that_was_deleted_uses_no_memory(self, harness):
        harness.configure(maxAttempts=1, name="other")
        harness.add(b"a", name="other")
        harness.lose(name="other")
        harness.deaths.clear()
        queue = weakref.ref(harness.broker.queue("other"))
        harness.submit(harness.broker.lifecycle.delete(queue(), harness.now))
        harness.commit_all()
        harness.clear()
        gc.collect()
        assert queue() is None


@pytest.mark.parametrize("of", ["queue", "dead"])
def test_the_numbers_of_all_lines_differ(harness, of):
    harness.configure(maxAttempts=1)
    harness.add(b"a")
    harness.lose()
    numbers = {harness.queue.number, harness.queue.dead.number}
    harness.purge(harness.queue if of == "queue" else harness.queue.dead)
    harness.add(b"b")
    harness.lose()
    numbers |= {harness.queue.number, harness.queue.dead.number}
    assert len(numbers) == (2 if of == "queue" else 3)


class TestIdleQueues:
    def look(self, harness, name="default"):
        """Look at a queue as the server does every second; return whether it exists."""
        queue = harness.broker.queue(name)
        if queue in harness.broker.queues.watched:
            while (plan := harness.broker.lifecycle.look_at(queue, harness.now)) is not None:
                harness.submit(plan)
            harness.commit_all()
            harness.refill()
        harness.broker.check()
        return queue.number is not None

    def test_are_deleted_once_they_were_not_used_for_long(self, harness):
        harness.configure(idleTtlMs=100)
        assert self.look(harness)
        harness.now = WallMs(harness.now + 99)
        assert self.look(harness)
        harness.poll()
        harness.distribute()
        harness.now = WallMs(harness.now + 99)
        assert self.look(harness)
        harness.now = WallMs(harness.now + 1)
        assert not self.look(harness)
        assert not self.look(harness)
        assert (harness.rows.queues, harness.rows.settings) == ({}, {})
        assert harness.queue.settings is DEFAULT_SETTINGS

    def test_with_items_dead_items_or_polls_are_used(self, harness):
        harness.configure(idleTtlMs=100, maxAttempts=1)
        harness.add(b"a")
        for _ in range(3):
            harness.now = WallMs(harness.now + 100)
            assert self.look(harness)
        harness.lose()
        for _ in range(3):
            harness.now = WallMs(harness.now + 100)
            assert self.look(harness)
        harness.purge(harness.queue.dead)
        waiter = harness.poll(wait=None)
        harness.broker.polls.pause(None)
        harness.distribute()
        assert not harness.queue.waiters, "the poll of a paused peer"
        for _ in range(3):
            harness.now = WallMs(harness.now + 100)
            assert self.look(harness)
        harness.broker.polls.cancel(waiter)
        harness.now = WallMs(harness.now + 100)
        assert not self.look(harness)

    @pytest.mark.parametrize("what", ["adds", "polls"])
    def test_that_are_paused_stay_paused(self, harness, what):
        harness.configure(idleTtlMs=100)
        harness.pause(**{what: True})
        for _ in range(3):
            harness.now = WallMs(harness.now + 100)
            assert self.look(harness)
        harness.pause(**{what: True}, paused=False)
        assert self.look(harness)
        harness.now = WallMs(harness.now + 100)
        assert not self.look(harness)

    def test_are_in_use_when_they_are_configured(self, harness):
        queue = harness.queue
        harness.configure(idleTtlMs=100)
        harness.add(b"a")
        lease = harness.take()[1]
        harness.remove(next(iter(lease.keys)), lease.id)
        harness.now = WallMs(harness.now + 100)
        assert not self.look(harness)
        harness.now = WallMs(harness.now + 500)
        harness.configure(idleTtlMs=100)
        assert harness.queue is queue
        assert self.look(harness)
        harness.now = WallMs(harness.now + 100)
        assert not self.look(harness)

    def test_are_in_use_when_their_last_item_is_settled(self, harness):
        harness.configure(idleTtlMs=100)
        harness.add(b"a")
        lease = harness.take()[1]
        assert self.look(harness)
        harness.now = WallMs(harness.now + 99)
        harness.settle(Settlement(lease.id, b"", Action.REMOVE))
        harness.now = WallMs(harness.now + 99)
        assert self.look(harness)
        harness.now = WallMs(harness.now + 1)
        assert not self.look(harness)

    def test_are_in_use_when_a_poll_of_several_has_looked_at_them(self, harness):
        harness.configure(idleTtlMs=100, name="second")
        assert self.look(harness, "second")
        harness.now = WallMs(harness.now + 99)
        harness.broker.poll(
            harness.queue,
            wanted=1,
            lease_duration=SpanMs(9),
            wait=0,
            peer=1,
            now=harness.now,
            others=[harness.broker.queue("second")],
        )
        harness.distribute()
        harness.now = WallMs(harness.now + 99)
        assert self.look(harness, "second")

    @pytest.mark.parametrize("restarted", [False, True])
    def test_stay_for_the_window_of_a_deduplication_key(self, harness, restarted):
        harness.configure(idleTtlMs=100, dedupWindowMs=1_000)
        keyed = [NewItem(b"a", SpanMs(0), ItemOptions(dedup_key=b"k"))]
        add = harness.broker.dedup.begin(harness.queue, keyed, b"")
        harness.submit(harness.broker.dedup.decide(add, harness.now))
        lease = harness.take()[1]
        harness.remove(next(iter(lease.keys)), lease.id)
        harness.commit_all()
        if restarted:
            harness.crash()
        for _ in range(10):
            assert self.look(harness)
            harness.now = WallMs(harness.now + 100)
        harness.now = WallMs(harness.now + 1)
        assert not self.look(harness)

    def test_are_watched_after_a_start(self, harness):
        harness.configure(idleTtlMs=100)
        harness.configure(idleTtlMs=100, name="other")
        harness.configure(idleTtlMs=0, name="other")
        harness.crash()
        assert list(harness.broker.queues.watched) == [harness.queue]
        harness.now = WallMs(harness.now + 500)
        assert self.look(harness), "nothing is known of the time before the start"
        harness.now = WallMs(harness.now + 100)
        assert not self.look(harness)

    def test_dead_items_that_are_not_old_yet_need_no_scan(self, harness):
        harness.configure(maxAttempts=1, deadTtlMs=1_000)
        harness.add(b"a")
        harness.lose()
        harness.now = WallMs(harness.now + 999)
        assert harness.broker.lifecycle.look_at(harness.queue, harness.now) is None
        assert harness.broker.take_refills() == []
        harness.now = WallMs(harness.now + 1)
        assert self.look(harness)
        assert (harness.queue.dead.items, harness.rows.items) == (0, {})

    def test_old_dead_items_are_removed(self, make_harness):
        harness = make_harness(expiry_slice=2)
        harness.configure(maxAttempts=1, deadTtlMs=1_000)
        harness.add(b"a", b"b", b"c")
        harness.lose(3)
        died = harness.now
        harness.now = WallMs(harness.now + 500)
        harness.add(b"d")
        harness.lose()
        harness.crash()
        harness.now = WallMs(died + 999)
        assert self.look(harness)
        assert harness.queue.dead.items == 4
        harness.now = WallMs(died + 1_000)
        self.look(harness)
        assert harness.queue.dead.items == 1
        item, _ = take_dead(harness)
        assert item.contents == b"d"

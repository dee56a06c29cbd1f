"""The effect of each call, one behaviour a test."""

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from queue_model import ModelStore

from queueber.broker import ClaimBounds
from queueber.broker.model import HIGHEST, just_below
from queueber.broker.storage import Gap
from queueber.errors import InvalidRequest, Overloaded, StorageError
from queueber.units import SpanMs, WallMs
from queueber.values import NewItem


def contents(delivery):
    return [item.contents for item in delivery.items]


class TestAdd:
    def test_ids_come_in_the_order_of_the_items(self, harness):
        ids = harness.add(b"a", b"b", b"c")

        assert ids == sorted(ids)
        assert len(set(ids)) == 3

    def test_without_items_writes_nothing_and_makes_no_queue(self, harness):
        plan = harness.broker.add(harness.queue, [[]], harness.now)

        assert plan.writes == []
        assert plan.reply == [[]]
        assert harness.broker.stats().queues == 0

    def test_the_row_of_the_queue_comes_with_the_items(self, harness):
        harness.add(b"a", b"b")
        harness.commit_all()

        (record,) = harness.rows.queues.values()
        assert (record.name, record.added, record.removed) == ("default", 2, 0)

    def test_to_one_queue_too_many_is_overloaded(self, make_harness):
        harness = make_harness(queues=1)
        harness.add(b"a", name="one")

        with pytest.raises(Overloaded, match="queues: 1 exists; the limit is 1"):
            harness.add(b"b", name="two")
        assert harness.add(b"c", name="one")


class TestQueueNames:
    @pytest.mark.parametrize("name", ["", "é" * 128])
    def test_that_are_empty_or_longer_than_255_bytes_are_refused(self, harness, name):
        with pytest.raises(InvalidRequest, match=f"name is {len(name.encode())} bytes of UTF-8; it must be 1 to 255"):
            harness.broker.queue(name)

    def test_name_one_queue_each(self, harness):
        assert harness.broker.queue("ä" * 127) is harness.broker.queue("ä" * 127)
        harness.add(b"mail", name="mail")
        harness.add(b"default")

        assert harness.take(name="mail")[0] == [b"mail"]
        assert harness.take(name="mail")[0] == []
        assert harness.take()[0] == [b"default"]

    def test_of_queues_without_items_use_no_memory(self, harness):
        harness.broker.queue("a")
        waiter = harness.poll(name="b", wait=None)
        harness.distribute()
        harness.broker.polls.cancel(waiter)
        del waiter

        assert list(harness.broker.queues) == []


class TestPoll:
    def test_gets_items_in_the_order_in_which_they_became_due(self, harness):
        harness.add(b"late", delay=500)
        harness.add(b"first")
        harness.now = WallMs(harness.now + 100)
        harness.add(b"second")
        harness.now = WallMs(harness.now + 1000)

        assert harness.take(10)[0] == [b"first", b"second", b"late"]

    def test_that_does_not_wait_is_answered_empty(self, harness):
        harness.poll()

        (delivery,) = harness.distribute()

        assert contents(delivery) == []
        assert delivery.lease is None
        assert harness.broker.confirm_delivery(delivery) is None

    def test_waits_until_an_item_comes(self, harness):
        harness.poll(wait=None)
        assert harness.distribute() == []

        harness.add(b"a")

        (delivery,) = harness.distribute()
        assert contents(delivery) == [b"a"]

    def test_waits_no_longer_than_asked(self, harness):
        harness.poll(wait=50)
        assert harness.distribute() == []
        assert harness.broker.polls.next_tick() == harness.now + 50

        harness.now = WallMs(harness.now + 49)
        assert harness.distribute() == []
        harness.now = WallMs(harness.now + 1)

        (delivery,) = harness.distribute()
        assert contents(delivery) == []

    def test_waits_no_longer_than_the_limit(self, make_harness):
        harness = make_harness(wait_ms=70)

        waiter = harness.poll(wait=71)

        assert waiter.wait_until == harness.now + 70
        assert harness.broker.limit_hits == {"wait_ms": 1}

    def test_is_served_at_the_next_tick_which_is_the_first_of_time_outs_and_dues(self, harness):
        polls = harness.broker.polls
        assert polls.next_tick() is None
        one, two = harness.poll(wait=None, name="one"), harness.poll(wait=50, name="two")
        harness.add(b"a", delay=30, name="one")
        harness.add(b"b", delay=90, name="two")
        assert harness.distribute() == []
        assert polls.next_tick() == harness.now + 31

        polls.cancel(one)
        harness.poll(name="one")
        assert [each.items for each in harness.distribute()] == [()]
        # A wake for a queue without waiting polls does nothing, and does not come again.
        polls.tick(WallMs(harness.now + 31))
        assert not polls.has_runnable
        assert polls.next_tick() == harness.now + 50

        polls.cancel(two)
        assert polls.next_tick() is None
        harness.broker.check()

    def test_waits_until_a_delayed_item_is_due(self, harness):
        harness.poll(wait=None)
        harness.add(b"a", delay=30)
        assert harness.distribute() == []
        due = harness.broker.polls.next_tick()
        # Never shorter than requested: the millisecond in which the add was decided had begun.
        assert due == harness.now + 31

        harness.now = due

        (delivery,) = harness.distribute()
        assert contents(delivery) == [b"a"]

    def test_without_a_number_wants_one_item(self, harness):
        harness.add(b"a", b"b")

        assert harness.take(0)[0] == [b"a"]

    def test_gets_no_more_items_than_one_reply_may_hold(self, make_harness):
        harness = make_harness(poll_items=2)
        harness.add(b"a", b"b", b"c")

        assert harness.take(2**32 - 1)[0] == [b"a", b"b"]

    def test_gets_no_more_bytes_than_one_reply_may_hold_but_always_one_item(self, make_harness):
        harness = make_harness(poll_bytes=5)
        harness.add(b"123456", b"123", b"45", b"6")

        assert harness.take(9)[0] == [b"123456"]
        assert harness.take(9)[0] == [b"123", b"45"]

    def test_with_others_takes_turns_item_by_item(self, harness):
        for wanted in (5, 3, 1):
            harness.poll(wanted, wait=None)
        harness.add(b"1", b"2", b"3", b"4", b"5", b"6")

        assert [contents(each) for each in harness.distribute()] == [[b"1", b"4", b"6"], [b"2", b"5"], [b"3"]]

    def test_that_waited_longest_is_served_first(self, harness):
        first, second = harness.poll(wait=None), harness.poll(wait=None)
        harness.add(b"a")

        (delivery,) = harness.distribute()

        assert delivery.waiter is first
        harness.add(b"b")
        (delivery,) = harness.distribute()
        assert delivery.waiter is second

    def test_has_a_lease_of_its_own(self, harness):
        harness.add(b"a", b"b")
        harness.poll()
        harness.poll()

        one, two = harness.distribute()

        assert one.lease.id != two.lease.id

    def test_shares_one_plan_with_the_others_of_its_claim(self, harness):
        """The floor in a queue's row must not pass an item whose lease comes in a later commit."""
        harness.add(b"a", b"b", b"c")
        harness.commit_all()
        harness.poll(2)
        harness.poll(1)
        harness.distribute()

        assert len(harness.pending) == 1

    def test_with_a_lease_of_0_is_refused(self, harness):
        with pytest.raises(InvalidRequest, match="must last longer"):
            harness.poll(lease_duration=0)

    def test_beyond_the_number_that_may_wait_is_overloaded(self, make_harness):
        harness = make_harness(waiting_polls=1)
        waiter = harness.poll(wait=None)

        with pytest.raises(Overloaded, match="waiting polls: 1 waits already; the limit is 1"):
            harness.poll(wait=None)
        harness.broker.polls.cancel(waiter)
        assert harness.poll(wait=None)

    def test_many_polls_of_one_peer_leave_places_for_other_peers(self, make_harness):
        """Once half of the places are taken, a peer may have half as many as are free."""
        harness = make_harness(waiting_polls=16)
        for _ in range(8):
            harness.poll(wait=None, peer="crowd")
        with pytest.raises(Overloaded, match="8 of them of this connection; with so few places left it may have 4"):
            harness.poll(wait=None, peer="crowd")
        had = [len(list(harness.polls_of(peer))) for peer in "abcdef"]
        assert had == [3, 2, 1, 1, 1, 0]
        with pytest.raises(Overloaded, match="16 wait already; the limit is 16"):
            harness.poll(wait=None, peer="last")
        harness.broker.check()

    def test_a_poll_that_does_not_wait_takes_no_place(self, make_harness):
        harness = make_harness(waiting_polls=2)
        waiters = [harness.poll(wait=None, peer=peer) for peer in "ab"]
        no_wait = [harness.poll(wait=0, peer="c"), harness.poll(wait=0, peer="d")]
        # While the disk stalls they are not answered, and then their number is bounded.
        with pytest.raises(Overloaded, match="4 wait already; the limit is 2"):
            harness.poll(wait=0, peer="e")
        assert {each.waiter for each in harness.distribute()} == set(no_wait)
        assert harness.poll(wait=0, peer="e")
        for waiter in waiters:
            harness.broker.polls.cancel(waiter)
        harness.distribute()
        harness.broker.check()


class TestClaimBounds:
    def test_hold_after_at_least_one_whole_poll(self, make_harness):
        harness = make_harness(ClaimBounds(polls=64, items=2))
        harness.add(b"a", b"b", b"c", b"d")
        harness.poll(3, wait=None)
        harness.poll(3, wait=None)

        (plan,) = harness.broker.claims.distribute(harness.now)

        assert [contents(each) for each in plan.reply] == [[b"a", b"c"], [b"b"]]
        assert not harness.broker.polls.waiting

    def test_leave_the_rest_to_the_next_claim(self, make_harness):
        harness = make_harness(ClaimBounds(polls=1))
        harness.add(b"a", b"b")
        harness.poll(wait=None)
        harness.poll(wait=0)

        (first,) = harness.broker.claims.distribute(harness.now)
        assert [contents(each) for each in first.reply] == [[b"a"]]
        assert harness.broker.polls.has_runnable

        (second,) = harness.broker.claims.distribute(harness.now)
        assert [contents(each) for each in second.reply] == [[b"b"]]
        assert not harness.broker.polls.has_runnable

    def test_count_bytes_too(self, make_harness):
        harness = make_harness(ClaimBounds(bytes=3))
        harness.add(b"123", b"4")
        harness.poll(2, wait=None)

        (plan,) = harness.broker.claims.distribute(harness.now)

        assert [contents(each) for each in plan.reply] == [[b"123"]]

    def test_span_all_queues(self, make_harness):
        harness = make_harness(ClaimBounds(items=1))
        for name in ("one", "two"):
            harness.add(b"a", name=name)
            harness.poll(name=name)

        assert len(harness.broker.claims.distribute(harness.now)) == 1
        assert len(harness.broker.claims.distribute(harness.now)) == 1

    def test_looks_at_no_more_polls_than_it_may_serve(self, harness):
        """Polls of paused peers among them are suspended, so that the next claim does not look at them."""
        queue, polls = harness.queue, harness.broker.polls
        waiters = [harness.poll(wait=None, peer=peer) for peer in "abacaa"]
        assert polls.candidates(queue, 2) == waiters[:2]

        polls.pause("a")

        assert polls.candidates(queue, 1) == [waiters[1]]
        assert list(queue.waiters) == [waiters[1], *waiters[2:]]
        assert polls.candidates(queue, 9) == [waiters[1], waiters[3]]
        assert list(queue.waiters) == [waiters[1], waiters[3]]
        harness.broker.check()
        polls.resume("a")
        assert list(queue.waiters) == [waiters[0], waiters[2], waiters[4], waiters[5], waiters[1], waiters[3]]


class TestRemoveAndExtend:
    def test_remove_ends_the_item_and_the_lease_with_its_last(self, harness):
        one, two = harness.add(b"a", b"b")
        _, lease = harness.take(2)

        assert harness.remove(one, lease.id)
        assert harness.extend(lease.id)
        assert harness.remove(two, lease.id)
        assert not harness.extend(lease.id)
        harness.commit_all()
        assert harness.rows.items == {}
        assert harness.rows.leases == {}
        harness.broker.check()

    def test_false_changes_nothing(self, harness):
        (item,) = harness.add(b"a")
        _, lease = harness.take()
        other = b"x" * 16

        plans = [
            harness.broker.remove(harness.queue, [(item, other)], harness.now),
            harness.broker.remove(harness.queue, [(other, lease.id)], harness.now),
            harness.broker.remove(harness.queue, [(item[:15], lease.id)], harness.now),
            harness.broker.remove(harness.broker.queue("other"), [(item, lease.id)], harness.now),
            harness.broker.extend(harness.queue, [(other, SpanMs(1))], harness.now),
            harness.broker.extend(harness.broker.queue("other"), [(lease.id, SpanMs(1))], harness.now),
        ]

        assert [(plan.reply, plan.writes) for plan in plans] == [([False], [])] * 6
        assert harness.remove(item, lease.id)
        assert not harness.remove(item, lease.id)

    def test_another_lease_is_no_right_to_remove(self, harness):
        one, two = harness.add(b"a", b"b")
        _, first = harness.take()
        _, second = harness.take()

        assert not harness.remove(one, second.id)
        assert harness.remove(one, first.id)
        assert harness.remove(two, second.id)

    @pytest.mark.parametrize("length", [0, 15, 17])
    def test_a_lease_is_16_bytes(self, harness, length):
        with pytest.raises(InvalidRequest, match=f"lease is {length} bytes; it must be 16"):
            harness.remove(b"i" * 16, b"l" * length)
        with pytest.raises(InvalidRequest, match=f"lease is {length} bytes; it must be 16"):
            harness.extend(b"l" * length)

    def test_an_extend_by_0_is_refused(self, harness):
        with pytest.raises(InvalidRequest, match="must last longer"):
            harness.extend(b"l" * 16, 0)

    def test_an_extend_counts_from_now_whether_earlier_or_later(self, harness):
        harness.add(b"a")
        _, lease = harness.take(lease_duration=1000)

        assert harness.extend(lease.id, 10)
        assert lease.deadline == harness.now + 11
        assert harness.extend(lease.id, 5000)
        assert lease.deadline == harness.now + 5001

    def test_after_the_deadline_both_are_false_even_before_the_sweep(self, harness):
        (item,) = harness.add(b"a")
        _, lease = harness.take(lease_duration=1000)

        harness.now = WallMs(harness.now + 1000)
        assert harness.extend(lease.id, 1)
        harness.now = WallMs(harness.now + 2)

        assert not harness.extend(lease.id)
        assert not harness.remove(item, lease.id)


class TestExpiry:
    def test_moves_items_to_where_the_lease_ended_with_one_more_attempt(self, harness):
        (item,) = harness.add(b"a")
        _, lease = harness.take(lease_duration=1000)
        harness.now = WallMs(harness.now + 500)
        harness.add(b"younger")
        harness.now = WallMs(harness.now + 2000)
        harness.add(b"youngest")

        assert harness.sweep() == 1
        harness.poll(9)
        (delivery,) = harness.distribute()

        assert contents(delivery) == [b"younger", b"a", b"youngest"]
        assert [each.attempts for each in delivery.items] == [0, 1, 0]
        assert delivery.items[1].key == (lease.deadline, item)

    def test_sweeps_many_leases_at_once_after_a_start_too(self, harness):
        """A commit for each would take seconds for the leases of a thousand workers that are gone."""
        for number in range(20):
            harness.add(b"%d" % number)
            harness.take(lease_duration=10)
        harness.commit_all()
        harness.crash()
        harness.now = WallMs(harness.now + 11)
        assert len(harness.broker.pop_expired(harness.now)) == 20

    def test_leaves_a_stale_lease_that_changes_nothing(self, harness):
        (item,) = harness.add(b"a")
        _, stale = harness.take(lease_duration=10)
        harness.now = WallMs(harness.now + 11)
        harness.sweep()
        _, fresh = harness.take(lease_duration=1000)

        assert not harness.remove(item, stale.id)
        assert not harness.extend(stale.id)
        assert harness.remove(item, fresh.id)

    def test_lets_waiting_polls_be_served(self, harness):
        harness.add(b"a")
        harness.take(lease_duration=10)
        harness.poll(wait=None)
        assert harness.distribute() == []

        harness.now = WallMs(harness.now + 11)
        harness.sweep()

        (delivery,) = harness.distribute()
        assert contents(delivery) == [b"a"]

    def test_never_sweeps_a_pending_lease(self, harness):
        harness.add(b"a")
        harness.poll(lease_duration=10)
        (delivery,) = harness.distribute()
        harness.now = WallMs(harness.now + 100)

        assert harness.broker.pop_expired(harness.now) == []
        harness.commit_all()
        assert harness.broker.pop_expired(harness.now) == [delivery.lease]

    def test_comes_in_slices_of_rows_and_of_bytes(self, make_harness):
        harness = make_harness(expiry_slice=3, refill_bytes=100)
        for size in (10, 10, 10, 99, 1):
            harness.add(b"x" * size)
            harness.take(lease_duration=10)
        harness.now = WallMs(harness.now + 11)

        slices = []
        while ended := harness.broker.pop_expired(harness.now):
            slices.append(len(ended))

        assert slices == [3, 2]

    def test_is_tried_again_when_the_rows_could_not_be_read(self, harness):
        (item,) = harness.add(b"a")
        harness.take(lease_duration=10)
        harness.now = WallMs(harness.now + 11)
        (lease,) = harness.broker.pop_expired(harness.now)

        harness.broker.retry_sweep(lease, WallMs(harness.now + 5))

        assert harness.broker.pop_expired(harness.now) == []
        assert not harness.remove(item, lease.id)
        harness.now = WallMs(harness.now + 5)
        assert harness.sweep() == 1

    def test_items_that_could_not_be_read_stay_under_the_lease(self, harness):
        _, second, _ = harness.add(b"a", b"b", b"c")
        harness.take(3, lease_duration=10)
        harness.now = WallMs(harness.now + 11)
        (lease,) = harness.broker.pop_expired(harness.now)
        rows = harness.rows.read(lease.queue, lease.rows())

        plan = harness.broker.requeue(lease, [rows[0], None, rows[2]], harness.now, unreadable={second})
        harness.submit(plan)
        harness.broker.retry_sweep(lease, WallMs(harness.now + 5))

        assert plan.reply == 2
        assert harness.take(3)[0] == [b"a", b"c"]
        assert (harness.queue.items, list(lease.keys)) == (3, [second])
        harness.broker.check()
        harness.now = WallMs(harness.now + 5)
        assert harness.sweep() == 1
        assert harness.take(3)[0] == [b"b"]

    def test_skips_a_row_that_is_gone(self, harness):
        harness.add(b"a", b"b")
        harness.take(2, lease_duration=10)
        harness.now = WallMs(harness.now + 11)
        (lease,) = harness.broker.pop_expired(harness.now)
        rows = harness.rows.read(lease.queue, lease.rows())

        plan = harness.broker.requeue(lease, [None, rows[1]], harness.now)

        assert plan.reply == 1
        assert harness.broker.stats().items == 1
        harness.broker.check()


class TestCancelledPolls:
    def test_that_wait_claim_nothing(self, harness):
        waiter = harness.poll(wait=None)
        harness.distribute()

        harness.broker.polls.cancel(waiter)
        harness.broker.polls.cancel(waiter)
        harness.add(b"a")

        assert harness.distribute() == []
        assert harness.take()[0] == [b"a"]

    def test_that_were_claimed_return_their_items_to_the_same_position_without_an_attempt(self, harness):
        harness.add(b"a", b"b")
        waiter = harness.poll(1, wait=None)
        harness.distribute()
        harness.broker.polls.cancel(waiter)
        harness.commit_all()

        assert harness.rows.leases == {}
        harness.poll(2)
        (delivery,) = harness.distribute()
        assert contents(delivery) == [b"a", b"b"]
        assert [each.attempts for each in delivery.items] == [0, 0]

    def test_that_return_items_let_waiting_polls_be_served(self, harness):
        first, second = harness.poll(wait=None), harness.poll(wait=None)
        harness.add(b"a")
        harness.distribute()
        harness.broker.polls.cancel(first)
        harness.commit_all()

        (delivery,) = harness.distribute()

        assert delivery.waiter is second

    def test_that_have_timed_out_are_not_answered(self, harness):
        waiter = harness.poll(wait=0)
        harness.broker.polls.cancel(waiter)

        assert harness.distribute() == []


class TestPausedPeers:
    def test_are_not_served_and_delay_no_other_peer(self, harness):
        slow = harness.poll(wait=None, peer="slow")
        quick = harness.poll(wait=None, peer="quick")
        harness.broker.polls.pause("slow")
        harness.add(b"a", b"b")

        (delivery,) = harness.distribute()
        assert delivery.waiter is quick

        harness.broker.polls.resume("slow")
        (delivery,) = harness.distribute()
        assert delivery.waiter is slow
        harness.broker.check()

    def test_are_served_before_polls_that_came_later_when_resumed(self, harness):
        first, second = harness.poll(wait=None, peer="slow"), harness.poll(wait=None, peer="slow")
        harness.broker.polls.pause("slow")
        harness.add(b"a")
        assert harness.distribute() == []
        third = harness.poll(wait=None, peer="quick")
        harness.broker.polls.resume("slow")
        harness.add(b"b", b"c")

        assert [each.waiter for each in harness.distribute()] == [first, second, third]

    def test_whose_polls_time_out_are_answered_once_no_item_is_ready(self, harness):
        waiter = harness.poll(wait=10, peer="slow")
        harness.broker.polls.pause("slow")
        harness.add(b"a")
        assert harness.distribute() == []
        harness.now = WallMs(harness.now + 10)
        # There is an item for them, so an empty reply would be wrong.
        assert harness.distribute() == []

        harness.poll()
        served, timed_out = harness.distribute()

        assert contents(served) == [b"a"]
        assert (timed_out.waiter, contents(timed_out)) == (waiter, [])

    def test_can_cancel_polls(self, harness):
        waiter = harness.poll(wait=None, peer="slow")
        harness.broker.polls.pause("slow")
        harness.add(b"a")
        harness.distribute()

        harness.broker.polls.cancel(waiter)
        harness.broker.polls.resume("slow")

        assert harness.distribute() == []
        harness.broker.check()


class TestLeasedItemsLimit:
    def test_refuses_and_serves_no_polls_until_an_item_is_removed(self, make_harness):
        harness = make_harness(leased_items=1)
        one, _two = harness.add(b"a", b"b")
        early = harness.poll(wait=None)
        late = harness.poll(wait=50)
        (delivery,) = harness.distribute()
        harness.commit_all()
        assert delivery.waiter is early

        with pytest.raises(Overloaded, match="leased items: there are 1; the limit is 1"):
            harness.poll()
        assert harness.distribute() == []

        assert harness.remove(one, delivery.lease.id)
        assert harness.broker.polls.has_runnable
        (delivery,) = harness.distribute()
        assert delivery.waiter is late

    def test_reads_nothing_ahead_while_no_poll_can_be_served(self, make_harness):
        """Rows that do not fit into the window would be read by every claim."""
        harness = make_harness(leased_items=1, queue_window_bytes=1_000, item_overhead=500, refill_items=9)
        ids = [harness.add(b"%d" % number)[0] for number in range(6)]
        harness.poll(wait=None)
        harness.poll(wait=None)

        (delivery,) = harness.distribute()
        harness.commit_all()

        assert harness.distribute() == []
        assert harness.remove(ids[0], delivery.lease.id)
        (delivery,) = harness.distribute()
        assert [item.key.id for item in delivery.items] == ids[1:2]

    def test_ends_a_wait_while_rows_are_not_read(self, make_harness):
        """A claim that reaches the limit takes the last item of the window, and no scan follows it."""
        harness = make_harness(leased_items=1, refill_items=1)
        harness.add(b"a", b"b", b"c")
        harness.commit_all()
        harness.drop_window()
        polls = [harness.poll(wait=0), harness.poll(wait=0)]
        assert harness.broker.claims.distribute(harness.now) == []
        (refill,) = harness.broker.take_refills()
        harness.broker.refilled(refill, harness.rows.scan(refill.number, refill.after, items_max=1))

        (plan,) = harness.broker.claims.distribute(harness.now)

        assert [each.waiter for each in plan.reply] == polls
        assert [contents(each) for each in plan.reply] == [[b"a"], []]
        assert isinstance(plan.reply[1].error, Overloaded)
        assert harness.broker.take_refills() == []

    def test_ends_a_wait_with_overloaded_and_not_with_an_empty_reply(self, make_harness):
        harness = make_harness(leased_items=1)
        harness.add(b"a", b"b")
        harness.poll(wait=None)
        harness.poll(wait=50)
        harness.distribute()

        harness.now = WallMs(harness.now + 50)
        (delivery,) = harness.distribute()

        assert isinstance(delivery.error, Overloaded)
        assert delivery.items == ()


class TestWindowAndRefill:
    def test_a_backlog_beyond_the_window_comes_back_in_order(self, make_harness):
        harness = make_harness(queue_window_bytes=2000, item_overhead=500, refill_items=4)
        everything = [b"%d" % number for number in range(20)]
        for each in everything:
            harness.add(each)
        harness.commit_all()
        assert len(harness.queue.window) < 5

        taken = []
        while got := harness.take(3)[0]:
            taken += got
            harness.broker.check()

        assert taken == everything
        assert harness.queue.window.covered_to == HIGHEST

    def test_an_empty_reply_waits_for_the_scan(self, harness):
        harness.add(b"a")
        harness.commit_all()
        harness.drop_window()
        harness.poll(wait=0)

        assert harness.broker.claims.distribute(harness.now) == []
        harness.refill()
        (plan,) = harness.broker.claims.distribute(harness.now)

        assert [contents(each) for each in plan.reply] == [[b"a"]]

    def test_a_put_during_a_scan_is_not_lost(self, harness):
        harness.add(b"a")
        harness.commit_all()
        harness.drop_window()
        harness.poll(2, wait=0)
        harness.broker.claims.distribute(harness.now)
        (refill,) = harness.broker.take_refills()
        snapshot = harness.rows.scan(refill.number, refill.after, items_max=10)

        harness.add(b"b")
        harness.broker.refilled(refill, snapshot)

        (plan,) = harness.broker.claims.distribute(harness.now)
        assert [contents(each) for each in plan.reply] == [[b"a", b"b"]]

    def test_there_is_one_scan_at_a_time(self, harness):
        harness.add(b"a")
        harness.commit_all()
        harness.drop_window()
        harness.poll(wait=None)
        harness.broker.claims.distribute(harness.now)
        harness.poll(wait=None)
        harness.broker.claims.distribute(harness.now)

        assert len(harness.broker.take_refills()) == 1

    def test_a_claim_delivers_the_rows_of_one_scan_and_the_next_scan_the_rest(self, harness):
        """An empty window that does not cover the present is no reason for an empty reply."""
        harness.add(b"a", b"b", b"c", b"d")
        harness.commit_all()
        harness.drop_window()
        for _ in range(4):
            harness.poll(wait=0)
        assert harness.broker.claims.distribute(harness.now) == []
        harness.refill()

        (plan,) = harness.broker.claims.distribute(harness.now)

        assert [contents(each) for each in plan.reply] == [[b"a"], [b"b"], [b"c"]]
        harness.submit(plan)
        assert [contents(each) for each in harness.distribute()] == [[b"d"]]

    def test_a_window_with_enough_for_all_polls_needs_no_scan(self, harness):
        everything = [b"%d" % number for number in range(8)]
        harness.add(*everything)
        harness.queue.window.trim(4 * 513, harness.queue.floor)
        harness.poll(1, wait=None)
        harness.poll(2, wait=None)

        (plan,) = harness.broker.claims.distribute(harness.now)

        assert [contents(each) for each in plan.reply] == [[b"0"], [b"1", b"2"]]

    def test_a_window_of_the_size_of_a_scan_is_served_without_one(self, make_harness):
        harness = make_harness(refill_bytes=1_000, item_overhead=500)
        harness.add(*[b"x"] * 8)
        harness.queue.window.trim(3 * 501, harness.queue.floor)
        harness.poll(8, wait=None)

        (plan,) = harness.broker.claims.distribute(harness.now)

        assert [contents(each) for each in plan.reply] == [[b"x"] * 3]

    def test_the_only_window_is_halved_when_memory_is_short_and_keeps_its_head(self, make_harness):
        harness = make_harness(window_bytes=1000, item_overhead=100)
        everything = [b"%d" % number * 10 for number in range(10)]
        for each in everything:
            harness.add(each)
        assert len(harness.queue.window) == 4
        assert harness.take(5)[0] + harness.take(3)[0] + harness.take(3)[0] == everything

        harness.add(b"x" * 2000)
        assert len(harness.queue.window) == 1
        assert harness.take()[0] == [b"x" * 2000]

    def test_a_failed_scan_ends_the_waiting_polls_with_its_error(self, harness):
        harness.add(b"a")
        harness.drop_window()
        waiting, timed_out = harness.poll(wait=None), harness.poll(wait=0)
        harness.broker.claims.distribute(harness.now)
        (refill,) = harness.broker.take_refills()
        error = StorageError("a row is damaged")

        deliveries = harness.broker.refill_failed(refill, error)

        assert [(each.waiter, each.error) for each in deliveries] == [(waiting, error), (timed_out, error)]
        harness.broker.check()
        harness.commit_all()
        assert harness.take()[0] == [b"a"]

    def test_unreadable_rows_are_skipped_and_tried_again_after_a_restart(self, harness, monkeypatch):
        harness.add(*(b"%d" % number for number in range(5)))
        harness.commit_all()
        harness.drop_window()
        whole = ModelStore.scan

        def damaged(*where, **bounds):
            scan = whole(*where, **bounds)
            bad = [item for item in scan.items if item.contents in (b"1", b"2")]
            gaps = [Gap(just_below(item.key), StorageError("a row is damaged")) for item in reversed(bad)]
            return evolve(scan, items=[item for item in scan.items if item not in bad], gaps=gaps)

        monkeypatch.setattr(ModelStore, "scan", damaged)
        for expected in ([b"0"], [b"3"], [b"4"]):
            taken, lease = harness.take(5)
            assert taken == expected
            for item in list(lease.keys):
                assert harness.remove(item, lease.id)
        harness.commit_all()
        assert harness.queue.items == 2

        monkeypatch.undo()
        harness.crash()
        assert harness.take(5)[0] == [b"1", b"2"]

    def test_a_scan_is_not_used_if_the_window_was_trimmed_meanwhile(self, make_harness):
        harness = make_harness(queue_window_bytes=2000, item_overhead=500)
        for number in range(8):
            harness.add(b"%d" % number)
        harness.commit_all()
        harness.poll(3)
        assert harness.broker.claims.distribute(harness.now) == []
        (refill,) = harness.broker.take_refills()
        before = harness.queue.window.covered_to
        harness.queue.window.trim(500, harness.queue.floor)
        assert harness.queue.window.covered_to < before

        harness.broker.refilled(refill, harness.rows.scan(refill.number, refill.after, items_max=10))

        harness.broker.check()
        assert contents(harness.distribute()[0]) == [b"0", b"1", b"2"]

    def test_windows_of_queues_without_claims_are_dropped_first(self, make_harness):
        harness = make_harness(window_bytes=300_000, queue_window_bytes=200_000, refill_bytes=100_000)
        harness.add(b"x" * 1000, name="polled")
        harness.take(name="polled")
        for number in range(100):
            harness.add(b"%d" % number * 400, name="polled")
        for _ in range(4):
            harness.add(*[b"y" * 1000] * 100, name="idle")
            harness.add(*[b"z" * 1000] * 100, name="idle too")

        stats = harness.broker.stats()

        assert stats.window_bytes <= 300_000
        assert len(harness.broker.queue("polled").window) == 100
        harness.broker.check()


class TestRestore:
    def test_continues_leases_counters_and_attempts(self, harness):
        one, two = harness.add(b"a", b"b")
        _, lease = harness.take(2)
        harness.remove(one, lease.id)
        harness.commit_all()

        harness.crash()

        assert harness.take()[0] == []
        assert harness.remove(two, lease.id)
        assert harness.broker.stats().items == 0

    def test_sweeps_leases_that_expired_meanwhile(self, harness):
        harness.add(b"a")
        harness.take(lease_duration=10)
        harness.crash()

        harness.now = WallMs(harness.now + 11)
        assert harness.sweep() == 1
        harness.poll()
        (delivery,) = harness.distribute()

        assert [each.attempts for each in delivery.items] == [1]

    def test_loses_only_what_was_not_durable(self, harness):
        harness.add(b"durable")
        harness.commit_all()
        harness.add(b"not")

        harness.crash()

        assert harness.take(9)[0] == [b"durable"]

    def test_deletes_leases_whose_items_are_all_gone(self, harness):
        harness.add(b"a")
        harness.take()
        for place in list(harness.rows.items):
            harness.rows.delete(*place)

        harness.crash()

        assert [type(write).__name__ for plan in harness.pending for write in plan.writes] == ["DeleteLease"]

    def test_never_reuses_a_number(self, harness):
        harness.add(b"a", name="one")
        harness.commit_all()
        harness.crash()
        harness.add(b"b", name="two")
        harness.commit_all()

        assert [record.name for record in harness.rows.queues.values()] == ["one", "two"]


def test_a_dump_names_every_queue_and_lease(harness):
    harness.add(b"a", b"b")
    _, lease = harness.take()

    dump = harness.broker.dump()

    assert "queues=1 items=2 leases=1 leased_items=1" in dump
    assert "queue 'default' number=1 items=2 held=1" in dump
    assert f"lease {lease.id.hex()} queue=1 live" in dump


def test_queues_and_leases_can_be_listed(harness):
    harness.add(b"a", b"b", name="mail")
    _, late = harness.take(lease_duration=2000, name="mail")
    _, soon = harness.take(lease_duration=1000, name="mail")
    harness.add(b"c", name="jobs")

    assert [queue.name for queue in harness.broker.queues] == ["mail", "jobs"]
    assert list(harness.broker.leases) == [late, soon]
    assert harness.broker.leases.soonest(9) == [soon, late]
    assert harness.broker.leases.soonest(1) == [soon]
    assert harness.broker.queues.by_number(soon.queue).name == "mail"


def test_a_queue_that_has_become_empty_is_still_the_same_queue(harness):
    """With a second object of the same name, polls that wait for the first would wait for ever."""
    (item,) = harness.add(b"a")
    queue = harness.queue
    _, lease = harness.take()
    harness.remove(item, lease.id)
    harness.poll(wait=None)

    harness.add(b"b")

    assert harness.queue is queue
    (delivery,) = harness.distribute()
    assert contents(delivery) == [b"b"]


def test_a_queue_that_is_always_busy_does_not_starve_the_others(make_harness):
    harness = make_harness(ClaimBounds(polls=1), refill_items=2)
    harness.add(*[b"x"] * 20, name="busy")
    harness.add(b"a", b"b", name="other")
    harness.commit_all()
    other = harness.broker.queue("other")
    other.window.trim(0, other.floor)
    harness.poll(name="busy", wait=None)
    harness.poll(name="busy", wait=None)
    harness.poll(3, name="other", wait=None)

    served = []
    for _ in range(6):
        for plan in harness.broker.claims.distribute(harness.now):
            served += [delivery.waiter.queue.name for delivery in plan.reply]
            harness.submit(plan)
        harness.refill()
        harness.poll(name="busy", wait=None)

    assert "other" in served


def test_a_claim_looks_at_no_more_queues_than_it_can_serve(make_harness, monkeypatch):
    """A peer with a waiting poll for each of ten thousand queues must not make every claim look at all of them."""
    harness = make_harness(ClaimBounds(polls=2))
    names = [f"q{number}" for number in range(50)]
    # The waiters refer to the queues: one without items exists only as long as something refers to it.
    waiters = [harness.poll(name=name, wait=None) for name in names]
    harness.distribute()
    for name in names:
        harness.add(b"x", name=name)
    claims, looked = harness.broker.claims, []
    serve = claims.serve

    def looking(_, queue, *rest):
        looked.append(queue.name)
        return serve(queue, *rest)

    monkeypatch.setattr(type(claims), "serve", looking)

    for first in range(0, 50, 2):
        looked.clear()
        for plan in claims.distribute(harness.now):
            harness.submit(plan)
        assert looked == names[first : first + 2]
        harness.commit_all()

    assert all(waiter.done for waiter in waiters)
    assert not harness.broker.polls.has_runnable


def test_all_waiting_polls_can_be_failed_those_of_paused_peers_included(harness):
    slow = harness.poll(wait=None, peer="slow")
    timed_out = harness.poll(wait=10, peer="slow")
    quick = harness.poll(wait=None, name="another")
    harness.broker.polls.pause("slow")
    harness.add(b"a")
    harness.distribute()
    harness.now = WallMs(harness.now + 10)
    harness.distribute()
    error = Overloaded("enough")

    deliveries = harness.broker.fail_polls(error)

    assert [(each.waiter, each.error) for each in deliveries] == [(slow, error), (timed_out, error), (quick, error)]
    assert harness.broker.polls.waiting == 0
    assert harness.distribute() == []
    harness.broker.check()


def test_a_plan_has_the_size_of_its_contents(harness):
    harness.add(b"123", b"4")
    harness.poll()
    harness.distribute()

    assert [plan.size for plan in harness.pending] == [4, 24]


def test_timed_out_polls_of_a_paused_peer_are_not_looked_at_by_every_claim(harness):
    """They stay until their peer reads replies, and every add asks whether there are any."""

    class Looked(dict):
        times = 0

        def __iter__(self):
            type(self).times += 1
            return super().__iter__()

    queue = harness.broker.queue("default")
    for _ in range(5):
        harness.poll(wait=10, peer="slow")
    harness.broker.polls.pause("slow")
    harness.now += 20
    harness.add(b"a")
    harness.broker.polls.tick(harness.now)
    queue.timed_out = Looked(queue.timed_out)
    for _ in range(10):
        assert harness.broker.claims.serve(queue, harness.now) is None
    assert len(queue.timed_out) == 5
    assert not Looked.times
    harness.broker.polls.resume("slow")
    assert sorted(map(contents, harness.distribute())) == [[], [], [], [], [b"a"]]
    assert not queue.timed_out
    harness.broker.check()


NEW_ITEMS = st.builds(NewItem, st.binary(max_size=3), st.sampled_from([0, 0, 5]), st.none())


class TestBatches:
    """Calls in one batch have the same replies as one after the other."""

    def test_adds_are_one_plan_with_the_ids_of_each(self, harness):
        plan = harness.broker.add(
            harness.queue, [[NewItem(b"a", 0), NewItem(b"b", 0)], [], [NewItem(b"c", 0)]], harness.now
        )

        assert [len(ids) for ids in plan.reply] == [2, 0, 1]
        (write,) = plan.writes
        assert [each for ids in plan.reply for each in ids] == [item.key.id for item in write.items]
        assert (plan.rows, plan.size) == (3, 3)

    def test_each_add_to_one_queue_too_many_is_overloaded(self, make_harness):
        harness = make_harness(queues=1)
        harness.add(b"a", name="one")
        plan = harness.broker.add(harness.queue, [[NewItem(b"b", 0)], [], [NewItem(b"c", 0)]], harness.now)

        assert [type(reply) for reply in plan.reply] == [Overloaded, list, Overloaded]
        assert plan.writes == []

    def test_a_remove_depends_on_the_removes_before_it(self, harness):
        first, second = harness.add(b"a", b"b")
        _, lease = harness.take(2)

        pairs = [(first, lease.id), (first, lease.id), (second, b"short"), (second, lease.id), (second, lease.id)]
        plan = harness.broker.remove(harness.queue, pairs, harness.now)

        assert [reply if isinstance(reply, bool) else type(reply) for reply in plan.reply] == [
            True,
            False,
            InvalidRequest,
            True,
            False,
        ]
        assert len(plan.writes) == 3, "two items and the lease"

    def test_a_lease_that_is_extended_many_times_is_written_once(self, harness):
        harness.add(b"a")
        _, lease = harness.take()

        requests = [(lease.id, 10), (lease.id, 0), (b"short", 10), (b"x" * 16, 10), (lease.id, 500)]
        plan = harness.broker.extend(harness.queue, requests, harness.now)

        assert [reply if isinstance(reply, bool) else type(reply) for reply in plan.reply] == [
            True,
            InvalidRequest,
            InvalidRequest,
            False,
            True,
        ]
        (write,) = plan.writes
        assert write.record.deadline == lease.deadline >= harness.now + 500
        assert plan.size == lease.record_bytes

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(
        adds=st.lists(st.lists(NEW_ITEMS, max_size=3), max_size=5),
        removes=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["lease", "other", "short"])), max_size=6),
        extends=st.lists(st.tuples(st.sampled_from(["lease", "other", "short"]), st.integers(0, 21)), max_size=5),
    )
    def test_one_batch_decides_as_single_calls_do(self, make_harness, adds, removes, extends):
        """Removes and extends with a lease id that is not 16 bytes are refused."""
        together, alone = (make_harness() for _ in range(2))
        for harness in (together, alone):
            harness.add(b"a", b"b", b"c", b"d")
            _, lease = harness.take(4, lease_duration=20)
        leases = {"lease": lease.id, "other": b"o" * 16, "short": b"s"}
        items = [*lease.keys, b"?" * 16, b"?"]
        pairs = [(items[number], leases[name]) for number, name in removes]
        spans = [(leases[name], span) for name, span in extends]

        for call, arguments in (("add", adds), ("extend", spans), ("remove", pairs)):
            batch = together.submit(getattr(together.broker, call)(together.queue, arguments, together.now))
            single = [
                alone.submit(getattr(alone.broker, call)(alone.queue, [each], alone.now)).reply[0] for each in arguments
            ]
            assert list(map(repr, batch.reply)) == list(map(repr, single))
        for harness in (together, alone):
            harness.commit_all()
            harness.broker.check()
        assert together.rows == alone.rows

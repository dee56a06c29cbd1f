"""What each call does, one behaviour a test."""

import pytest
from attrs import evolve

from queueber.broker import ClaimBounds
from queueber.broker.model import HIGHEST, just_below
from queueber.broker.port import Gap
from queueber.errors import InvalidRequest, Overloaded, StorageError
from queueber.units import DAY, YEAR, SpanMs, WallMs


def contents(delivery):
    return [item.contents for item in delivery.items]


class TestAdd:
    def test_ids_come_in_the_order_of_the_items(self, bench):
        ids = bench.add(b"a", b"b", b"c")

        assert ids == sorted(ids)
        assert len(set(ids)) == 3

    def test_of_nothing_writes_nothing_and_makes_no_queue(self, bench):
        plan = bench.broker.add(bench.queue, [[]], bench.now)

        assert plan.writes == []
        assert plan.reply == [[]]
        assert bench.broker.stats().queues == 0

    def test_the_row_of_the_queue_comes_with_the_items(self, bench):
        bench.add(b"a", b"b")
        bench.sync()

        (record,) = bench.rows.queues.values()
        assert (record.name, record.added, record.removed) == ("default", 2, 0)

    @pytest.mark.parametrize(
        ("limits", "items", "complaint"),
        [
            ({"items_per_add": 2}, [(b"", 0)] * 3, "items is 3 items; the limit is 2"),
            ({"contents_bytes": 4}, [(b"12345", 0)], "contents is 5 bytes; the limit is 4"),
            ({"add_bytes": 4}, [(b"123", 0), (b"45", 0)], "contents of all items is 5 bytes; the limit is 4"),
            ({}, [(b"", 10 * YEAR + 1)], "visibilityTimeoutMs is 316,224,000,001 ms; the limit is 316,224,000,000"),
        ],
    )
    def test_of_too_much_is_refused_whole(self, make_bench, limits, items, complaint):
        bench = make_bench(**limits)

        with pytest.raises(InvalidRequest, match=complaint):
            bench.only(bench.broker.add(bench.queue, [items], bench.now))

        assert bench.broker.stats().items == 0
        bench.broker.check()

    def test_of_one_queue_too_many_is_overloaded(self, make_bench):
        bench = make_bench(queues=1)
        bench.add(b"a", name="one")

        with pytest.raises(Overloaded, match="queues: 1 exists; the limit is 1"):
            bench.add(b"b", name="two")
        assert bench.add(b"c", name="one")


class TestQueueNames:
    @pytest.mark.parametrize("name", ["", "é" * 128])
    def test_of_no_or_more_than_255_bytes_are_refused(self, bench, name):
        with pytest.raises(InvalidRequest, match=f"name is {len(name.encode())} bytes of UTF-8; it must be 1 to 255"):
            bench.broker.queue(name)

    def test_name_one_queue_each(self, bench):
        assert bench.broker.queue("ä" * 127) is bench.broker.queue("ä" * 127)
        bench.add(b"mail", name="mail")
        bench.add(b"default")

        assert bench.take(name="mail")[0] == [b"mail"]
        assert bench.take(name="mail")[0] == []
        assert bench.take()[0] == [b"default"]

    def test_that_were_only_asked_for_leave_nothing_behind(self, bench):
        bench.broker.queue("a")
        waiter = bench.poll(name="b", wait=None)
        bench.distribute()
        bench.broker.polls.cancel(waiter)
        del waiter

        assert list(bench.broker._queues) == []


class TestPoll:
    def test_gets_items_in_the_order_in_which_they_became_due(self, bench):
        bench.add(b"late", delay=500)
        bench.add(b"first")
        bench.now = WallMs(bench.now + 100)
        bench.add(b"second")
        bench.now = WallMs(bench.now + 1000)

        assert bench.take(10)[0] == [b"first", b"second", b"late"]

    def test_that_does_not_wait_is_answered_empty(self, bench):
        bench.poll()

        (delivery,) = bench.distribute()

        assert contents(delivery) == []
        assert delivery.lease is None
        assert bench.broker.settle(delivery) is None

    def test_waits_until_an_item_comes(self, bench):
        bench.poll(wait=None)
        assert bench.distribute() == []

        bench.add(b"a")

        (delivery,) = bench.distribute()
        assert contents(delivery) == [b"a"]

    def test_waits_no_longer_than_asked(self, bench):
        bench.poll(wait=50)
        assert bench.distribute() == []
        assert bench.broker.polls.next_tick() == bench.now + 50

        bench.now = WallMs(bench.now + 49)
        assert bench.distribute() == []
        bench.now = WallMs(bench.now + 1)

        (delivery,) = bench.distribute()
        assert contents(delivery) == []

    def test_is_not_cut_short_by_an_item_that_is_not_due(self, bench):
        bench.poll(wait=None)
        bench.add(b"a", delay=30)
        assert bench.distribute() == []
        due = bench.broker.polls.next_tick()
        # Never shorter than asked: the millisecond in which the add was decided had begun.
        assert due == bench.now + 31

        bench.now = due

        (delivery,) = bench.distribute()
        assert contents(delivery) == [b"a"]

    def test_without_a_number_wants_one_item(self, bench):
        bench.add(b"a", b"b")

        assert bench.take(0)[0] == [b"a"]

    def test_gets_no_more_items_than_one_reply_may_hold(self, make_bench):
        bench = make_bench(poll_items=2)
        bench.add(b"a", b"b", b"c")

        assert bench.take(2**32 - 1)[0] == [b"a", b"b"]

    def test_gets_no_more_bytes_than_one_reply_may_hold_but_always_one_item(self, make_bench):
        bench = make_bench(poll_bytes=5)
        bench.add(b"123456", b"123", b"45", b"6")

        assert bench.take(9)[0] == [b"123456"]
        assert bench.take(9)[0] == [b"123", b"45"]

    def test_with_others_takes_turns_item_by_item(self, bench):
        for wanted in (5, 3, 1):
            bench.poll(wanted, wait=None)
        bench.add(b"1", b"2", b"3", b"4", b"5", b"6")

        assert [contents(each) for each in bench.distribute()] == [[b"1", b"4", b"6"], [b"2", b"5"], [b"3"]]

    def test_that_waited_longest_is_served_first(self, bench):
        first, second = bench.poll(wait=None), bench.poll(wait=None)
        bench.add(b"a")

        (delivery,) = bench.distribute()

        assert delivery.waiter is first
        bench.add(b"b")
        (delivery,) = bench.distribute()
        assert delivery.waiter is second

    def test_has_a_lease_of_its_own(self, bench):
        bench.add(b"a", b"b")
        bench.poll()
        bench.poll()

        one, two = bench.distribute()

        assert one.lease.id != two.lease.id

    def test_of_one_claim_is_one_plan(self, bench):
        """The floor in a queue's row must not pass an item whose lease comes in a later commit."""
        bench.add(b"a", b"b", b"c")
        bench.sync()
        bench.poll(2)
        bench.poll(1)
        bench.distribute()

        assert len(bench.pending) == 1

    @pytest.mark.parametrize(
        ("span", "complaint"),
        [(0, "must last longer"), (7 * DAY + 1, "leaseValidityMs is 604,800,001 ms; the limit is 604,800,000")],
    )
    def test_for_no_or_too_long_a_lease_is_refused(self, bench, span, complaint):
        with pytest.raises(InvalidRequest, match=complaint):
            bench.poll(span=span)

    def test_beyond_the_number_that_may_wait_is_overloaded(self, make_bench):
        bench = make_bench(waiting_polls=1)
        waiter = bench.poll(wait=None)

        with pytest.raises(Overloaded, match="waiting polls: 1 waits already; the limit is 1"):
            bench.poll(wait=None)
        bench.broker.polls.cancel(waiter)
        assert bench.poll(wait=None)

    def test_a_crowd_leaves_places_for_those_who_come(self, make_bench):
        """Once half of them have gone, a peer may have half as many as are left."""
        bench = make_bench(waiting_polls=16)
        for _ in range(8):
            bench.poll(wait=None, peer="crowd")
        with pytest.raises(Overloaded, match="8 of them of this connection; with so few places left it may have 4"):
            bench.poll(wait=None, peer="crowd")
        had = [len(list(bench.polls_of(peer))) for peer in "abcdef"]
        assert had == [3, 2, 1, 1, 1, 0]
        with pytest.raises(Overloaded, match="16 wait already; the limit is 16"):
            bench.poll(wait=None, peer="last")
        bench.broker.check()

    def test_a_poll_that_does_not_wait_takes_no_place(self, make_bench):
        bench = make_bench(waiting_polls=2)
        waiters = [bench.poll(wait=None, peer=peer) for peer in "ab"]
        passing = [bench.poll(wait=0, peer="c"), bench.poll(wait=0, peer="d")]
        # While the disk stands still they are not answered, and then there are only so many.
        with pytest.raises(Overloaded, match="4 wait already; the limit is 2"):
            bench.poll(wait=0, peer="e")
        assert {each.waiter for each in bench.distribute()} == set(passing)
        assert bench.poll(wait=0, peer="e")
        for waiter in waiters:
            bench.broker.polls.cancel(waiter)
        bench.distribute()
        bench.broker.check()


class TestClaimBounds:
    def test_hold_after_at_least_one_whole_poll(self, make_bench):
        bench = make_bench(ClaimBounds(polls=64, items=2))
        bench.add(b"a", b"b", b"c", b"d")
        bench.poll(3, wait=None)
        bench.poll(3, wait=None)

        (plan,) = bench.broker.polls.distribute(bench.now)

        assert [contents(each) for each in plan.reply] == [[b"a", b"c"], [b"b"]]
        assert not bench.broker.polls.waiting

    def test_leave_the_rest_to_the_next_claim(self, make_bench):
        bench = make_bench(ClaimBounds(polls=1))
        bench.add(b"a", b"b")
        bench.poll(wait=None)
        bench.poll(wait=0)

        (first,) = bench.broker.polls.distribute(bench.now)
        assert [contents(each) for each in first.reply] == [[b"a"]]
        assert bench.broker.polls.stirred

        (second,) = bench.broker.polls.distribute(bench.now)
        assert [contents(each) for each in second.reply] == [[b"b"]]
        assert not bench.broker.polls.stirred

    def test_count_bytes_too(self, make_bench):
        bench = make_bench(ClaimBounds(bytes=3))
        bench.add(b"123", b"4")
        bench.poll(2, wait=None)

        (plan,) = bench.broker.polls.distribute(bench.now)

        assert [contents(each) for each in plan.reply] == [[b"123"]]

    def test_span_all_queues(self, make_bench):
        bench = make_bench(ClaimBounds(items=1))
        for name in ("one", "two"):
            bench.add(b"a", name=name)
            bench.poll(name=name)

        assert len(bench.broker.polls.distribute(bench.now)) == 1
        assert len(bench.broker.polls.distribute(bench.now)) == 1


class TestRemoveAndExtend:
    def test_remove_ends_the_item_and_the_lease_with_its_last(self, bench):
        one, two = bench.add(b"a", b"b")
        _, lease = bench.take(2)

        assert bench.remove(one, lease.id)
        assert bench.extend(lease.id)
        assert bench.remove(two, lease.id)
        assert not bench.extend(lease.id)
        bench.sync()
        assert bench.rows.items == {}
        assert bench.rows.leases == {}
        bench.broker.check()

    def test_false_changes_nothing(self, bench):
        (item,) = bench.add(b"a")
        _, lease = bench.take()
        other = b"x" * 16

        plans = [
            bench.broker.remove(bench.queue, [(item, other)], bench.now),
            bench.broker.remove(bench.queue, [(other, lease.id)], bench.now),
            bench.broker.remove(bench.queue, [(item[:15], lease.id)], bench.now),
            bench.broker.remove(bench.broker.queue("other"), [(item, lease.id)], bench.now),
            bench.broker.extend(bench.queue, [(other, SpanMs(1))], bench.now),
            bench.broker.extend(bench.broker.queue("other"), [(lease.id, SpanMs(1))], bench.now),
        ]

        assert [(plan.reply, plan.writes) for plan in plans] == [([False], [])] * 6
        assert bench.remove(item, lease.id)
        assert not bench.remove(item, lease.id)

    def test_another_lease_is_no_right_to_remove(self, bench):
        one, two = bench.add(b"a", b"b")
        _, first = bench.take()
        _, second = bench.take()

        assert not bench.remove(one, second.id)
        assert bench.remove(one, first.id)
        assert bench.remove(two, second.id)

    @pytest.mark.parametrize("length", [0, 15, 17])
    def test_a_lease_is_16_bytes(self, bench, length):
        with pytest.raises(InvalidRequest, match=f"lease is {length} bytes; it must be 16"):
            bench.remove(b"i" * 16, b"l" * length)
        with pytest.raises(InvalidRequest, match=f"lease is {length} bytes; it must be 16"):
            bench.extend(b"l" * length)

    def test_extend_to_nothing_is_refused(self, bench):
        with pytest.raises(InvalidRequest, match="must last longer"):
            bench.extend(b"l" * 16, 0)

    def test_extend_counts_from_now_be_it_earlier_or_later(self, bench):
        bench.add(b"a")
        _, lease = bench.take(span=1000)

        assert bench.extend(lease.id, 10)
        assert lease.deadline == bench.now + 11
        assert bench.extend(lease.id, 5000)
        assert lease.deadline == bench.now + 5001

    def test_after_the_deadline_both_are_false_even_before_the_sweep(self, bench):
        (item,) = bench.add(b"a")
        _, lease = bench.take(span=1000)

        bench.now = WallMs(bench.now + 1000)
        assert bench.extend(lease.id, 1)
        bench.now = WallMs(bench.now + 2)

        assert not bench.extend(lease.id)
        assert not bench.remove(item, lease.id)


class TestExpiry:
    def test_moves_items_to_where_the_lease_ended_with_one_more_attempt(self, bench):
        (item,) = bench.add(b"a")
        _, lease = bench.take(span=1000)
        bench.now = WallMs(bench.now + 500)
        bench.add(b"younger")
        bench.now = WallMs(bench.now + 2000)
        bench.add(b"youngest")

        assert bench.sweep() == 1
        bench.poll(9)
        (delivery,) = bench.distribute()

        assert contents(delivery) == [b"younger", b"a", b"youngest"]
        assert [each.attempts for each in delivery.items] == [0, 1, 0]
        assert delivery.items[1].key == (lease.deadline, item)

    def test_leaves_a_stale_lease_that_changes_nothing(self, bench):
        (item,) = bench.add(b"a")
        _, stale = bench.take(span=10)
        bench.now = WallMs(bench.now + 11)
        bench.sweep()
        _, fresh = bench.take(span=1000)

        assert not bench.remove(item, stale.id)
        assert not bench.extend(stale.id)
        assert bench.remove(item, fresh.id)

    def test_wakes_who_waits(self, bench):
        bench.add(b"a")
        bench.take(span=10)
        bench.poll(wait=None)
        assert bench.distribute() == []

        bench.now = WallMs(bench.now + 11)
        bench.sweep()

        (delivery,) = bench.distribute()
        assert contents(delivery) == [b"a"]

    def test_never_sweeps_a_lease_that_was_not_spoken(self, bench):
        bench.add(b"a")
        bench.poll(span=10)
        (delivery,) = bench.distribute()
        bench.now = WallMs(bench.now + 100)

        assert bench.broker.pop_ended(bench.now) == []
        bench.sync()
        assert bench.broker.pop_ended(bench.now) == [delivery.lease]

    def test_comes_in_slices_of_rows_and_of_bytes(self, make_bench):
        bench = make_bench(expiry_slice=3, refill_bytes=100)
        for size in (10, 10, 10, 99, 1):
            bench.add(b"x" * size)
            bench.take(span=10)
        bench.now = WallMs(bench.now + 11)

        slices = []
        while ended := bench.broker.pop_ended(bench.now):
            slices.append(len(ended))

        assert slices == [3, 2]

    def test_is_tried_again_when_the_rows_could_not_be_read(self, bench):
        (item,) = bench.add(b"a")
        bench.take(span=10)
        bench.now = WallMs(bench.now + 11)
        (lease,) = bench.broker.pop_ended(bench.now)

        bench.broker.sweep_again(lease, WallMs(bench.now + 5))

        assert bench.broker.pop_ended(bench.now) == []
        assert not bench.remove(item, lease.id)
        bench.now = WallMs(bench.now + 5)
        assert bench.sweep() == 1

    def test_what_could_not_be_read_stays_under_the_lease(self, bench):
        _, second, _ = bench.add(b"a", b"b", b"c")
        bench.take(3, span=10)
        bench.now = WallMs(bench.now + 11)
        (lease,) = bench.broker.pop_ended(bench.now)
        rows = bench.rows.read(lease.queue, list(lease.keys.values()))

        plan = bench.broker.requeue(lease, [rows[0], None, rows[2]], unreadable={second})
        bench.submit(plan)
        bench.broker.sweep_again(lease, WallMs(bench.now + 5))

        assert plan.reply == 2
        assert bench.take(3)[0] == [b"a", b"c"]
        assert (bench.queue.items, list(lease.keys)) == (3, [second])
        bench.broker.check()
        bench.now = WallMs(bench.now + 5)
        assert bench.sweep() == 1
        assert bench.take(3)[0] == [b"b"]

    def test_passes_over_a_row_that_is_gone(self, bench):
        bench.add(b"a", b"b")
        bench.take(2, span=10)
        bench.now = WallMs(bench.now + 11)
        (lease,) = bench.broker.pop_ended(bench.now)
        rows = bench.rows.read(lease.queue, tuple(lease.keys.values()))

        plan = bench.broker.requeue(lease, [None, rows[1]])

        assert plan.reply == 1
        assert bench.broker.stats().items == 1
        bench.broker.check()


class TestCancelledPolls:
    def test_that_wait_claim_nothing(self, bench):
        waiter = bench.poll(wait=None)
        bench.distribute()

        bench.broker.polls.cancel(waiter)
        bench.broker.polls.cancel(waiter)
        bench.add(b"a")

        assert bench.distribute() == []
        assert bench.take()[0] == [b"a"]

    def test_that_were_claimed_give_back_without_burning_an_attempt_or_a_place(self, bench):
        bench.add(b"a", b"b")
        waiter = bench.poll(1, wait=None)
        bench.distribute()
        bench.broker.polls.cancel(waiter)
        bench.sync()

        assert bench.rows.leases == {}
        bench.poll(2)
        (delivery,) = bench.distribute()
        assert contents(delivery) == [b"a", b"b"]
        assert [each.attempts for each in delivery.items] == [0, 0]

    def test_that_give_back_wake_who_waits(self, bench):
        first, second = bench.poll(wait=None), bench.poll(wait=None)
        bench.add(b"a")
        bench.distribute()
        bench.broker.polls.cancel(first)
        bench.sync()

        (delivery,) = bench.distribute()

        assert delivery.waiter is second

    def test_that_lapsed_are_not_answered(self, bench):
        waiter = bench.poll(wait=0)
        bench.broker.polls.cancel(waiter)

        assert bench.distribute() == []


class TestPausedPeers:
    def test_are_not_served_and_hold_nobody_up(self, bench):
        slow = bench.poll(wait=None, peer="slow")
        quick = bench.poll(wait=None, peer="quick")
        bench.broker.polls.pause("slow")
        bench.add(b"a", b"b")

        (delivery,) = bench.distribute()
        assert delivery.waiter is quick

        bench.broker.polls.resume("slow")
        (delivery,) = bench.distribute()
        assert delivery.waiter is slow
        bench.broker.check()

    def test_keep_their_place_before_those_that_came_later(self, bench):
        first, second = bench.poll(wait=None, peer="slow"), bench.poll(wait=None, peer="slow")
        bench.broker.polls.pause("slow")
        bench.add(b"a")
        assert bench.distribute() == []
        third = bench.poll(wait=None, peer="quick")
        bench.broker.polls.resume("slow")
        bench.add(b"b", b"c")

        assert [each.waiter for each in bench.distribute()] == [first, second, third]

    def test_whose_wait_runs_out_are_answered_once_nothing_is_ready(self, bench):
        waiter = bench.poll(wait=10, peer="slow")
        bench.broker.polls.pause("slow")
        bench.add(b"a")
        assert bench.distribute() == []
        bench.now = WallMs(bench.now + 10)
        # There is an item that could be theirs: an empty answer would be a lie.
        assert bench.distribute() == []

        bench.poll()
        served, lapsed = bench.distribute()

        assert contents(served) == [b"a"]
        assert (lapsed.waiter, contents(lapsed)) == (waiter, [])

    def test_can_cancel(self, bench):
        waiter = bench.poll(wait=None, peer="slow")
        bench.broker.polls.pause("slow")
        bench.add(b"a")
        bench.distribute()

        bench.broker.polls.cancel(waiter)
        bench.broker.polls.resume("slow")

        assert bench.distribute() == []
        bench.broker.check()


class TestLeasedItemsLimit:
    def test_refuses_polls_and_serves_nobody_until_there_is_room(self, make_bench):
        bench = make_bench(leased_items=1)
        one, _two = bench.add(b"a", b"b")
        early = bench.poll(wait=None)
        late = bench.poll(wait=50)
        (delivery,) = bench.distribute()
        bench.sync()
        assert delivery.waiter is early

        with pytest.raises(Overloaded, match="leased items: there are 1; the limit is 1"):
            bench.poll()
        assert bench.distribute() == []

        assert bench.remove(one, delivery.lease.id)
        assert bench.broker.polls.stirred
        (delivery,) = bench.distribute()
        assert delivery.waiter is late

    def test_reads_nothing_ahead_while_nobody_can_be_served(self, make_bench):
        """What a window cannot hold would be read again and again."""
        bench = make_bench(leased_items=1, queue_window_bytes=1_000, item_overhead=500, refill_items=9)
        ids = [bench.add(b"%d" % number)[0] for number in range(6)]
        bench.poll(wait=None)
        bench.poll(wait=None)

        (delivery,) = bench.distribute()
        bench.sync()

        assert bench.distribute() == []
        assert bench.remove(ids[0], delivery.lease.id)
        (delivery,) = bench.distribute()
        assert [item.key.id for item in delivery.items] == ids[1:2]

    def test_ends_a_wait_with_overloaded_and_not_with_a_lie(self, make_bench):
        bench = make_bench(leased_items=1)
        bench.add(b"a", b"b")
        bench.poll(wait=None)
        bench.poll(wait=50)
        bench.distribute()

        bench.now = WallMs(bench.now + 50)
        (delivery,) = bench.distribute()

        assert isinstance(delivery.error, Overloaded)
        assert delivery.items == ()


class TestWindowAndRefill:
    def test_a_backlog_beyond_the_window_comes_back_in_order(self, make_bench):
        bench = make_bench(queue_window_bytes=2000, item_overhead=500, refill_items=4)
        everything = [b"%d" % number for number in range(20)]
        for each in everything:
            bench.add(each)
        bench.sync()
        assert len(bench.queue.window) < 5

        taken = []
        while got := bench.take(3)[0]:
            taken += got
            bench.broker.check()

        assert taken == everything
        assert bench.queue.window.covered_to == HIGHEST

    def test_an_empty_answer_waits_for_the_scan(self, bench):
        bench.add(b"a")
        bench.sync()
        bench.forget()
        bench.poll(wait=0)

        assert bench.broker.polls.distribute(bench.now) == []
        bench.refill()
        (plan,) = bench.broker.polls.distribute(bench.now)

        assert [contents(each) for each in plan.reply] == [[b"a"]]

    def test_a_put_during_a_scan_is_not_lost(self, bench):
        bench.add(b"a")
        bench.sync()
        bench.forget()
        bench.poll(2, wait=0)
        bench.broker.polls.distribute(bench.now)
        (refill,) = bench.broker.take_refills()
        snapshot = bench.rows.scan(refill.number, refill.after, 10)

        bench.add(b"b")
        bench.broker.refilled(refill, snapshot)

        (plan,) = bench.broker.polls.distribute(bench.now)
        assert [contents(each) for each in plan.reply] == [[b"a", b"b"]]

    def test_while_a_scan_is_on_its_way_there_is_no_other(self, bench):
        bench.add(b"a")
        bench.sync()
        bench.forget()
        bench.poll(wait=None)
        bench.broker.polls.distribute(bench.now)
        bench.poll(wait=None)
        bench.broker.polls.distribute(bench.now)

        assert len(bench.broker.take_refills()) == 1

    def test_what_a_scan_brought_is_handed_out_and_the_rest_waits_for_the_next(self, bench):
        """Nothing is left in the window then, but behind it there may be something: that is no empty answer."""
        bench.add(b"a", b"b", b"c", b"d")
        bench.sync()
        bench.forget()
        for _ in range(4):
            bench.poll(wait=0)
        assert bench.broker.polls.distribute(bench.now) == []
        bench.refill()

        (plan,) = bench.broker.polls.distribute(bench.now)

        assert [contents(each) for each in plan.reply] == [[b"a"], [b"b"], [b"c"]]
        bench.submit(plan)
        assert [contents(each) for each in bench.distribute()] == [[b"d"]]

    def test_a_window_with_enough_for_all_who_wait_needs_no_scan(self, bench):
        everything = [b"%d" % number for number in range(8)]
        bench.add(*everything)
        bench.queue.window.trim(4 * 513, bench.queue.floor)
        bench.poll(1, wait=None)
        bench.poll(2, wait=None)

        (plan,) = bench.broker.polls.distribute(bench.now)

        assert [contents(each) for each in plan.reply] == [[b"0"], [b"1", b"2"]]

    def test_the_only_window_is_halved_when_memory_is_short_and_keeps_its_head(self, make_bench):
        bench = make_bench(window_bytes=1000, item_overhead=100)
        everything = [b"%d" % number * 10 for number in range(10)]
        for each in everything:
            bench.add(each)
        assert len(bench.queue.window) == 4
        assert bench.take(5)[0] + bench.take(3)[0] + bench.take(3)[0] == everything

        bench.add(b"x" * 2000)
        assert len(bench.queue.window) == 1
        assert bench.take()[0] == [b"x" * 2000]

    def test_a_failed_scan_ends_the_waiting_polls_with_its_error(self, bench):
        bench.add(b"a")
        bench.forget()
        waiting, lapsed = bench.poll(wait=None), bench.poll(wait=0)
        bench.broker.polls.distribute(bench.now)
        (refill,) = bench.broker.take_refills()
        error = StorageError("a row is damaged")

        deliveries = bench.broker.refill_failed(refill, error)

        assert [(each.waiter, each.error) for each in deliveries] == [(waiting, error), (lapsed, error)]
        bench.broker.check()
        bench.sync()
        assert bench.take()[0] == [b"a"]

    def test_what_cannot_be_read_is_passed_over_and_found_again_after_a_restart(self, bench):
        bench.add(*(b"%d" % number for number in range(5)))
        bench.sync()
        bench.forget()
        whole = bench.rows

        class Damaged(type(whole)):
            def scan(self, queue, after, items_max):
                scan = super().scan(queue, after, items_max)
                bad = [item for item in scan.items if item.contents in (b"1", b"2")]
                gaps = [Gap(just_below(item.key), StorageError("a row is damaged")) for item in reversed(bad)]
                return evolve(scan, items=[item for item in scan.items if item not in bad], gaps=gaps)

        bench.rows = Damaged(whole.items, whole.leases, whole.queues)
        for expected in ([b"0"], [b"3"], [b"4"]):
            taken, lease = bench.take(5)
            assert taken == expected
            for item in list(lease.keys):
                assert bench.remove(item, lease.id)
        bench.sync()
        assert bench.queue.items == 2

        bench.rows = whole
        bench.crash(limits=bench.broker._limits)
        assert bench.take(5)[0] == [b"1", b"2"]

    def test_a_scan_that_the_window_has_moved_away_from_is_not_used(self, make_bench):
        bench = make_bench(queue_window_bytes=2000, item_overhead=500)
        for number in range(8):
            bench.add(b"%d" % number)
        bench.sync()
        bench.broker._journal.start_refill(bench.queue)
        (refill,) = bench.broker.take_refills()
        before = bench.queue.window.covered_to
        bench.queue.window.trim(500, bench.queue.floor)
        assert bench.queue.window.covered_to < before

        bench.broker.refilled(refill, bench.rows.scan(refill.number, refill.after, 10))

        bench.broker.check()
        assert bench.take(3)[0] == [b"0", b"1", b"2"]

    def test_memory_is_taken_from_queues_nobody_claims_from(self, make_bench):
        bench = make_bench(window_bytes=300_000, queue_window_bytes=200_000, refill_bytes=100_000)
        bench.add(b"x" * 1000, name="polled")
        bench.take(name="polled")
        for number in range(100):
            bench.add(b"%d" % number * 400, name="polled")
        for _ in range(4):
            bench.add(*[b"y" * 1000] * 100, name="idle")
            bench.add(*[b"z" * 1000] * 100, name="idle too")

        stats = bench.broker.stats()

        assert stats.window_bytes <= 300_000
        assert len(bench.broker.queue("polled").window) == 100
        bench.broker.check()


class TestRestore:
    def test_goes_on_with_leases_counters_and_attempts(self, bench):
        one, two = bench.add(b"a", b"b")
        _, lease = bench.take(2)
        bench.remove(one, lease.id)
        bench.sync()

        bench.crash(limits=bench.broker._limits)

        assert bench.take()[0] == []
        assert bench.remove(two, lease.id)
        assert bench.broker.stats().items == 0

    def test_sweeps_what_ended_meanwhile(self, bench):
        bench.add(b"a")
        bench.take(span=10)
        bench.crash(limits=bench.broker._limits)

        bench.now = WallMs(bench.now + 11)
        assert bench.sweep() == 1
        bench.poll()
        (delivery,) = bench.distribute()

        assert [each.attempts for each in delivery.items] == [1]

    def test_forgets_what_was_never_durable(self, bench):
        bench.add(b"durable")
        bench.sync()
        bench.add(b"not")

        bench.crash(limits=bench.broker._limits)

        assert bench.take(9)[0] == [b"durable"]

    def test_deletes_leases_all_of_whose_items_are_gone(self, bench):
        bench.add(b"a")
        bench.take()
        bench.rows.items.clear()

        bench.crash(limits=bench.broker._limits)

        assert [type(write).__name__ for plan in bench.pending for write in plan.writes] == ["DeleteLease"]

    def test_numbers_are_not_used_twice(self, bench):
        bench.add(b"a", name="one")
        bench.sync()
        bench.crash(limits=bench.broker._limits)
        bench.add(b"b", name="two")
        bench.sync()

        assert [record.name for record in bench.rows.queues.values()] == ["one", "two"]


def test_dump_tells_everything_in_words(bench):
    bench.add(b"a", b"b")
    _, lease = bench.take()

    dump = bench.broker.dump()

    assert "queues=1 items=2 leases=1 leased_items=1" in dump
    assert "queue 'default' number=1 items=2 held=1" in dump
    assert f"lease {lease.id.hex()} queue=1 live" in dump


def test_what_there_is_can_be_walked_through(bench):
    bench.add(b"a", b"b", name="mail")
    _, late = bench.take(span=2000, name="mail")
    _, soon = bench.take(span=1000, name="mail")
    bench.add(b"c", name="jobs")

    assert [queue.name for queue in bench.broker.queues] == ["mail", "jobs"]
    assert list(bench.broker.leases) == [late, soon]
    assert bench.broker.leases.soonest(9) == [soon, late]
    assert bench.broker.leases.soonest(1) == [soon]
    assert bench.broker.queues.numbered(soon.queue).name == "mail"


def test_a_queue_that_has_become_empty_is_still_the_same_queue(bench):
    """A second one by the same name would leave those who wait at the first waiting for ever."""
    (item,) = bench.add(b"a")
    queue = bench.queue
    _, lease = bench.take()
    bench.remove(item, lease.id)
    bench.poll(wait=None)

    bench.add(b"b")

    assert bench.queue is queue
    (delivery,) = bench.distribute()
    assert contents(delivery) == [b"b"]


def test_a_queue_that_is_always_busy_does_not_starve_the_others(make_bench):
    bench = make_bench(ClaimBounds(polls=1), refill_items=2)
    bench.add(*[b"x"] * 20, name="busy")
    bench.add(b"a", b"b", name="other")
    bench.sync()
    other = bench.broker.queue("other")
    other.window.trim(0, other.floor)
    bench.poll(name="busy", wait=None)
    bench.poll(name="busy", wait=None)
    bench.poll(3, name="other", wait=None)

    served = []
    for _ in range(6):
        for plan in bench.broker.polls.distribute(bench.now):
            served += [delivery.waiter.queue.name for delivery in plan.reply]
            bench.submit(plan)
        bench.refill()
        bench.poll(name="busy", wait=None)

    assert "other" in served


def test_a_claim_looks_at_no_more_queues_than_it_can_serve(make_bench):
    """A peer that lets a poll wait at each of ten thousand queues must not make every claim as long as that."""
    bench = make_bench(ClaimBounds(polls=2))
    names = [f"q{number}" for number in range(50)]
    # Kept, as the server does: a queue that holds nothing lives only as long as somebody asks for it.
    waiters = [bench.poll(name=name, wait=None) for name in names]
    bench.distribute()
    for name in names:
        bench.add(b"x", name=name)
    polls, looked = bench.broker.polls, []
    serve = polls.serve
    polls.serve = lambda queue, now, budget: looked.append(queue.name) or serve(queue, now, budget)

    for first in range(0, 50, 2):
        looked.clear()
        for plan in polls.distribute(bench.now):
            bench.submit(plan)
        assert looked == names[first : first + 2]
        bench.sync()

    assert all(waiter.done for waiter in waiters)
    assert not polls.stirred


def test_every_poll_that_waits_can_be_ended_those_of_paused_peers_included(bench):
    slow = bench.poll(wait=None, peer="slow")
    lapsed = bench.poll(wait=10, peer="slow")
    quick = bench.poll(wait=None, name="another")
    bench.broker.polls.pause("slow")
    bench.add(b"a")
    bench.distribute()
    bench.now = WallMs(bench.now + 10)
    bench.distribute()
    error = Overloaded("enough")

    deliveries = bench.broker.fail_polls(error)

    assert [(each.waiter, each.error) for each in deliveries] == [(slow, error), (lapsed, error), (quick, error)]
    assert bench.broker.polls.waiting == 0
    assert bench.distribute() == []
    bench.broker.check()


def test_a_plan_tells_how_much_it_writes(bench):
    bench.add(b"123", b"4")
    bench.poll()
    bench.distribute()

    assert [plan.size for plan in bench.pending] == [4, 24]


def test_polls_of_a_paused_peer_that_lapsed_are_not_looked_at_again_and_again(bench):
    """They stay until their peer takes replies, and every add asks whether there are any."""

    class Looked(dict):
        times = 0

        def __iter__(self):
            type(self).times += 1
            return super().__iter__()

    queue = bench.broker.queue("default")
    for _ in range(5):
        bench.poll(wait=10, peer="slow")
    bench.broker.polls.pause("slow")
    bench.now += 20
    bench.add(b"a")
    bench.broker.polls.tick(bench.now)
    queue.line.lapsed = Looked(queue.line.lapsed)
    for _ in range(10):
        assert bench.broker.polls.serve(queue, bench.now) is None
    assert len(queue.line.lapsed) == 5
    assert not Looked.times
    bench.broker.polls.resume("slow")
    assert sorted(map(contents, bench.distribute())) == [[], [], [], [], [b"a"]]
    assert not queue.line.lapsed
    bench.broker.check()


class TestBatches:
    """Calls that are decided together are decided as one after the other would be."""

    def test_adds_are_one_plan_with_the_ids_of_each(self, bench):
        plan = bench.broker.add(bench.queue, [[(b"a", 0), (b"b", 0)], [], [(b"c", 0)]], bench.now)

        assert [len(ids) for ids in plan.reply] == [2, 0, 1]
        assert [each for ids in plan.reply for each in ids] == [write.item.key.id for write in plan.writes]
        assert plan.size == 3

    def test_an_add_that_is_refused_is_refused_alone(self, make_bench):
        bench = make_bench(contents_bytes=2)
        plan = bench.broker.add(bench.queue, [[(b"a", 0)], [(b"b", 0), (b"ccc", 0)], [(b"d", 0)]], bench.now)

        first, refused, last = bench.submit(plan).reply
        assert "contents is 3 bytes; the limit is 2" in str(refused)
        assert [len(first), len(last)] == [1, 1]
        assert bench.take(9)[0] == [b"a", b"d"]

    def test_of_one_queue_too_many_each_add_is_overloaded(self, make_bench):
        bench = make_bench(queues=1)
        bench.add(b"a", name="one")
        plan = bench.broker.add(bench.queue, [[(b"b", 0)], [], [(b"c", 0)]], bench.now)

        assert [type(reply) for reply in plan.reply] == [Overloaded, list, Overloaded]
        assert plan.writes == []

    def test_a_remove_sees_those_before_it(self, bench):
        first, second = bench.add(b"a", b"b")
        _, lease = bench.take(2)

        pairs = [(first, lease.id), (first, lease.id), (second, b"short"), (second, lease.id), (second, lease.id)]
        plan = bench.broker.remove(bench.queue, pairs, bench.now)

        assert [reply if isinstance(reply, bool) else type(reply) for reply in plan.reply] == [
            True,
            False,
            InvalidRequest,
            True,
            False,
        ]
        assert len(plan.writes) == 3, "two items and the lease"

    def test_a_lease_that_is_extended_many_times_is_written_once(self, bench):
        bench.add(b"a")
        _, lease = bench.take()

        requests = [(lease.id, 10), (lease.id, 0), (b"short", 10), (b"x" * 16, 10), (lease.id, 500)]
        plan = bench.broker.extend(bench.queue, requests, bench.now)

        assert [reply if isinstance(reply, bool) else type(reply) for reply in plan.reply] == [
            True,
            InvalidRequest,
            InvalidRequest,
            False,
            True,
        ]
        (write,) = plan.writes
        assert write.record.deadline == lease.deadline >= bench.now + 500
        assert plan.size == lease.record_bytes

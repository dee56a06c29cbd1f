"""The ends of leases that workers ask for: each action, its outcomes, and crashes."""

import pytest

from queueber.broker.model import Facts
from queueber.broker.storage import DeleteItem, DeleteLease, Found, PutItems, PutLease
from queueber.errors import InvalidRequest, Overloaded
from queueber.limits import Limits
from queueber.units import SpanMs, WallMs
from queueber.values import Action, Death, DeathReason, ItemOptions, NewItem, Outcome, Settled, Settlement
from tests.broker.conftest import START

LONG = 60_000
UNKNOWN = b"?" * 16


@pytest.fixture
def leased(harness):
    """Three items under one lease, in a harness whose time has gone on since."""
    harness.add(b"a", b"b", b"c")
    _, lease = harness.take(3, lease_duration=LONG)
    harness.now = WallMs(harness.now + 10)
    return harness, lease, list(lease.keys)


def entry(action, lease, item=b"", delay=None, error=""):
    return Settlement(getattr(lease, "id", lease), item, action, None if delay is None else SpanMs(delay), error)


def dead_items(harness):
    """The dead items of the default queue as they are on the disk."""
    harness.commit_all()
    dead = harness.queue.dead
    return [] if dead is None else [item for (number, _), item in harness.rows.items.items() if number == dead.number]


class TestRemove:
    def test_ends_the_item_and_leaves_the_row_of_the_lease(self, leased):
        harness, lease, (a, b, c) = leased

        reply = harness.settle(entry(Action.REMOVE, lease, a), entry(Action.REMOVE, lease, c))

        assert reply.settled == [Settled(Outcome.DONE)] * 2
        assert reply.changed
        assert [type(write) for write in harness.pending[0].writes] == [DeleteItem, DeleteItem]
        assert list(lease.keys) == [b]

    def test_of_all_items_ends_the_lease(self, leased):
        harness, lease, _ = leased

        assert harness.settle(entry(Action.REMOVE, lease)).settled == [Settled(Outcome.DONE)]

        harness.commit_all()
        assert harness.rows.items == harness.rows.leases == {}
        assert harness.queue.items == harness.queue.bytes == 0

    def test_is_decided_without_the_rows(self, leased):
        harness, lease, (a, *_) = leased
        entries = [entry(Action.REMOVE, lease, a), entry(Action.EXTEND, lease, delay=5)]

        assert harness.broker.settles.rows_of(harness.queue, entries, harness.now) == ({}, lease.record_bytes)


def test_a_death_while_memory_is_short_drops_the_windows_that_it_can(make_harness):
    """The dead line's window has grown beyond the limit, and is not in the order of the others yet."""
    harness = make_harness(window_bytes=1_000, item_overhead=600)
    harness.add(b"a")
    _, lease = harness.take(lease_duration=LONG)
    harness.add(b"b", name="mail")
    _, mail = harness.take(lease_duration=LONG, name="mail")
    harness.settle(entry(Action.DEFER, mail), name="mail")
    reply = harness.settle(entry(Action.REJECT, lease, error="e" * 1_000))
    assert reply.settled == [Settled(Outcome.DONE, died=True)]
    harness.broker.check()
    assert len(dead_items(harness)) == 1


class TestFail:
    def test_counts_a_failure_and_comes_back_after_its_delay(self, leased):
        harness, lease, (a, b, c) = leased

        reply = harness.settle(entry(Action.FAIL, lease, b, delay=500, error="no disk"))

        due = harness.now + 501
        assert reply.settled == [Settled(Outcome.DONE, due=due)]
        harness.commit_all()
        assert harness.take()[0] == []
        harness.now = WallMs(due)
        harness.poll()
        (delivery,) = harness.distribute()
        (item,) = delivery.items
        assert (item.key, item.contents, item.attempts) == ((due, b), b"b", 1)
        assert item.facts == Facts(failures=1, first_leased_at=lease.leased_at, last_error="no disk")
        assert list(lease.keys) == [a, c]

    def test_without_a_delay_waits_for_the_backoff(self, leased):
        harness, lease, (a, _b, _) = leased
        harness.configure(backoffBaseMs=100, backoffCapMs=150)

        (settled,) = harness.settle(entry(Action.FAIL, lease, a)).settled
        assert settled.due == harness.now + 101

        harness.commit_all()
        harness.now = settled.due
        _, second = harness.take()
        (settled,) = harness.settle(entry(Action.FAIL, second, a)).settled
        assert settled.due == harness.now + 151, "it has failed twice: twice the base, and at most the cap"

    def test_with_a_delay_of_0_comes_back_at_once(self, leased):
        harness, lease, (a, *_) = leased

        (settled,) = harness.settle(entry(Action.FAIL, lease, a, delay=0)).settled

        assert settled.due == harness.now
        assert harness.take()[0] == [b"a"]

    def test_without_an_error_forgets_that_of_the_last_failure(self, leased):
        harness, lease, (a, *_) = leased
        harness.settle(entry(Action.FAIL, lease, a, delay=0, error="first"))
        _, second = harness.take()
        harness.settle(entry(Action.FAIL, second, a, delay=0))

        harness.poll()
        (delivery,) = harness.distribute()
        assert delivery.items[0].facts.last_error == ""

    def test_of_the_last_attempt_dies(self, leased):
        harness, lease, (a, _b, _) = leased
        harness.configure(maxAttempts=2)
        (settled,) = harness.settle(entry(Action.FAIL, lease, a, delay=0, error="one")).settled
        assert not settled.died
        _, second = harness.take()

        reply = harness.settle(entry(Action.FAIL, second, a, delay=0, error="two"))

        assert reply.settled == [Settled(Outcome.DONE, died=True)]
        assert harness.broker.deaths.counts == {("default", DeathReason.ATTEMPTS): 1}
        (item,) = dead_items(harness)
        assert item.key == (harness.now, a)
        assert item.attempts == item.facts.failures == 2
        assert item.facts.last_error == "two"
        assert item.facts.death == Death(DeathReason.ATTEMPTS, harness.now, "default")
        assert (harness.queue.items, harness.queue.dead.items) == (2, 1)

    def test_of_some_of_several_items_says_so(self, leased):
        harness, lease, (a, _b, _c) = leased
        harness.settle(entry(Action.FAIL, lease, a, delay=0))
        harness.configure(maxAttempts=2)
        harness.add(b"d")
        _, second = harness.take(2)

        reply = harness.settle(entry(Action.FAIL, second, delay=7))

        assert reply.settled == [Settled(Outcome.DONE, died=True, due=harness.now + 8)]
        assert [item.contents for item in dead_items(harness)] == [b"a"]


class TestDefer:
    def test_without_a_delay_gives_back_its_own_place(self, leased):
        harness, lease, (a, b, _c) = leased
        harness.add(b"later")

        reply = harness.settle(entry(Action.DEFER, lease, b), entry(Action.DEFER, lease, a))

        assert [settled.due for settled in reply.settled] == [lease.leased_at] * 2
        contents, again = harness.take(5)
        assert contents == [b"a", b"b", b"later"]
        assert harness.rows.items[again.queue, (lease.leased_at, a)].attempts == 0

    def test_with_a_delay_waits(self, leased):
        harness, lease, (a, *_) = leased

        (settled,) = harness.settle(entry(Action.DEFER, lease, a, delay=20, error="ignored")).settled

        assert settled.due == harness.now + 21
        harness.commit_all()
        item = harness.rows.items[lease.queue, (settled.due, a)]
        assert item.attempts == 0
        assert item.facts == Facts(first_leased_at=lease.leased_at)

    def test_never_ends_an_item(self, leased):
        harness, lease, (a, *_) = leased
        harness.configure(maxAttempts=1)

        assert not harness.settle(entry(Action.DEFER, lease, a)).settled[0].died


class TestReject:
    def test_ends_the_attempts_at_once(self, leased):
        harness, lease, (a, *_) = leased

        reply = harness.settle(entry(Action.REJECT, lease, a, error="not for me"))

        assert reply.settled == [Settled(Outcome.DONE, died=True)]
        (item,) = dead_items(harness)
        assert item.facts.death == Death(DeathReason.REJECTED, harness.now, "default")
        assert (item.attempts, item.facts.failures, item.facts.last_error) == (1, 1, "not for me")


class TestExtend:
    def test_moves_the_end_of_the_whole_lease(self, leased):
        harness, lease, _ = leased

        reply = harness.settle(entry(Action.EXTEND, lease, delay=5))

        assert reply.settled == [Settled(Outcome.DONE, due=harness.now + 6)]
        assert [type(write) for write in harness.pending[0].writes] == [PutLease]
        harness.commit_all()
        assert harness.rows.leases[lease.id].deadline == harness.now + 6

    def test_is_bounded_by_the_queue(self, leased):
        harness, lease, _ = leased
        harness.configure(maxLeaseMs=50)

        assert harness.settle(entry(Action.EXTEND, lease, delay=LONG)).settled[0].due == lease.leased_at + 50
        harness.now = WallMs(lease.leased_at + 49)
        harness.settle(entry(Action.EXTEND, lease, delay=5))
        harness.configure(maxLeaseMs=10)
        assert harness.settle(entry(Action.EXTEND, lease, delay=5)).settled == [Settled(Outcome.LEASE_LOST)]

    @pytest.mark.parametrize("delay", [None, 0])
    def test_takes_a_span(self, leased, delay):
        harness, lease, _ = leased

        with pytest.raises(InvalidRequest, match=r"entries\[0\]\.delayMs is not given or 0; a lease must last longer"):
            harness.settle(entry(Action.EXTEND, lease, delay=delay))

    def test_of_one_item_is_refused(self, leased):
        harness, lease, (a, *_) = leased

        with pytest.raises(InvalidRequest, match=r"entries\[1\]\.id is not empty; extend moves the end of the whole"):
            harness.settle(entry(Action.REMOVE, lease, a), entry(Action.EXTEND, lease, a, delay=5))


class TestOutcomes:
    def test_an_unknown_lease_is_lost(self, leased):
        harness, _lease, (a, *_) = leased

        for action in Action:
            item = b"" if action is Action.EXTEND else a
            reply = harness.settle(entry(action, UNKNOWN, item, delay=1))
            assert (reply.settled, reply.changed) == ([Settled(Outcome.LEASE_LOST)], False)

    def test_a_lease_that_is_over_is_lost(self, leased):
        harness, lease, (a, *_) = leased
        harness.now = lease.deadline

        for action in Action:
            item = b"" if action is Action.EXTEND else a
            assert harness.settle(entry(action, lease, item, delay=1)).settled == [Settled(Outcome.LEASE_LOST)]

    def test_a_lease_that_ends_while_the_rows_are_read_is_lost(self, leased):
        harness, lease, (a, *_) = leased
        entries = [entry(Action.FAIL, lease, a)]
        rows = harness.read(harness.broker.settles.rows_of(harness.queue, entries, harness.now)[0])
        harness.now = lease.deadline
        assert harness.sweep() == 3

        assert harness.decide_settle(harness.queue, entries, rows).settled == [Settled(Outcome.LEASE_LOST)]

    def test_an_item_that_leaves_while_the_rows_are_read_is_not_found(self, leased):
        harness, lease, (a, *_) = leased
        entries = [entry(Action.FAIL, lease, a)]
        rows = harness.read(harness.broker.settles.rows_of(harness.queue, entries, harness.now)[0])
        harness.remove(a, lease.id)

        assert harness.decide_settle(harness.queue, entries, rows).settled == [Settled(Outcome.NOT_FOUND)]

    def test_a_row_that_was_read_for_an_earlier_lease_is_not_used(self, leased):
        harness, lease, (a, *_) = leased
        rows = harness.read({lease.queue: lease.rows()})
        harness.settle(entry(Action.DEFER, lease, a, delay=20))
        harness.commit_all()
        harness.now = WallMs(harness.now + 30)
        _, second = harness.take()

        reply = harness.decide_settle(harness.queue, [entry(Action.DEFER, second, a)], rows)

        assert reply.settled == [Settled(Outcome.NOT_FOUND)]

    def test_an_item_that_the_lease_does_not_hold_is_not_found(self, leased):
        harness, lease, (a, *_) = leased
        harness.remove(a, lease.id)

        reply = harness.settle(*(entry(action, lease, a) for action in list(Action)[:4]))

        assert reply.settled == [Settled(Outcome.NOT_FOUND)] * 4

    def test_entries_are_decided_in_order(self, leased):
        harness, lease, (a, b, _c) = leased

        reply = harness.settle(
            entry(Action.REMOVE, lease, a),
            entry(Action.FAIL, lease, a),
            entry(Action.DEFER, lease, delay=1),
            entry(Action.EXTEND, lease, delay=1),
            entry(Action.REMOVE, lease, b),
        )

        assert [settled.outcome for settled in reply.settled] == [
            Outcome.DONE,
            Outcome.NOT_FOUND,
            Outcome.DONE,
            Outcome.LEASE_LOST,
            Outcome.LEASE_LOST,
        ]
        assert [type(write) for write in harness.pending[0].writes].count(DeleteLease) == 1

    def test_a_lease_of_another_queue_is_lost_but_for_the_broker(self, leased):
        harness, lease, (a, _b, _) = leased

        assert harness.settle(entry(Action.FAIL, lease, a), name="other").settled[0].outcome is Outcome.LEASE_LOST
        assert harness.settle(entry(Action.FAIL, lease, a), name=None).settled[0].outcome is Outcome.DONE

    def test_the_broker_settles_several_queues_in_one_plan(self, leased):
        harness, lease, (a, *_) = leased
        harness.add(b"m", name="mail")
        _, mail = harness.take(name="mail")

        reply = harness.settle(entry(Action.FAIL, lease, a), entry(Action.REJECT, mail), name=None)

        assert [settled.outcome for settled in reply.settled] == [Outcome.DONE] * 2
        (plan,) = harness.pending
        assert len(plan.records) == 3, "both queues, and the dead items of one"
        harness.commit_all()


class TestAllOrNothing:
    def test_one_stale_entry_refuses_all(self, leased):
        harness, lease, (a, b, _) = leased
        entries = entry(Action.REMOVE, lease, a), entry(Action.FAIL, UNKNOWN, b)

        reply = harness.settle(*entries, all_or_nothing=True)

        assert [settled.outcome for settled in reply.settled] == [Outcome.DONE, Outcome.LEASE_LOST]
        assert (reply.added, reply.changed) == ((), False)
        assert harness.pending[0].writes == []
        assert a in lease.keys

        assert harness.settle(*entries).changed
        assert a not in lease.keys

    def test_without_a_stale_entry_all_are_done(self, leased):
        harness, lease, (a, b, _) = leased

        assert harness.settle(entry(Action.REMOVE, lease, a), entry(Action.FAIL, lease, b), all_or_nothing=True).changed


class TestHandOff:
    def test_is_one_plan(self, leased):
        harness, lease, (a, *_) = leased

        reply = harness.settle(entry(Action.REMOVE, lease, a), adds=[("next", b"a2", b"a3"), ("default", b"x")])

        assert [len(ids) for ids in reply.added] == [2, 1]
        assert reply.changed
        (plan,) = harness.pending
        assert [type(write) for write in plan.writes] == [DeleteItem, PutItems, PutItems]
        assert {record.name: record.added - record.removed for record in plan.records} == {"default": 3, "next": 2}
        assert harness.take(5, name="next")[0] == [b"a2", b"a3"]

    def test_with_a_stale_entry_adds_nothing(self, leased):
        harness, _lease, _ = leased

        reply = harness.settle(entry(Action.REMOVE, UNKNOWN), adds=[("next", b"a2")])

        assert (reply.added, reply.changed) == ((), False)
        assert harness.take(name="next")[0] == []

    def test_without_entries_is_an_add(self, harness):
        assert harness.settle(adds=[("next", b"a")]).changed
        assert harness.take(name="next")[0] == [b"a"]

    def test_that_is_empty_changes_nothing(self, harness):
        assert not harness.settle().changed
        assert not harness.settle(adds=[("next",)]).changed


class TestLimitsOfQueues:
    def test_a_hand_off_to_a_full_queue_is_refused_and_changes_nothing(self, leased):
        harness, lease, (a, *_) = leased
        harness.add(b"x", name="next")
        harness.configure("next", maxItems=1)

        with pytest.raises(Overloaded, match="queue 'next' has 1 and would have 2 items"):
            harness.settle(entry(Action.REMOVE, lease, a), adds=[("next", b"a2")])
        assert a in lease.keys

    def test_items_count_net_of_those_that_are_removed(self, leased):
        harness, lease, (a, b, _) = leased
        harness.configure(maxItems=3, maxBytes=3)

        with pytest.raises(Overloaded, match="would have 4 "):
            harness.settle(entry(Action.FAIL, lease, a), adds=[("default", b"d")])
        with pytest.raises(Overloaded, match="bytes"):
            harness.settle(entry(Action.REMOVE, lease, a), adds=[("default", b"dd")])
        assert harness.settle(
            entry(Action.REMOVE, lease, a), entry(Action.REMOVE, lease, b), adds=[("default", b"d"), ("default", b"e")]
        ).changed
        assert harness.queue.items == 3

    def test_no_new_queue_is_too_many_where_there_are_more_than_the_limit(self, harness):
        """A start with a lower limit keeps all queues."""
        harness.add(b"a")
        harness.add(b"b", name="next")
        harness.commit_all()
        harness.limits = Limits(queues=1)
        harness.crash()

        assert harness.settle(adds=[("next", b"c")]).changed
        with pytest.raises(Overloaded, match="queues"):
            harness.settle(adds=[("third", b"c")])

    def test_several_new_queues_count_together(self, make_harness):
        harness = make_harness(queues=2)
        harness.add(b"a")

        with pytest.raises(Overloaded, match="queues"):
            harness.settle(adds=[("one", b"a"), ("two", b"b")])
        assert harness.settle(adds=[("one", b"a"), ("one", b"b"), ("two",)]).changed

    @pytest.mark.parametrize(
        ("options", "field"),
        [
            (ItemOptions(due=WallMs(2**60)), "dueMs"),
            (ItemOptions(expires_at=WallMs(1)), "expiresAtMs"),
            (ItemOptions(due=WallMs(START + 60), expires_at=WallMs(START + 60)), "expiresAtMs"),
        ],
    )
    def test_items_that_can_never_be_added_refuse_the_call(self, leased, options, field):
        harness, lease, _ = leased
        good, late = NewItem(b"x", SpanMs(0)), NewItem(b"x", SpanMs(0), options)
        adds = [(harness.broker.queue("next"), [good]), (harness.queue, [good, late])]
        plan = harness.broker.settles.settle(harness.queue, [entry(Action.REMOVE, lease)], adds, {}, harness.now)

        assert isinstance(plan.reply, InvalidRequest)
        assert str(plan.reply).startswith(f"adds[1].options[1].{field} is ")
        assert len(lease.keys) == 3

    def test_nothing_can_be_added_to_dead_items(self, leased):
        harness, lease, _ = leased
        harness.settle(entry(Action.REJECT, lease))
        plan = harness.broker.settles.settle(
            None, [], [(harness.queue.dead, [NewItem(b"x", SpanMs(0))])], {}, harness.now
        )

        assert isinstance(plan.reply, InvalidRequest)


class TestDeadItems:
    @pytest.fixture
    def dead(self, leased):
        """A harness with a dead item that is leased, and its lease."""
        harness, lease, (a, *_) = leased
        harness.configure(maxAttempts=1, backoffBaseMs=100)
        harness.settle(entry(Action.REJECT, lease, a, error="first"))
        harness.commit_all()
        harness.now = WallMs(harness.now + 5)
        waiter = harness.broker.poll(
            harness.queue.dead, wanted=1, lease_duration=SpanMs(LONG), wait=0, peer=None, now=harness.now
        )
        (delivery,) = harness.distribute()
        harness.commit_all()
        assert waiter.done
        return harness, delivery.lease

    @pytest.mark.parametrize(("action", "wait"), [(Action.FAIL, 101), (Action.REJECT, -5), (Action.DEFER, -5)])
    def test_do_not_die_again_and_count_nothing(self, dead, action, wait):
        harness, lease = dead

        (settled,) = harness.settle(entry(action, lease), name=None).settled

        assert settled == Settled(Outcome.DONE, due=harness.now + wait)
        (item,) = dead_items(harness)
        assert (item.attempts, item.facts.failures, item.facts.last_error) == (1, 1, "first")

    def test_keep_the_error_of_another_failure(self, dead):
        harness, lease = dead
        harness.settle(entry(Action.FAIL, lease, error="second"), name=None)

        assert dead_items(harness)[0].facts.last_error == "second"


class TestRetiredQueues:
    def test_leased_items_come_back_under_the_new_number(self, leased):
        harness, lease, (a, b, c) = leased
        harness.purge()
        harness.commit_all()

        settled = harness.settle(entry(Action.FAIL, lease, a, delay=0), entry(Action.REJECT, lease, b)).settled

        assert [each.outcome for each in settled] == [Outcome.DONE] * 2
        assert harness.take(5)[0] == [b"a"]
        harness.crash()
        assert [list(each.keys) for each in harness.broker.leases if each.id == lease.id] == [[c]]


class TestBounds:
    def test_of_contents_that_are_moved(self, make_harness):
        harness = make_harness(contents_bytes=100, add_bytes=100, poll_bytes=100)
        harness.add(b"a" * 60)
        _, first = harness.take()
        harness.add(b"b" * 60)
        _, second = harness.take()

        with pytest.raises(InvalidRequest, match="contents of the items that are moved is 120 bytes; the limit is 100"):
            harness.settle(entry(Action.FAIL, first), entry(Action.REJECT, second))
        assert harness.settle(entry(Action.FAIL, first), entry(Action.REMOVE, second)).changed

    def test_of_items(self, make_harness):
        harness = make_harness(items_per_add=2, poll_items=3)
        harness.add(b"a", b"b", b"c")
        _, first = harness.take(3)
        harness.add(b"d")
        _, second = harness.take()

        with pytest.raises(InvalidRequest, match="items of all entries is 4 items; the limit is 3"):
            harness.settle(entry(Action.REMOVE, first), entry(Action.REMOVE, second))
        assert harness.settle(entry(Action.REMOVE, first)).changed


class TestCrashes:
    def test_an_item_that_is_rescheduled_to_its_old_place_is_claimed_once(self, harness):
        """Fail X under L with Y, reschedule X to its old due, crash: L's row would claim X once more."""
        x, y = harness.add(b"x", b"y")
        _, lease = harness.take(2, lease_duration=LONG)
        (settled,) = harness.settle(entry(Action.FAIL, lease, x, delay=1_000)).settled
        harness.commit_all()
        item = harness.rows.items[lease.queue, (settled.due, x)]
        control = harness.broker.control
        harness.submit(control.reschedule(harness.queue, Found(lease.queue, item), lease.leased_at, harness.now))
        harness.commit_all()
        assert (lease.queue, (lease.leased_at, x)) in harness.rows.items

        harness.crash()

        assert harness.take(5)[0] == [b"x"]
        assert [list(each.keys) for each in harness.broker.leases if each.id == lease.id] == [[y]]

    @pytest.mark.parametrize("action", list(Action)[:4])
    def test_an_item_that_has_left_its_lease_is_not_leased_after_a_crash(self, leased, action):
        harness, lease, (a, *_) = leased
        # A deferred item comes back to the key that the row of its lease named.
        harness.settle(entry(action, lease, a, delay=None if action is Action.DEFER else 0))
        harness.commit_all()

        harness.crash()

        assert all(a not in each.keys for each in harness.broker.leases)
        assert harness.take(5)[0] == ([b"a"] if action in {Action.FAIL, Action.DEFER} else [])

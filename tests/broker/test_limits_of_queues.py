"""The effects of settings of a queue and of options of an item on adds, polls and claims."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from queueber.broker.model import Facts, Item, ItemId, Key
from queueber.broker.settings import QueueConfig
from queueber.errors import InvalidRequest, Overloaded
from queueber.limits import DEFAULTS
from queueber.units import SpanMs, WallMs
from queueber.values import Action, DeathReason, ItemOptions, NewItem, Outcome, Settlement
from tests.support.examples import examples


def taken(harness, wanted=1):
    """Poll once without a wait, and return the contents."""
    return harness.take(wanted)[0]


class TestAdds:
    @pytest.mark.parametrize(
        ("limit", "contents", "words"),
        [
            ({"maxItems": 3}, [b"1", b"2"], r"'default' has 2 and would have 4 items \(maxItems\); the limit is 3"),
            ({"maxBytes": 9}, [bytes(8)], r"'default' has 2 and would have 10 bytes \(maxBytes\); the limit is 9"),
        ],
    )
    def test_beyond_a_limit_are_refused_until_there_is_room(self, harness, limit, contents, words):
        harness.add(b"a", b"b")
        harness.configure(**limit)
        with pytest.raises(Overloaded, match=words):
            harness.add(*contents)
        assert harness.queue.items == 2
        (first, _), lease = harness.take(2)
        assert first == b"a"
        with pytest.raises(Overloaded):
            harness.add(*contents)
        assert harness.remove(next(iter(lease.keys)), lease.id)
        harness.add(*contents)

    def test_of_one_batch_are_judged_one_after_the_other(self, harness):
        harness.configure(maxItems=3)
        calls = [[NewItem(b"a", 0)] * 2, [NewItem(b"b", 0)] * 2, [], [NewItem(b"c", 0)]]
        plan = harness.submit(harness.broker.add(harness.queue, calls, harness.now))
        assert [isinstance(each, Overloaded) or len(each) for each in plan.reply] == [2, True, 0, 1]
        assert taken(harness, 9) == [b"a", b"a", b"c"]

    def test_of_an_item_that_is_too_large_are_refused_for_good(self, harness):
        harness.configure(maxItemBytes=2)
        words = r"contents of an item of queue 'default' \(maxItemBytes\) is 3 bytes; the limit is 2"
        with pytest.raises(InvalidRequest, match=words):
            harness.add(b"a", b"abc")
        harness.add(b"ab")

    def test_while_paused_are_refused(self, harness):
        harness.pause(adds=True)
        with pytest.raises(Overloaded, match="adds to queue 'default' are paused"):
            harness.add(b"a")
        harness.pause(adds=True, paused=False)
        harness.add(b"a")

    def test_to_dead_items_are_refused(self, harness):
        dead = harness.broker.queues.dead_line(harness.queue)
        (reply,) = harness.broker.add(dead, [[NewItem(b"a", 0)]], harness.now).reply
        assert isinstance(reply, InvalidRequest)

    def test_to_a_further_queue_are_refused(self, make_harness):
        harness = make_harness(queues=1, settings=QueueConfig(max_items=5))
        harness.add(b"a")
        with pytest.raises(Overloaded, match=r"limit is 1 \(queues\)"):
            harness.add(b"a", name="other")


class TestOptions:
    def test_are_kept(self, harness):
        headers = (("trace", b"1"),)
        harness.add_with(b"a", headers=headers)
        harness.commit_all()
        harness.crash()
        harness.poll()
        (delivery,) = harness.distribute()
        assert delivery.items[0].facts == Facts(headers=headers)

    def test_an_item_without_any_has_no_facts(self, harness):
        plan = harness.broker.add(
            harness.queue, [[NewItem(b"a", SpanMs(0), ItemOptions()), NewItem(b"b", SpanMs(0))]], harness.now
        )
        assert [item.facts for item in plan.writes[0].items] == [None, None]

    def test_a_due_is_exact_and_not_in_the_past(self, harness):
        harness.add_with(b"past", delay=70, due=WallMs(5))
        harness.add_with(b"later", due=WallMs(harness.now + 1))
        harness.add_with(b"delayed", delay=1)
        assert taken(harness, 9) == [b"past"]
        harness.now = WallMs(harness.now + 1)
        assert taken(harness, 9) == [b"later"]

    def test_a_due_too_far_away_is_refused(self, harness):
        latest = harness.now + DEFAULTS.delay_ms
        harness.add_with(b"a", due=WallMs(latest))
        words = rf"options\[0\].dueMs is {DEFAULTS.delay_ms + 1:,} ms from now; the limit is {DEFAULTS.delay_ms:,}"
        with pytest.raises(InvalidRequest, match=words):
            harness.add_with(b"a", due=WallMs(latest + 1))


class TestLeases:
    def test_have_the_queues_length_if_the_poll_gives_none(self, harness):
        with pytest.raises(InvalidRequest):
            harness.poll(lease_duration=0)
        harness.configure(leaseMs=700)
        harness.add(b"a")
        assert harness.take(lease_duration=0)[1].deadline == harness.now + 701

    def test_are_held_no_longer_than_the_queue_permits(self, harness):
        harness.configure(maxLeaseMs=1_000)
        harness.add(b"a")
        _, lease = harness.take(lease_duration=5_000)
        began = harness.now
        assert lease.deadline == began + 1_001
        harness.now = WallMs(began + 900)
        assert harness.extend(lease.id, 50)
        assert lease.deadline == harness.now + 51
        assert harness.extend(lease.id, 900)
        assert lease.deadline == began + 1_000
        harness.configure(maxLeaseMs=800)
        assert not harness.extend(lease.id, 10)
        assert lease.deadline == began + 1_000


class TestPausedPolls:
    def test_get_nothing_and_cause_no_further_claims(self, harness):
        harness.add(b"a")
        harness.pause(polls=True)
        waiter = harness.poll(wait=None)
        harness.poll(wait=0)
        (delivery,) = harness.distribute()
        assert (delivery.items, delivery.error) == ((), None)
        assert not harness.broker.polls.has_runnable
        assert harness.broker.polls.next_tick() is None
        harness.add(b"b")
        assert harness.distribute() == []
        harness.pause(polls=True, paused=False)
        (delivery,) = harness.distribute()
        assert (delivery.waiter, delivery.items[0].contents) == (waiter, b"a")

    def test_read_nothing(self, harness):
        harness.add(b"a")
        harness.commit_all()
        harness.drop_window()
        harness.pause(polls=True)
        harness.poll(wait=None)
        assert harness.distribute() == []
        assert harness.broker.take_refills() == []

    def test_queue_says_when_it_may_be_served(self, harness):
        queue = harness.queue
        assert queue.servable_at() is None
        assert (queue.has_ready(harness.now), queue.surely_empty(harness.now)) == (False, True)
        harness.add(b"a")
        assert (queue.servable_at(), queue.has_ready(harness.now)) == (harness.now, True)
        assert not queue.surely_empty(harness.now)
        harness.pause(polls=True)
        assert queue.servable_at() is None
        assert (queue.has_ready(harness.now), queue.surely_empty(harness.now)) == (False, True)


class TestExpiry:
    def test_an_item_that_expired_dies_when_it_would_be_delivered(self, harness):
        (old,) = harness.add_with(b"old", expires_at=WallMs(harness.now + 10), headers=(("a", b"b"),))
        harness.add(b"new")
        harness.now = WallMs(harness.now + 10)
        harness.broker.check()
        assert taken(harness, 5) == [b"new"]
        dead = harness.queue.dead
        assert (harness.queue.items, dead.items) == (1, 1)
        ((_, item),) = [each for each in harness.rows.items.items() if each[0][0] == dead.number]
        assert item.key.id == old
        assert item.facts.death == (DeathReason.EXPIRED, harness.now, "default")
        assert (item.facts.expires_at, item.facts.headers, item.attempts) == (0, (("a", b"b"),), 0)

    def test_an_add_of_an_item_that_has_expired_is_refused_as_a_whole(self, harness):
        live = NewItem(b"live", SpanMs(0))
        for age in (0, 1_500):
            old = NewItem(b"old", SpanMs(0), ItemOptions(expires_at=WallMs(harness.now - age)))
            (why,) = harness.submit(harness.broker.add(harness.queue, [[live, old]], harness.now)).reply
            assert isinstance(why, InvalidRequest)
            assert str(why) == (
                f"options[1].expiresAtMs is {age:,} ms ago by the server's clock; it must be later than now"
            )
        assert harness.queue.items == 0

    @pytest.mark.parametrize(
        ("delay", "due", "span", "why"),
        [
            (10, 0, 11, "11 ms from now by {}, 11 ms from now (visibilityTimeout of items[1])"),
            (5_000, 0, 1_000, "1,000 ms from now by {}, 5,001 ms from now (visibilityTimeout of items[1])"),
            (5, 70, 70, "70 ms from now by {}, 70 ms from now (options[1].dueMs)"),
            (0, 1_500, 1, "1 ms from now by {}, 1,500 ms from now (options[1].dueMs)"),
        ],
    )
    def test_an_add_of_an_item_that_expires_before_it_is_due_is_refused_as_a_whole(
        self, harness, delay, due, span, why
    ):
        live, now = NewItem(b"live", SpanMs(0)), harness.now
        options = ItemOptions(due=WallMs(now + due if due else 0), expires_at=WallMs(now + span))
        doomed = NewItem(b"doomed", SpanMs(delay), options)
        (refusal,) = harness.submit(harness.broker.add(harness.queue, [[live, doomed]], now)).reply
        assert isinstance(refusal, InvalidRequest)
        order = "the server's clock; it must be later than the moment at which the item becomes due"
        assert str(refusal) == f"options[1].expiresAtMs is {why.format(order)}"
        assert (harness.queue.items, harness.queue.number) == (0, None)

    @pytest.mark.parametrize(("delay", "due", "span"), [(0, 0, 1), (10, 0, 12), (0, 70, 71), (90, 70, 71), (0, -9, 1)])
    def test_an_item_that_is_due_just_before_it_expires_is_delivered(self, harness, delay, due, span):
        now = harness.now
        harness.add_with(b"a", delay=delay, due=WallMs(now + due if due else 0), expires_at=WallMs(now + span))
        harness.now = WallMs(now + span - 1)
        assert taken(harness) == [b"a"]

    def test_a_delay_beyond_the_queues_time_to_live_is_no_error(self, harness):
        harness.configure(ttlMs=100)
        harness.add(b"a", b"b", delay=200)
        harness.now = WallMs(harness.now + 201)
        harness.configure(ttlMs=1_000)
        assert taken(harness, 1) == [b"a"]
        harness.configure(ttlMs=100)
        assert taken(harness, 1) == []
        assert [reason for _, _, reason in harness.deaths] == [DeathReason.EXPIRED]

    @pytest.mark.parametrize(
        ("action", "delay"), [(Action.FAIL, 2_000), (Action.FAIL, None), (Action.DEFER, 2_000), (None, None)]
    )
    def test_an_item_that_leaves_its_lease_for_a_time_after_its_end_dies_then(self, harness, action, delay):
        """A worker is not refused: whatever the delay, its lease has to end."""
        harness.configure(backoffBaseMs=2_000, backoffOnLoss=True)
        (item_id,) = harness.add_with(b"a", expires_at=WallMs(harness.now + 1_000))
        _, lease = harness.take()
        if action is None:
            harness.now = WallMs(harness.now + 1_001)
            assert harness.sweep() == 1
        else:
            settled = harness.settle(Settlement(lease.id, item_id, action, delay)).settled
            assert [(each.outcome, each.died) for each in settled] == [(Outcome.DONE, False)]
        harness.commit_all()
        harness.now = WallMs(harness.now + 1_500)
        assert taken(harness) == []
        assert (harness.queue.items, harness.deaths) == (1, [])
        harness.now = WallMs(harness.now + 2_000)
        assert taken(harness) == []
        ((queue, dead, reason),) = harness.deaths
        assert (queue, dead.key.id, reason) == (harness.queue, item_id, DeathReason.EXPIRED)
        assert harness.broker.deaths.counts == {("default", DeathReason.EXPIRED): 1}
        assert (harness.queue.items, harness.queue.dead.items) == (0, 1)

    def test_an_item_that_came_back_or_was_read_from_the_disk_expires_too(self, harness):
        harness.add_with(b"a", b"b", expires_at=WallMs(harness.now + 2_000))
        harness.take(2, lease_duration=2_500)
        harness.crash()
        harness.now = WallMs(harness.now + 2_600)
        harness.sweep()
        harness.commit_all()
        assert taken(harness, 5) == []
        assert harness.queue.dead.items == 2
        harness.add_with(b"c", expires_at=WallMs(harness.now + 10))
        harness.commit_all()
        harness.crash()
        harness.now = WallMs(harness.now + 10)
        assert taken(harness, 5) == []
        assert harness.queue.dead.items == 3

    def test_a_time_to_live_counts_from_the_add(self, harness):
        harness.add(b"a")
        harness.configure(ttlMs=100)
        harness.add_with(b"own", expires_at=WallMs(harness.now + 500))
        harness.now = WallMs(harness.now + 99)
        assert taken(harness) == [b"a"]
        harness.now = WallMs(harness.now + 1)
        assert taken(harness, 3) == [b"own"]

    def test_items_are_dropped_if_the_queue_says_so(self, harness):
        harness.configure(ttlMs=100, dropExpired=True)
        harness.add(b"abc", b"d")
        harness.now = WallMs(harness.now + 100)
        assert taken(harness) == []
        assert (harness.queue.items, harness.queue.bytes, harness.queue.dead) == (0, 0, None)
        harness.commit_all()
        assert harness.rows.items == {}

    def test_many_are_passed_over_in_several_claims(self, make_harness):
        """A poll that does not wait is not answered before either."""
        harness = make_harness(expiry_slice=3)
        for number in range(10):
            harness.add_with(b"%d" % number, expires_at=WallMs(harness.now + 5))
        harness.add(b"new")
        harness.now = WallMs(harness.now + 5)
        harness.poll()
        sizes = []
        for _ in range(9):
            if not harness.broker.polls.has_runnable:
                break
            (plan,) = harness.broker.claims.distribute(harness.now)
            harness.submit(plan)
            given = [item.contents for each in plan.reply for item in each.items]
            sizes.append((len(harness.queue.dead.window), given))
            harness.broker.check()
        assert sizes == [(3, []), (6, []), (9, []), (10, [b"new"])]
        harness.commit_all()

    def test_large_ones_are_passed_over_in_several_claims(self, make_harness):
        harness = make_harness(refill_bytes=10)
        for _ in range(4):
            harness.add_with(bytes(8), expires_at=WallMs(harness.now + 5))
        harness.now = WallMs(harness.now + 5)
        harness.poll(wait=None)
        harness.broker.claims.distribute(harness.now)
        assert harness.queue.dead.items == 2

    def test_those_of_many_queues_are_passed_over_in_several_claims_too(self, make_harness):
        """A claim is one commit: its length must not grow with the number of queues."""
        harness = make_harness(expiry_slice=3)
        names = [f"q{number}" for number in range(4)]
        for name in names:
            harness.add_with(b"a", b"b", name=name, expires_at=WallMs(harness.now + 5))
            harness.add(b"new", name=name)
        harness.now = WallMs(harness.now + 5)
        waiters = [harness.poll(wait=None, name=name) for name in names]
        counts, given = [], []
        while harness.broker.polls.has_runnable:
            for plan in harness.broker.claims.distribute(harness.now):
                harness.submit(plan)
                given += [each.waiter for each in plan.reply]
            counts.append(len(harness.deaths))
            harness.broker.check()
        assert counts == [3, 6, 8]
        assert sorted(map(waiters.index, given)) == [0, 1, 2, 3]

    def test_items_that_do_not_fit_the_reply_stay_in_order(self, make_harness):
        harness = make_harness(poll_bytes=10)
        harness.configure(ttlMs=100)
        harness.add(bytes(6), bytes(5), b"c")
        assert [taken(harness, 5) for _ in range(2)] == [[bytes(6)], [bytes(5), b"c"]]

    def test_those_after_a_live_one_wait_for_their_turn(self, harness):
        harness.add(b"live")
        harness.add_with(b"a", expires_at=WallMs(harness.now + 5))
        harness.add(b"last")
        harness.now = WallMs(harness.now + 5)
        assert taken(harness, 1) == [b"live"]
        assert taken(harness, 1) == [b"last"]

    @settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        items=st.lists(st.tuples(st.sampled_from([0, 0, 3, 9]), st.sampled_from([0, 4, 30])), max_size=12),
        polls=st.lists(st.tuples(st.integers(1, 4), st.sampled_from([0, 5])), max_size=8),
        slice_=st.integers(1, 4),
        drop=st.booleans(),
    )
    def test_polls_get_what_has_not_expired_in_order(self, make_harness, items, polls, slice_, drop):
        harness = make_harness(expiry_slice=slice_, refill_items=2)
        harness.configure(dropExpired=drop)
        began = harness.now
        live = []
        for number, (delay, span) in enumerate(items):
            moments = {"due": WallMs(began + delay), "expires_at": WallMs(began + span if span else 0)}
            if 0 < span <= delay:
                with pytest.raises(InvalidRequest, match="expiresAtMs"):
                    harness.add_with(b"%d" % number, **moments)
                continue
            (item_id,) = harness.add_with(b"%d" % number, **moments)
            live.append((began + delay, item_id, began + span if span else 10**12))
        harness.commit_all()
        harness.drop_window()
        for wanted, passed in polls:
            harness.now = now = WallMs(harness.now + passed)
            expected = sorted(each for each in live if each[0] <= now < each[2])[:wanted]
            harness.poll(wanted)
            (delivery,) = harness.distribute()
            given = [(item.key.due, item.key.id) for item in delivery.items]
            # A poll may get fewer items than there are: those in memory.
            assert given == [each[:2] for each in expected[: len(given)]]
            assert bool(given) == bool(expected)
            harness.commit_all()
            live = [each for each in live if each[:2] not in given]
            harness.broker.check()
            harness.rows.check()


def test_no_item_is_dead_and_alive(harness):
    """A dead line's key differs from the time in the id even if an item dies in the millisecond of its add."""
    harness.configure(ttlMs=1)
    item = Item(Key(harness.now, ItemId(harness.now.to_bytes(6, "big") + bytes(10))), b"", harness.now)
    harness.add(b"x")
    line, dead = harness.broker.deaths.die(harness.queue, item, DeathReason.REJECTED, harness.now)
    assert dead.key.due == harness.now + 1
    assert line.off_time == 1

"""Redrives: dead items go back to a queue."""

import pytest

from queueber.broker.storage import DeleteItem, PutItems
from queueber.errors import InvalidRequest, Overloaded
from queueber.units import SpanMs, WallMs
from queueber.values import Action, Death, DeathReason, Settlement

SLICE = 3


def kill(harness, *contents, action=Action.REJECT, name="default"):
    """Add items and let them die, one a millisecond; return their ids."""
    ids = []
    for each in contents:
        (item_id,) = harness.add(each, name=name)
        harness.commit_all()
        _, lease = harness.take(name=name)
        harness.settle(Settlement(lease.id, item_id, action, None, "broken"), name=name)
        harness.commit_all()
        harness.now = WallMs(harness.now + 1)
        ids.append(item_id)
    return ids


def begin(harness, *, to=None, ids=(), reason=DeathReason.NONE, limit=1_000):
    return harness.broker.dead_letters.begin(harness.queue, to or harness.queue, ids, reason, limit)


def read(harness, search, rows=None):
    """Read for *search* until it is done."""
    rows = rows or harness.rows
    if search.ids:
        search.add_rows(
            [item for (number, key), item in rows.items.items() if number == search.number and key.id in search.ids],
            last=True,
        )
    while not search.done:
        search.add_slice(rows.scan(search.number, search.after, items_max=SLICE))


def redrive(harness, **filters):
    search = begin(harness, **filters)
    read(harness, search)
    return decide(harness, search)


def decide(harness, search):
    plan = harness.submit(harness.broker.dead_letters.redrive(search, harness.now))
    harness.broker.check()
    return plan.reply


def test_all_items_go_back_in_one_plan(harness):
    ids = kill(harness, b"a", b"b", b"c", b"d")

    assert redrive(harness) == (4, False)

    (plan,) = harness.pending
    assert [type(write) for write in plan.writes] == [DeleteItem] * 4 + [PutItems]
    assert (harness.queue.items, harness.queue.dead.items) == (4, 0)
    harness.poll(5)
    (delivery,) = harness.distribute()
    assert [item.key for item in delivery.items] == [(harness.now, item_id) for item_id in ids]
    harness.commit_all()
    assert harness.queue.dead.bytes == 0


def test_an_item_begins_anew_and_keeps_its_history(harness):
    kill(harness, b"a")
    died_at = WallMs(harness.now - 1)

    redrive(harness)

    harness.poll()
    (delivery,) = harness.distribute()
    (item,) = delivery.items
    assert (item.attempts, item.facts.failures) == (0, 0)
    assert item.facts.last_error == "broken"
    assert item.facts.death == Death(DeathReason.REJECTED, died_at, "default")
    assert item.added_at == item.facts.first_leased_at == died_at


def test_without_dead_items_there_is_nothing_to_read(harness):
    harness.add(b"a")

    assert begin(harness) is None


def test_at_most_the_limit_goes_back_and_the_first_that_died(harness):
    kill(harness, *(b"%d" % number for number in range(8)))

    assert redrive(harness, limit=3) == (3, True)
    assert harness.take(9)[0] == [b"0", b"1", b"2"]
    assert redrive(harness, limit=5) == (5, False)


def test_contents_are_bounded_after_one_item(make_harness):
    harness = make_harness(contents_bytes=100, add_bytes=100)
    kill(harness, b"a" * 60, b"b" * 60, b"c" * 40)

    assert redrive(harness) == (1, True)
    assert redrive(harness) == (2, False)


def test_only_items_that_died_of_a_reason(harness):
    kill(harness, b"a", b"b", b"c", b"d")
    harness.configure(maxAttempts=1)
    kill(harness, b"f", action=Action.FAIL)

    assert redrive(harness, reason=DeathReason.LOST) == (0, False)
    assert redrive(harness, reason=DeathReason.ATTEMPTS) == (1, False)
    assert harness.take(9)[0] == [b"f"]


def test_only_the_items_with_some_ids(harness):
    a, _, c = kill(harness, b"a", b"b", b"c")
    alive, *_ = harness.add(b"alive")
    harness.commit_all()

    assert redrive(harness, ids=[c, a, alive, b"?" * 16]) == (2, False)
    assert sorted(harness.take(9)[0]) == [b"a", b"alive", b"c"]


def test_to_another_queue(harness):
    kill(harness, b"a")

    assert redrive(harness, to=harness.broker.queue("other")) == (1, False)

    assert harness.take(name="other")[0] == [b"a"]


def test_a_target_that_cannot_take_them_leaves_them(make_harness):
    harness = make_harness(queues=1)
    kill(harness, b"a")
    search = begin(harness, to=harness.broker.queue("other"))
    read(harness, search)

    assert isinstance(decide(harness, search), Overloaded)
    assert harness.queue.dead.items == 1


def test_a_leased_item_stays(harness):
    kill(harness, b"a", b"b")
    waiter = harness.broker.poll(
        harness.queue.dead, wanted=1, lease_duration=SpanMs(1_000), wait=0, peer=None, now=harness.now
    )
    harness.distribute()
    harness.commit_all()
    assert waiter.done

    assert redrive(harness) == (1, False)
    assert harness.take(9)[0] == [b"b"]


class TestPlansDuringARead:
    @pytest.fixture
    def searching(self, harness):
        """A harness with four dead items, the rows at the beginning of a redrive, and the redrive."""
        kill(harness, b"a", b"b", b"c", b"d")
        return harness, harness.rows.copy(), begin(harness)

    @pytest.mark.parametrize("old", [False, True])
    @pytest.mark.parametrize("durable", [False, True])
    def test_an_item_that_is_removed_does_not_come_back(self, searching, old, durable):
        harness, rows, search = searching
        self.remove_first(harness)
        if durable:
            harness.commit_all()
        read(harness, search, rows if old else harness.rows)

        assert decide(harness, search) == (3, False)
        assert harness.take(9)[0] == [b"b", b"c", b"d"]

    def test_an_item_that_is_removed_after_it_was_read_does_not_come_back(self, searching):
        harness, _, search = searching
        read(harness, search)
        self.remove_first(harness)

        assert decide(harness, search) == (3, False)

    @staticmethod
    def remove_first(harness):
        harness.broker.poll(
            harness.queue.dead, wanted=1, lease_duration=SpanMs(1_000), wait=0, peer=None, now=harness.now
        )
        (delivery,) = harness.distribute()
        harness.commit_all()
        (item,) = delivery.items
        harness.submit(harness.broker.remove(harness.queue.dead, [(item.key.id, delivery.lease.id)], harness.now))

    @pytest.mark.parametrize("old", [False, True])
    def test_an_item_that_dies_meanwhile_goes_back_once(self, searching, old):
        harness, rows, search = searching
        kill(harness, b"e")
        read(harness, search, rows if old else harness.rows)

        assert decide(harness, search) == (5, False)
        assert harness.take(9)[0] == [b"a", b"b", b"c", b"d", b"e"]

    def test_two_redrives_move_each_item_once(self, searching):
        harness, rows, first = searching
        second = begin(harness)
        read(harness, first)
        assert decide(harness, first) == (4, False)
        read(harness, second, rows)

        assert decide(harness, second) == (0, False)

    def test_a_redrive_that_is_given_up_follows_nothing(self, searching):
        harness, _, search = searching

        harness.broker.dead_letters.end(search)

        with pytest.raises(ValueError, match="not in list"):
            harness.broker.dead_letters.end(search)


def test_what_was_found_is_moved_before_all_rows_are_read(harness, monkeypatch):
    monkeypatch.setattr("queueber.broker.dead_letters._SLICES_MAX", 2)
    kill(harness, b"0")
    harness.configure(maxAttempts=1)
    kill(harness, b"a", action=Action.FAIL)
    kill(harness, *(b"%d" % number for number in range(9)))

    assert redrive(harness, reason=DeathReason.ATTEMPTS) == (1, True)
    assert redrive(harness, reason=DeathReason.ATTEMPTS) == (0, False), "without any, all rows are read"


def test_no_redrive_is_lost_or_doubled_by_a_crash(harness):
    kill(harness, b"a", b"b")
    redrive(harness)
    before = harness.rows.copy()
    harness.commit_all()
    for rows, alive in ((harness.rows.copy(), [b"a", b"b"]), (before, [])):
        harness.rows = rows
        harness.crash()
        assert harness.take(9)[0] == alive
        assert harness.queue.items + harness.queue.dead.items == 2


def test_only_wanted_ids_are_taken_from_plans_of_other_items(harness):
    a, _ = kill(harness, b"a", b"b")
    search = begin(harness, ids=[a])
    kill(harness, b"c")
    read(harness, search)

    assert decide(harness, search) == (1, False)


def test_dead_items_that_are_purged_meanwhile_do_not_come_back(harness):
    kill(harness, b"a")
    search = begin(harness)
    read(harness, search)
    harness.purge(harness.queue.dead)

    assert decide(harness, search) == (0, False)


def test_dead_letters_are_a_queue_that_has_none_of_its_own(harness):
    kill(harness, b"a")

    assert harness.broker.dead_letters.of(harness.queue) is harness.queue.dead
    with pytest.raises(InvalidRequest, match="these are dead items"):
        harness.broker.dead_letters.of(harness.queue.dead)


def test_a_time_to_live_begins_anew(harness):
    kill(harness, b"a")
    harness.configure(ttlMs=50)

    redrive(harness)

    harness.poll()
    (delivery,) = harness.distribute()
    assert delivery.items[0].facts.expires_at == harness.now + 50


def test_a_second_redrive_finds_nothing(harness):
    kill(harness, b"a")
    redrive(harness)
    harness.commit_all()

    assert redrive(harness) == (0, False)

"""The ages of queues without polls, which have no item in memory."""

import pytest

from queueber.broker import first_dues as module
from queueber.broker.first_dues import KEYS, KEYS_MAX, QUEUES_MAX, RETRY_DELAY, FirstDueRead
from queueber.broker.stats import Bounds, bounds_of, state_of
from queueber.broker.storage import Found
from queueber.values import ControlOutcome


def read_slice(harness, read, rows=None):
    """Answer the next slice of *read*."""
    for number, after in read.places:
        read.add(number, (harness.rows if rows is None else rows).keys(number, after, items_max=read.keys_max))
    read.end_slice()


def read_all(harness):
    """Read all queues whose age is wanted; return the number of slices."""
    slices = 0
    while (read := harness.broker.first_dues.begin(harness.now)) is not None:
        while read.places:
            read_slice(harness, read)
            slices += 1
        harness.broker.first_dues.end(read, harness.now)
    harness.broker.check()
    return slices


def restart(harness):
    harness.commit_all()
    harness.crash()


def cancel(harness, item_id):
    """Remove an item that is on the disk, as an operator does."""
    found = next(Found(number, item) for (number, key), item in harness.rows.items.items() if key.id == item_id)
    plan = harness.submit(harness.broker.control.cancel(harness.queue, found, harness.now))
    assert plan.reply is ControlOutcome.DONE


@pytest.fixture
def first_dues(harness):
    """Return a function: the reads of the broker as it is, which a crash replaces."""
    return lambda: harness.broker.first_dues


class TestStart:
    def test_the_age_of_each_queue_is_read_and_no_row_is_kept(self, harness):
        added_at = harness.now
        harness.add(*[b"x"] * 3)
        harness.now += 5
        harness.add(b"x", name="other")
        restart(harness)
        assert state_of(harness.queue, harness.now).oldest is None

        assert read_all(harness) == 1

        assert state_of(harness.queue, harness.now).oldest == added_at
        assert state_of(harness.queue, harness.now).unread == 3
        assert state_of(harness.broker.queue("other"), harness.now).oldest == added_at + 5
        assert harness.broker.queues.windows.bytes == 0
        assert len(harness.queue.window) == 0

    def test_the_first_poll_gets_as_much_as_without_the_read(self, harness):
        harness.add(b"a", b"b", b"c")
        restart(harness)
        read_all(harness)

        assert harness.take(3)[0] == [b"a", b"b", b"c"]

    def test_items_that_are_all_delayed_are_counted_exactly(self, harness):
        harness.add(*[b"x"] * 2, delay=50)
        due = harness.queue.window.first_due()
        restart(harness)
        read_all(harness)

        assert bounds_of(harness.queue, harness.now) == Bounds(0, 0, 2, 2, due)
        assert state_of(harness.queue, harness.now).delayed == 2
        assert state_of(harness.queue, harness.now).oldest is None
        harness.now = due
        assert state_of(harness.queue, harness.now).oldest == due

    def test_the_first_of_items_off_their_time_is_ready_if_it_is_due(self, harness):
        harness.add(b"x", delay=50)
        harness.add(b"x", delay=90)
        due = harness.queue.window.first_due()
        restart(harness)
        harness.now += 60
        assert bounds_of(harness.queue, harness.now) == Bounds(0, 2, 0, 2, None)

        read_all(harness)

        assert bounds_of(harness.queue, harness.now) == Bounds(1, 2, 0, 1, due)

    def test_an_empty_queue_needs_no_read_and_shows_what_is_added_to_it(self, harness):
        (item_id,) = harness.add(b"x")
        _, lease = harness.take()
        harness.remove(item_id, lease.id)
        restart(harness)
        assert harness.broker.first_dues.begin(harness.now) is None

        harness.now += 5
        harness.add(b"y")
        harness.now += 5

        assert state_of(harness.queue, harness.now).oldest == harness.now - 5

    def test_items_of_workers_that_are_gone_show_their_age_once_their_leases_end(self, harness):
        harness.add(b"x")
        _, lease = harness.take()
        restart(harness)
        assert read_all(harness) == 0
        assert state_of(harness.queue, harness.now).oldest is None

        harness.now = lease.deadline + 1
        assert harness.sweep() == 1

        assert state_of(harness.queue, harness.now).oldest == lease.deadline

    def test_dead_items_are_not_read(self, harness):
        harness.configure(maxAttempts=1)
        harness.add(b"x")
        harness.lose()
        restart(harness)
        assert harness.queue.dead.items == 1

        assert read_all(harness) == 0


class TestLeasedItems:
    """Leased items above the floor: an earlier one had come back below them, and is gone."""

    @pytest.fixture
    def leased(self, harness):
        """Return the keys of leased items that come first, and add one that is not leased."""
        ids = harness.add(*[b"x"] * (KEYS + 2))
        harness.commit_all()
        waiter = harness.poll()
        harness.distribute()
        harness.broker.polls.cancel(waiter)
        _, lease = harness.take(KEYS + 1)
        assert ids[0] not in lease.keys
        cancel(harness, ids[0])
        harness.now += 5
        harness.add(b"y")
        restart(harness)
        return sorted(key for _, key in harness.rows.items)[: KEYS + 1]

    def test_are_passed_over_in_further_slices(self, harness, leased):
        assert read_all(harness) == 2

        assert state_of(harness.queue, harness.now).oldest == harness.now > leased[0].due

    def test_the_next_slice_has_a_bound_for_all_queues_together(self, harness, leased):
        read = harness.broker.first_dues.begin(harness.now)
        assert read.keys_max == KEYS
        read_slice(harness, read)

        assert read.places == [(harness.queue.number, leased[KEYS - 1])]
        assert read.keys_max == KEYS_MAX

    def test_that_are_very_many_end_the_read_which_begins_again_later(self, harness, leased, monkeypatch):
        """So they delay no other queue, and the memory of a read is bounded."""
        monkeypatch.setattr(module, "ROWS_MAX", KEYS - 1)
        read = harness.broker.first_dues.begin(harness.now)
        read_slice(harness, read)

        assert read.places == []
        harness.broker.first_dues.end(read, harness.now)
        assert harness.queue.window.beyond_due is None
        harness.broker.first_dues.want(harness.queue)
        assert harness.broker.first_dues.begin(harness.now) is None
        harness.now += RETRY_DELAY
        assert harness.broker.first_dues.begin(harness.now).places != []

    def test_that_are_very_many_do_no_harm_if_the_first_item_is_found(self, harness, leased, monkeypatch):
        monkeypatch.setattr(module, "ROWS_MAX", KEYS)
        assert read_all(harness) == 2
        assert harness.queue.window.beyond_due == harness.now

    def test_of_several_queues_are_bounded_together(self, harness, monkeypatch):
        """The last queues wait for a later read."""
        monkeypatch.setattr(module, "ROWS_MAX", KEYS)
        names = ("a", "b", "c")
        for name in names:
            harness.add(*[b"x"] * (KEYS + 1), name=name)
        restart(harness)
        queues = [harness.broker.queue(name) for name in names]
        for queue in queues:
            keys = sorted(key for number, key in harness.rows.items if number == queue.number)
            queue.held.update((key.id, None) for key in keys[:KEYS])

        for queue in queues:
            read = harness.broker.first_dues.begin(harness.now)
            read_slice(harness, read)
            assert [number for number, _ in read.places] == [queue.number]
            read_slice(harness, read)
            assert read.places == []
            harness.broker.first_dues.end(read, harness.now)
            assert queue.window.beyond_due is not None
        assert harness.broker.first_dues.begin(harness.now) is None

    def test_that_are_given_back_between_two_slices_count(self, harness, leased):
        """No plan writes the row of an item that comes back to its own place."""
        read = harness.broker.first_dues.begin(harness.now)
        read_slice(harness, read)
        del harness.queue.held[leased[1].id]

        read_slice(harness, read)

        assert harness.queue.window.beyond_due == leased[1].due


class TestChangesDuringARead:
    @pytest.fixture
    def ids(self, harness):
        ids = harness.add(b"a")
        harness.now += 5
        ids += harness.add(b"b")
        restart(harness)
        return ids

    def test_a_removed_item_is_not_first_whatever_the_snapshot_has(self, harness, ids, first_dues):
        before = harness.rows.copy()
        read = first_dues().begin(harness.now)
        cancel(harness, ids[0])
        harness.commit_all()

        read_slice(harness, read, before)

        assert harness.queue.window.beyond_due == harness.now

    def test_a_plan_counts_that_was_not_durable_at_the_request(self, harness, ids, first_dues):
        cancel(harness, ids[0])
        first_dues().want(harness.queue)

        read_slice(harness, first_dues().begin(harness.now))

        assert harness.queue.window.beyond_due == harness.now

    def test_an_item_that_comes_is_first_if_it_is_due_first(self, harness, ids, first_dues):
        read = first_dues().begin(harness.now)
        before = harness.rows.copy()
        cancel(harness, ids[0])
        cancel(harness, ids[1])
        harness.add(b"c", name="other")
        harness.now += 1
        harness.add(b"c")

        read_slice(harness, read, before)

        assert harness.queue.window.beyond_due == harness.now

    def test_a_poll_makes_the_result_useless(self, harness, ids, first_dues):
        read = first_dues().begin(harness.now)
        assert harness.take()[0] == [b"a"]

        read_slice(harness, read)

        assert read.places == []
        assert harness.queue.window.beyond_due is None
        assert state_of(harness.queue, harness.now).oldest == harness.now

    def test_so_does_a_purge(self, harness, ids, first_dues):
        read = first_dues().begin(harness.now)
        harness.purge()

        read_slice(harness, read)

        assert read.places == []
        assert bounds_of(harness.queue, harness.now) == Bounds(0, 0, 0, 0, None)


class TestLater:
    def test_an_unread_first_item_that_is_removed_is_read_again_if_statistics_want_it(self, harness, first_dues):
        ids = harness.add(b"a")
        harness.now += 5
        harness.add(b"b")
        restart(harness)
        read_all(harness)
        first_dues().want(harness.queue)
        assert first_dues().begin(harness.now) is None, "it is known"

        cancel(harness, ids[0])
        harness.commit_all()
        assert state_of(harness.queue, harness.now).oldest is None
        first_dues().want(harness.queue)

        assert read_all(harness) == 1
        assert state_of(harness.queue, harness.now).oldest == harness.now

    def test_a_window_that_is_dropped_leaves_its_age(self, harness):
        harness.add(b"a", b"b")
        harness.drop_window()

        assert state_of(harness.queue, harness.now).unread == 2
        assert state_of(harness.queue, harness.now).oldest == harness.now

    def test_queues_that_need_no_read_any_more_are_passed_over(self, harness, first_dues):
        for name in ("polled", "deleted"):
            harness.add(b"x", name=name)
        restart(harness)
        harness.take(name="polled")
        deleted = harness.broker.queue("deleted")
        harness.submit(harness.broker.lifecycle.delete(deleted, harness.now))

        read = first_dues().begin(harness.now)

        assert read.places == []

    def test_a_read_is_of_a_bounded_number_of_queues(self, harness, first_dues):
        for number in range(QUEUES_MAX + 1):
            harness.add(b"x", name=f"queue {number}")
        restart(harness)

        assert [len(first_dues().begin(harness.now).places) for _ in range(2)] == [QUEUES_MAX, 1]
        assert first_dues().begin(harness.now) is None

    def test_a_queue_that_cannot_be_read_is_read_again_later(self, harness, first_dues):
        harness.add(b"x")
        restart(harness)
        read = first_dues().begin(harness.now)
        assert first_dues().fail(read, harness.queue.number, harness.now) is harness.queue
        assert read.places == []
        first_dues().end(read, harness.now)

        first_dues().want(harness.queue)
        assert first_dues().begin(harness.now) is None
        harness.now += RETRY_DELAY

        assert read_all(harness) == 1
        assert harness.queue.window.beyond_due is not None

    def test_a_queue_that_was_wanted_during_a_read_that_fails_is_read_again_later(self, harness, first_dues):
        harness.add(b"x")
        harness.add(b"x", name="other")
        restart(harness)
        queue, other = harness.queue, harness.broker.queue("other")
        read = first_dues().begin(harness.now)
        first_dues().want(queue)
        first_dues().fail(read, queue.number, harness.now)
        harness.now += 1
        first_dues().fail(read, other.number, harness.now)
        first_dues().end(read, harness.now)

        read = first_dues().begin(harness.now)
        assert read.places == []
        first_dues().end(read, harness.now)
        harness.now += RETRY_DELAY - 1
        read = first_dues().begin(harness.now)

        assert [number for number, _ in read.places] == [queue.number]

    def test_a_read_that_has_ended_follows_no_plans(self, harness, first_dues, monkeypatch):
        harness.add(b"x")
        restart(harness)
        read_all(harness)
        monkeypatch.setattr(FirstDueRead, "note", lambda *_: pytest.fail("it follows plans"))

        harness.add(b"y")

"""The statistics of a queue, which need no disk."""

import pytest

from queueber.broker.model import Item, ItemId, Key
from queueber.broker.queue import Queue
from queueber.broker.stats import QueueState, state_of
from queueber.broker.window import Meter, Window
from queueber.units import SpanMs, WallMs
from queueber.values import NewItem


def place(due):
    return Key(WallMs(due), ItemId(due.to_bytes(16, "big")))


@pytest.fixture
def make_queue():
    """Return a function that makes a queue with items in a window up to *covered_to*, and more beyond it."""

    def make(*due, covered_to, beyond=0, held=0):
        queue = Queue("mail", Window(place(covered_to), Meter(512)), added=len(due) + beyond + held)
        for each in due:
            assert queue.window.put(Item(place(each), b"", WallMs(1)))
        queue.held.update((ItemId(bytes([each] * 16)), None) for each in range(held))
        return queue

    return make


def test_a_window_that_covers_the_present_shows_all_states(make_queue):
    queue = make_queue(1, 3, 7, covered_to=9, beyond=4, held=2)
    assert state_of(queue, WallMs(3)) == QueueState("mail", 2, 5, 2, 0, 0, WallMs(1))
    assert state_of(queue, WallMs(0)).oldest is None


def test_items_beyond_a_window_that_ends_in_the_past_are_unread(make_queue):
    queue = make_queue(1, 3, 7, covered_to=9, beyond=4)
    assert state_of(queue, WallMs(9)) == QueueState("mail", 3, 0, 0, 4, 0, WallMs(1))


def test_a_queue_without_a_window_is_unread(make_queue):
    state = state_of(make_queue(covered_to=0, beyond=4), WallMs(9))
    assert (state.unread, state.oldest, state.items) == (4, None, 4)


def test_the_first_item_beyond_a_window_counts_if_its_due_is_known(make_queue):
    queue = make_queue(covered_to=0, beyond=4)
    queue.window.note_beyond(WallMs(5))
    assert state_of(queue, WallMs(9)) == QueueState("mail", 0, 0, 0, 4, 0, WallMs(5))
    assert state_of(queue, WallMs(4)) == QueueState("mail", 0, 4, 0, 0, 0, None)


def test_the_states_of_a_queue_in_use(harness):
    queue = harness.broker.queue("mail")
    harness.broker.add(
        queue, [[NewItem(b"a", SpanMs(0)), NewItem(b"b", SpanMs(0)), NewItem(b"c", SpanMs(500))]], harness.now
    )
    state = state_of(queue, harness.now)
    assert (state.ready, state.delayed, state.leased, state.unread, state.oldest) == (2, 1, 0, 0, harness.now)

"""The head of a queue in memory, and the items that a scan adds to it."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queue_model import ModelStore

from queueber.broker import Item, ItemId, Key
from queueber.broker.model import HIGHEST, LOWEST, LeaseRecord, QueueNumber, just_below
from queueber.broker.queue import Queue
from queueber.broker.storage import DeleteItem, DeleteLease, Gap, PutItems, PutLease
from queueber.broker.window import Meter, Window, overlay
from queueber.errors import StorageError
from tests.support.examples import examples

QUEUE = QueueNumber(1)
OVERHEAD = 10


def make_key(due, number=1):
    return Key(due, ItemId(number.to_bytes(16, "big")))


def make_item(due, number=1, size=0):
    return Item(make_key(due, number), b"x" * size, 0)


def make_window(covered_to=HIGHEST, items=()):
    window = Window(covered_to, Meter(OVERHEAD))
    for item in items:
        assert window.put(item)
    return window


def drain(window):
    taken = []
    while window:
        taken += [item.key for item in window.pop_due(1, HIGHEST.due, 0)]
    return taken


def test_new_items_at_or_below_the_floor_lower_it():
    """Two processes may draw ids within one millisecond."""
    queue = Queue("mail", make_window(), floor=make_key(5, 5))

    queue.append([make_item(5, 3), make_item(5, 7)], 0)

    assert queue.floor == just_below(make_key(5, 3))
    assert drain(queue.window) == [make_key(5, 3), make_key(5, 7)]


def test_a_row_that_no_scan_could_read_is_not_in_the_window():
    queue = Queue("mail", make_window(items=[make_item(5, 5)]), floor=make_key(1))
    queue.note_unreadable([Gap(make_key(2), StorageError("damaged"))])

    queue.discard(make_key(3, 3))
    assert len(queue.window) == 1
    queue.discard(make_key(5, 5))
    assert len(queue.window) == 0


class TestWindow:
    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), unique=True))
    def test_returns_items_in_the_order_of_their_keys(self, places):
        window = make_window(items=[make_item(*place, size=place[0]) for place in places])

        window.check()
        assert window.bytes == sum(due + OVERHEAD for due, _ in places)
        assert drain(window) == sorted(make_key(*place) for place in places)
        assert window.bytes == 0

    @given(
        dues=st.lists(st.integers(0, 5), max_size=8),
        heap=st.sets(st.integers(0, 7)),
        count=st.integers(0, 9),
        now=st.integers(0, 6),
        bytes_max=st.integers(0, 40),
        returned=st.integers(0, 9),
    )
    def test_pops_what_is_due_and_takes_it_back(self, dues, heap, count, now, bytes_max, returned):
        """Items whose numbers are in *heap* are put one by one, the others are appended."""
        items = [make_item(due, number, size=number) for number, due in enumerate(sorted(dues), start=1)]
        window = make_window()
        if appended := [item for number, item in enumerate(items) if number not in heap]:
            window.append(appended, sum(len(item.contents) for item in appended))
        for number in heap & set(range(len(items))):
            window.put(items[number])
        expected = []
        for item in items[:count]:
            if item.key.due > now:
                break
            expected.append(item)
            if sum(len(each.contents) for each in expected) >= bytes_max:
                break

        assert window.pop_due(count, now, bytes_max) == expected
        window.check()
        window.put_back(expected[returned:])
        window.check()
        assert drain(window) == [item.key for item in items if item not in expected[:returned]]

    def test_accepts_keys_up_to_covered_to_and_none_above(self):
        window = make_window(covered_to=make_key(5, 5))

        assert window.put(make_item(5, 5))
        assert not window.put(make_item(5, 6))
        assert drain(window) == [make_key(5, 5)]

    @pytest.mark.parametrize(("now", "covered"), [(4, True), (5, False), (6, False)])
    def test_covers_only_moments_before_the_due_of_covered_to(self, now, covered):
        """Another item with the due of `covered_to` may lie above it."""
        assert make_window(covered_to=make_key(5)).covers(now) is covered

    def test_its_head_is_what_is_due(self):
        window = make_window(items=[make_item(7), make_item(5)])

        assert window.head(4) is None
        assert window.head(5).key == make_key(5)
        assert make_window().head(9) is None

    def test_the_next_due_is_that_of_its_head_or_of_covered_to(self):
        assert make_window(items=[make_item(7), make_item(5)]).next_due() == 5
        assert make_window(covered_to=make_key(8)).next_due() == 8
        assert make_window().next_due() is None

    @given(
        st.lists(st.lists(st.integers(2, 12), max_size=5), max_size=4),
        st.integers(1, 13),
    )
    def test_an_append_is_the_same_as_puts(self, groups, covered_to):
        """Groups are in order, and lie before or between the items that are there, or above `covered_to`."""
        together, single = make_window(make_key(covered_to)), make_window(make_key(covered_to))
        together.note_beyond(None)
        single.note_beyond(None)
        for number, dues in enumerate(filter(None, groups), 1):
            items = [make_item(due, 10 * number + place) for place, due in enumerate(sorted(dues))]
            together.append(items, 0)
            for item in items:
                single.put(item)

        together.check()
        assert together.bytes == single.bytes
        assert together.beyond_due == single.beyond_due
        assert drain(together) == drain(single)

    def test_an_append_adds_only_the_items_up_to_covered_to(self):
        window = make_window(covered_to=make_key(5))

        window.append([make_item(4, size=3), make_item(5, size=4), make_item(6, size=5)], 12)
        window.append([make_item(7)], 0)

        window.check()
        assert window.bytes == 3 + 4 + 2 * OVERHEAD
        assert drain(window) == [make_key(4), make_key(5)]

    def test_an_append_may_lie_before_the_items_that_are_there(self):
        window = make_window(covered_to=make_key(9))

        window.append([make_item(5)], 0)
        window.append([make_item(3), make_item(4)], 0)

        window.check()
        assert drain(window) == [make_key(3), make_key(4), make_key(5)]

    def test_an_item_comes_back_to_the_place_from_which_it_was_removed(self):
        window = make_window(items=[make_item(due) for due in range(1, 6)])

        window.discard(make_key(3))
        assert window.put(make_item(3, size=7))

        window.check()
        assert window.bytes == 7 + 5 * OVERHEAD
        assert drain(window) == [make_key(due) for due in range(1, 6)]

    def test_a_trim_does_not_count_what_was_removed(self):
        window = make_window(items=[make_item(due) for due in range(1, 6)])

        window.discard(make_key(3))
        window.trim(4 * OVERHEAD, LOWEST)

        window.check()
        assert drain(window) == [make_key(due) for due in (1, 2, 4, 5)]

    def test_extends_to_a_new_covered_to(self):
        window = make_window(covered_to=make_key(3), items=[make_item(2)])

        window.extend([make_item(4), make_item(6)], make_key(6))

        assert window.covered_to == make_key(6)
        assert drain(window) == [make_key(2), make_key(4), make_key(6)]

    @given(
        sizes=st.lists(st.integers(0, 30), max_size=8),
        bytes_max=st.integers(0, 200),
        keep=st.integers(0, 2),
    )
    def test_trims_the_tail_and_only_as_much_as_it_must(self, sizes, bytes_max, keep):
        """A prefix is left; `covered_to` is its last key, or below the first item, or unchanged if none was dropped."""
        everything = [make_item(due, size=size) for due, size in enumerate(sizes, start=2)]
        window = make_window(items=reversed(everything))

        window.trim(bytes_max, make_key(1), keep=keep)

        window.check()
        count = len(window)
        left = everything[:count]
        dropped = count < len(everything)
        assert window.bytes <= bytes_max or count <= keep
        assert not dropped or window.bytes + len(everything[count].contents) + OVERHEAD > bytes_max
        assert window.covered_to == (
            HIGHEST if not dropped else left[-1].key if left else just_below(everything[0].key)
        )
        assert drain(window) == [item.key for item in left]

    @pytest.mark.traced
    @settings(derandomize=True, max_examples=examples(300))
    @given(st.data())
    def test_removes_items_by_key(self, data):
        """Removals between all other changes; an item may come back to the place from which it was removed."""
        window, expected = make_window(covered_to=make_key(9)), {}
        for number in range(1, data.draw(st.integers(1, 25), label="steps")):
            match data.draw(st.sampled_from(["append", "put", "discard", "discard", "again", "pop", "trim"])):
                case "append":
                    items = [make_item(9, 100 + number, size=number), make_item(9, 200 + number)]
                    window.append(items, number)
                    expected |= {item.key: item for item in items if item.key <= window.covered_to}
                case "put" if window.put(item := make_item(data.draw(st.integers(1, 9)), number, size=number)):
                    expected[item.key] = item
                case "discard" if expected:
                    del expected[key := data.draw(st.sampled_from(sorted(expected)))]
                    window.discard(key)
                    assert not window.holds(key)
                case "again" if expected:
                    item = expected[data.draw(st.sampled_from(sorted(expected)))]
                    window.discard(item.key)
                    assert window.put(item)
                    assert window.holds(item.key)
                case "pop":
                    popped = window.pop_due(2, 7, 10**9)
                    assert popped == [expected[key] for key in sorted(expected)[: len(popped)]]
                    assert len(popped) == min(2, sum(key.due <= 7 for key in expected))
                    window.put_back(popped[1:])
                    for item in popped[:1]:
                        del expected[item.key]
                case "trim":
                    window.trim(data.draw(st.integers(0, 200)), LOWEST)
                    assert all(not window.holds(key) for key in expected if key > window.covered_to)
                    expected = {key: item for key, item in expected.items() if key <= window.covered_to}
            window.check()
            assert len(window) == len(expected)
            assert window.next_due() == min(expected, default=window.covered_to).due
            assert window.count_ready(8) == sum(key.due <= 8 for key in expected)
        assert drain(window) == sorted(expected)
        assert window.bytes == 0

    def test_removed_items_do_not_outnumber_the_others(self):
        """They are dropped from memory in time, wherever they are."""
        window = make_window(items=[make_item(due, size=1) for due in range(1, 101)])

        for due in range(100, 10, -1):
            window.discard(make_key(due))

        assert len(window) == 10
        assert window.bytes <= 2 * 10 * (1 + OVERHEAD)

    def test_the_due_of_the_first_item_beyond_is_known_from_a_trim_on(self):
        window = make_window(items=[make_item(due) for due in (3, 5, 7)])
        assert (window.first_due(), window.beyond_due) == (3, None)

        window.trim(OVERHEAD, LOWEST)
        assert (window.first_due(), window.beyond_due) == (3, 5)
        window.trim(0, LOWEST)
        assert window.first_due() == window.beyond_due == 3
        window.append([make_item(8), make_item(9)], 0)
        assert window.beyond_due == 3

    def test_the_due_beyond_is_unknown_until_it_is_noted_and_after_an_extension(self):
        window = make_window(covered_to=make_key(2))
        window.put(make_item(5))
        assert window.first_due() is None
        assert not window.none_due_beyond(2)

        window.note_beyond(5)
        assert (window.first_due(), window.none_due_beyond(4), window.none_due_beyond(5)) == (5, True, False)
        window.put(make_item(4))
        assert window.first_due() == 4
        window.extend([make_item(4)], make_key(4))
        assert (window.first_due(), window.beyond_due) == (4, None)

    def test_the_due_beyond_is_unknown_once_an_item_that_had_it_is_removed(self):
        window = make_window(covered_to=make_key(2))
        window.note_beyond(5)

        window.discard(make_key(6))
        assert window.first_due() == 5
        window.discard(make_key(5))
        assert window.first_due() is None

    def test_no_item_beyond_is_no_due(self):
        window = make_window(covered_to=make_key(2))
        window.note_beyond(None)

        assert window.first_due() is None
        assert window.none_due_beyond(9)
        window.append([make_item(7)], 0)
        assert window.first_due() == 7

    def test_an_item_above_covered_to_is_not_there_to_be_removed(self):
        window = make_window(covered_to=make_key(5), items=[make_item(4)])

        window.discard(make_key(6))

        assert drain(window) == [make_key(4)]

    def test_all_windows_share_one_meter(self):
        meter = Meter(OVERHEAD)
        one, two = Window(HIGHEST, meter), Window(HIGHEST, meter)
        one.put(make_item(1, size=3))
        two.put(make_item(1, size=4))
        assert meter.bytes == 27

        one.trim(0, LOWEST)
        two.pop_due(1, 1, 0)

        assert meter.bytes == 0

    def test_check_finds_an_item_that_is_in_it_twice(self):
        window = make_window(items=[make_item(1)] * 2)

        with pytest.raises(AssertionError, match="an item is twice in the window"):
            window.check()


PLACES = st.tuples(st.integers(1, 6), st.integers(1, 4))
LEASE_WRITES = [PutLease(b"l" * 16, LeaseRecord(QUEUE, 1, (make_key(1),))), DeleteLease(b"l" * 16)]


@st.composite
def histories(draw):
    """Draw consistent writes to one queue: absent items are put, existing ones deleted."""
    rows, writes, leases = ModelStore(), [], itertools.cycle(LEASE_WRITES)
    for places in draw(st.lists(st.lists(PLACES, min_size=1, max_size=3, unique=True), max_size=15)):
        existing = [key for key in (make_key(*place) for place in places) if (QUEUE, key) in rows.items]
        write = DeleteItem(QUEUE, existing[0]) if existing else PutItems(QUEUE, [make_item(*place) for place in places])
        rows.apply([write])
        writes.append(write)
        if draw(st.integers(0, 4)) == 0:
            writes.append(next(leases))
    return writes


class TestOverlay:
    def test_ignores_leases_and_the_items_of_other_queues(self):
        rows, other = ModelStore(), QueueNumber(2)
        rows.apply([PutItems(QUEUE, [make_item(2), make_item(3)])])
        scan = rows.scan(QUEUE, make_key(1), items_max=9)
        log = [*LEASE_WRITES, DeleteItem(other, make_key(2)), PutItems(other, [make_item(4)])]

        items, covered_to = overlay(scan, queue=QUEUE, above=make_key(1), log=log, held=())

        assert ([item.key for item in items], covered_to) == ([make_key(2), make_key(3)], HIGHEST)

    @settings(max_examples=examples(300), deadline=None)
    @given(
        history=histories(), above=PLACES, items_max=st.integers(1, 6), held=st.sets(st.integers(1, 4)), data=st.data()
    )
    def test_is_right_whenever_the_snapshot_was_taken(self, history, above, items_max, held, data):
        """The log begins at the state of the disk when the scan was requested, or earlier; the snapshot is no older."""
        durable = data.draw(st.integers(0, len(history)), label="durable at the request")
        snapshot = data.draw(st.integers(durable, len(history)), label="snapshot")
        first_logged = data.draw(st.integers(0, durable), label="log begins")
        above = make_key(*above)
        held = {ItemId(number.to_bytes(16, "big")) for number in held}
        rows, truth = ModelStore(), ModelStore()
        rows.apply(history[:snapshot])
        truth.apply(history)
        scan = rows.scan(QUEUE, above, items_max=items_max)

        items, covered_to = overlay(scan, queue=QUEUE, above=above, log=history[first_logged:], held=held)

        assert [item.key for item in items] == sorted(
            key for _, key in truth.items if above < key <= covered_to and key.id not in held
        )
        assert all(item is truth.items[QUEUE, item.key] for item in items)
        assert covered_to == (HIGHEST if scan.exhausted else scan.items[-1].key)
        assert covered_to > above

"""Lookups, counts, peeks and an operator's changes, between all other changes and crashes."""

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from queueber.broker.control import handle_of, leases_of
from queueber.broker.first_dues import FirstDueRead
from queueber.broker.inspection import Count, Peek, end_of
from queueber.broker.lookups import LookupRead, Lookups
from queueber.broker.model import HIGHEST, LOWEST, Item, ItemId, Key
from queueber.broker.stats import Bounds, bounds_of, exact_bounds
from queueber.broker.storage import DeleteItem, DeleteQueue, Found, PutItems
from queueber.errors import InvalidRequest
from queueber.units import SpanMs, WallMs
from queueber.values import Action, ControlOutcome, DeathReason, ItemState, Settlement
from tests.support.examples import examples

TIGHT = {
    "queue_window_bytes": 60,
    "window_bytes": 80,
    "item_overhead": 10,
    "refill_items": 3,
    "refill_bytes": 40,
    "expiry_slice": 2,
}
NAMES = ("one", "two")


def truth(harness):
    """Return the rows as they will be once all plans are durable."""
    rows = harness.rows.copy()
    for plan in harness.pending:
        rows.apply([*plan.writes, *map(DeleteQueue, plan.dropped)], plan.records)
    return rows


def find(rows, numbers, ids):
    """Do what `Store.find` does."""
    found = {key.id: Found(number, item) for (number, key), item in rows.items.items() if number in numbers}
    return [found.get(item_id) for item_id in ids]


@define
class Reading:
    """A read in progress, and the disk as it was when its slice was requested."""

    read: object
    old: object


@define
class Driver:
    """Draws what happens, and checks each read against all rows."""

    harness: object
    data: object
    reads: list[Reading] = field(factory=list)
    ids: list[ItemId] = field(factory=list)
    lookups: Lookups = field(init=False)

    def __attrs_post_init__(self):
        self.lookups = Lookups(self.broker.follow, self.broker.unfollow)

    @property
    def broker(self):
        return self.harness.broker

    def draw_queue(self):
        return self.broker.queue(self.data.draw(st.sampled_from(NAMES)))

    def step(self):
        step = self.data.draw(st.sampled_from(STEPS))
        step(self, self.draw_queue())
        self.broker.check()
        self.check_first_dues()

    def add(self, queue):
        self.ids += self.harness.add(*[b"abc"] * self.data.draw(st.integers(1, 4)), name=queue.name)

    def add_delayed(self, queue):
        self.ids += self.harness.add(b"abcdef", delay=self.data.draw(st.sampled_from([1, 5, 300])), name=queue.name)

    def poll(self, queue):
        wanted, duration = self.data.draw(st.integers(1, 3)), self.data.draw(st.sampled_from([5, 1000]))
        self.harness.poll(wanted, lease_duration=duration, name=queue.name)
        self.harness.distribute()

    def abandon(self, queue):
        waiter = self.harness.poll(3, name=queue.name)
        self.harness.distribute()
        self.broker.polls.cancel(waiter)

    def commit(self, queue):
        self.harness.commit(self.data.draw(st.integers(0, len(self.harness.pending))))

    def remove(self, queue):
        for lease in list(self.broker.leases)[:1]:
            queue = self.broker.queues.by_number(lease.queue)
            self.harness.submit(self.broker.remove(queue, [(next(iter(lease.keys)), lease.id)], self.harness.now))

    def wait(self, queue):
        self.harness.now += self.data.draw(st.integers(1, 10))
        self.harness.sweep()

    def crash(self, queue):
        self.harness.crash()
        self.lookups = Lookups(self.broker.follow, self.broker.unfollow)
        self.reads.clear()

    def go_on_with_one(self, queue):
        if self.reads:
            self.go_on(self.reads.pop(self.data.draw(st.integers(0, len(self.reads) - 1))))

    def kill(self, queue):
        """Let items die as their leases end."""
        self.harness.submit(self.broker.lifecycle.configure(queue, {"maxAttempts": self.data.draw(st.integers(0, 1))}))

    def change(self, queue):
        """Cancel or move an item, as a lookup that ends at once."""
        if not self.ids:
            return
        item_id = self.data.draw(st.sampled_from(self.ids))
        (found,) = find(truth(self.harness), {queue.number}, [item_id])
        control, now = self.broker.control, self.harness.now
        if self.data.draw(st.booleans()):
            self.harness.submit(control.cancel(queue, found, now))
        else:
            self.harness.submit(control.reschedule(queue, found, now + self.data.draw(st.integers(0, 9)), now))

    def purge(self, queue):
        dead = self.data.draw(st.booleans())
        line = queue.dead if dead else queue
        rows = truth(self.harness)
        expected = (
            [] if line is None else [key for n, key in rows.items if n == line.number and key.id not in line.held]
        )
        plan = self.broker.control.purge(queue, dead=dead)
        assert plan.reply == len(expected)
        self.harness.submit(plan)

    def begin(self, queue):
        match self.data.draw(st.sampled_from(["lookup", "count", "peek", "first"])):
            case "lookup" if self.ids:
                ids = self.data.draw(st.lists(st.sampled_from(self.ids), min_size=1, max_size=3))
                others = self.data.draw(st.lists(st.sampled_from(self.ids), max_size=2))
                read = self.lookups.begin([(queue, ids), (self.draw_queue(), others), (queue, ids[:1])])
            case "count" if queue.number is not None:
                read = Count(queue, queue.number, self.harness.now)
                self.broker.follow(read)
            case "peek" if queue.number is not None:
                end = self.data.draw(st.sampled_from([HIGHEST, end_of(self.harness.now)]))
                read = Peek(queue, queue.number, LOWEST, end, self.data.draw(st.integers(1, 4)), 3, 100)
                self.broker.follow(read)
            case "first":
                self.broker.first_dues.want(queue)
                read = self.broker.first_dues.begin(self.harness.now)
                if read is None:
                    return
                # So that leased items fill whole slices.
                read.keys_max = 2
            case _:
                return
        self.reads.append(Reading(read, self.harness.rows.copy()))

    def go_on(self, reading):
        """Answer a slice with the rows of the request or of now, and end the read or request the next slice."""
        read, rows = reading.read, self.data.draw(st.sampled_from([reading.old, self.harness.rows]))
        if isinstance(read, LookupRead):
            for queue, ids in read.ids.items():
                read.add(find(rows, read.numbers[queue], ids))
            for queue, ids in read.ids.items():
                for item_id in ids:
                    self.decide(queue, item_id, read)
            self.lookups.end(read)
            return
        if isinstance(read, FirstDueRead):
            for number, after in read.places:
                read.add(number, rows.keys(number, after, items_max=2))
            if read.places:
                self.reads.append(Reading(read, self.harness.rows.copy()))
            else:
                self.broker.first_dues.end(read, self.harness.now)
            return
        if isinstance(read, Count):
            keys = rows.keys(read.number, read.after, items_max=2)
            read.add(keys, exhausted=len(keys) < 2)
        else:
            read.add(rows.scan(read.number, read.after, items_max=2))
        if not read.done:
            self.reads.append(Reading(read, self.harness.rows.copy()))
            return
        self.broker.unfollow(read)
        (self.check_count if isinstance(read, Count) else self.check_peek)(read)

    def unleased(self, read):
        rows = truth(self.harness).items
        return sorted(key for n, key in rows if n == read.number and key.id not in read.queue.held)

    def check_first_dues(self):
        """Compare each due that is known with all rows."""
        rows = truth(self.harness).items
        for queue in self.broker.queues.lines():
            window = queue.window
            keys = [key for n, key in rows if n == queue.number and key.id not in queue.held]
            beyond = min((key.due for key in keys if key > window.covered_to), default=HIGHEST.due)
            assert window.beyond_due in {None, beyond}

    def read_first_dues(self):
        """Read the dues that are not known, and compare all with all rows."""
        for name in NAMES:
            self.broker.first_dues.want(self.broker.queue(name))
        while (read := self.broker.first_dues.begin(self.harness.now)) is not None:
            self.reads.append(Reading(read, self.harness.rows.copy()))
            while self.reads:
                self.go_on(self.reads.pop())
        rows = truth(self.harness).items
        for queue in map(self.broker.queue, NAMES):
            dues = [key.due for n, key in rows if n == queue.number and key.id not in queue.held]
            assert bounds_of(queue, self.harness.now).oldest == min(dues, default=None)

    def check_count(self, read):
        if read.queue.number == read.number:
            assert read.ready == sum(key.due <= read.now for key in self.unleased(read))
        else:
            assert read.ready >= 0

    def check_peek(self, read):
        seen, more = read.result()
        if read.queue.number != read.number:
            assert (seen, more) == ([], False)
            return
        expected = [key for key in self.unleased(read) if key < read.end]
        keys = [each.item.key for each in seen]
        assert keys == expected[: len(keys)]
        assert len(keys) == min(len(expected), read.limit)
        assert more or len(keys) == len(expected)
        assert all(each.item.contents == b"abc" and each.size in {3, 6} for each in seen)

    def decide(self, queue, item_id, read):
        """Compare what was found with the truth, and change it."""
        control, harness, now = self.broker.control, self.harness, self.harness.now
        lines = [queue] if queue.dead is None else [queue, queue.dead]
        current = {each.number for each in lines}
        numbers = current.union(*[each.formers for each in lines])
        rows = {key.id: (n, item) for (n, key), item in truth(harness).items.items() if n in numbers}
        number, expected = rows.get(item_id, (None, None))
        line = queue.dead if queue.dead is not None and item_id in queue.dead.held else queue
        found = read.find(item_id)
        located = control.locate(queue, found, now)
        if expected is not None and located is None:
            # Its row is still there, under a number that was retired.
            assert number not in current
            assert not any(item_id in each.held for each in (queue, line))
            return
        assert (located and located.item) == expected
        outcome = ControlOutcome.DONE
        if located is None:
            outcome = ControlOutcome.NOT_FOUND
        elif located.state is ItemState.LEASED:
            outcome = ControlOutcome.LEASED
            assert located.lease is located.line.held[item_id]
        match self.data.draw(st.sampled_from(["get", "cancel", "kick", "reschedule"])):
            case "get" if located is not None and located.lease is None:
                before = [
                    key
                    for n, key in truth(harness).items
                    if n == located.number and key < located.item.key and key.id not in located.line.held
                ]
                assert control.ahead(located) >= len(before)
            case "cancel":
                assert harness.submit(control.cancel(queue, found, now)).reply is outcome
                if outcome is ControlOutcome.DONE:
                    assert item_id not in {key.id for _, key in truth(harness).items}
            case "kick":
                self.check_move(queue, located, outcome, harness.submit(control.kick(queue, found, now)).reply, now)
            case "reschedule":
                due = now + self.data.draw(st.integers(-5, 20))
                plan = control.reschedule(queue, found, due, now)
                self.check_move(queue, located, outcome, harness.submit(plan).reply, max(now, due), exact=True)

    def check_move(self, queue, located, outcome, reply, due, *, exact=False):
        if located is not None and located.state is ItemState.DEAD:
            assert reply is ControlOutcome.NOT_FOUND
            return
        assert reply is outcome
        if reply is ControlOutcome.DONE:
            (key,) = [key for _, key in truth(self.harness).items if key.id == located.item.key.id]
            assert key.due == (due if exact else min(due, located.item.key.due))


STEPS = [Driver.add] * 2 + [Driver.poll] * 2 + [Driver.commit] * 2 + [Driver.change] * 3 + [Driver.begin] * 3
STEPS += [Driver.add_delayed, Driver.abandon, Driver.remove, Driver.wait, Driver.purge, Driver.kill, Driver.crash]
STEPS += [Driver.go_on_with_one] * 5


@pytest.mark.untraced
def test_reads_are_true_when_they_end(make_harness):
    """Whatever happens between their request and their end, and whenever their snapshots were taken."""

    @settings(max_examples=examples(200), deadline=None)
    @given(st.data())
    def run(data):
        driver = Driver(make_harness(**data.draw(st.sampled_from([{}, TIGHT]))), data)
        for _ in range(data.draw(st.integers(5, 40), label="steps")):
            driver.step()
        while driver.reads:
            driver.go_on(driver.reads.pop())
        driver.read_first_dues()
        driver.harness.commit_all()
        driver.broker.check()

    run()


@pytest.fixture
def control(harness):
    return harness.broker.control


def looked_up(harness, item_id):
    """Look up an item, in rows as they are."""
    queue = harness.queue
    lookups = Lookups(harness.broker.follow, harness.broker.unfollow)
    read = lookups.begin([(queue, [item_id])])
    read.add(find(truth(harness), read.numbers[queue], [item_id]))
    lookups.end(read)
    return read.find(item_id)


class TestLookup:
    def test_the_log_wins_over_a_snapshot_in_the_middle_of_it(self, harness, control):
        """The item moves twice after the request, and the snapshot has it where it was in between."""
        (item_id,) = harness.add(b"x")
        harness.commit_all()
        read = Lookups(harness.broker.follow, harness.broker.unfollow).begin([(harness.queue, [item_id])])
        for due in (harness.now + 5, harness.now + 9):
            harness.submit(control.reschedule(harness.queue, looked_up(harness, item_id), due, harness.now))
        harness.commit(1)

        read.add(find(harness.rows, read.numbers[harness.queue], [item_id]))

        assert read.find(item_id).item.key.due == harness.now + 9

    def test_plans_count_that_were_not_durable_at_the_request(self, harness, control):
        (item_id,) = harness.add(b"x")
        harness.commit_all()
        found = looked_up(harness, item_id)
        harness.submit(control.reschedule(harness.queue, found, harness.now + 5, harness.now))
        read = Lookups(harness.broker.follow, harness.broker.unfollow).begin([(harness.queue, [item_id])])
        harness.commit_all()

        read.add([found])

        assert read.find(item_id).item.key.due == harness.now + 5

    def test_finds_an_item_that_is_the_first_to_die_after_the_request(self, harness, control):
        (item_id,) = harness.add(b"x")
        _, lease = harness.take()
        read = Lookups(harness.broker.follow, harness.broker.unfollow).begin([(harness.queue, [item_id])])
        before = harness.rows.copy()
        harness.settle(Settlement(lease.id, item_id, Action.REJECT))
        harness.commit_all()

        read.add(find(before, read.numbers[harness.queue], [item_id]))

        assert control.locate(harness.queue, read.find(item_id), harness.now).state is ItemState.DEAD

    def test_finds_an_item_that_came_back_under_a_new_number_after_the_request(self, harness, control):
        item_id, _ = harness.add(b"x", b"y")
        _, lease = harness.take()
        read = Lookups(harness.broker.follow, harness.broker.unfollow).begin([(harness.queue, [item_id])])
        before = harness.rows.copy()
        harness.purge()
        harness.settle(Settlement(lease.id, item_id, Action.DEFER))
        harness.commit_all()

        read.add(find(before, read.numbers[harness.queue], [item_id]))

        assert control.cancel(harness.queue, read.find(item_id), harness.now).reply is ControlOutcome.DONE

    def test_finds_an_item_that_is_leased_under_a_retired_number(self, harness, control):
        (item_id,) = harness.add(b"x")
        _, lease = harness.take()
        harness.add(b"y")
        assert harness.submit(control.purge(harness.queue, dead=False)).reply == 1

        found = looked_up(harness, item_id)

        assert found.queue != harness.queue.number
        assert control.locate(harness.queue, found, harness.now).lease is lease
        assert control.cancel(harness.queue, found, harness.now).reply is ControlOutcome.LEASED


class TestCount:
    def test_items_that_come_and_go_where_it_has_counted(self, harness, control):
        ids = harness.add(*[b""] * 10)
        count = Count(harness.queue, harness.queue.number, harness.now)
        harness.broker.follow(count)
        harness.commit_all()
        count.add(harness.rows.keys(count.number, count.after, items_max=4), exhausted=False)

        harness.submit(control.cancel(harness.queue, looked_up(harness, ids[0]), harness.now))
        harness.submit(control.cancel(harness.queue, looked_up(harness, ids[9]), harness.now))
        count.add(harness.rows.keys(count.number, count.after, items_max=10), exhausted=True)

        assert count.done
        assert count.ready == 8

    def test_leased_items_below_the_floor_are_not_counted(self, harness):
        harness.add(*[b""] * 5)
        _, lease = harness.take(2)
        count = Count(harness.queue, harness.queue.number, harness.now)
        harness.broker.follow(count)

        harness.remove(next(iter(lease.keys)), lease.id)
        count.add(harness.rows.keys(count.number, count.after, items_max=10), exhausted=True)

        assert count.ready == 3


class TestItems:
    def test_a_moment_too_far_away_is_refused(self, harness, control):
        (item_id,) = harness.add(b"x")
        due = harness.now + harness.limits.delay_ms + 1

        with pytest.raises(InvalidRequest, match=r"dueMs is .*, .* ms from now; the limit is 10 y \(delay_ms\)"):
            control.reschedule(harness.queue, looked_up(harness, item_id), due, harness.now)

    def test_a_moment_at_which_the_item_has_expired_is_refused(self, harness, control):
        ends = WallMs(harness.now + 100)
        (item_id,) = harness.add_with(b"x", expires_at=ends)
        queue, found = harness.queue, looked_up(harness, item_id)

        words = f"dueMs is {ends:,}, 100 ms from now; it must be earlier than the expiresAtMs of the item, which is "
        with pytest.raises(InvalidRequest, match=f"{words}{ends:,}$"):
            control.reschedule(queue, found, ends, harness.now)
        harness.submit(control.reschedule(queue, found, WallMs(ends - 1), harness.now))
        harness.now = ends
        with pytest.raises(InvalidRequest, match="dueMs"):
            control.reschedule(queue, looked_up(harness, item_id), WallMs(0), harness.now)
        assert (queue.items, queue.window.head(harness.now).key.due) == (1, ends - 1)

    def test_a_kick_of_an_item_that_has_expired_lets_it_die(self, harness, control):
        (item_id,) = harness.add_with(b"x", expires_at=WallMs(harness.now + 100))
        _, lease = harness.take()
        harness.settle(Settlement(lease.id, item_id, Action.DEFER, SpanMs(500)))
        harness.commit_all()
        harness.now += 200
        plan = control.kick(harness.queue, looked_up(harness, item_id), harness.now)

        assert harness.submit(plan).reply is ControlOutcome.DONE
        assert harness.take()[0] == []
        assert [reason for _, _, reason in harness.deaths] == [DeathReason.EXPIRED]

    def test_a_kick_wakes_a_waiting_poll(self, harness, control):
        (item_id,) = harness.add(b"x", delay=5_000)
        harness.poll(wait=None)
        assert harness.distribute() == []

        harness.submit(control.kick(harness.queue, looked_up(harness, item_id), harness.now))

        assert [item.contents for each in harness.distribute() for item in each.items] == [b"x"]

    def test_an_item_that_is_rescheduled_is_not_had_before(self, harness, control):
        (item_id,) = harness.add(b"x")
        harness.submit(control.reschedule(harness.queue, looked_up(harness, item_id), harness.now + 9, harness.now))
        harness.now += 8

        assert harness.take(5)[0] == []
        harness.now += 1
        assert harness.take(5)[0] == [b"x"]

    def test_an_item_that_is_rescheduled_to_its_old_due_is_claimed_once_after_a_crash(self, harness, control):
        (item_id,) = harness.add(b"x", delay=50)
        for due in (harness.now + 9, harness.now + 50):
            harness.submit(control.reschedule(harness.queue, looked_up(harness, item_id), due, harness.now))
        harness.commit_all()
        harness.crash()
        harness.now += 50

        assert harness.take(5)[0] == [b"x"]
        assert harness.take(5)[0] == []


class TestQueues:
    def test_dead_items_are_purged_alone(self, harness, control):
        harness.submit(harness.broker.lifecycle.configure(harness.queue, {"maxAttempts": 1}))
        harness.add(b"dead", b"alive")
        harness.take(1, lease_duration=5)
        harness.now += 6
        harness.sweep()
        assert control.purge(harness.broker.queue("other"), dead=True).reply == 0

        assert harness.submit(control.purge(harness.queue, dead=True)).reply == 1

        assert (harness.queue.items, harness.queue.dead.items) == (1, 0)
        assert harness.submit(control.purge(harness.queue, dead=False)).reply == 1

    def test_a_resumption_leaves_nothing_and_makes_no_queue(self, harness):
        lifecycle, queue = harness.broker.lifecycle, harness.queue
        plan = lifecycle.pause(queue, adds=True, polls=True, paused=False)
        assert (plan.reply, plan.writes, queue.number) == (queue.settings, [], None)

        harness.pause(adds=True, polls=True)
        harness.pause(adds=True, polls=True, paused=False)
        harness.commit_all()

        assert (harness.rows.settings, queue.configured) == ({}, {})

    def test_a_queue_with_items_or_polls_is_deleted_only_by_force(self, harness, control):
        assert control.delete(harness.queue, harness.now, force=True).reply is ControlOutcome.NOT_FOUND
        harness.add(b"x")
        assert control.delete(harness.queue, harness.now, force=False).reply is ControlOutcome.NOT_EMPTY
        _, lease = harness.take()
        harness.remove(next(iter(lease.keys)), lease.id)
        harness.poll(wait=None)
        assert control.delete(harness.queue, harness.now, force=False).reply is ControlOutcome.NOT_EMPTY
        harness.add(b"y")
        queue = harness.queue

        assert harness.submit(control.delete(queue, harness.now, force=True)).reply is ControlOutcome.DONE

        harness.commit_all()
        assert harness.queue is queue
        assert list(harness.broker.queues.names.search()) == []
        harness.add(b"z")
        assert [item.contents for each in harness.distribute() for item in each.items] == [b"z"]


class TestLeases:
    def test_a_lease_that_is_ended_gives_its_items_back(self, harness, control):
        harness.add(b"x")
        _, lease = harness.take(lease_duration=5_000)
        assert not control.end_lease(harness.broker.queue("other"), lease, harness.now).reply
        assert not control.end_lease(harness.queue, None, harness.now).reply

        assert harness.submit(control.end_lease(harness.queue, lease, harness.now)).reply

        assert not harness.remove(next(iter(lease.keys)), lease.id)
        harness.commit_all()
        harness.crash()
        harness.sweep()
        harness.now += 1
        assert harness.take()[0] == [b"x"]

    def test_a_handle_gives_no_right(self, harness, control):
        harness.add(b"x")
        _, lease = harness.take()

        assert len(handle_of(lease.id)) == 16
        assert not harness.remove(next(iter(lease.keys)), handle_of(lease.id))
        assert leases_of(harness.queue) == [lease]


class TestBounds:
    def test_are_exact_while_the_window_covers_what_is_due(self, harness):
        harness.add(*[b""] * 3)
        harness.add(b"", delay=50)

        assert bounds_of(harness.queue, harness.now) == Bounds(3, 3, 1, 1, harness.now)

    def test_items_off_their_time_may_be_delayed(self, harness):
        harness.add(*[b""] * 3)
        harness.add(b"", delay=50)
        harness.drop_window()
        harness.now += 1

        assert bounds_of(harness.queue, harness.now) == Bounds(3, 4, 0, 1, harness.now - 1)
        assert exact_bounds(harness.queue, 3) == Bounds(3, 3, 1, 1, harness.now - 1)


class TestChanges:
    """Changes that a random run seldom draws."""

    def test_a_count_takes_items_that_come_below_its_start(self, harness):
        harness.add(*[b""] * 3)
        harness.take(2)
        count = Count(harness.queue, harness.queue.number, harness.now)
        low = Item(Key(LOWEST.due + 1, LOWEST.id), b"", harness.now)

        count.note([PutItems(count.number, [low])])
        count.add(harness.rows.keys(count.number, count.after, items_max=9), exhausted=True)

        assert count.ready == 2
        count.note([DeleteItem(count.number, low.key)])
        assert count.ready == 1

    def test_a_peek_ends_before_its_contents_are_too_long(self, harness):
        harness.add(b"abc", b"def", b"ghi")
        harness.commit_all()
        peek = Peek(harness.queue, harness.queue.number, LOWEST, HIGHEST, 9, 3, 7)
        harness.broker.follow(peek)
        peek.add(harness.rows.scan(peek.number, peek.after, items_max=9))
        peek.note([PutItems(peek.number, [each]) for each in harness.rows.items.values()])

        seen, more = peek.result()

        assert ([each.item.contents for each in seen], more) == ([b"abc", b"def"], True)

    def test_a_lookup_knows_what_was_read_or_written(self, harness):
        (item_id,) = harness.add(b"x")
        read = Lookups(harness.broker.follow, harness.broker.unfollow).begin([(harness.queue, [item_id, b"?" * 16])])

        assert read.known(item_id)
        assert not read.known(b"?" * 16)

    def test_dead_items_are_not_moved_and_a_leased_one_has_none_before_it(self, harness, control):
        harness.submit(harness.broker.lifecycle.configure(harness.queue, {"maxAttempts": 1}))
        (item_id,) = harness.add(b"x")
        harness.take(lease_duration=5)
        leased = control.locate(harness.queue, looked_up(harness, item_id), harness.now)
        assert control.ahead(leased) == 0
        harness.now += 6
        harness.sweep()

        found = looked_up(harness, item_id)

        assert control.kick(harness.queue, found, harness.now).reply is ControlOutcome.NOT_FOUND
        assert control.locate(harness.queue, found, harness.now).state is ItemState.DEAD

    def test_a_peek_ends_with_a_slice_that_has_enough(self, harness):
        harness.add(*[b"abc"] * 5)
        harness.commit_all()

        def look(limit, bytes_max):
            peek = Peek(harness.queue, harness.queue.number, LOWEST, HIGHEST, limit, 3, bytes_max)
            peek.add(harness.rows.scan(peek.number, peek.after, items_max=2))
            return peek.done

        assert not look(limit=2, bytes_max=7)
        assert look(limit=1, bytes_max=7), "one item more than the limit shows that there are more"
        assert look(limit=2, bytes_max=6)

    def test_a_peek_that_a_purge_overtakes_returns_nothing(self, harness, control):
        harness.add(b"abc")
        harness.commit_all()
        peek = Peek(harness.queue, harness.queue.number, LOWEST, HIGHEST, 9, 3, 100)
        harness.broker.follow(peek)
        old = harness.rows.scan(peek.number, peek.after, items_max=9)
        harness.submit(control.purge(harness.queue, dead=False))
        harness.add(b"new")

        peek.add(old)

        assert peek.result() == ([], False)

    def test_a_lookup_keeps_the_new_row_if_the_old_one_is_deleted_later(self, harness):
        (item_id,) = harness.add(b"x")
        read = Lookups(harness.broker.follow, harness.broker.unfollow).begin([(harness.queue, [item_id])])
        old = read.find(item_id)
        new = old.item._replace(key=Key(old.item.key.due + 5, item_id))

        read.note([PutItems(old.queue, [new]), DeleteItem(old.queue, old.item.key)])

        assert read.find(item_id) == Found(old.queue, new)
        read.note([DeleteItem(old.queue, new.key)])
        assert read.find(item_id) is None

    def test_an_item_beyond_the_window_has_at_most_all_other_unleased_items_before_it(self, harness, control):
        ids = harness.add(*[b"x"] * 4)
        harness.take(1)
        within = control.locate(harness.queue, looked_up(harness, ids[3]), harness.now)
        assert control.ahead(within) == 2
        harness.drop_window()

        beyond = control.locate(harness.queue, looked_up(harness, ids[2]), harness.now)

        assert control.ahead(beyond) == 2

    def test_an_item_that_is_gone_is_neither_cancelled_nor_moved(self, harness, control):
        (item_id,) = harness.add(b"x")
        old = looked_up(harness, item_id)
        harness.submit(control.purge(harness.queue, dead=False))
        harness.submit(harness.broker.lifecycle.configure(harness.queue, {"maxItems": 5}))
        assert old.queue != harness.queue.number

        for found in (None, old):
            assert control.locate(harness.queue, found, harness.now) is None
            for plan in (
                control.cancel(harness.queue, found, harness.now),
                control.kick(harness.queue, found, harness.now),
                control.reschedule(harness.queue, found, harness.now + 5, harness.now),
            ):
                assert (plan.reply, plan.writes) == (ControlOutcome.NOT_FOUND, [])

    def test_a_leased_item_is_not_moved(self, harness, control):
        (item_id,) = harness.add(b"x")
        harness.take()

        plan = control.kick(harness.queue, looked_up(harness, item_id), harness.now)

        assert (plan.reply, plan.writes) == (ControlOutcome.LEASED, [])

    def test_a_kick_of_a_ready_item_writes_nothing(self, harness, control):
        (item_id,) = harness.add(b"x")
        harness.now += 5
        found = looked_up(harness, item_id)

        plan = control.kick(harness.queue, found, harness.now)

        assert (plan.reply, plan.writes) == (ControlOutcome.DONE, [])
        assert control.reschedule(harness.queue, found, harness.now, harness.now).writes != []

    def test_a_count_ignores_other_queues_and_items_that_become_due_later(self, harness):
        harness.add(b"x")
        harness.commit_all()
        count = Count(harness.queue, harness.queue.number, harness.now)
        harness.broker.follow(count)
        old = harness.rows.keys(count.number, count.after, items_max=9)

        harness.add(b"due")
        harness.add(b"later", delay=5)
        harness.add(b"elsewhere", name="other")
        _, lease = harness.take(name="other")
        count.add(old, exhausted=True)
        assert harness.remove(next(iter(lease.keys)), lease.id, name="other")

        assert count.ready == 2

    def test_a_count_that_a_purge_overtakes_counts_what_came_since(self, harness, control):
        harness.add(b"x", b"y")
        harness.commit_all()
        count = Count(harness.queue, harness.queue.number, harness.now)
        harness.broker.follow(count)
        old = harness.rows.keys(count.number, count.after, items_max=9)
        harness.submit(control.purge(harness.queue, dead=False))
        harness.add(b"new")

        count.add(old, exhausted=True)

        assert count.ready == 1

    def test_a_count_begins_below_a_claim_that_may_be_given_back(self, harness):
        harness.add(b"x", b"y")
        harness.commit_all()
        waiter = harness.poll(2)
        harness.distribute()
        count = Count(harness.queue, harness.queue.number, harness.now)
        harness.broker.follow(count)
        harness.broker.polls.cancel(waiter)
        harness.commit_all()

        count.add(harness.rows.keys(count.number, count.after, items_max=9), exhausted=True)

        assert count.ready == 2

    def test_a_peek_follows_changes_of_what_it_has_read_and_of_what_it_will_read(self, harness, control):
        ids = harness.add(*[b"abc"] * 6)
        harness.commit_all()
        peek = Peek(harness.queue, harness.queue.number, LOWEST, HIGHEST, 9, 3, 100)
        harness.broker.follow(peek)
        old = harness.rows.copy()
        harness.submit(control.cancel(harness.queue, looked_up(harness, ids[1]), harness.now))
        harness.submit(control.cancel(harness.queue, looked_up(harness, ids[5]), harness.now))
        ids += harness.add(b"abc")
        peek.add(old.scan(peek.number, peek.after, items_max=3))
        assert not peek.done

        harness.submit(control.cancel(harness.queue, looked_up(harness, ids[0]), harness.now))
        harness.submit(control.cancel(harness.queue, looked_up(harness, ids[4]), harness.now))
        peek.add(old.scan(peek.number, peek.after, items_max=9))

        seen, more = peek.result()
        assert ([each.item.key.id for each in seen], more) == ([ids[2], ids[3], ids[6]], False)

    def test_a_peek_forgets_additions_that_a_slice_has_covered(self, harness):
        early = harness.add(b"abc", b"abc")
        harness.commit_all()
        peek = Peek(harness.queue, harness.queue.number, LOWEST, HIGHEST, 9, 3, 100)
        harness.broker.follow(peek)
        old = harness.rows.copy()
        middle = harness.add(b"abc")
        late = harness.add(b"abc", delay=5)
        harness.commit_all()

        peek.add(harness.rows.scan(peek.number, peek.after, items_max=3))
        assert not peek.done
        peek.add(old.scan(peek.number, peek.after, items_max=9))

        seen, _ = peek.result()
        assert [each.item.key.id for each in seen] == [*early, *middle, *late]

    def test_a_lookup_finds_nothing_of_other_queues(self, harness):
        (item_id,) = harness.add(b"x")
        lookups = Lookups(harness.broker.follow, harness.broker.unfollow)
        read = lookups.begin([(harness.queue, [item_id, *harness.add(b"y", name="other")])])

        (other_id,) = read.ids[harness.queue][1:]

        assert read.known(item_id)
        assert harness.broker.control.locate(harness.queue, read.find(other_id), harness.now) is None

"""Adds that happen once: request ids, deduplication keys, and the end of their records."""

from collections import deque
from itertools import pairwise

import pytest
from attrs import define, field
from hypothesis import example, given, settings
from hypothesis import strategies as st

from queueber.broker import Broker
from queueber.broker.dedup import CHECK_SPAN_MAX, CHECK_SPAN_MIN, AddedOnce, digest_of
from queueber.broker.recent_requests import REQUEST_SPAN, RecentRequests
from queueber.broker.storage import DeleteQueue, PutQueue
from queueber.errors import InvalidRequest, Overloaded
from queueber.server.core.keyed_adds import read_records
from queueber.store import MemoryStore
from queueber.units import DAY, MINUTE, SECOND, SpanMs, WallMs
from queueber.values import ItemOptions, NewItem
from tests.broker.conftest import START, CountedIds
from tests.support.examples import examples

WINDOW = SpanMs(5 * MINUTE)
"""The default of `dedupWindowMs`."""

REQUEST = b"R" * 16
FAR = WallMs(2**62)
MARK = (b"b" * 16, 0, WallMs(0))


def item(key: bytes = b"", *, until_removed=False, delay=0) -> NewItem:
    return NewItem(b"x", SpanMs(delay), ItemOptions(dedup_key=key, until_removed=until_removed))


@define
class Harness:
    """A broker over a store in memory, whose plans become durable when the test says so."""

    store: MemoryStore = field(factory=MemoryStore)
    broker: Broker = field(init=False)
    ids: CountedIds = field(factory=CountedIds)
    now: WallMs = START
    plans: deque = field(factory=deque)
    submitted: int = 0
    """Plans with writes."""

    def __attrs_post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start again from what is durable."""
        self.plans.clear()
        self.broker = Broker(self.ids)
        for plan in self.broker.restore(self.store.recover()):
            self.submit(plan)

    @property
    def queue(self):
        return self.broker.queue("mail")

    def submit(self, plan):
        if plan.writes:
            self.plans.append(plan)
            self.submitted += 1
        return plan.reply

    def commit(self, count: int | None = None) -> None:
        for _ in range(len(self.plans) if count is None else min(count, len(self.plans))):
            plan = self.plans.popleft()
            dropped = [DeleteQueue(number) for number in plan.dropped]
            self.store.commit([*plan.writes, *map(PutQueue, plan.records), *dropped], MARK)
            self.broker.committed([plan])

    def begin(self, *items: NewItem, request_id: bytes = b"", queue=None):
        return self.broker.dedup.begin(queue or self.queue, items, request_id)

    def read(self, *keyed) -> None:
        read_records(self.store, keyed)

    def decide(self, keyed):
        return self.submit(self.broker.dedup.decide(keyed, self.now))

    def add(self, *items: NewItem, request_id: bytes = b"", queue=None):
        keyed = self.begin(*items, request_id=request_id, queue=queue)
        if self.broker.dedup.may_have_records(keyed, self.now):
            self.read(keyed)
        return self.decide(keyed)

    def sweep(self) -> int:
        """Sweep until there is nothing to delete, and commit; return how many records were deleted."""
        deleted = 0
        dedup = self.broker.dedup
        while dedup.next_end is not None and dedup.next_end <= self.now:
            sweep = dedup.begin_sweep()
            dedup.choose_items(sweep, self.store.ended(self.now, entries_max=2))
            for number, items in sweep.wanted.items():
                found = self.store.find([number], items)
                sweep.add_existing([one for one, place in zip(items, found, strict=True) if place is not None])
            later = [] if sweep.entries else self.store.ended(FAR, entries_max=1)
            deleted += self.submit(dedup.finish_sweep(sweep, self.now, later))
            self.commit()
        return deleted

    def lease_first(self) -> list:
        """Lease the first item that is ready, and return the deliveries with one."""
        self.broker.poll(self.queue, wanted=1, lease_duration=SpanMs(5), wait=SpanMs(0), peer=1, now=self.now)
        found = []
        while self.broker.polls.waiting:
            for plan in self.broker.claims.distribute(self.now):
                deliveries = self.submit(plan)
                self.commit()
                for delivery in deliveries:
                    self.broker.confirm_delivery(delivery)
                    found += [delivery] if delivery.items else []
            for refill in self.broker.take_refills():
                scan = self.store.scan(refill.number, refill.after, items_max=9, bytes_max=99)
                self.broker.refilled(refill, scan)
        return found

    def remove_first(self) -> None:
        """Lease the first item that is ready, and remove it."""
        for delivery in self.lease_first():
            for each in delivery.items:
                self.submit(self.broker.remove(self.queue, [(each.key.id, delivery.lease.id)], self.now))

    @property
    def rows(self) -> int:
        """The number of records and of entries of the index."""
        return len(self.store.ended(FAR, entries_max=10**6)) + len(self.store.records)


@pytest.fixture
def harness():
    return Harness()


def test_a_second_item_with_a_key_is_not_added_within_the_window(harness):
    first = harness.add(item(b"a"), item(), item(b"b"))
    assert (len(set(first.ids)), first.duplicates) == (3, ())
    harness.commit()
    harness.now += WINDOW - 1
    second = harness.add(item(b"b"), item(), item(b"a"), item(b"c"))
    assert (second.ids[0], second.ids[2], second.duplicates) == (first.ids[2], first.ids[0], (0, 2))
    assert harness.queue.items == 5
    harness.now += 2
    assert harness.add(item(b"a")).duplicates == ()


def test_keys_of_one_call_are_compared_too(harness):
    found = harness.add(item(b"a"), item(b"a"), item(b"b"), item(b"a"))
    assert found.ids == (found.ids[0], found.ids[0], found.ids[2], found.ids[0])
    assert found.duplicates == (1, 3)


def test_queues_do_not_share_keys(harness):
    harness.add(item(b"a"))
    assert harness.add(item(b"a"), queue=harness.broker.queue("other")).duplicates == ()


@pytest.mark.parametrize("committed", [0, 1])
def test_of_two_adds_at_once_the_second_is_a_duplicate(harness, committed):
    """Both have read that there is no record; the first may be durable or not when the second is decided."""
    one, two = harness.begin(item(b"a"), request_id=REQUEST), harness.begin(item(b"a"))
    harness.read(one, two)
    first = harness.decide(one)
    harness.commit(committed)
    assert harness.decide(two) == AddedOnce(first.ids, (0,))
    again = harness.begin(item(b"a"), request_id=REQUEST)
    harness.read(again)
    assert harness.decide(again) == first


def test_a_plan_that_becomes_durable_between_request_and_read_is_seen(harness):
    first = harness.add(item(b"a"))
    keyed = harness.begin(item(b"a"))
    harness.commit()
    harness.read(keyed)
    assert harness.decide(keyed) == AddedOnce(first.ids, (0,))


def test_a_call_that_is_sent_again_is_answered_from_its_record(harness):
    first = harness.add(item(b"a"), item(), item(b"a"), request_id=REQUEST)
    harness.commit()
    harness.restart()
    harness.now += REQUEST_SPAN - 1
    assert harness.add(item(b"other"), request_id=REQUEST) == first
    assert (harness.queue.items, len(harness.plans)) == (2, 0)
    harness.now += 2
    assert harness.add(item(), request_id=REQUEST).ids != first.ids


def test_a_call_without_items_writes_nothing(harness):
    assert harness.add(request_id=REQUEST) == AddedOnce((), ())
    assert not harness.plans


def test_a_call_of_duplicates_alone_has_a_record_of_its_request(harness):
    first = harness.add(item(b"a"))
    second = harness.add(item(b"a"), request_id=REQUEST)
    assert second == AddedOnce(first.ids, (0,))
    harness.commit()
    harness.now += WINDOW + 1
    assert harness.add(item(b"a"), request_id=REQUEST) == second


def test_a_key_counts_until_its_item_is_removed(harness):
    harness.add(item(b"a", until_removed=True))
    harness.commit()
    harness.now += 30 * DAY
    assert harness.add(item(b"a")).duplicates == (0,)
    harness.remove_first()
    assert harness.add(item(b"a", until_removed=True)).duplicates == ()
    harness.commit()
    assert harness.add(item(b"a")).duplicates == (0,)


def test_a_key_counts_while_its_item_is_leased_and_after_it_came_back(harness):
    harness.add(item(b"a", until_removed=True))
    assert harness.lease_first()
    assert harness.add(item(b"a")).duplicates == (0,)
    harness.now += 9
    keyed = harness.begin(item(b"a"))
    harness.read(keyed)
    (lease,) = harness.broker.pop_expired(harness.now)
    items = harness.store.read(harness.queue.number, lease.rows())
    harness.submit(harness.broker.requeue(lease, items, now=harness.now))
    assert harness.decide(keyed).duplicates == (0,)


def test_an_item_that_dies_frees_its_key(harness):
    harness.submit(harness.broker.lifecycle.configure(harness.queue, {"maxAttempts": 1}))
    harness.add(item(b"a", until_removed=True))
    assert harness.lease_first()
    harness.now += 9
    (lease,) = harness.broker.pop_expired(harness.now)
    items = harness.store.read(harness.queue.number, lease.rows())
    harness.submit(harness.broker.requeue(lease, items, now=harness.now))
    assert harness.queue.dead.items == 1
    assert harness.add(item(b"a")).duplicates == ()


def test_a_purge_frees_keys_that_count_until_their_items_are_gone(harness):
    harness.add(item(b"a", until_removed=True))
    keyed = harness.begin(item(b"a"))
    harness.commit()
    harness.read(keyed)
    harness.submit(harness.broker.lifecycle.purge(harness.queue))
    assert harness.decide(keyed).duplicates == ()


def test_plans_for_other_items_leave_a_key_taken(harness):
    """Items that are added, removed and moved while the records are read."""
    first = harness.add(item(b"a", until_removed=True, delay=DAY))
    harness.add(item(), item())
    harness.commit()
    keyed = harness.begin(item(b"a"))
    harness.read(keyed)
    harness.remove_first()
    harness.add(item(), item())
    assert harness.decide(keyed) == AddedOnce(first.ids, (0,))


def test_a_record_that_is_deleted_during_the_read_does_not_count(harness):
    """A call whose record is at its end, and a key whose item is gone, just as a sweep deletes both."""
    first = harness.add(item(b"a", until_removed=True), request_id=REQUEST)
    harness.commit()
    harness.now += REQUEST_SPAN + 1
    harness.submit(harness.broker.lifecycle.purge(harness.queue))
    sweep = harness.broker.dedup.begin_sweep()
    harness.broker.dedup.choose_items(sweep, harness.store.ended(harness.now, entries_max=9))
    keyed = harness.begin(item(b"a"), request_id=REQUEST)
    harness.read(keyed)
    assert harness.submit(harness.broker.dedup.finish_sweep(sweep, harness.now)) == 2
    assert keyed.overlaid(keyed.records) == dict.fromkeys(keyed.records)
    found = harness.decide(keyed)
    assert (found.duplicates, found.ids == first.ids) == ((), False)


def test_a_deleted_queue_has_no_keys(harness):
    harness.add(item(b"a"))
    harness.commit()
    queue = harness.queue
    harness.submit(harness.broker.lifecycle.delete(queue, harness.now))
    assert harness.add(item(b"a"), queue=queue).duplicates == ()


def test_duplicates_count_in_no_limit_and_a_refusal_changes_nothing(harness):
    first = harness.add(item(b"a"))
    harness.submit(harness.broker.lifecycle.configure(harness.queue, {"maxItems": 1}))
    assert harness.add(item(b"a"), item(b"a")) == AddedOnce((*first.ids, *first.ids), (0, 1))
    before = len(harness.plans)
    assert isinstance(harness.add(item(b"a"), item(b"b"), request_id=REQUEST), Overloaded)
    assert len(harness.plans) == before
    harness.submit(harness.broker.lifecycle.configure(harness.queue, {"maxItems": 2}))
    assert harness.add(item(b"b"), request_id=REQUEST).duplicates == ()


def test_a_refusal_names_the_place_of_the_item_in_the_call(harness):
    harness.add(item(b"a"))
    old = NewItem(b"old", SpanMs(0), ItemOptions(expires_at=WallMs(harness.now - 1)))
    why = harness.add(item(b"a"), item(b"b"), old)
    assert isinstance(why, InvalidRequest)
    assert str(why).startswith("options[2].expiresAtMs is 1 ms ago by the server's clock")
    assert harness.queue.items == 1


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("ttl", [0, 10])
def test_a_key_that_counts_until_its_item_is_gone_is_free_once_that_has_expired(harness, durable, ttl):
    """The item is still there, because no poll has come for it, and will not be delivered."""
    harness.submit(harness.broker.lifecycle.configure(harness.queue, {"ttlMs": ttl}))
    options = ItemOptions(dedup_key=b"a", until_removed=True, expires_at=WallMs(0 if ttl else harness.now + 10))
    keyed = NewItem(b"x", SpanMs(0), options)
    first = harness.add(keyed)
    again = item(b"a", until_removed=True)
    if durable:
        harness.commit()
    harness.now += 9
    assert harness.add(again).ids == first.ids
    harness.now += 1
    assert harness.add(again).duplicates == ()
    assert harness.queue.items == 2


def test_a_key_counts_while_its_item_is_leased_after_its_end(harness):
    options = ItemOptions(dedup_key=b"a", until_removed=True, expires_at=WallMs(harness.now + 2))
    harness.add(NewItem(b"x", SpanMs(0), options))
    harness.commit()
    assert harness.lease_first()
    harness.now += 3
    assert harness.add(item(b"a", until_removed=True)).duplicates == (0,)


def test_what_is_not_added_may_expire_before_it_is_due(harness):
    """The reply to a call that is sent again does not depend on the time that has passed."""
    doomed = ItemOptions(dedup_key=b"a", expires_at=WallMs(harness.now + 5))
    first = harness.add(NewItem(b"x", SpanMs(2), doomed), request_id=REQUEST)
    harness.now = WallMs(harness.now + 4)
    assert harness.add(NewItem(b"x", SpanMs(2), doomed), request_id=REQUEST) == first
    assert harness.add(NewItem(b"y", SpanMs(2), doomed)).duplicates == (0,)
    why = harness.add(NewItem(b"y", SpanMs(2), doomed), NewItem(b"z", SpanMs(2), doomed._replace(dedup_key=b"z")))
    assert str(why).endswith("becomes due, 3 ms from now (visibilityTimeout of items[1])")


def test_dead_items_take_no_adds(harness):
    harness.add(item(b"a"))
    dead = harness.broker.queues.dead_line(harness.queue)
    assert isinstance(harness.add(item(b"a"), queue=dead), InvalidRequest)


def test_a_queue_without_a_window_keeps_no_keys(harness):
    harness.submit(harness.broker.lifecycle.configure(harness.queue, {"dedupWindowMs": 0}))
    assert harness.add(item(b"a")).duplicates == ()
    assert harness.add(item(b"a")).duplicates == ()
    harness.commit()
    assert harness.rows == 0


def test_an_add_whose_records_cannot_be_read_is_ended(harness):
    keyed = harness.begin(item(b"a"))
    harness.broker.dedup.cancel(keyed)
    harness.add(item(b"a"))
    assert not keyed.ends


def test_no_rows_are_left_when_windows_have_passed(harness):
    for number in range(5):
        harness.add(item(b"%d" % number), request_id=b"%d" % number * 16)
    harness.commit()
    assert harness.rows == 20
    harness.now += WINDOW + 1
    assert (harness.sweep(), harness.rows) == (5, 10)
    harness.now += REQUEST_SPAN
    assert (harness.sweep(), harness.rows, harness.broker.dedup.next_end) == (5, 0, None)
    harness.restart()
    assert (harness.sweep(), harness.broker.dedup.next_end) == (0, None)
    harness.add(item(b"0"))
    assert harness.broker.dedup.next_end == harness.now + WINDOW + 1


def test_a_record_that_is_renewed_during_a_sweep_is_kept(harness):
    harness.add(item(b"a"))
    harness.commit()
    harness.now += WINDOW + 1
    dedup = harness.broker.dedup
    sweep = dedup.begin_sweep()
    dedup.choose_items(sweep, harness.store.ended(harness.now, entries_max=9))
    second = harness.add(item(b"a"))
    assert harness.submit(dedup.finish_sweep(sweep, harness.now)) == 0
    harness.commit()
    assert harness.add(item(b"a")) == AddedOnce(second.ids, (0,))
    assert harness.rows == 2


def test_a_sweep_that_cannot_read_follows_no_plans(harness):
    sweep = harness.broker.dedup.begin_sweep()
    harness.broker.dedup.cancel_sweep(sweep)
    harness.add(item(b"a"))
    assert not sweep.ends


def test_records_that_are_written_during_the_last_sweep_are_not_forgotten(harness):
    dedup = harness.broker.dedup
    sweep = dedup.begin_sweep()
    dedup.choose_items(sweep, harness.store.ended(harness.now, entries_max=9))
    harness.add(item(b"a"))
    harness.submit(dedup.finish_sweep(sweep, harness.now, []))
    assert dedup.next_end == harness.now + WINDOW + 1


def test_records_without_an_end_are_checked_ever_less_often_and_deleted_with_their_items(harness):
    harness.add(item(b"a", until_removed=True))
    harness.commit()
    harness.sweep()
    looks = []
    while len(looks) < 12:
        assert harness.broker.dedup.next_end is not None
        looks.append(harness.broker.dedup.next_end)
        harness.now = looks[-1]
        assert (harness.sweep(), harness.rows) == (0, 2)
    spans = [after - before for before, after in pairwise(looks)]
    assert looks[0] - START == CHECK_SPAN_MIN + 1
    assert spans == sorted(spans)
    assert spans[-1] == CHECK_SPAN_MAX + 1
    harness.remove_first()
    harness.commit()
    harness.now += CHECK_SPAN_MAX + 1
    assert (harness.sweep(), harness.rows) == (1, 0)


def test_a_key_that_is_used_again_and_again_keeps_one_entry(harness):
    for _ in range(20):
        harness.add(item(b"a", until_removed=True))
        harness.commit()
        harness.remove_first()
        harness.commit()
        harness.now += MINUTE
        harness.sweep()
    assert harness.rows < 15
    harness.now += CHECK_SPAN_MIN + 1
    harness.sweep()
    assert harness.rows == 0


def test_records_of_a_deleted_queue_are_deleted(harness):
    harness.add(item(b"a", until_removed=True), item(b"b"))
    harness.commit()
    harness.submit(harness.broker.lifecycle.delete(harness.queue, harness.now))
    harness.commit()
    harness.now += CHECK_SPAN_MIN + 1
    assert (harness.sweep(), harness.rows) == (2, 0)


def test_digests_are_those_of_blake2b():
    assert digest_of(b"").hex() == "cae66941d9efbd404e4d88758ea67670"


@define
class Model(Harness):
    """
    A harness that knows for each key the item that took it, and until when.

    Adds take effect when they are decided.
    """

    taken: dict[int, tuple[bytes, WallMs | None]] = field(factory=dict)
    """The item and the end of each key; None for one that counts until its item is gone."""

    history: list = field(factory=list)
    """`submitted` and `taken` after each decision."""

    under_way: list = field(factory=list)
    """The adds that are not decided, with the keys of their items, and whether their records were read."""

    def counts(self, key: int) -> bool:
        if key not in self.taken or not key:
            return False
        item_id, ends = self.taken[key]
        if ends is not None:
            return ends > self.now
        self.commit()
        number = self.queue.number
        return number is not None and self.store.find([number], [item_id])[0] is not None

    def begin_one(self, keys) -> None:
        items = [item(bytes([key]) if key else b"", until_removed=until) for key, until in keys]
        self.under_way.append((self.begin(*items), keys, []))

    def read_one(self, place) -> None:
        for keyed, _, done in self.under_way[place : place + 1]:
            if not done:
                self.read(keyed)
                done.append(True)

    def decide_one(self, place) -> None:
        for keyed, keys, done in self.under_way[place : place + 1]:
            if not done:
                continue
            del self.under_way[place]
            found = self.decide(keyed)
            duplicates = []
            for at, (key, until) in enumerate(keys):
                if self.counts(key):
                    assert found.ids[at] == self.taken[key][0]
                    duplicates.append(at)
                else:
                    self.taken[key] = found.ids[at], None if until else WallMs(self.now + WINDOW + 1)
            assert list(found.duplicates) == duplicates
            self.history.append((self.submitted, dict(self.taken)))

    def wait(self, span) -> None:
        self.now += span

    def sweep_all(self, _) -> None:
        self.commit()
        self.sweep()

    def purge(self, _) -> None:
        self.submit(self.broker.lifecycle.purge(self.queue))

    def remove(self, _) -> None:
        self.remove_first()

    def end_leases(self) -> None:
        """Give back the items of removes that a crash has undone."""
        while ended := self.broker.pop_expired(self.now):
            for lease in ended:
                rows = self.store.read(lease.queue, lease.rows())
                self.submit(self.broker.requeue(lease, rows, self.now))
        self.commit()

    def crash(self, _) -> None:
        """Restart; the adds under way are lost, and so are the plans that are not durable."""
        durable = self.submitted - len(self.plans)
        self.history = [(submitted, taken) for submitted, taken in self.history if submitted <= durable]
        self.taken = dict(self.history[-1][1]) if self.history else {}
        self.submitted = durable
        self.under_way.clear()
        self.restart()


steps = st.lists(
    st.one_of(
        st.tuples(st.just(Model.begin_one), st.lists(st.tuples(st.sampled_from(b"abc\0"), st.booleans()), max_size=3)),
        st.tuples(st.sampled_from([Model.read_one, Model.decide_one]), st.integers(0, 3)),
        st.tuples(st.just(Model.commit), st.integers(1, 3)),
        st.tuples(st.just(Model.wait), st.sampled_from([1, SECOND, WINDOW, DAY])),
        st.tuples(st.sampled_from([Model.remove, Model.sweep_all, Model.purge, Model.crash]), st.none()),
    ),
    max_size=40,
)


@example(
    [
        (Model.begin_one, [(97, False), (98, True)]),
        (Model.read_one, 0),
        (Model.decide_one, 0),
        (Model.remove, None),
        (Model.remove, None),
        (Model.crash, None),
    ]
)
@given(steps)
def test_keys_count_as_in_a_model_and_no_rows_are_left(steps):
    model = Model()
    for step, argument in steps:
        step(model, argument)
        model.broker.check()
    for keyed, _, _ in model.under_way:
        model.broker.dedup.cancel(keyed)
    model.commit()
    model.wait(400 * DAY)
    model.end_leases()
    model.purge(None)
    model.sweep_all(None)
    assert model.rows == 0


@define
class RequestModel(Harness):
    """A harness that knows the items of each request id, until when, and after how many plans it was decided."""

    answers: dict[bytes, tuple[tuple[bytes, ...], WallMs, int]] = field(factory=dict)

    def send(self, request: bytes) -> None:
        """Send a call that becomes durable at once if its id is an upper case letter."""
        before = {ids for ids, _, _ in self.answers.values()}
        found = self.add(item(), request_id=request * 16)
        ids, ends, _ = self.answers.get(request, ((), WallMs(0), 0))
        if ends > self.now:
            assert found.ids == ids
        else:
            assert found.ids not in before
            self.answers[request] = found.ids, WallMs(self.now + REQUEST_SPAN + 1), self.submitted
        if request.isupper():
            self.commit()

    def wait(self, span) -> None:
        self.now += span

    def sweep_all(self, _) -> None:
        self.commit()
        self.sweep()

    def crash(self, _) -> None:
        durable = self.submitted - len(self.plans)
        self.answers = {request: answer for request, answer in self.answers.items() if answer[2] <= durable}
        self.submitted = durable
        self.restart()


@settings(max_examples=examples(300))
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just(RequestModel.send), st.sampled_from([b"a", b"B", b"C"])),
            st.tuples(st.just(RequestModel.commit), st.integers(1, 3)),
            st.tuples(
                st.just(RequestModel.wait), st.sampled_from([1, SECOND, 5 * MINUTE, REQUEST_SPAN, REQUEST_SPAN + 2])
            ),
            st.tuples(st.sampled_from([RequestModel.sweep_all, RequestModel.crash]), st.none()),
        ),
        max_size=40,
    )
)
def test_calls_that_are_sent_again_are_answered_as_in_a_model(steps):
    model = RequestModel()
    for step, argument in steps:
        step(model, argument)
        model.broker.check()


def test_a_sweep_that_finds_records_of_before_a_start_leaves_them_to_be_read(harness):
    ids = harness.add(item(), request_id=REQUEST).ids
    harness.commit()
    harness.restart()
    harness.sweep()
    assert harness.add(item(), request_id=REQUEST).ids == ids


class TestRecentRequests:
    OTHER = b"O" * 16

    @pytest.fixture
    def recent(self):
        """After a start without records."""
        recent = RecentRequests()
        recent.note_no_others()
        return recent

    def test_after_a_start_every_request_may_have_a_record_until_those_of_before_have_ended(self):
        recent = RecentRequests()
        assert recent.may_have_record(REQUEST, START)
        assert recent.may_have_record(REQUEST, WallMs(START + REQUEST_SPAN))
        assert not recent.may_have_record(REQUEST, WallMs(START + REQUEST_SPAN + 2))

    @pytest.mark.parametrize("noted", [0, 5 * MINUTE, REQUEST_SPAN, REQUEST_SPAN + MINUTE, REQUEST_SPAN + 2 * MINUTE])
    def test_a_request_is_known_until_its_record_has_ended_and_forgotten_later(self, recent, noted):
        recent.note(self.OTHER, START)
        recent.note(REQUEST, WallMs(START + noted))
        for later in range(noted, noted + REQUEST_SPAN + 2, 10_000):
            assert recent.may_have_record(REQUEST, WallMs(START + later))
            assert not recent.may_have_record(b"U" * 16, WallMs(START + later))
        # Others, that go on, do not keep it.
        for later in range(noted, noted + 3 * REQUEST_SPAN, MINUTE):
            recent.note(self.OTHER, WallMs(START + later))
        assert not recent.may_have_record(REQUEST, WallMs(START + noted + 3 * REQUEST_SPAN))

    def test_few_of_many_others_are_taken_for_known_ones(self, recent):
        for number in range(4_000):
            recent.note(number.to_bytes(16, "big"), START)
        assert all(recent.may_have_record(number.to_bytes(16, "big"), START) for number in range(0, 4_000, 100))
        taken = [
            recent.may_have_record(number.to_bytes(16, "little"), START) for number in range(1 << 20, (1 << 20) + 2_000)
        ]
        assert sum(taken) < 10

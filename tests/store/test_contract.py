"""The contract of every store, whatever holds its rows."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queue_model import ModelStore

from queueber.broker.model import LOWEST, Item, ItemId, Key, LeaseId, LeaseRecord, QueueNumber, QueueRecord, TimeMark
from queueber.broker.storage import (
    DedupRecord,
    DeleteDedup,
    DeleteEnded,
    DeleteItem,
    DeleteLease,
    DeleteQueue,
    DeleteRequest,
    DeleteRetired,
    DeleteSettings,
    Digest,
    Ended,
    Found,
    PutDedup,
    PutItems,
    PutLease,
    PutNumbers,
    PutQueue,
    PutRequest,
    PutRetired,
    PutSettings,
    Recovered,
    RequestId,
    Write,
)
from queueber.units import SpanMs, WallMs

MAIL = QueueNumber(1)
OTHER = QueueNumber(2)
LAST = QueueNumber(2**32 - 1)
LEASE = LeaseId(b"L" * 16)
MANY = 10**9


def dues(store, queue=MAIL, after=LOWEST, items_max=MANY, bytes_max=MANY) -> list[int]:
    return [item.key.due for item in store.scan(queue, after, items_max=items_max, bytes_max=bytes_max).items]


def test_a_new_store_is_empty(store):
    assert store.recover() == Recovered([], {}, None)
    scan = store.scan(MAIL, LOWEST, items_max=1, bytes_max=1)
    assert list(scan.items) == []
    assert scan.exhausted


def test_items_come_back_as_they_were(store, make):
    items = [make.item(due, contents, attempts=due) for due, contents in ((1, b""), (2, b"x"), (3, bytes(70_000)))]
    store.commit([PutItems(MAIL, [item]) for item in items], make.mark)
    scan = store.scan(MAIL, LOWEST, items_max=10, bytes_max=MANY)
    assert [make.fields(item) for item in scan.items] == [make.fields(item) for item in items]
    assert scan.exhausted


def test_a_scan_is_in_order_of_due_then_id(store, make):
    wanted = [make.key(1, 9), make.key(255, 3), make.key(256, 1), make.key(256, 2), make.key(2**63, 0)]
    store.commit([PutItems(MAIL, [Item(key, b"", WallMs(0))]) for key in reversed(wanted)], make.mark)
    assert [item.key for item in store.scan(MAIL, LOWEST, items_max=9, bytes_max=MANY).items] == wanted


def test_a_scan_begins_strictly_after_its_start(store, make):
    store.commit([PutItems(MAIL, [make.item(due)]) for due in (1, 2, 3)], make.mark)
    assert dues(store, after=make.key(1)) == [2, 3]
    assert dues(store, after=make.key(2, 0)) == [2, 3]
    assert dues(store, after=make.key(3)) == []


def test_a_scan_stays_in_its_queue(store, make):
    store.commit([PutItems(queue, [make.item(queue)]) for queue in (MAIL, OTHER, LAST)], make.mark)
    assert [dues(store, queue) for queue in (MAIL, OTHER, LAST, QueueNumber(3))] == [[MAIL], [OTHER], [LAST], []]


def test_a_scan_stops_at_its_limit_of_items(store, make):
    store.commit([PutItems(MAIL, [make.item(due)]) for due in (1, 2, 3)], make.mark)
    first = store.scan(MAIL, LOWEST, items_max=2, bytes_max=MANY)
    assert [item.key.due for item in first.items] == [1, 2]
    assert not first.exhausted
    assert store.scan(MAIL, LOWEST, items_max=3, bytes_max=MANY).exhausted


def test_a_scan_stops_at_its_limit_of_bytes(store, make):
    store.commit([PutItems(MAIL, [make.item(due, b"x" * 10)]) for due in (1, 2, 3)], make.mark)
    assert dues(store, bytes_max=11) == [1, 2]
    assert dues(store, bytes_max=10) == [1]
    assert not store.scan(MAIL, LOWEST, items_max=9, bytes_max=20).exhausted
    assert store.scan(MAIL, LOWEST, items_max=9, bytes_max=30).exhausted


def test_a_scan_returns_an_item_that_is_larger_than_its_limit_of_bytes(store, make):
    store.commit([PutItems(MAIL, [make.item(1, b"x" * 10)])], make.mark)
    assert dues(store, bytes_max=0) == [1]


def test_the_last_write_of_a_row_takes_effect(store, make):
    store.commit(
        [
            PutItems(MAIL, [make.item(1, b"old")]),
            PutItems(MAIL, [make.item(1, b"new")]),
            PutItems(MAIL, [make.item(2)]),
            DeleteItem(MAIL, make.key(2)),
            DeleteItem(MAIL, make.key(3)),
            PutItems(MAIL, [make.item(3)]),
        ],
        make.mark,
    )
    assert dues(store) == [1, 3]
    assert store.read(MAIL, [make.key(1)])[0].contents == b"new"


def test_deleting_a_missing_row_changes_nothing(store, make):
    store.commit([PutItems(MAIL, [make.item(1)])], make.mark)
    store.commit([DeleteItem(MAIL, make.key(9)), DeleteItem(OTHER, make.key(1)), DeleteLease(LEASE)], make.mark)
    assert dues(store) == [1]


def test_items_are_read_in_the_order_of_the_keys_given(store, make):
    store.commit([PutItems(MAIL, [make.item(due, b"%d" % due)]) for due in (1, 2, 3)], make.mark)
    found = store.read(MAIL, [make.key(3), make.key(9), make.key(1), make.key(3)])
    assert [item and item.contents for item in found] == [b"3", None, b"1", b"3"]
    assert store.read(OTHER, [make.key(1)]) == [None]
    assert store.read(MAIL, []) == []


def test_a_lease_is_recovered_with_its_existing_items(engine, make):
    keys = tuple(make.key(due) for due in (1, 2, 3))
    writes = [PutItems(MAIL, [make.item(due)]) for due in (1, 2, 3)]
    engine.store.commit([*writes, PutLease(LEASE, LeaseRecord(MAIL, WallMs(50), keys))], make.mark)
    engine.store.commit([DeleteItem(MAIL, keys[1])], make.mark)
    ((lease, found),) = engine.reopen().recover().leases.items()
    assert (lease, found.queue, found.deadline, found.keys) == (LEASE, MAIL, 50, (keys[0], keys[2]))


def test_a_lease_whose_items_are_all_removed_is_recovered_empty(engine, make):
    engine.store.commit([PutLease(LEASE, LeaseRecord(MAIL, WallMs(50), (make.key(1),)))], make.mark)
    assert engine.reopen().recover().leases[LEASE].keys == ()


def test_a_lease_is_recovered_with_all_that_was_written(engine, make):
    keys = tuple(make.key(due) for due in (1, 2, 3))
    writes = [PutItems(MAIL, [make.item(due, bytes(due))]) for due in (1, 3)]
    record = LeaseRecord(MAIL, WallMs(50), keys, (1, 2, 3), WallMs(40), b"S" * 16, SpanMs(10_000))
    other = LeaseId(b"M" * 16)
    engine.store.commit([*writes, PutLease(LEASE, record), PutLease(other, record._replace(sizes=()))], make.mark)
    wanted = record._replace(keys=(keys[0], keys[2]), sizes=(1, 3))
    assert engine.reopen().recover().leases == {LEASE: wanted, other: wanted}


def test_each_of_many_leases_is_recovered_with_its_own_items(engine, make):
    """More items than one lookup reads, and every third was removed."""
    writes: list[Write] = []
    wanted = {}
    for number in range(700):
        keys = tuple(make.key(number * 10 + i) for i in range(number % 7))
        lease = LeaseId(number.to_bytes(16, "big"))
        writes.append(PutLease(lease, LeaseRecord(MAIL, WallMs(number), keys)))
        wanted[lease] = tuple(key for key in keys if key.due % 3)
        writes += [PutItems(MAIL, [make.item(key.due)]) for key in wanted[lease]]
    engine.store.commit(writes, make.mark)
    assert {lease: record.keys for lease, record in engine.reopen().recover().leases.items()} == wanted


def test_leases_on_large_contents_are_recovered(engine, make):
    keys = tuple(make.key(due) for due in range(1, 13))
    writes = [PutItems(MAIL, [make.item(key.due, bytes(1 << 20))]) for key in keys]
    engine.store.commit([*writes, PutLease(LEASE, LeaseRecord(MAIL, WallMs(50), keys))], make.mark)
    assert engine.reopen().recover().leases[LEASE].keys == keys


def test_extending_a_lease_replaces_its_record_and_ending_it_deletes_it(engine, make):
    engine.store.commit([PutLease(LEASE, LeaseRecord(MAIL, WallMs(50), ()))], make.mark)
    engine.store.commit([PutLease(LEASE, LeaseRecord(MAIL, WallMs(90), ()))], make.mark)
    assert [lease.deadline for lease in engine.reopen().recover().leases.values()] == [90]
    engine.store.commit([DeleteLease(LEASE)], make.mark)
    assert engine.reopen().recover().leases == {}


def test_queues_are_recovered_as_last_written(engine, make):
    first = QueueRecord(MAIL, "mail", 1, 0, LOWEST)
    last = QueueRecord(MAIL, "mail", 2**40, 7, make.key(6), 2**50, QueueNumber(9), QueueNumber(8), 2**41)
    other = QueueRecord(LAST, "Ünïcödé \N{PARROT}", 0, 0, LOWEST)
    engine.store.commit([PutQueue(first), PutQueue(other)], make.mark)
    engine.store.commit([PutQueue(last)], make.mark)
    assert sorted(engine.reopen().recover().queues) == [last, other]


def test_a_deleted_queue_is_not_recovered(engine, make):
    engine.store.commit([PutQueue(QueueRecord(MAIL, "mail", 0, 0, LOWEST))], make.mark)
    engine.store.commit([DeleteQueue(MAIL), DeleteQueue(OTHER)], make.mark)
    assert engine.reopen().recover().queues == []


SETTINGS = {
    "maxAttempts": 2**32 - 1,
    "backoffBaseMs": 0,
    "backoffOnLoss": True,
    "pollsPaused": False,
    "maxBytes": 2**64 - 1,
    "labels": (("team", "Ünï"), ("empty", "")),
}


def test_settings_are_recovered_as_last_written(engine, make):
    assert engine.store.recover().settings == {}
    writes = [PutSettings(MAIL, {"leaseMs": 5}), PutSettings(MAIL, SETTINGS), PutSettings(LAST, {})]
    engine.store.commit([*writes, PutSettings(OTHER, SETTINGS), DeleteSettings(OTHER)], make.mark)
    assert engine.reopen().recover().settings == {MAIL: SETTINGS, LAST: {}}
    engine.store.commit([DeleteSettings(MAIL), DeleteSettings(OTHER)], make.mark)
    assert engine.reopen().recover().settings == {LAST: {}}


def test_retired_numbers_and_the_next_one_are_recovered(engine, make):
    recovered = engine.store.recover()
    assert (recovered.retired, recovered.next_number) == ({}, 1)
    writes = [PutRetired(number, MAIL) for number in (MAIL, OTHER)]
    engine.store.commit([*writes, PutRetired(LAST, QueueNumber(0)), PutNumbers(QueueNumber(9))], make.mark)
    engine.store.commit([DeleteRetired(OTHER), DeleteRetired(QueueNumber(5)), PutNumbers(LAST)], make.mark)
    recovered = engine.reopen().recover()
    assert (recovered.retired, recovered.next_number) == ({MAIL: MAIL, LAST: 0}, LAST)


def test_keys_are_read_in_order_and_in_slices(store, make):
    wanted = [make.key(due) for due in (1, 2, 3)]
    store.commit([PutItems(MAIL, [Item(key, b"x", WallMs(0)) for key in wanted])], make.mark)
    store.commit([PutItems(OTHER, [make.item(4)])], make.mark)
    assert store.keys(MAIL, LOWEST, items_max=2) == wanted[:2]
    assert store.keys(MAIL, wanted[1], items_max=9) == wanted[2:]
    assert store.keys(MAIL, wanted[2], items_max=9) == []
    assert store.keys(LAST, LOWEST, items_max=9) == []


def test_items_are_found_by_id_wherever_they_are(engine, make):
    """An item without delay, a delayed one, one of another queue, and one that has no row."""
    now, later, elsewhere = make.item(7, b"now"), make.item(8, b"later", number=1), make.item(9, b"other", number=2)
    writes = [PutItems(MAIL, [now, later]), PutItems(OTHER, [elsewhere])]
    engine.store.commit(writes, make.mark)
    store = engine.reopen()
    ids = [elsewhere.key.id, now.key.id, make.key(5).id, later.key.id]
    assert store.find([MAIL], ids) == [None, Found(MAIL, now), None, Found(MAIL, later)]
    assert store.find([MAIL, OTHER], ids) == [Found(OTHER, elsewhere), Found(MAIL, now), None, Found(MAIL, later)]
    assert store.find([], ids) == [None] * 4
    assert store.find([MAIL], []) == []


def test_an_item_that_moves_is_found_at_its_new_place(engine, make):
    """Away from the time in its id, to another queue, and back again."""
    first = make.item(7, b"x")
    engine.store.commit([PutItems(MAIL, [first])], make.mark)
    places = [(MAIL, 9), (OTHER, 9), (OTHER, 2**63), (MAIL, 7), (MAIL, 2**48 + 7), (MAIL, 7)]
    queue, item = MAIL, first
    for other, due in places:
        moved = item._replace(key=item.key._replace(due=WallMs(due)))
        engine.store.commit([DeleteItem(queue, item.key), PutItems(other, [moved])], make.mark)
        queue, item = other, moved
        assert engine.store.find([MAIL, OTHER], [item.key.id]) == [Found(queue, item)]
    engine.store.commit([DeleteItem(queue, item.key)], make.mark)
    assert engine.reopen().find([MAIL, OTHER], [item.key.id]) == [None]


DIGEST, REQUEST = Digest(b"D" * 16), RequestId(b"R" * 16)


def record(ends: int, *ids: int, duplicates: tuple[int, ...] = ()) -> DedupRecord:
    return DedupRecord(WallMs(ends), tuple(ItemId(each.to_bytes(16, "big")) for each in ids), duplicates)


def test_deduplication_records_are_read_back(engine, make):
    kept, last, call = record(50, 1), record(0, 2), record(60, 1, 2, 1, duplicates=(2, 2**32 - 1))
    writes = [PutDedup(MAIL, DIGEST, record(40, 9)), PutDedup(MAIL, DIGEST, kept), PutDedup(LAST, DIGEST, last)]
    engine.store.commit([*writes, PutRequest(REQUEST, call)], make.mark)
    store = engine.reopen()
    assert store.dedup(MAIL, [Digest(b"E" * 16), DIGEST]) == [None, kept]
    assert (store.dedup(LAST, [DIGEST]), store.dedup(OTHER, [DIGEST])) == ([last], [None])
    assert store.requests([REQUEST, RequestId(b"S" * 16), REQUEST]) == [call, None, call]
    store.commit([DeleteDedup(MAIL, DIGEST), DeleteRequest(REQUEST), DeleteRequest(REQUEST)], make.mark)
    assert (store.dedup(MAIL, [DIGEST]), store.requests([REQUEST])) == ([None], [None])
    assert store.dedup(LAST, [DIGEST]) == [last]


def test_ends_are_read_in_order_with_the_present_records(store, make):
    """A renewed record has two entries; one without an end has one at its check."""
    other = Digest(b"E" * 16)
    first, renewed, call = record(10, 1), record(30, 2), record(20, 3)
    checked = record(0, 4)._replace(check=WallMs(25))
    store.commit([PutDedup(MAIL, DIGEST, first), PutRequest(REQUEST, call), PutRequest(REQUEST, call)], make.mark)
    store.commit([PutDedup(MAIL, DIGEST, renewed), PutDedup(MAIL, other, checked)], make.mark)
    entries = [
        (Ended(first.ends, MAIL, DIGEST), renewed),
        (Ended(call.ends, QueueNumber(0), REQUEST), call),
        (Ended(checked.check, MAIL, other), checked),
        (Ended(renewed.ends, MAIL, DIGEST), renewed),
    ]
    assert store.ended(WallMs(9), entries_max=9) == []
    assert store.ended(WallMs(10), entries_max=9) == entries[:1]
    assert store.ended(WallMs(30), entries_max=9) == entries
    assert store.ended(WallMs(30), entries_max=2) == entries[:2]
    store.commit([DeleteEnded(entries[0][0]), DeleteEnded(entries[0][0]), DeleteDedup(MAIL, DIGEST)], make.mark)
    assert store.ended(WallMs(30), entries_max=9) == [*entries[1:3], (entries[3][0], None)]


def test_every_commit_writes_its_time_mark(engine, make):
    later = TimeMark(b"c" * 16, 7, WallMs(2**50))
    engine.store.commit([PutItems(MAIL, [make.item(1)])], make.mark)
    engine.store.commit([], later)
    assert engine.reopen().recover().mark == later


def test_commits_survive_reopening(engine, make):
    for due in (1, 2, 3):
        engine.store.commit([PutItems(MAIL, [make.item(due)]), DeleteItem(MAIL, make.key(due - 1))], make.mark)
        assert dues(engine.reopen()) == [due]


def test_other_threads_read_whole_commits_while_one_writes(store, make):
    """Each commit puts and deletes a hundred rows, so every scan sees a hundred."""
    hundred = range(1, 101)
    store.commit([PutItems(MAIL, [make.item(due, b"0")]) for due in hundred], make.mark)

    def write() -> None:
        for turn in range(1, 21):
            store.commit([PutItems(MAIL, [make.item(due, b"%d" % turn)]) for due in hundred], make.mark)

    def look() -> set[int]:
        return {
            len({item.contents for item in store.scan(MAIL, LOWEST, items_max=MANY, bytes_max=MANY).items})
            for _ in range(50)
        }

    with ThreadPoolExecutor(3) as pool:
        looks = [pool.submit(look), pool.submit(look)]
        pool.submit(write).result()
        assert [seen.result() for seen in looks] == [{1}, {1}]


@pytest.mark.parametrize("use", ["recover", "commit", "scan", "read"])
def test_a_closed_store_refuses(engine, make, use):
    engine.store.close()
    calls = {
        "recover": lambda store: store.recover(),
        "commit": lambda store: store.commit([PutItems(MAIL, [make.item(1)])], make.mark),
        "scan": lambda store: store.scan(MAIL, LOWEST, items_max=1, bytes_max=1),
        "read": lambda store: store.read(MAIL, [make.key(1)]),
    }
    try:
        with pytest.raises(RuntimeError):
            calls[use](engine.store)
    finally:
        engine.store = engine.open()


queues = st.sampled_from([MAIL, OTHER])
keys = st.builds(
    Key,
    st.sampled_from([0, 1, 255, 256, 2**64 - 1]),
    st.sampled_from([b"\0" * 15 + b"\1", b"\0" * 15 + b"\xff", b"\xff" * 16]).map(ItemId),
)
items = st.builds(Item, keys, st.binary(max_size=20), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.none())
leases = st.sampled_from([LEASE, LeaseId(b"\xff" * 16)])
records = st.tuples(queues, st.integers(0, 2**64 - 1), st.lists(keys, max_size=4).map(tuple)).map(
    lambda fields: LeaseRecord(*fields)
)
writes = st.one_of(
    st.builds(PutItems, queues, st.lists(items, max_size=5)),
    st.builds(DeleteItem, queues, keys),
    st.builds(PutLease, leases, records),
    st.builds(DeleteLease, leases),
    st.builds(
        PutQueue,
        st.tuples(queues, st.text(min_size=1, max_size=5), st.integers(0, 9), st.integers(0, 9), keys).map(
            lambda fields: QueueRecord(*fields)
        ),
    ),
)


class Permissive(ModelStore):
    """The model as a store that takes any writes: those of a row that is not there, and leases on the same items."""

    def delete(self, queue: QueueNumber, key: Key) -> None:
        self.items.pop((queue, key), None)

    def hold(self, lease_id: LeaseId, record: LeaseRecord) -> None:
        self.leases[lease_id] = record

    def release(self, lease_id: LeaseId) -> None:
        self.leases.pop(lease_id, None)

    def held(self, lease_id: LeaseId) -> list[Item]:
        return [item for item in self.read(self.leases[lease_id].queue, self.leases[lease_id].keys) if item is not None]


commits = st.lists(st.tuples(st.lists(writes, max_size=12), st.booleans()), max_size=5)


@pytest.mark.slow
@pytest.mark.untraced
@settings(max_examples=25, deadline=None)
@given(commits=commits, after=keys, items_max=st.integers(1, 4))
def test_a_store_behaves_like_a_model_of_dictionaries(engines_in, make, commits, after, items_max):
    """Any commits, with the store closed and reopened after some of them."""
    with TemporaryDirectory() as path:
        engines = engines_in(Path(path))
        try:
            for engine in engines:
                model = Permissive()
                for done, reopen in commits:
                    engine.store.commit(done, make.mark)
                    model.apply(done)
                    if reopen:
                        engine.reopen()
                agree(engine, model, make, after, items_max)
        finally:
            for engine in engines:
                engine.store.close()


def agree(engine, model, make, after, items_max):
    asked = [key for _, key in model.items]
    for queue in (MAIL, OTHER):
        wanted = model.scan(queue, after, items_max=items_max)
        scan = engine.store.scan(queue, after, items_max=items_max, bytes_max=MANY)
        assert [make.fields(item) for item in scan.items] == [make.fields(item) for item in wanted.items]
        assert scan.exhausted == wanted.exhausted
        read = engine.store.read(queue, asked)
        assert [make.fields(item) for item in read] == [make.fields(each) for each in model.read(queue, asked)]
    found, wanted = engine.reopen().recover(), model.recover()
    assert sorted(found.queues) == sorted(wanted.queues)
    assert found.leases == wanted.leases

"""Verification: each kind of error is a finding of its own, and nothing is changed."""

import pytest
from encoded_rows import all_encoded, encoded

from queueber.broker.model import LOWEST, ItemId, LeaseId, LeaseRecord, QueueNumber, QueueRecord
from queueber.broker.storage import (
    DedupRecord,
    Digest,
    Ended,
    PutDedup,
    PutItems,
    PutLease,
    PutNumbers,
    PutQueue,
    PutRequest,
    PutRetired,
    PutSettings,
    RequestId,
)
from queueber.errors import Passing, StorageError
from queueber.fixed_limits import ID_BYTES
from queueber.plyvel import DB, CorruptionError
from queueber.store import Encoding, verify
from queueber.store.datadir.database import open_database
from queueber.store.datadir.synced import SyncedFile
from queueber.store.maintenance import places
from queueber.store.maintenance.verification import FINDINGS_MAX, verify_rows
from queueber.store.rows.keys import FORMAT_KEY, end_key
from queueber.store.rows.records import encode_format, encode_sync_mark
from queueber.store.rows.side_records import encode_place
from queueber.units import WallMs

FIRST, SECOND = QueueNumber(1), QueueNumber(2)


@pytest.fixture
def change(data):
    """Return a function that overwrites rows of `data`."""

    def change(*puts, deletes=()):
        with open_database(data / "db") as db:
            for row, value in puts:
                db.put(row, value)
            for row in deletes:
                db.delete(row)
            db.sync()

    return change


@pytest.fixture
def item(make):
    def item(queue, due, number=None):
        return encoded(PutItems(queue, [make.item(due, b"", number)]))

    return item


def lease(number, *keys, queue=FIRST):
    return encoded(PutLease(LeaseId(bytes([number]) * ID_BYTES), LeaseRecord(queue, WallMs(99), keys)))


def queue(number, name, added, removed=0, floor=LOWEST, **counters):
    return encoded(PutQueue(QueueRecord(QueueNumber(number), name, added, removed, floor, **counters)), Encoding.PACKED)


def test_a_sound_directory_has_no_findings_and_is_not_changed(data, state_of):
    before, reports = state_of(data), []
    found = verify(data, lambda done, total: reports.append((done, total)))
    assert found.findings == []
    assert (found.items, found.leases, found.queues, found.as_of, found.more) == (5, 1, 3, 2_000, 0)
    assert reports[-1] == (5, 5)
    assert state_of(data) == before


def test_rows_in_the_log_are_verified_and_the_log_is_not_changed(data, item, state_of, settled):
    with open_database(data / "db") as db:
        db.put(*item(SECOND, 41))
        db.sync()
        assert any(path.stat().st_size for path in (data / "db").glob("*.log"))
        before = state_of(settled(data))
        assert verify(data).findings == ["queue 'second' counts 1 item and has 2"]
        assert state_of(data) == before


def test_a_directory_in_use_is_refused(busy, tmp_path):
    with pytest.raises(StorageError, match="another server holds it"):
        verify(tmp_path / "data")


def test_a_damaged_row_is_named(data, change, item):
    row, value = item(SECOND, 40)
    change((row, value[:-1] + b"?"))
    (finding,) = verify(data).findings
    assert finding == f"damaged row in table items, key {row.hex()}: its checksum does not match"


@pytest.mark.parametrize("table", [b"i", b"l", b"q", b"s", b"r", b"w", b"d", b"a", b"e"])
def test_a_key_of_an_impossible_length_is_named(data, change, table):
    change((table + b"short", b"?"))
    assert any(f"key {(table + b'short').hex()}" in finding for finding in verify(data).findings)


def test_a_value_with_an_invalid_name_is_named(data, change):
    row, value = queue(3, "emptied", 1, 1)
    change((row, value.replace(b"emptied", b"empt\xffed")))
    assert any(row.hex() in finding for finding in verify(data).findings)


@pytest.mark.parametrize("row", [b"b", b"j1", b"n", b"z", b"mstrange"])
def test_a_row_of_no_table_is_named(data, change, row):
    change((row, b""))
    (finding,) = verify(data).findings
    assert finding.endswith(f"key {row.hex()}: Queueber does not write this row")


def test_counters_must_be_exact(data, change, item):
    change(deletes=[item(FIRST, 20)[0]])
    assert verify(data).findings == ["queue 'first' counts 4 items and has 3"]


def test_a_queue_cannot_have_more_removes_than_adds(data, change):
    change(queue(3, "emptied", 1, 2))
    findings = verify(data).findings
    assert "2 items were removed, and 1 added" in findings[0]


def test_names_are_unique_and_not_empty(data, change):
    change(queue(3, "first", 0), queue(4, "", 0))
    one, two = verify(data).findings
    assert "another queue is named 'first' too" in one
    assert "its name is 0 bytes" in two


def test_an_item_belongs_to_a_queue(data, change, item):
    change(item(9, 50))
    (finding,) = verify(data).findings
    assert "it belongs to queue 9, which does not exist" in finding


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_ids_are_unique_over_all_queues_in_any_number_of_passes(data, change, make, at_once):
    twin = PutItems(SECOND, [make.item(60, b"", number=20 << 80 | 20)])
    change(*all_encoded(twin), queue(2, "second", 2, off_time=1))
    with open_database(data / "db") as db:
        (finding,) = verify_rows(db, ids_at_once=at_once).findings
    assert finding.endswith("another item has the same id")


def test_an_item_is_in_one_lease_only(data, change, make):
    change(lease(1, make.key(11), make.key(20)), lease(2, make.key(30), make.key(30)))
    findings = verify(data).findings
    assert sorted(finding.partition(": ")[2] for finding in findings) == ["1 of its items are held more than once"] * 2


def test_a_lease_belongs_to_an_existing_queue(data, change, make):
    change(lease(1, make.key(1), queue=QueueNumber(9)))
    (finding,) = verify(data).findings
    assert "it is on items of queue 9, which does not exist" in finding


def test_an_unleased_item_lies_above_the_floor(data, change, make):
    change(queue(2, "second", 1, floor=make.key(40)))
    (finding,) = verify(data).findings
    assert "at or below its queue's floor and is not leased" in finding


@pytest.mark.parametrize(
    ("counters", "finding"),
    [
        ({"bytes": 1}, "queue 'second' counts 1 byte and has 0"),
        ({"off_time": 2}, "queue 'second' counts 2 items off their ids' time and has 0"),
    ],
)
def test_counters_of_bytes_and_places_must_be_exact_from_format_2_on(data, change, item, counters, finding):
    change(queue(2, "second", 1, **counters))
    assert verify(data).findings == [finding]
    change((FORMAT_KEY, encode_format(1, "")), item(SECOND, 60, number=1), queue(2, "second", 2, **counters))
    assert verify(data).findings == [], "an item without its place, too"


def test_each_item_off_its_time_has_its_place_and_no_other_item_has_one(data, change, make, monkeypatch):
    """One at a time, and all together."""
    moved = [make.item(60 + n, b"", number=n) for n in range(5)]
    puts = all_encoded(PutItems(SECOND, moved))
    change(*puts, queue(2, "second", 6, off_time=5))
    for at_once in (1, 1_000):
        monkeypatch.setattr(places, "_ROWS_AT_ONCE", at_once)
        assert verify(data).findings == []
    items = [key for key, _ in puts[::2]]
    rows = [key for key, _ in puts[1::2]]
    elsewhere = encode_place(moved[1].key.id, FIRST, 61, Encoding.UNPACKED)
    stray = encode_place(make.key(77).id, SECOND, 78, Encoding.UNPACKED)
    needless = encode_place(make.key(20).id, FIRST, 20, Encoding.UNPACKED)
    damaged = (rows[2], b"?")
    change(elsewhere, stray, needless, damaged, deletes=[rows[0]])
    needs_none = "an item due at 20 is found by its id, and needs no place"
    for at_once in (1, 1_000):
        monkeypatch.setattr(places, "_ROWS_AT_ONCE", at_once)
        assert sorted(verify(data).findings) == sorted(
            [
                f"row in table items, key {items[0].hex()}: no place is known for it, so it is not found by its id",
                f"row in table items, key {items[1].hex()}: its place is said to be in queue 1 and due at 61",
                f"row in table places, key {rows[1].hex()}: there is no item at that place",
                f"row in table places, key {stray[0].hex()}: there is no item at that place",
                f"row in table places, key {needless[0].hex()}: {needs_none}",
                f"damaged row in table places, key {rows[2].hex()}: its value is only 1 byte long",
            ]
        )


def test_a_queue_and_its_dead_items_may_have_one_name_and_ids_are_unique(data, change):
    change(queue(8, "second", 0, dead_of=QueueNumber(2)), queue(9, "new", 0, id=QueueNumber(7)))
    assert verify(data).findings == []
    change(queue(10, "second", 0, dead_of=QueueNumber(3)), queue(11, "again", 0, id=QueueNumber(7)))
    findings = verify(data).findings
    assert [finding.partition(": ")[2] for finding in findings] == [
        "another queue is named 'second' too",
        "another queue has the id 7 too",
    ]


def test_settings_belong_to_a_queue(data, change):
    writes = [PutSettings(SECOND, {"maxAttempts": 5}), PutSettings(QueueNumber(7), {"leaseMs": 1})]
    change(*all_encoded(*writes))
    (finding,) = verify(data).findings
    assert finding.endswith("it belongs to a queue with the id 7, which does not exist")
    change(queue(9, "seventh", 0, id=QueueNumber(7)))
    assert verify(data).findings == []


def test_items_and_leases_of_a_retired_number_are_no_findings(data, change, item, make):
    retired = PutRetired(QueueNumber(9), SECOND)
    change(item(9, 50), item(9, 51), lease(1, make.key(50), queue=QueueNumber(9)), *all_encoded(retired))
    change(queue(2, "second", 2))
    (finding,) = verify(data).findings
    assert finding.endswith("its number is not below 1, the next one for a queue")
    change(*all_encoded(PutNumbers(QueueNumber(10))))
    assert verify(data).findings == [], "the leased item counts, the other does not"
    change(queue(2, "second", 1))
    assert verify(data).findings == ["queue 'second' counts 1 item and has 2"]
    change(*all_encoded(PutRetired(QueueNumber(9), QueueNumber(0))))
    assert verify(data).findings == [], "the queue was deleted"
    change((b"i\0\0\0\x09short", b""))
    (finding,) = verify(data).findings
    assert b"i\0\0\0\x09short".hex() in finding


def test_deduplication_records_are_in_the_index_of_ends(data, change):
    digest, request = Digest(b"D" * 16), RequestId(b"R" * 16)
    record = DedupRecord(WallMs(5), (ItemId(b"i" * 16),))
    puts = all_encoded(
        PutDedup(FIRST, digest, record),
        PutDedup(SECOND, digest, record._replace(ends=WallMs(0), check=WallMs(9))),
        PutRequest(request, record),
    )
    change(*puts)
    assert verify(data).findings == []
    change(deletes=[end_key(Ended(WallMs(5), FIRST, digest)), end_key(Ended(WallMs(5), QueueNumber(0), request))])
    assert [finding.partition(": ")[2] for finding in verify(data).findings] == [
        "it is not in the index of ends, so it would stay for ever"
    ] * 2
    change((puts[0][0], b"?"), (end_key(Ended(WallMs(6), FIRST, digest)), b"?"))
    assert sum("its value is only 1 byte long" in finding for finding in verify(data).findings) == 2


def test_a_newer_or_missing_format_is_a_finding(data, change):
    change((FORMAT_KEY, encode_format(99, "")))
    assert "the data is of format 99" in verify(data).findings[0]
    change(deletes=[FORMAT_KEY])
    assert "has no format version" in verify(data).findings[0]


def test_the_log_reaches_what_was_on_disk(data):
    synced = SyncedFile(data / "synced")
    noted = synced.read()
    synced.note(noted + 10)
    (finding,) = verify(data).findings
    assert finding.startswith("acknowledged writes are missing")
    (data / "synced").unlink()
    assert verify(data).findings == []


def test_a_damaged_mark_is_a_finding(data, change):
    row = b"mclean"
    change((row, encode_sync_mark(b"other", 1)))
    (finding,) = verify(data).findings
    assert row.hex() in finding


def test_an_unreadable_table_file_is_a_finding_and_the_rest_is_verified(data, monkeypatch):
    with open_database(data / "db") as db:
        before, iterator = verify_rows(db), DB.iterator
        assert before.findings == []

        def damaged(db, **bounds):
            if bounds.get("prefix") == b"i":
                raise CorruptionError("Corruption: block checksum mismatch")
            return iterator(db, **bounds)

        monkeypatch.setattr(DB, "iterator", damaged)
        found = verify_rows(db)
    (finding,) = found.findings
    assert finding == ("row in table items, key 69: nothing after it can be read: Corruption: block checksum mismatch")
    assert found.queues == 3


@pytest.mark.parametrize("call", ["iterator", "get"])
def test_a_passing_error_is_not_a_finding(data, monkeypatch, call):
    def refused(*_, **__):
        raise Passing("Too many open files")

    with open_database(data / "db") as db:
        monkeypatch.setattr(DB, call, refused)
        with pytest.raises(Passing, match="Too many open files"):
            verify_rows(db)


def test_a_damaged_table_file_is_a_finding(data):
    (table,) = (data / "db").glob("*.sst")
    content = bytearray(table.read_bytes())
    content[20] ^= 0xFF
    table.write_bytes(content)
    found = verify(data)
    assert found.findings
    assert all("Corruption: block checksum mismatch" in finding for finding in found.findings)
    assert all(str(table) in finding for finding in found.findings)


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST-*", "*.sst"])
def test_a_database_that_cannot_be_opened_is_one_line(data, name):
    (file, *_) = (data / "db").glob(name)
    file.unlink()
    with pytest.raises(StorageError, match=rf"^cannot use data directory {data}: [^\n]*$"):
        verify(data)


def test_a_database_that_is_no_directory_is_one_line(data, monkeypatch):
    monkeypatch.setattr(
        "queueber.store.datadir.copying._files", lambda database: database.joinpath("CURRENT", "x").stat()
    )
    with pytest.raises(StorageError, match="Not a directory"):
        verify(data)


def test_progress_is_reported_and_findings_are_bounded(data, change, item):
    change(*(item(9, due) for due in range(100, 100 + FINDINGS_MAX + 5)))
    reports = []
    found = verify(data, lambda done, total: reports.append((done, total)))
    assert (len(found.findings), found.more) == (FINDINGS_MAX, 5)
    assert reports == [(1000, 1000), (1010, 1010)]

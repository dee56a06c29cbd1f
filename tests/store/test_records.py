"""Values of rows are read back, and damage to them is detected."""

import sys
from pathlib import Path

import pytest
from encoded_rows import encoded, item_value
from hypothesis import given, settings
from hypothesis import strategies as st

from queueber.broker.model import (
    LOWEST,
    Facts,
    Item,
    ItemId,
    Key,
    LeaseId,
    LeaseRecord,
    QueueNumber,
    QueueRecord,
    TimeMark,
)
from queueber.broker.storage import DeleteItem, DeleteLease, PutItems, PutLease, PutQueue
from queueber.capnp.builder import STRUCT_LIST, Body, data_body, segment, struct_body
from queueber.capnp.layout import earlier_layout, layout
from queueber.errors import StorageError
from queueber.store import Encoding
from queueber.store.rows import records, state_records
from queueber.store.rows.keys import TIME_KEY, item_key, lease_key, queue_key
from queueber.store.rows.side_records import decode_dedup, decode_end, decode_settings
from queueber.store.rows.structs import STORED_ITEM
from queueber.units import SpanMs, WallMs
from queueber.values import Death, DeathReason
from tests.support.processes import completed

ROW = item_key(QueueNumber(1), LOWEST)

encodings = st.sampled_from(Encoding)
u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
places = st.builds(Key, u64.map(WallMs), st.binary(min_size=16, max_size=16).map(ItemId))


ids = st.binary(min_size=16, max_size=16).map(LeaseId)
leases = st.builds(
    lambda queue, deadline, held, leased_at, session: LeaseRecord(
        queue, deadline, tuple(key for key, _ in held), tuple(size for _, size in held), leased_at, *session
    ),
    u32,
    u64,
    st.lists(st.tuples(places, u32), max_size=5),
    u64,
    st.tuples(st.just(b"") | st.binary(min_size=16, max_size=16), st.just(SpanMs(0)) | u64.map(SpanMs)),
)
time_marks = st.builds(TimeMark, st.binary(min_size=16, max_size=16), u64, u64, u64)
items = st.builds(Item, places, st.binary(max_size=50) | st.integers(0, 3000).map(bytes), u64, u32, st.none())
queue_records = st.builds(
    QueueRecord, u32, st.text(min_size=1, max_size=255), u64, u64, places, bytes=u64, id=u32, dead_of=u32, off_time=u64
)


@given(items, encodings)
def test_an_item_is_read_back(make, item, encoding):
    row, value = encoded(PutItems(QueueNumber(7), [item]), encoding)
    assert row == item_key(QueueNumber(7), item.key)
    assert make.fields(records.decode_item(row, value)) == make.fields(item)


texts = st.text(max_size=9)
deaths = st.builds(Death, st.sampled_from(DeathReason).filter(bool), u64, texts)
headers = st.lists(st.tuples(texts, st.binary(max_size=20)), max_size=3).map(tuple)
facts = st.builds(
    Facts,
    u32,
    u64,
    st.just("") | texts,
    st.just(()) | headers,
    u64,
    st.none() | deaths,
)
number_facts = st.builds(Facts, u32, u64, st.just("") | texts, st.just(()), u64, st.none())
header_facts = st.builds(Facts, st.just(0) | u32, u64, st.just(""), headers, u64, st.none())


@given(items, facts | number_facts | header_facts, encodings)
def test_an_item_with_facts_is_read_back(item, facts, encoding):
    item = item._replace(facts=facts)
    row, value = encoded(PutItems(QueueNumber(7), [item]), encoding)
    assert row == item_key(QueueNumber(7), item.key)
    assert records.decode_item(row, value) == item


@pytest.mark.traced
@settings(derandomize=True)
@given(items, facts | number_facts | header_facts)
def test_an_item_with_facts_is_written_as_the_schema_says(item, facts):
    row, value = encoded(PutItems(QueueNumber(7), [item._replace(facts=facts)]), Encoding.UNPACKED)
    fields = records.decode_row(row, value, layout("StoredItem"))
    assert (fields["contents"], fields["addedAtMs"], fields["attempts"]) == (
        item.contents,
        item.added_at,
        item.attempts,
    )
    death = facts.death or Death(DeathReason.NONE, WallMs(0), "")
    assert fields["facts"] == {
        "failures": facts.failures,
        "firstLeasedAtMs": facts.first_leased_at,
        "lastError": facts.last_error.encode(),
        "headers": [{"name": name.encode(), "value": value} for name, value in facts.headers],
        "expiresAtMs": facts.expires_at,
        "reserved5": b"",
        "deathReason": death.reason,
        "diedAtMs": death.died_at,
        "diedIn": death.queue.encode(),
    }


@pytest.mark.traced
@settings(derandomize=True)
@given(items, st.lists(items, max_size=3), facts | number_facts | header_facts)
def test_items_with_and_without_facts_are_written_together(make, item, others, facts):
    put = [*others, item._replace(facts=facts), *others]
    rows = [
        row for row in records.encode_writes([PutItems(1, put)], make.mark, Encoding.UNPACKED) if row[0][:1] == b"i"
    ]
    assert [records.decode_item(*row) for row in rows] == put


def test_facts_of_another_version_are_read_or_refused(make):
    """A time of death among numbers only, and a reason that is not known."""
    layout_ = layout("StoredItem")
    item = make.item(0, b"x")
    died = {"failures": 1, "deathReason": 4, "diedAtMs": 7}
    value = records.encode_row(ROW, layout_.build(contents=b"x", addedAtMs=5, facts=died))
    found = Facts(failures=1, death=Death(DeathReason.EXPIRED, WallMs(7), ""))
    assert records.decode_item(ROW, value) == item._replace(key=LOWEST, facts=found)
    value = records.encode_row(ROW, layout_.build(contents=b"x", facts={"deathReason": 99}))
    with pytest.raises(StorageError, match="it died of 99, a reason that this Queueber does not know"):
        records.decode_item(ROW, value)
    for numbers in ([3, 4, 5, 6], [3, 4, 5, 6, 7]):
        for pointers in ([], [data_body(b"why")], [data_body(b"why"), None]):
            value = records.encode_row(
                ROW, segment(struct_body([5, 0], [data_body(b"x"), struct_body(numbers, pointers)]))
            )
            why = "why" if pointers else ""
            facts = Facts(3, WallMs(4), why, expires_at=WallMs(5))
            assert records.decode_item(ROW, value) == item._replace(key=LOWEST, facts=facts)


def test_headers_without_a_size_are_no_work():
    """A list may claim a thousand million of them in one word."""
    claimed = Body(STRUCT_LIST, [(1_000 << 2).to_bytes(8, "little")], 1)
    value = records.encode_row(ROW, layout("StoredItem").build(contents=b"x", facts={"headers": claimed}))
    with pytest.raises(StorageError, match="traversal_factor"):
        records.decode_item(ROW, value)


few = st.integers(1, 2)
timely_places = st.builds(
    lambda due, rest: Key(WallMs(due), ItemId(due.to_bytes(6, "big") + rest)),
    st.integers(0, 2**48 - 1) | few,
    st.binary(min_size=10, max_size=10),
)
timely_items = st.builds(Item, timely_places, st.integers(0, 9).map(bytes), few, few, st.none())
alike_items = st.builds(
    Item,
    st.builds(Key, few.map(WallMs), st.binary(min_size=16, max_size=16).map(ItemId)),
    st.integers(0, 9).map(bytes),
    few,
    few,
    st.none(),
)


def entries(*keys):
    return b"".join(key.due.to_bytes(8, "big") + key.id for key in keys)


def first_version(name, data_words):
    """Return the layout that the struct had in format 1, with one pointer."""
    return earlier_layout(name, data_words=data_words, pointers=1)


def item_struct(item):
    fields = {"contents": item.contents, "addedAtMs": item.added_at, "attempts": item.attempts}
    return first_version("StoredItem", 2).build(**fields)


def lease_struct(record):
    fields = {
        "queue": record.queue,
        "deadlineMs": record.deadline,
        "leasedAtMs": record.leased_at,
        "entries": entries(*record.keys),
        "sizes": b"".join(size.to_bytes(4, "little") for size in record.sizes),
    }
    if record.session or record.grace:
        return layout("LeaseRecord").build(session=record.session, graceMs=record.grace, **fields)
    return earlier_layout("LeaseRecord", data_words=3, pointers=2).build(**fields)


def place(queue, key):
    """Return the row with the place of the item at *key*, unless its due is the time in its id."""
    if key.due == key.id[0] << 40 | int.from_bytes(key.id[1:6], "big"):
        return []
    return [(b"w" + key.id, layout("Place").build(queue=queue, dueMs=key.due))]


def as_the_schema_says(write):
    """Return the key and the struct of each row that *write* writes, made by `keys` and `layout`."""
    match write:
        case PutItems(queue, put):
            return [
                row for item in put for row in [(item_key(queue, item.key), item_struct(item)), *place(queue, item.key)]
            ]
        case DeleteItem(queue, key):
            return [(item_key(queue, key), None), *[(row_key, None) for row_key, _ in place(queue, key)]]
        case PutLease(lease, record):
            return [(lease_key(lease), lease_struct(record))]
        case DeleteLease(lease):
            return [(lease_key(lease), None)]
        case PutQueue(record):
            struct = layout("QueueRecord").build(
                name=record.name.encode(),
                added=record.added,
                removed=record.removed,
                floor=entries(record.floor),
                bytes=record.bytes,
                id=record.id,
                deadOf=record.dead_of,
                offTime=record.off_time,
            )
            return [(queue_key(record.number), struct)]


writes = st.one_of(
    st.builds(PutItems, few, st.lists(items | alike_items | timely_items, max_size=5)),
    st.builds(PutItems, few, st.lists(alike_items, max_size=5)),
    st.builds(DeleteItem, few, places | timely_places),
    st.builds(PutLease, ids, leases),
    st.builds(DeleteLease, ids),
    st.builds(PutQueue, queue_records),
)


@given(st.lists(writes, max_size=30), time_marks, encodings)
def test_the_rows_of_a_commit_match_the_schema_and_are_in_order(found, mark, encoding):
    *rows, (mark_row, mark_value) = records.encode_writes(found, mark, encoding)
    expected = [row for write in found for row in as_the_schema_says(write)]
    assert rows == [
        (row, None if struct is None else records.encode_row(row, struct, encoding)) for row, struct in expected
    ]
    assert (mark_row, records.decode_time(TIME_KEY, mark_value)) == (TIME_KEY, mark)


@given(ids, leases, encodings)
def test_a_lease_is_read_back(lease, record, encoding):
    assert state_records.decode_lease(*encoded(PutLease(lease, record), encoding)) == record


@pytest.mark.traced
@settings(derandomize=True)
@given(ids, leases)
def test_a_lease_of_another_form_is_read(lease, record):
    """One of format 1, and one without sizes."""
    row = lease_key(lease)
    old = first_version("LeaseRecord", 2).build(
        queue=record.queue, deadlineMs=record.deadline, entries=entries(*record.keys)
    )
    found = state_records.decode_lease(row, records.encode_row(row, old))
    assert found == LeaseRecord(record.queue, record.deadline, record.keys)
    without_sizes = record._replace(sizes=())
    value = encoded(PutLease(lease, without_sizes), Encoding.UNPACKED)[1]
    assert state_records.decode_lease(row, value) == without_sizes


def test_a_queue_of_format_1_is_read():
    row = queue_key(1)
    old = earlier_layout("QueueRecord", data_words=2).build(name=b"mail", added=7, removed=2, floor=entries(LOWEST))
    assert state_records.decode_queue(row, records.encode_row(row, old)) == QueueRecord(1, "mail", 7, 2, LOWEST)


@given(queue_records, encodings)
def test_a_queue_is_read_back(record, encoding):
    assert state_records.decode_queue(*encoded(PutQueue(record), encoding)) == record


@given(time_marks, encodings)
def test_a_time_mark_is_read_back(mark, encoding):
    assert records.decode_time(*records.encode_writes([], mark, encoding)[0]) == mark


def test_a_time_mark_is_readable_by_versions_without_the_wall_clock():
    known = [each for each in layout("TimeMark").fields if each.name != "wallMs"]
    _, value = records.encode_writes([], TimeMark(b"b" * 16, 5, 6, 7), Encoding.UNPACKED)[0]
    fields = records.decode_row(TIME_KEY, value, earlier_layout("TimeMark", data_words=2, fields=known))
    assert fields == {"bootId": b"b" * 16, "bootTimeMs": 5, "queueTimeMs": 6}


@given(u64, u32, st.sampled_from(["", "none"]))
def test_marks_are_read_back(sequence, version, durability):
    assert records.decode_sync_mark(b"m", records.encode_sync_mark(b"m", sequence)) == (sequence, False)
    assert records.decode_format(records.encode_format(version, durability)) == (version, durability)


@pytest.mark.parametrize("encoding", Encoding)
def test_every_damaged_byte_is_detected(make, encoding):
    value = item_value(make.item(0, b"contents" * 3 + bytes(8), 0), encoding=encoding)
    for at in range(len(value)):
        for flip in (1, 0x80, 0xFF):
            damaged = value[:at] + bytes((value[at] ^ flip,)) + value[at + 1 :]
            with pytest.raises(StorageError, match=f"damaged row in table items, key {ROW.hex()}: "):
                records.decode_item(ROW, damaged)


@given(data=st.data(), encoding=encodings, contents=st.binary(max_size=64))
def test_damage_of_up_to_four_bytes_is_detected(make, data, encoding, contents):
    """Bits flipped, bytes cut or added, in up to four bytes: a CRC-32 detects all of these."""
    value = item_value(make.item(0, contents, 0), encoding=encoding)
    at = data.draw(st.integers(0, len(value)))
    width = data.draw(st.integers(0, min(4, len(value) - at)))
    instead = data.draw(st.binary(min_size=width, max_size=width))
    other = value[:at] + instead + value[at + width :]
    cut = value[: data.draw(st.integers(0, len(value) - 1))]
    for bad in (other, cut):
        if bad != value:
            with pytest.raises(StorageError):
                records.decode_item(ROW, bad)


def test_a_value_in_the_wrong_row_is_detected(make):
    elsewhere = item_key(QueueNumber(2), LOWEST)
    with pytest.raises(StorageError, match="its checksum does not match"):
        records.decode_item(elsewhere, item_value(make.item(0, b"x", 0)))


def test_each_kind_of_damage_is_named():
    sealed = records.encode_row(ROW, STORED_ITEM.build(b"", 0, 0))
    for value, why in [
        (b"", "its value is only 0 bytes long"),
        (b"\x09" + sealed[1:], "its encoding byte is 9"),
        (sealed + b"\0", "its checksum does not match"),
        (records.encode_row(ROW, b""), "a segment without a root pointer"),
        (records.encode_row(ROW, b"\xff" * 8), "."),
    ]:
        with pytest.raises(StorageError, match=why):
            records.decode_item(ROW, value)


def test_lists_of_keys_must_be_complete():
    row = lease_key(b"L" * 16)
    with pytest.raises(StorageError, match="its list of keys is cut off"):
        state_records.decode_lease(row, records.encode_row(row, layout("LeaseRecord").build(entries=bytes(25))))
    for sizes in (bytes(4), bytes(9)):
        value = records.encode_row(row, layout("LeaseRecord").build(entries=bytes(48), sizes=sizes))
        with pytest.raises(StorageError, match="its list of sizes has another length than its list of keys"):
            state_records.decode_lease(row, value)
    row = queue_key(1)
    for keys in (0, 2):
        value = records.encode_row(row, layout("QueueRecord").build(name=b"mail", floor=bytes(24 * keys)))
        with pytest.raises(StorageError, match="its floor is not one key"):
            state_records.decode_queue(row, value)


@pytest.mark.parametrize("contents", [b"", b"x", bytes(64)])
def test_a_flat_struct_is_encoded_as_its_layout_specifies(contents):
    fields = {"contents": contents, "addedAtMs": 5, "attempts": 6}
    assert layout("StoredItem").read(STORED_ITEM.build(contents, 5, 6)) == {**fields, "facts": None}
    assert STORED_ITEM.read(layout("StoredItem").build(**fields)) == tuple(fields.values())


def test_structs_of_other_versions_are_readable():
    """Rows of an older version lack the last integer, those of a newer one have another pointer."""
    words = [1 << 32 | 1 << 48, 5, 1 | 2 << 32 | 3 << 35, int.from_bytes(b"abc", "little")]
    older = b"".join(word.to_bytes(8, "little") for word in words)
    assert STORED_ITEM.read(older) == (b"abc", 5, 0)
    words = [2 << 32 | 2 << 48, 5, 6, 1 | 1 << 2 | 2 << 32 | 3 << 35, 0, int.from_bytes(b"abc", "little")]
    newer = b"".join(word.to_bytes(8, "little") for word in words)
    assert STORED_ITEM.read(newer) == (b"abc", 5, 6)
    words = [2 << 32 | 1 << 48, 5, 6 | 9 << 32, 1 | 2 << 32 | 3 << 35, int.from_bytes(b"abc", "little")]
    fuller = b"".join(word.to_bytes(8, "little") for word in words)
    assert STORED_ITEM.read(fuller) == (b"abc", 5, 6)


def test_a_segment_that_is_shorter_than_a_flat_struct_has_its_defaults():
    assert STORED_ITEM.read(segment(struct_body([7], []))) == (b"", 7, 0)


def test_counters_of_items_that_were_unreadable_at_the_conversion_do_not_fall_below_zero():
    record = QueueRecord(QueueNumber(1), "mail", 5, 5, LOWEST, -3, off_time=-1)
    found = state_records.decode_queue(*encoded(PutQueue(record)))
    assert (found.bytes, found.off_time) == (0, 0)


def test_damage_to_other_rows_is_named():
    """Rows with a valid checksum that no version writes."""

    def row(key, struct, why, decode):
        with pytest.raises(StorageError, match=f"key {key.hex()}: .*{why}"):
            decode(key, records.encode_row(key, struct))

    settings, dedup, end = b"s\0\0\0\1", b"d\0\0\0\1" + b"D" * 16, b"e" + bytes(28)
    stored = layout("StoredSettings")
    unknown = stored.build(settings=layout("Settings").build(leaseMs=5), configured=[b"leaseMs", b"colour"])
    row(settings, unknown, "it has a setting 'colour', which this Queueber does not know", decode_settings)
    row(settings, stored.build(settings=b"\xff" * 8), ".", decode_settings)
    row(settings, stored.build(settings=b"short"), "not a whole number of words", decode_settings)
    for fields in ({"ids": bytes(17)}, {"duplicates": bytes(3)}):
        row(dedup, layout("DedupRecord").build(**fields), "its list of ids or of places is cut off", decode_dedup)
    row(end, bytes(8), "its value must be empty", decode_end)


@pytest.mark.slow
def test_pycapnp_reads_a_stored_item(make, tmp_path):
    """In a process of its own, because pycapnp can crash it."""
    value = item_value(make.item(0, b"contents", attempts=3))
    (tmp_path / "value").write_bytes(value)
    schema = Path(__file__).parents[2] / "schema" / "storage.capnp"
    script = (
        "import capnp, sys\n"
        "schema = capnp.load(sys.argv[1])\n"
        "value = open(sys.argv[2], 'rb').read()[5:]\n"
        "item = schema.StoredItem.from_segments([value])\n"
        "print(item.contents, item.addedAtMs, item.attempts)\n"
    )
    done = completed([sys.executable, "-c", script, str(schema), str(tmp_path / "value")])
    assert done.stdout == "b'contents' 5 3\n", done.stderr

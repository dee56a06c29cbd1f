"""What is stored comes back, and what is not what was stored is noticed."""

import subprocess
import sys
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from queueber.broker.model import LOWEST, Item, ItemId, Key, LeaseRecord, QueueNumber, QueueRecord, TimeMark
from queueber.capnp.layout import layout
from queueber.errors import StorageError
from queueber.store import Encoding
from queueber.store.rows import records
from queueber.store.rows.keys import TIME_KEY, item_key, lease_key, queue_key
from queueber.store.rows.structs import LEASE_RECORD, QUEUE_RECORD, STORED_ITEM
from queueber.units import WallMs

ROW = item_key(QueueNumber(1), LOWEST)

encodings = st.sampled_from(Encoding)
u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
places = st.builds(Key, u64.map(WallMs), st.binary(min_size=16, max_size=16).map(ItemId))


items = st.builds(Item, places, st.binary(max_size=50) | st.integers(0, 3000).map(bytes), u64, u32)
queue_records = st.builds(QueueRecord, u32, st.text(min_size=1, max_size=255), u64, u64, places)


@given(items, encodings)
def test_an_item_comes_back(make, item, encoding):
    row = item_key(QueueNumber(7), item.key)
    assert make.fields(records.decode_item(row, records.encode_item(row, item, encoding))) == make.fields(item)


few = st.integers(1, 2)
alike_items = st.builds(
    Item,
    st.builds(Key, few.map(WallMs), st.binary(min_size=16, max_size=16).map(ItemId)),
    st.integers(0, 9).map(bytes),
    few,
    few,
)


@given(st.lists(st.tuples(few, items | alike_items), max_size=30))
def test_rows_one_after_the_other_are_as_those_alone(found):
    row_of = records.item_rows()
    for queue, item in found:
        row = item_key(QueueNumber(queue), item.key)
        assert row_of(QueueNumber(queue), item) == (row, records.encode_item(row, item, Encoding.UNPACKED))


@given(u32, u64, st.lists(places, max_size=5).map(tuple), encodings)
def test_a_lease_comes_back(queue, deadline, keys, encoding):
    row, record = lease_key(b"L" * 16), LeaseRecord(queue, deadline, keys)
    assert records.decode_lease(row, records.encode_lease(row, record, encoding)) == record


@given(queue_records, encodings)
def test_a_queue_comes_back(record, encoding):
    row = queue_key(record.number)
    assert records.decode_queue(row, records.encode_queue(row, record, encoding)) == record


@given(queue_records)
def test_a_queue_is_written_as_its_layout_says(record):
    row = queue_key(record.number)
    floor = records._entries((record.floor,))
    struct = QUEUE_RECORD.build(name=record.name.encode(), added=record.added, removed=record.removed, floor=floor)
    assert records.encode_queue(row, record, Encoding.UNPACKED) == records.seal(row, struct)


@given(st.binary(min_size=16, max_size=16), u64, u64, u64, encodings)
def test_a_time_mark_comes_back(boot_id, boot_time, queue_time, wall, encoding):
    mark = TimeMark(boot_id, boot_time, queue_time, wall)
    assert records.decode_time(TIME_KEY, records.encode_time(TIME_KEY, mark, encoding)) == mark


def test_a_time_mark_is_read_by_versions_that_know_no_wall_clock():
    now = layout("TimeMark")
    known = [each for each in now.fields if each.name != "wallMs"]
    value = records.encode_time(TIME_KEY, TimeMark(b"b" * 16, 5, 6, 7), Encoding.UNPACKED)
    fields = records.unseal(TIME_KEY, value, evolve(now, data_words=2, fields=known))
    assert fields == {"bootId": b"b" * 16, "bootTimeMs": 5, "queueTimeMs": 6}


@given(u64, u32, st.sampled_from(["", "none"]))
def test_marks_come_back(sequence, version, durability):
    assert records.decode_sequence(b"m", records.encode_sequence(b"m", sequence)) == sequence
    assert records.decode_format(b"m", records.encode_format(b"m", version, durability)) == (version, durability)


@pytest.mark.parametrize("encoding", Encoding)
def test_every_damaged_byte_is_noticed(make, encoding):
    value = records.encode_item(ROW, make.item(0, b"contents" * 3 + bytes(8)), encoding)
    for at in range(len(value)):
        for flip in (1, 0x80, 0xFF):
            damaged = value[:at] + bytes((value[at] ^ flip,)) + value[at + 1 :]
            with pytest.raises(StorageError, match=f"damaged row in table items, key {ROW.hex()}: "):
                records.decode_item(ROW, damaged)


@given(data=st.data(), encoding=encodings, contents=st.binary(max_size=64))
def test_no_other_bytes_are_taken_for_the_value(make, data, encoding, contents):
    """Bits flipped, bytes cut or added, up to four bytes wide: a CRC-32 misses none of these."""
    value = records.encode_item(ROW, make.item(0, contents), encoding)
    at = data.draw(st.integers(0, len(value)))
    width = data.draw(st.integers(0, min(4, len(value) - at)))
    instead = data.draw(st.binary(min_size=width, max_size=width))
    other = value[:at] + instead + value[at + width :]
    cut = value[: data.draw(st.integers(0, len(value) - 1))]
    for bad in (other, cut):
        if bad != value:
            with pytest.raises(StorageError):
                records.decode_item(ROW, bad)


def test_a_value_is_noticed_that_belongs_to_another_row(make):
    elsewhere = item_key(QueueNumber(2), LOWEST)
    with pytest.raises(StorageError, match="its checksum does not match"):
        records.decode_item(elsewhere, records.encode_item(ROW, make.item(0, b"x"), Encoding.UNPACKED))


def test_what_is_wrong_is_said():
    sealed = records.seal(ROW, STORED_ITEM.build(b"", 0, 0))
    for value, why in [
        (b"", "its value is only 0 bytes long"),
        (b"\x09" + sealed[1:], "its encoding byte is 9"),
        (sealed + b"\0", "its checksum does not match"),
        (records.seal(ROW, b""), "a segment without a root pointer"),
        (records.seal(ROW, b"\xff" * 8), "."),
    ]:
        with pytest.raises(StorageError, match=why):
            records.decode_item(ROW, value)


def test_lists_of_keys_must_be_whole():
    row = lease_key(b"L" * 16)
    with pytest.raises(StorageError, match="its list of keys is cut off"):
        records.decode_lease(row, records.seal(row, LEASE_RECORD.build(bytes(25), 0, 0)))
    row = queue_key(1)
    for keys in (0, 2):
        with pytest.raises(StorageError, match="its floor is not one key"):
            records.decode_queue(row, records.seal(row, QUEUE_RECORD.build(name=b"mail", floor=bytes(24 * keys))))


@pytest.mark.parametrize("contents", [b"", b"x", bytes(64)])
def test_structs_done_by_hand_are_those_of_the_layout(contents):
    assert STORED_ITEM.build(contents, 5, 6) == layout("StoredItem").build(contents=contents, addedAtMs=5, attempts=6)


def test_structs_of_another_shape_are_read_all_the_same():
    """As an older version without the last number, or a newer one with another pointer, would have written it."""
    words = [1 << 32 | 1 << 48, 5, 1 | 2 << 32 | 3 << 35, int.from_bytes(b"abc", "little")]
    older = b"".join(word.to_bytes(8, "little") for word in words)
    assert STORED_ITEM.read(older) == (b"abc", 5, 0)
    words = [2 << 32 | 2 << 48, 5, 6, 1 | 1 << 2 | 2 << 32 | 3 << 35, 0, int.from_bytes(b"abc", "little")]
    newer = b"".join(word.to_bytes(8, "little") for word in words)
    assert STORED_ITEM.read(newer) == (b"abc", 5, 6)
    words = [2 << 32 | 1 << 48, 5, 6 | 9 << 32, 1 | 2 << 32 | 3 << 35, int.from_bytes(b"abc", "little")]
    fuller = b"".join(word.to_bytes(8, "little") for word in words)
    assert STORED_ITEM.read(fuller) == (b"abc", 5, 6)


@pytest.mark.slow
def test_a_stock_implementation_reads_what_is_stored(make, tmp_path):
    """pycapnp, in a process of its own because it can end it."""
    value = records.encode_item(ROW, make.item(0, b"contents", attempts=3), Encoding.UNPACKED)
    (tmp_path / "value").write_bytes(value)
    schema = Path(__file__).parents[2] / "schema" / "storage.capnp"
    script = (
        "import capnp, sys\n"
        "schema = capnp.load(sys.argv[1])\n"
        "value = open(sys.argv[2], 'rb').read()[5:]\n"
        "item = schema.StoredItem.from_segments([value])\n"
        "print(item.contents, item.addedAtMs, item.attempts)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(schema), str(tmp_path / "value")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "b'contents' 5 3\n", done.stderr

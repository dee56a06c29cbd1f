"""Keys of rows, which sort as their fields do."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from queueber.broker.model import ItemId, Key, LeaseId, QueueNumber
from queueber.broker.storage import Digest, Ended, RequestId
from queueber.errors import StorageError
from queueber.plyvel import prefix_successor
from queueber.store.rows import keys
from queueber.units import WallMs

queues = st.integers(0, 2**32 - 1).map(QueueNumber)
places = st.builds(Key, st.integers(0, 2**64 - 1).map(WallMs), st.binary(min_size=16, max_size=16).map(ItemId))


@given(st.lists(st.tuples(queues, places), max_size=20))
def test_item_keys_sort_by_queue_then_due_then_id(rows):
    assert sorted(rows) == sorted(rows, key=lambda row: keys.item_key(*row))


@given(queues, places)
def test_an_item_key_is_decoded(queue, place):
    assert keys.decode_item_key(keys.item_key(queue, place)) == place


@given(queues, queues, places)
def test_a_queues_prefix_covers_its_items_and_no_others(queue, other, place):
    row = keys.item_key(other, place)
    assert (keys.items_prefix(queue) <= row < keys.items_end(queue)) == (queue == other)


@given(queues)
@example(QueueNumber(0xFF))
@example(QueueNumber(2**32 - 1))
def test_the_end_of_a_queue_s_items_is_the_lowest_key_above_them(queue):
    assert keys.items_end(queue) == prefix_successor(keys.items_prefix(queue))


@given(st.binary(min_size=16, max_size=16).map(LeaseId), queues)
def test_lease_and_queue_keys_are_decoded(lease, queue):
    assert keys.decode_lease_key(keys.lease_key(lease)) == lease
    assert keys.decode_queue_key(keys.queue_key(queue)) == queue


digests = st.binary(min_size=16, max_size=16).map(Digest)


@given(digests, queues, st.integers(0, 2**64 - 1).map(WallMs))
def test_keys_of_deduplication_are_decoded(digest, queue, end):
    assert keys.decode_dedup_key(keys.dedup_key(queue, digest)) == (queue, digest)
    assert keys.decode_request_key(keys.request_key(RequestId(digest))) == digest
    entry = Ended(end, queue, digest)
    assert keys.decode_end_key(keys.end_key(entry)) == entry
    assert keys.record_key(entry) == (keys.dedup_key(queue, digest) if queue else keys.request_key(RequestId(digest)))


@given(st.integers(0, 2**48 - 1).map(WallMs), st.integers(0, 2**48 - 1).map(WallMs), digests)
def test_the_index_of_ends_is_read_up_to_a_moment(end, now, digest):
    assert (keys.end_key(Ended(end, QueueNumber(2**32 - 1), digest)) < keys.ends_after(now)) == (end <= now)


def test_tables_do_not_overlap():
    """Trap 15: rows differ in their first byte; names of queues are in no key."""
    tables = sorted(keys.TABLES)
    assert all(prefix_successor(table) <= following for table, following in pairwise(tables))


def test_the_bytes_of_keys_are_fixed():
    place = Key(WallMs(0x0102030405060708), ItemId(bytes(range(16))))
    row = keys.item_key(QueueNumber(0x0A0B0C0D), place)
    assert row == b"i\x0a\x0b\x0c\x0d\x01\x02\x03\x04\x05\x06\x07\x08" + bytes(range(16))
    assert keys.lease_key(LeaseId(b"L" * 16)) == b"l" + b"L" * 16
    assert keys.queue_key(QueueNumber(1)) == b"q\0\0\0\1"
    assert (keys.FORMAT_KEY, keys.TIME_KEY, keys.CLEAN_KEY) == (b"mformat", b"mtime", b"mclean")
    assert keys.NUMBERS_KEY == b"mnumbers"
    assert keys.place_key(place.id) == b"w" + bytes(range(16))
    assert keys.settings_key(QueueNumber(1)) == b"s\0\0\0\1"
    assert keys.retired_key(QueueNumber(1)) == b"r\0\0\0\1"
    assert keys.dedup_key(QueueNumber(1), Digest(b"D" * 16)) == b"d\0\0\0\1" + b"D" * 16
    assert keys.request_key(RequestId(b"R" * 16)) == b"a" + b"R" * 16
    end = Ended(WallMs(0x0102030405060708), QueueNumber(9), Digest(b"D" * 16))
    assert keys.end_key(end) == b"e\1\2\3\4\5\6\7\x08\0\0\0\x09" + b"D" * 16


@pytest.mark.parametrize(
    ("read", "row", "table"),
    [
        (keys.decode_item_key, b"i123", "items"),
        (keys.decode_lease_key, b"l123", "leases"),
        (keys.decode_queue_key, b"q123456", "queues"),
        (keys.decode_queue_key, b"s123", "settings"),
        (keys.decode_queue_key, b"r123", "retired"),
        (keys.decode_place_key, b"w123", "places"),
        (keys.decode_dedup_key, b"d123", "dedup"),
        (keys.decode_request_key, b"a123", "requests"),
        (keys.decode_end_key, b"e123", "ends"),
    ],
)
def test_a_key_of_the_wrong_length_is_reported_with_its_table(read, row, table):
    with pytest.raises(StorageError, match=f"table {table}, key {row.hex()}: its key has an impossible length"):
        read(row)


def test_an_unknown_table_is_reported_as_such():
    assert "table unknown, key 7a" in str(keys.damaged(b"z", "why"))


@pytest.mark.parametrize(("prefix", "after"), [(b"a", b"b"), (b"a\xff\xff", b"b"), (b"\xff", None), (b"", None)])
def test_the_successor_of_a_prefix(prefix, after):
    assert prefix_successor(prefix) == after

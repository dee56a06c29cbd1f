"""`DB`, `PrefixedDB` and `WriteBatch` behave as plyvel's do."""

import os
from array import array
from ctypes import c_uint64
from itertools import islice
from pathlib import Path

import pytest
import rocksdict

from queueber import plyvel
from queueber.plyvel import DB


def test_get_returns_the_value_or_the_default(db):
    below = db.prefixed_db(b"p")
    below.put(b"a", b"1", sync=True)
    assert (db.get(b"pa"), below.get(b"a"), below.get(b"b"), below.db) == (b"1", b"1", None, db)
    assert list(below) == [(b"a", b"1")]
    below.delete(b"a", sync=True)
    assert (db.get(b"pa", b"none"), below.get(b"a", b"none")) == (b"none", b"none")


def test_get_many_returns_values_in_the_order_of_the_keys(db):
    db.put(b"a", b"1")
    assert db.get_many([b"b", b"a", b"a"]) == [None, b"1", b"1"]
    assert db.get_many([]) == []


def test_a_value_is_any_bytes_like_object(db):
    db.put(b"a", memoryview(b"1"))
    db.put(b"b", bytearray(b"2"))
    assert (db.get(b"a"), db.get(b"b")) == (b"1", b"2")
    batch = db.write_batch()
    for bad in ("text", 5, None):
        for target in (db, batch, db.prefixed_db(b"p")):
            with pytest.raises(TypeError):
                target.put(b"a", bad)


def test_a_value_is_all_bytes_of_a_buffer(db):
    """Also with items wider than a byte, and several dimensions."""
    for value in (array("Q", b"abcdefgh"), memoryview(b"abcdefgh").cast("B", (2, 4)), c_uint64(0), memoryview(b"")):
        db.put(b"a", value)
        with db.write_batch() as batch:
            batch.put(b"b", value)
        assert db.get(b"a") == db.get(b"b") == bytes(value)


def test_a_buffer_that_is_not_contiguous_is_refused(db):
    """Like plyvel, it does not gather every second byte of a buffer into a copy."""
    for target in (db, db.write_batch()):
        with pytest.raises(BufferError, match="not C-contiguous"):
            target.put(b"a", memoryview(b"abcdef")[::2])
    assert db.get(b"a") is None


def test_a_batch_copies_its_values(db):
    value = bytearray(b"1")
    batch = db.write_batch()
    batch.put(b"a", value)
    value[:] = b"2"
    batch.write()
    assert db.get(b"a") == b"1"


def test_a_key_must_be_bytes(db):
    batch, below, snapshot = db.write_batch(), db.prefixed_db(b"p"), db.snapshot()
    for bad in ("text", 5, None, bytearray(b"a")):
        for use in (
            db.get,
            db.delete,
            batch.delete,
            below.get,
            below.delete,
            below.prefixed_db,
            db.prefixed_db,
            db.get_property,
            snapshot.get,
            db.iterator().seek,
            db.raw_iterator().seek,
            lambda bad: db.put(bad, b""),
            lambda bad: batch.put(bad, b""),
            lambda bad: below.put(bad, b""),
            lambda bad: db.approximate_size(bad, b"a"),
            lambda bad: db.approximate_size(b"a", bad),
        ):
            with pytest.raises(TypeError, match="must be bytes"):
                use(bad)


def test_each_key_of_get_many_must_be_bytes(db):
    for bad in ("text", 5, None, bytearray(b"a")):
        with pytest.raises(TypeError, match=r"'keys\[1\]' must be bytes"):
            db.get_many([b"a", bad])


def test_a_flag_must_be_a_bool_or_none(db):
    below, snapshot = db.prefixed_db(b"p"), db.snapshot()
    for name in ("reverse", "include_start", "include_stop", "include_key", "include_value"):
        for source in (db, below, snapshot):
            list(source.iterator(**{name: None}))
            with pytest.raises(TypeError, match=f"{name}.*must be a bool"):
                source.iterator(**{name: 1})
    for read in (db.get, below.get, snapshot.get):
        for name in ("verify_checksums", "fill_cache"):
            read(b"a", **{name: None})
            with pytest.raises(TypeError, match=f"{name}.*must be a bool"):
                read(b"a", **{name: 1})
    for walk in (db.iterator, below.iterator, snapshot.iterator, db.raw_iterator, snapshot.raw_iterator):
        for name in ("verify_checksums", "fill_cache"):
            walk(**{name: False})
            with pytest.raises(TypeError, match=f"{name}.*must be a bool"):
                walk(**{name: 1})
    for source in (db, below):
        for name in ("transaction", "sync"):
            source.write_batch(**{name: None})
            with pytest.raises(TypeError, match=f"{name}.*must be a bool"):
                source.write_batch(**{name: 1})
        with pytest.raises(TypeError, match=r"sync.*must be a bool"):
            source.put(b"a", b"", sync=1)
        with pytest.raises(TypeError, match=r"sync.*must be a bool"):
            source.delete(b"a", sync=1)


def test_a_bound_must_be_bytes_or_none(db):
    for name in ("start", "stop", "prefix"):
        db.iterator(**{name: None})
        with pytest.raises(TypeError, match=f"{name}.*must be bytes"):
            db.iterator(**{name: "a"})
    for name in ("start", "stop"):
        with pytest.raises(TypeError, match=f"{name}.*must be bytes"):
            db.compact_range(**{name: "a"})
    with pytest.raises(TypeError):
        db.iterator(begin=b"a")
    with pytest.raises(TypeError):
        db.approximate_sizes(None)
    with pytest.raises(ValueError, match="unpack"):
        db.approximate_sizes((b"a", b"b", b"c"))


def put_and_fail(batch) -> None:
    with batch:
        batch.put(b"a", b"1")
        raise ZeroDivisionError


def test_a_batch_is_written_at_the_end_of_its_block_even_after_an_exception(db):
    with pytest.raises(ZeroDivisionError):
        put_and_fail(db.write_batch())
    assert db.get(b"a") == b"1"


def test_a_transaction_is_not_written_after_an_exception(db):
    with pytest.raises(ZeroDivisionError):
        put_and_fail(db.write_batch(transaction=True, sync=True))
    assert db.get(b"a") is None


def test_a_batch_can_be_written_again(db):
    batch = db.prefixed_db(b"p").write_batch(sync=True)
    batch.put(b"a", b"1")
    batch.write()
    db.delete(b"pa")
    batch.write()
    assert db.get(b"pa") == b"1"


def test_an_iterator_reads_the_rows_as_they_were_when_it_was_made(db):
    db.put(b"a", b"1")
    rows = db.iterator()
    db.put(b"b", b"2")
    assert list(rows) == [(b"a", b"1")]


def test_a_prefix_excludes_other_bounds(db):
    with pytest.raises(TypeError):
        db.iterator(prefix=b"a", start=b"a")
    with pytest.raises(TypeError):
        db.iterator(prefix=b"a", stop=b"a")


def test_closing_the_database_closes_its_iterators_batches_and_snapshots(path):
    db = DB(path, create_if_missing=True)
    rows, raw, batch, snapshot = db.iterator(), db.raw_iterator(), db.write_batch(), db.snapshot()
    past = snapshot.iterator()
    assert (db.closed, db.name) == (False, path)
    db.close()
    db.close()
    assert db.closed
    for use in (
        lambda: next(rows),
        lambda: rows.seek(b"a"),
        rows.prev,
        rows.seek_to_start,
        rows.seek_to_stop,
        raw.valid,
        lambda: next(past),
        lambda: snapshot.get(b"a"),
        snapshot.iterator,
        snapshot.raw_iterator,
        lambda: db.get(b"a"),
        lambda: db.get_many([b"a"]),
        lambda: db.put(b"a", b"1"),
        lambda: db.delete(b"a"),
        lambda: batch.put(b"a", b"1"),
        lambda: batch.delete(b"a"),
        lambda: batch.append(batch),
        lambda: batch.__exit__(None, None, None),
        batch.clear,
        batch.write,
        batch.approximate_size,
        batch.__enter__,
        db.write_batch,
        db.prefixed_db(b"p").write_batch,
        db.iterator,
        db.raw_iterator,
        db.snapshot,
        db.sync,
        db.sequence,
        db.compact_range,
        db.approximate_sizes,
        lambda: db.get_property(b"leveldb.stats"),
        lambda: db.get_property(b"leveldb.approximate-memory-usage"),
    ):
        with pytest.raises(RuntimeError):
            use()
    DB(path).close()


@pytest.fixture
def natives(monkeypatch):
    """All databases that rocksdict opens."""
    opened, open_native = [], rocksdict.Rdict
    monkeypatch.setattr(rocksdict, "Rdict", lambda *options: opened.append(open_native(*options)) or opened[-1])
    return opened


def test_use_during_a_concurrent_close_raises_runtime_error(path, natives):
    """Another thread may close the database after the check of `closed` and before the native call."""
    db = DB(path, create_if_missing=True)
    natives[0].close()
    for use in (db.iterator, db.raw_iterator, db.snapshot, lambda: db.get(b"a"), lambda: db.put(b"a", b"1")):
        with pytest.raises(RuntimeError):
            use()


def test_a_database_is_created_only_with_create_if_missing(path):
    with pytest.raises(plyvel.Error, match="does not exist"):
        DB(path)
    assert not Path(path).exists()
    DB(path.encode(), create_if_missing=True).close()
    with pytest.raises(plyvel.Error, match="exists"):
        DB(path, create_if_missing=True, error_if_exists=True)


def test_a_database_can_be_opened_only_once(db, path):
    with pytest.raises(plyvel.IOError, match="lock"):
        DB(path)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for at in range(len(content) // 3, len(content) // 2):
        content[at] ^= 0x55
    path.write_bytes(content)


def test_damage_is_never_mistaken_for_the_end_of_the_rows(path):
    with DB(path, create_if_missing=True) as db:
        for i in range(5_000):
            db.put(b"%05d" % i, b"%d" % (i * 7919) * 9)
    DB(path).close()  # flushes the WAL's rows to a table file
    (table,) = Path(path).glob("*.sst")
    damage(table)
    with DB(path) as db:
        with pytest.raises(plyvel.CorruptionError):
            list(db)
        with pytest.raises(plyvel.CorruptionError):
            list(db.iterator(reverse=True))
        with pytest.raises(plyvel.CorruptionError):
            db.get_many([b"%05d" % i for i in range(5_000)])
        with pytest.raises(plyvel.CorruptionError):
            [db.get(b"%05d" % i) for i in range(5_000)]
        walk = db.iterator()
        with pytest.raises(plyvel.CorruptionError):
            list(walk)
        for use in (walk.prev, walk.__next__):  # neither wraps around to the other end
            with pytest.raises(plyvel.CorruptionError):
                use()
        assert next(iter(db))[0] == b"00000"


def test_checksums_are_verified_by_default(path):
    with DB(path, create_if_missing=True, compression=None) as db:
        db.put(b"a", b"sound" * 100)
    (table,) = Path(path).glob("*.sst")
    table.write_bytes(table.read_bytes().replace(b"sound" * 100, b"wrong" * 100))
    with DB(path) as db:
        assert db.get(b"a", verify_checksums=False, fill_cache=False) == b"wrong" * 100
        assert list(db.iterator(verify_checksums=False, fill_cache=False)) == [(b"a", b"wrong" * 100)]
        for read in (db.get, db.prefixed_db(b"").get, db.snapshot().get):
            with pytest.raises(plyvel.CorruptionError):
                read(b"a")
            with pytest.raises(plyvel.CorruptionError):
                read(b"a", verify_checksums=True)
        with pytest.raises(plyvel.CorruptionError):
            list(db)


def test_the_block_cache_is_filled_by_default(path):
    with DB(path, create_if_missing=True, compression=None, block_size=32 << 10) as db:
        db.put(b"a", bytes(30_000))
    with DB(path) as db:
        used = [int(db.get_property(b"rocksdb.block-cache-usage"))]
        for fill in (False, True):
            db.get(b"a", fill_cache=fill)
            used.append(int(db.get_property(b"rocksdb.block-cache-usage")))
    assert used[1] < used[0] + 30_000 < used[2]


def test_a_large_value_is_read_back(db):
    db.put(b"large", bytes(range(256)) * 4_000)
    db.sync()
    assert db.get(b"large") == bytes(range(256)) * 4_000


def test_a_name_is_str_or_utf_8_bytes(path):
    for opened in (path, path.encode()):
        with DB(opened, create_if_missing=True, compression=b"snappy") as db:
            assert db.name == opened
            assert f"DB with name {opened!r} at 0x" in repr(db)
        assert "(closed)" in repr(db)
    assert repr(db.prefixed_db(b"p")).startswith("<queueber.plyvel.PrefixedDB with prefix b'p' at 0x")
    for bad, error in ((5, TypeError), (Path(path), TypeError), (path + "\ud800", ValueError), (b"\xff", ValueError)):
        for use in (DB, plyvel.repair_db, plyvel.destroy_db):
            with pytest.raises(error):
                use(bad)


def test_a_directory_without_write_permission_is_refused(tmp_path, monkeypatch):
    """The check is replaced, because tests may run as root, which may write to every directory."""
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path or not mode & os.W_OK)
    with pytest.raises(plyvel.IOError, match="Permission denied"):
        DB(str(tmp_path), create_if_missing=True)
    assert list(tmp_path.iterdir()) == []


def test_a_stalled_write_of_a_db_waits_outside_of_rocksdb(path, monkeypatch):
    """plyvel has no `Stalled`."""
    waits = []
    monkeypatch.setattr("queueber.plyvel.handle.sleep", waits.append)
    attempts = iter([Exception("Result incomplete: Write stall"), Exception("Result incomplete: Write stall"), None])
    open_native = rocksdict.Rdict

    class Stalling:
        """The native database, of which the first two writes stall."""

        def __init__(self, *options):
            self.native = open_native(*options)

        def write(self, batch, options):
            if error := next(attempts):
                raise error
            self.native.write(batch, options)

        def __getattr__(self, name):
            return getattr(self.native, name)

    monkeypatch.setattr(rocksdict, "Rdict", Stalling)
    with DB(path, create_if_missing=True) as db:
        db.put(b"a", b"1")
        assert len(waits) == 2
        assert next(attempts, "none left") == "none left"
        assert db.get(b"a") == b"1"


def test_many_writes_are_applied_in_order_and_return_the_sequence_number(db):
    db.put(b"old", b"1")
    before = db.sequence()
    after = db.write_many([(b"a", b"1"), (b"b", b"2"), (b"a", None), (b"b", b"3"), (b"old", None), (b"", b"")])
    assert list(db) == [(b"", b""), (b"b", b"3")]
    assert after == db.sequence() == before + 6
    assert db.write_many([]) == after


@pytest.mark.parametrize("write", [("a", b"1"), (b"a", "1"), (b"a", bytearray(b"1")), ("a", None), (b"a", 1)])
def test_many_writes_of_which_one_is_not_bytes_write_nothing(db, write):
    with pytest.raises(TypeError, match="must be bytes"):
        db.write_many([(b"first", b"1"), write])
    assert list(db) == []


def test_the_file_of_rocksdict_is_ignored(path):
    with DB(path, create_if_missing=True) as db:
        db.put(b"a", b"1")
    for content in ("", '{"raw_mode":false,"prefix_extractors":{}}', "{"):
        (Path(path) / "rocksdict-config.json").write_text(content)
        with DB(path) as db:
            assert db.get(b"a") == b"1"


def test_an_iterator_stops_at_its_bound(db):
    """RocksDB gets the upper bound, and does not read rows after it."""
    for i in range(100):
        db.put(b"%03d" % i, b"")
    assert [key for key, _ in islice(db.iterator(start=b"010", stop=b"013"), 9)] == [b"010", b"011", b"012"]


def test_a_checkpoint_is_a_database_with_the_rows_of_that_time(db, tmp_path):
    db.put(b"a", b"1")
    db.checkpoint(tmp_path / "copy")
    db.put(b"b", b"2")
    with DB(str(tmp_path / "copy")) as copy:
        assert list(copy) == [(b"a", b"1")]
    with pytest.raises(plyvel.Error, match="exists"):
        db.checkpoint(tmp_path / "copy")

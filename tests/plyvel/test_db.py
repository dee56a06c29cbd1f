"""RocksDB behind plyvel's interface does what plyvel does, and says what RocksDB says."""

import os
from array import array
from ctypes import c_uint64
from itertools import islice
from pathlib import Path

import pytest
import rocksdict

from queueber import plyvel
from queueber.errors import Damaged, Passing, StorageError, Withheld
from queueber.plyvel import DB, rocksdb_options
from queueber.plyvel.errors import Stalled, translate_error
from queueber.plyvel.rocksdb import RocksDB
from queueber.plyvel.rocksdb_options import RocksDBOptions


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "db")


@pytest.fixture
def db(path):
    with DB(path, create_if_missing=True) as opened:
        yield opened


def tuned(path, **wanted) -> RocksDB:
    """As the store opens it."""
    return RocksDB(Path(path), wanted.pop("options", RocksDBOptions()), create_if_missing=True, **wanted)


def test_a_value_or_a_default_is_found_everywhere(db):
    below = db.prefixed_db(b"p")
    below.put(b"a", b"1", sync=True)
    assert (db.get(b"pa"), below.get(b"a"), below.get(b"b"), below.db) == (b"1", b"1", None, db)
    assert list(below) == [(b"a", b"1")]
    below.delete(b"a", sync=True)
    assert (db.get(b"pa", b"none"), below.get(b"a", b"none")) == (b"none", b"none")


def test_many_keys_are_looked_up_in_their_order(db):
    db.put(b"a", b"1")
    assert db.get_many([b"b", b"a", b"a"]) == [None, b"1", b"1"]
    assert db.get_many([]) == []


def test_any_bytes_like_object_may_be_a_value_and_nothing_else(db):
    db.put(b"a", memoryview(b"1"))
    db.put(b"b", bytearray(b"2"))
    assert (db.get(b"a"), db.get(b"b")) == (b"1", b"2")
    batch = db.write_batch()
    for bad in ("text", 5, None):
        for target in (db, batch, db.prefixed_db(b"p")):
            with pytest.raises(TypeError):
                target.put(b"a", bad)


def test_all_bytes_of_a_buffer_are_its_value(db):
    """Whatever the width of its items, and however they are nested."""
    for value in (array("Q", b"abcdefgh"), memoryview(b"abcdefgh").cast("B", (2, 4)), c_uint64(0), memoryview(b"")):
        db.put(b"a", value)
        with db.write_batch() as batch:
            batch.put(b"b", value)
        assert db.get(b"a") == db.get(b"b") == bytes(value)


def test_a_buffer_in_pieces_is_no_value(db):
    """As plyvel has it: every second byte of something is not copied together."""
    for target in (db, db.write_batch()):
        with pytest.raises(BufferError, match="not C-contiguous"):
            target.put(b"a", memoryview(b"abcdef")[::2])
    assert db.get(b"a") is None


def test_a_batch_keeps_what_a_buffer_held(db):
    value = bytearray(b"1")
    batch = db.write_batch()
    batch.put(b"a", value)
    value[:] = b"2"
    batch.write()
    assert db.get(b"a") == b"1"


def test_a_key_is_bytes_and_nothing_else(db):
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


def test_each_of_many_keys_is_bytes_and_nothing_else(db):
    for bad in ("text", 5, None, bytearray(b"a")):
        with pytest.raises(TypeError, match=r"'keys\[1\]' must be bytes"):
            db.get_many([b"a", bad])


def test_a_flag_is_a_bool_or_none_and_nothing_else(db):
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


def test_bounds_are_bytes(db):
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


def test_a_batch_is_written_at_the_end_of_its_block(db):
    with pytest.raises(ZeroDivisionError):
        put_and_fail(db.write_batch())
    assert db.get(b"a") == b"1"


def test_a_transaction_that_fails_writes_nothing(db):
    with pytest.raises(ZeroDivisionError):
        put_and_fail(db.write_batch(transaction=True, sync=True))
    assert db.get(b"a") is None


def test_a_batch_may_be_written_again(db):
    batch = db.prefixed_db(b"p").write_batch(sync=True)
    batch.put(b"a", b"1")
    batch.write()
    db.delete(b"pa")
    batch.write()
    assert db.get(b"pa") == b"1"


def test_an_iterator_shows_the_moment_it_was_made(db):
    db.put(b"a", b"1")
    rows = db.iterator()
    db.put(b"b", b"2")
    assert list(rows) == [(b"a", b"1")]


def test_a_prefix_excludes_other_bounds(db):
    with pytest.raises(TypeError):
        db.iterator(prefix=b"a", start=b"a")
    with pytest.raises(TypeError):
        db.iterator(prefix=b"a", stop=b"a")


def test_closing_the_database_closes_what_was_opened_from_it(path):
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


def test_what_is_closed_at_the_last_moment_is_closed(path):
    """Between our own look and RocksDB's: another thread may be faster."""
    db = DB(path, create_if_missing=True)
    db._handle.native.close()
    for use in (db.iterator, db.raw_iterator, db.snapshot, lambda: db.get(b"a"), lambda: db.put(b"a", b"1")):
        with pytest.raises(RuntimeError):
            use()


def test_a_database_is_made_only_when_asked_for(path):
    with pytest.raises(plyvel.Error, match="does not exist"):
        DB(path)
    assert not Path(path).exists()
    DB(path.encode(), create_if_missing=True).close()
    with pytest.raises(plyvel.Error, match="exists"):
        DB(path, create_if_missing=True, error_if_exists=True)


def test_one_process_holds_a_database(db, path):
    with pytest.raises(plyvel.IOError, match="lock"):
        DB(path)


def test_errors_keep_their_kind():
    kinds = {
        "IO error: No space left on device": plyvel.IOError,
        "Corruption: block checksum mismatch": plyvel.CorruptionError,
        "Invalid argument: what": plyvel.Error,
        "Result incomplete: Write stall": Stalled,
    }
    errors = {text: translate_error(Exception(text)) for text in kinds}
    assert all(isinstance(errors[text], kind) for text, kind in kinds.items())
    assert issubclass(plyvel.IOError, OSError)
    assert issubclass(plyvel.IOError, StorageError)
    assert isinstance(translate_error(rocksdict.DbClosedError("closed")), RuntimeError)
    ours = ValueError("raw mode only support bytes")
    assert translate_error(ours) is ours


AS_ROCKSDB_SAYS_IT = [
    (Passing, "IO error: While open a file for random read: /d/000013.blob: Too many open files"),
    (Passing, "IO error: While open a file for random read: /d/000013.sst: Cannot allocate memory"),
    (Passing, "IO error: while open a file for lock: /d/LOCK: Too many open files in system"),
    (Passing, "Invalid argument: Found options incompatible with filesystem: IO error: /d: Too many open files"),
    (Passing, "Corruption: Can't access /000008.sst: IO error: while stat a file for size: /d: Permission denied"),
    (Passing, "IO error: No space left on device: While appending to file: /d/1.sst: No space left on device"),
    (Withheld, "IO error: While pread offset 0 len 4096: /d/000012.sst: Input/output error"),
    (Withheld, "IO error: No such file or directory: While open: /d/1.blob: No such file or directory"),
    (Damaged, "Corruption: IO error: No such file or directory: /d/1.sst: No such file or directory  The file x"),
    (Damaged, "Corruption: Blob CRC mismatch"),
]


@pytest.mark.parametrize(("kind", "text"), AS_ROCKSDB_SAYS_IT)
def test_what_is_damage_and_what_may_pass_is_seen_from_the_text(kind, text):
    error = translate_error(Exception(text))
    assert next(each for each in (Withheld, Damaged, Passing) if isinstance(error, each)) is kind
    if text.startswith("IO error"):
        assert isinstance(error, plyvel.IOError)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for at in range(len(content) // 3, len(content) // 2):
        content[at] ^= 0x55
    path.write_bytes(content)


def test_damage_is_never_taken_for_the_end(path):
    with DB(path, create_if_missing=True) as db:
        for i in range(5_000):
            db.put(b"%05d" % i, b"%d" % (i * 7919) * 9)
    DB(path).close()  # what the log holds goes into a table file
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
        for use in (walk.prev, walk.__next__):  # it does not go round to the other end either
            with pytest.raises(plyvel.CorruptionError):
                use()
        assert next(iter(db))[0] == b"00000"


def test_checksums_are_verified_unless_told_not_to(path):
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


def test_the_cache_is_filled_unless_told_not_to(path):
    with DB(path, create_if_missing=True, compression=None, block_size=32 << 10) as db:
        db.put(b"a", bytes(30_000))
    with DB(path) as db:
        used = [int(db.get_property(b"rocksdb.block-cache-usage"))]
        for fill in (False, True):
            db.get(b"a", fill_cache=fill)
            used.append(int(db.get_property(b"rocksdb.block-cache-usage")))
    assert used[1] < used[0] + 30_000 < used[2]


def test_a_stalled_write_writes_nothing_and_may_be_tried_again(path):
    written = stalls = 0
    with tuned(path, options=RocksDBOptions(write_buffer_size=64 << 10)) as db:
        while not stalls:
            batch = db.write_batch()
            for i in range(10):
                batch.put(b"%08d" % (written * 10 + i), bytes(4_000))
            before = db.sequence()
            while True:
                try:
                    batch.write()
                    break
                except Stalled:
                    stalls += 1
                    assert db.sequence() == before
            written += 1
        assert len(list(db.iterator(include_value=False))) == written * 10


def test_without_a_log_nothing_is_written_to_one(path):
    with tuned(path, wal=False) as db:
        db.put(b"a", bytes(10_000))
        db.delete(b"b")
        with db.write_batch() as batch:
            batch.put(b"c", bytes(10_000))
        assert [log.stat().st_size for log in Path(path).glob("*.log")] == [0]
        db.sync()
        assert list(Path(path).glob("*.sst"))


def test_sequence_numbers_grow_and_outlive_restarts(path):
    last = 0
    for turn in range(6):
        with tuned(path, wal=turn != 3) as db:
            assert db.sequence() >= last
            db.put(b"a", b"%d" % turn)
            if turn % 2:
                db.delete(b"a")
            assert db.sequence() > last
            last = db.sequence()
            if turn > 2:
                db.sync()


def test_large_contents_come_back(db):
    db.put(b"large", bytes(range(256)) * 4_000)
    db.sync()
    assert db.get(b"large") == bytes(range(256)) * 4_000


def test_plyvels_parameters_reach_rocksdb(path):
    """After opening twice, for the same reason."""
    wanted = {
        "write_buffer_size": 1 << 20,
        "max_open_files": 77,
        "block_size": 2_048,
        "block_restart_interval": 7,
        "bloom_filter_bits": 9,
        "max_file_size": 3 << 20,
        "lru_cache_size": 5 << 20,
        "paranoid_checks": False,
        "compression": None,
    }
    for _ in range(2):
        DB(path, create_if_missing=True, **wanted).close()
    found = rocksdb_options.in_force(Path(path), lambda _: None)
    names = {"max_file_size": "target_file_size_base"}
    for name in ("write_buffer_size", "max_open_files", "block_size", "block_restart_interval", "max_file_size"):
        assert found[names.get(name, name)] == str(wanted[name])
    assert found["paranoid_checks"] == "false"
    assert found["compression"] == "kNoCompression"
    assert found["filter_policy"] == "bloomfilter"
    assert "capacity : 5242880\n" in (Path(path) / "LOG").read_text()


def test_without_parameters_it_is_what_the_documents_say(path):
    for _ in range(2):
        DB(path, create_if_missing=True).close()
    wanted = {
        "wal_recovery_mode": "kTolerateCorruptedTailRecords",
        "paranoid_checks": "true",
        "write_buffer_size": str(64 << 20),
        "max_open_files": "1000",
        "block_size": "4096",
        "block_restart_interval": "16",
        "target_file_size_base": str(64 << 20),
        "compression": "kSnappyCompression",
        "filter_policy": "nullptr",
        "enable_blob_files": "false",
        "keep_log_file_num": "5",
    }
    found = rocksdb_options.in_force(Path(path), lambda _: None)
    assert {name: found.get(name) for name in wanted} == wanted
    assert "capacity : 33554432\n" in (Path(path) / "LOG").read_text()


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        ({"compression": "lz4"}, ValueError),
        ({"compression": 5}, TypeError),
        ({"write_buffer_size": "1"}, TypeError),
        ({"write_buffer_size": -1}, OverflowError),
        ({"lru_cache_size": -1}, OverflowError),
        ({"bloom_filter_bits": "1"}, TypeError),
        ({"comparator": len}, ValueError),
        ({"comparator_name": b"name"}, ValueError),
        ({"comparator": len, "comparator_name": "name"}, TypeError),
        ({"comparator": b"len", "comparator_name": b"name"}, TypeError),
        ({"comparator": len, "comparator_name": b"name"}, NotImplementedError),
        ({"unheard_of": 1}, TypeError),
        ({"create_if_missing": 1}, TypeError),
        ({"error_if_exists": 1}, TypeError),
    ],
    ids=str,
)
def test_a_parameter_that_cannot_be_is_refused_before_anything_is_made(path, wanted, error):
    with pytest.raises(error):
        DB(path, **{"create_if_missing": True} | wanted)
    assert not Path(path).exists()
    if "create_if_missing" not in wanted and "error_if_exists" not in wanted:
        with pytest.raises(error):
            plyvel.repair_db(path, **wanted)


def test_a_name_is_str_or_bytes_in_utf_8(path):
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


def test_a_directory_that_may_not_be_written_to_is_refused_as_the_system_would(tmp_path, monkeypatch):
    """Nothing is forbidden to root, as whom tests may run; so the system's answer is given here."""
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path or not mode & os.W_OK)
    with pytest.raises(plyvel.IOError, match="Permission denied"):
        DB(str(tmp_path), create_if_missing=True)
    assert list(tmp_path.iterdir()) == []


def test_a_write_waits_for_rocksdb_and_not_inside_of_it(db, monkeypatch):
    """plyvel's users know of no `Stalled`."""
    waits = []
    monkeypatch.setattr("queueber.plyvel.handle.sleep", waits.append)
    attempts = iter([Exception("Result incomplete: Write stall"), Exception("Result incomplete: Write stall"), None])

    def attempt() -> None:
        if error := next(attempts):
            raise error

    db._handle.write(attempt, sync=False)
    assert len(waits) == 2
    assert next(attempts, "none left") == "none left"


def test_rocksdicts_own_file_has_no_say(path):
    with DB(path, create_if_missing=True) as db:
        db.put(b"a", b"1")
    for content in ("", '{"raw_mode":false,"prefix_extractors":{}}', "{"):
        (Path(path) / "rocksdict-config.json").write_text(content)
        with DB(path) as db:
            assert db.get(b"a") == b"1"


def test_starts_do_not_pile_up_logs(path):
    for _ in range(8):
        DB(path, create_if_missing=True).close()
    assert len(list(Path(path).glob("LOG*"))) <= 6


def test_a_walk_reads_no_further_than_it_is_asked(db):
    """Rows outside of a range are not looked at: a bound is given to RocksDB, whatever lies behind it."""
    for i in range(100):
        db.put(b"%03d" % i, b"")
    assert [key for key, _ in islice(db.iterator(start=b"010", stop=b"013"), 9)] == [b"010", b"011", b"012"]

"""RocksDB behind plyvel's interface does what plyvel does, and says what RocksDB says."""

import re
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import plyvel
import pytest
import rocksdict
from hypothesis import given, settings
from hypothesis import strategies as st

from queueber.errors import StorageError
from queueber.store import engine
from queueber.store.engine import DB, tuning
from queueber.store.engine.errors import translated
from queueber.store.kv import Stalled


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "db")


@pytest.fixture
def db(path):
    with DB(path, create_if_missing=True) as opened:
        yield opened


# With b"p" before many keys, which is the prefix of the part.
short = st.binary(max_size=3) | st.binary(max_size=2).map(b"p".__add__)
bounds = st.none() | short
writes = st.lists(
    st.tuples(st.sampled_from(["put", "delete"]), st.sampled_from(["db", "batch", "below"]), short, short), max_size=12
)
ranges = st.fixed_dictionaries(
    {"reverse": st.booleans(), "include_key": st.booleans()},
    optional={
        "start": bounds,
        "stop": bounds,
        "include_start": st.booleans(),
        "include_stop": st.booleans(),
        "include_value": st.just(True),
    },
) | st.fixed_dictionaries({"prefix": short, "reverse": st.booleans(), "include_value": st.booleans()})


def write(db, done) -> None:
    """The same writes, some of them at once and some through a part of the database."""
    below = db.prefixed_db(b"p")
    with db.write_batch() as batch:
        for kind, where, key, value in done:
            target = {"db": db, "batch": batch, "below": below}[where]
            if kind == "put":
                target.put(key, value)
            else:
                target.delete(key)


def walked(db, wanted) -> list:
    """plyvel's walks backwards are taken forwards: from an open end they miss the row they should end with."""
    if db.__class__.__module__.startswith("queueber"):
        return list(db.iterator(**wanted))
    rows = list(db.iterator(**wanted | {"reverse": False}))
    return rows[::-1] if wanted["reverse"] else rows


def seen(db, wanted) -> list:
    """All that can be read of *db* and its parts."""
    below = db.prefixed_db(b"p")
    nested = below.prefixed_db(b"p")
    found = [walked(source, wanted) for source in (db, below, nested)]
    return [*found, list(db), list(nested), nested.prefix]


@settings(max_examples=60, deadline=None)
@given(writes, writes, ranges)
def test_it_holds_what_plyvel_would(before, after, wanted):
    with TemporaryDirectory() as folder, DB(f"{folder}/ours", create_if_missing=True) as ours:
        theirs = plyvel.DB(f"{folder}/theirs", create_if_missing=True)
        for db in (ours, theirs):
            write(db, before)
        assert seen(ours, wanted) == seen(theirs, wanted)
        for db in (ours, theirs):
            write(db, after)
        assert seen(ours, wanted) == seen(theirs, wanted)
        theirs.close()


def test_a_value_or_a_default_is_found_everywhere(db):
    below = db.prefixed_db(b"p")
    below.put(b"a", b"1", sync=True)
    assert (db.get(b"pa"), below.get(b"a"), below.get(b"b"), below.db) == (b"1", b"1", None, db)
    below.delete(b"a", sync=True)
    assert (db.get(b"pa", b"none"), below.get(b"a", b"none")) == (b"none", b"none")


def test_many_keys_are_looked_up_in_their_order(db):
    db.put(b"a", b"1")
    assert db.get_many([b"b", b"a", b"a"]) == [None, b"1", b"1"]
    assert db.get_many([]) == []


def test_any_bytes_like_object_may_be_written_and_nothing_else(db):
    db.put(bytearray(b"a"), memoryview(b"1"))
    assert db.get(b"a") == b"1"
    batch = db.write_batch()
    for bad in ("text", 5, None):
        with pytest.raises(TypeError):
            batch.put(b"a", bad)
        with pytest.raises(TypeError):
            db.put(bad, b"a")


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
    rows = db.iterator()
    assert (db.closed, db.name) == (False, path)
    db.close()
    db.close()
    assert db.closed
    for use in (
        lambda: next(rows),
        lambda: db.get(b"a"),
        lambda: db.put(b"a", b"1"),
        db.write_batch().write,
        db.iterator,
        db.sync,
    ):
        with pytest.raises(RuntimeError):
            use()
    DB(path).close()


def test_a_database_is_made_only_when_asked_for(path):
    with pytest.raises(engine.Error, match="does not exist"):
        DB(path)
    assert not Path(path).exists()
    DB(path.encode(), create_if_missing=True).close()
    with pytest.raises(engine.Error, match="exists"):
        DB(path, create_if_missing=True, error_if_exists=True)


def test_one_process_holds_a_database(db, path):
    with pytest.raises(engine.IOError, match="lock"):
        DB(path)


def test_errors_keep_their_kind():
    kinds = {
        "IO error: No space left on device": engine.IOError,
        "Corruption: block checksum mismatch": engine.CorruptionError,
        "Invalid argument: what": engine.Error,
        "Result incomplete: Write stall": Stalled,
    }
    assert {text: type(translated(Exception(text))) for text in kinds} == kinds
    assert issubclass(engine.IOError, OSError)
    assert issubclass(engine.IOError, StorageError)
    assert isinstance(translated(rocksdict.DbClosedError("closed")), RuntimeError)
    ours = ValueError("raw mode only support bytes")
    assert translated(ours) is ours


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
        with pytest.raises(engine.CorruptionError):
            list(db)
        with pytest.raises(engine.CorruptionError):
            list(db.iterator(reverse=True))
        with pytest.raises(engine.CorruptionError):
            db.get_many([b"%05d" % i for i in range(5_000)])
        with pytest.raises(engine.CorruptionError):
            [db.get(b"%05d" % i) for i in range(5_000)]
        assert next(iter(db))[0] == b"00000"


def test_a_stalled_write_writes_nothing_and_may_be_tried_again(path, monkeypatch):
    monkeypatch.setattr(tuning, "WRITE_BUFFER_BYTES", 64 << 10)
    monkeypatch.setattr(tuning, "WRITE_BUFFERS", 2)
    written = stalls = 0
    with DB(path, create_if_missing=True) as db:
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
    with DB(path, create_if_missing=True, wal=False) as db:
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
        with DB(path, create_if_missing=True, wal=turn != 3) as db:
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


def test_rocksdb_runs_with_the_options_that_were_chosen(path):
    """As RocksDB wrote them down itself, after opening twice: rocksdict takes some from the last opening."""
    DB(path, create_if_missing=True).close()
    DB(path).close()
    last = max(Path(path).glob("OPTIONS-*"), key=lambda file: file.name)
    found = dict(re.findall(r"^\s*(\w+)=(.*)$", last.read_text(), re.MULTILINE))
    wanted = {
        "wal_recovery_mode": "kTolerateCorruptedTailRecords",
        "paranoid_checks": "true",
        "recycle_log_file_num": "0",
        "wal_bytes_per_sync": "0",
        "manual_wal_flush": "false",
        "enable_pipelined_write": "false",
        "unordered_write": "false",
        "max_total_wal_size": str(tuning.LOG_BYTES_MAX),
        "write_buffer_size": str(tuning.WRITE_BUFFER_BYTES),
        "max_write_buffer_number": str(tuning.WRITE_BUFFERS),
        "bytes_per_sync": str(1 << 20),
        "compression": "kLZ4Compression",
        "enable_blob_files": "true",
        "min_blob_size": str(tuning.BLOB_BYTES_MIN),
        "enable_blob_garbage_collection": "true",
        "prefix_extractor": "nullptr",
        "max_open_files": str(tuning.OPEN_FILES_MAX),
        "keep_log_file_num": "5",
        "cache_index_and_filter_blocks": "true",
        "filter_policy": "bloomfilter",
    }
    assert {name: found.get(name) for name in wanted} == wanted


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

"""`RocksDB`: RocksDB's own options, and what differs from `DB`."""

from pathlib import Path
from resource import RLIM_INFINITY

import pytest

from queueber import plyvel
from queueber.errors import Stalled
from queueber.plyvel import rocksdb, rocksdb_options
from queueber.plyvel.rocksdb import RocksDB
from queueber.plyvel.rocksdb_options import ALWAYS, RocksDBOptions, expected, native_options
from queueber.plyvel.wal import wal_files


def open_rocksdb(path, **wanted) -> RocksDB:
    """Open, and create, a database."""
    return RocksDB(Path(path), wanted.pop("options", RocksDBOptions()), create_if_missing=True, **wanted)


def test_a_stalled_write_writes_nothing_and_can_be_retried(path):
    written = stalls = 0
    with open_rocksdb(path, options=RocksDBOptions(write_buffer_size=64 << 10)) as db:
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


def test_without_the_wal_a_sync_flushes_to_a_table_file(path):
    with open_rocksdb(path, wal=False) as db:
        db.put(b"a", bytes(10_000))
        db.delete(b"b")
        with db.write_batch() as batch:
            batch.put(b"c", bytes(10_000))
        assert [log.stat().st_size for log in Path(path).glob("*.log")] == [0]
        db.sync()
        assert list(Path(path).glob("*.sst"))


def test_sequence_numbers_increase_and_persist(path):
    last = 0
    for turn in range(6):
        with open_rocksdb(path, wal=turn != 3) as db:
            assert db.sequence() >= last
            db.put(b"a", b"%d" % turn)
            if turn % 2:
                db.delete(b"a")
            assert db.sequence() > last
            last = db.sequence()
            if turn > 2:
                db.sync()


REPORTED = {
    "max_background_jobs": ({"max_background_jobs": 5}, "5"),
    "write_buffer_size": ({"write_buffer_size": 1 << 20}, "1048576"),
    "max_write_buffer_number": ({"max_write_buffer_number": 6}, "6"),
    "max_total_wal_size": ({"max_total_wal_size": 3 << 20}, "3145728"),
    "bytes_per_sync": ({"bytes_per_sync": 4_096}, "4096"),
    "wal_bytes_per_sync": ({"wal_bytes_per_sync": 4_096}, "4096"),
    "compression": ({"compression": "none"}, "kNoCompression"),
    "blob_compression_type": ({"compression": "zstd", "min_blob_size": 100}, "kZSTD"),
    "compression_opts.level": ({"compression": "zstd", "compression_level": 9}, "9"),
    "deletion_trigger": ({"deletion_trigger": 99}, "99"),
    "enable_blob_files": ({"min_blob_size": 100}, "true"),
    "min_blob_size": ({"min_blob_size": 100}, "100"),
    "max_open_files": ({"max_open_files": 77}, "77"),
    "block-cache-capacity": ({"block_cache_size": 5 << 20}, "5242880"),
    "filter_policy": ({"bloom_bits": 9}, "bloomfilter"),
    "prefix_extractor": ({"prefix_length": 5}, "rocksdb.FixedPrefix.5"),
}


@pytest.mark.parametrize(("name", "given", "value"), [(name, *each) for name, each in REPORTED.items()], ids=REPORTED)
def test_each_option_reaches_rocksdb_and_is_reported(path, name, given, value):
    with open_rocksdb(path) as db:
        assert db.in_force[name] != value
    for _ in range(2):  # rocksdict takes some options from the last opening
        with open_rocksdb(path, options=RocksDBOptions(**given)) as db:
            assert db.in_force[name] == value


def test_every_reported_option_is_tested():
    assert REPORTED.keys() == expected(RocksDBOptions()).keys() - ALWAYS.keys() - {"wal_recovery_mode"}


def test_an_option_that_does_not_apply_is_an_error_and_the_database_is_closed(path, monkeypatch):
    monkeypatch.setattr(rocksdb, "native_options", lambda _, **more: native_options(RocksDBOptions(), **more))
    with pytest.raises(plyvel.Error, match="was opened with: max_open_files is 1000 and not 77; filter_policy is null"):
        open_rocksdb(path, options=RocksDBOptions(max_open_files=77, bloom_bits=9))
    open_rocksdb(path).close()


@pytest.mark.parametrize("limit", [300, RLIM_INFINITY])
def test_max_open_files_is_limited_as_the_process_is(path, monkeypatch, limit):
    monkeypatch.setattr("resource.getrlimit", lambda _: (limit, limit))
    assert expected(RocksDBOptions())["max_open_files"] == ("300" if limit == 300 else "1000")


def test_a_read_only_database_needs_no_lock_and_takes_no_writes(path):
    with open_rocksdb(path) as db:
        db.put(b"a", b"1")
        with RocksDB(Path(path), RocksDBOptions(), read_only=True) as view:
            assert view.get(b"a") == b"1"
            assert not hasattr(view, "in_force")
            with pytest.raises(plyvel.Error):
                view.put(b"b", b"2")
        assert db.get(b"b") is None


def test_a_missing_database_is_created_only_with_create_if_missing(path):
    with pytest.raises(plyvel.Error, match="does not exist"):
        RocksDB(Path(path), RocksDBOptions())
    assert not Path(path).exists()


def test_salvage_opens_a_damaged_wal_up_to_the_damage(tmp_path, copy_database):
    copy = tmp_path / "copy"
    with open_rocksdb(tmp_path / "db") as db:
        for number in range(9):
            db.put(b"%d" % number, b"value")
        copy_database(tmp_path / "db", copy)
    (log,) = [file for file in wal_files(copy) if file.stat().st_size]
    content = bytearray(log.read_bytes())
    content[content.index(b"6\x05value") - 1] ^= 1  # the length of the key
    log.write_bytes(content)
    with pytest.raises(plyvel.CorruptionError):
        RocksDB(copy, RocksDBOptions())
    with RocksDB(copy, RocksDBOptions(), salvage=True) as db:
        assert list(db.iterator(include_value=False)) == [b"%d" % number for number in range(6)]
        assert db.in_force["wal_recovery_mode"] == "kPointInTimeRecovery"


def test_options_that_were_read_beforehand_are_for_one_database(monkeypatch, tmp_path):
    """The process may change its root in between, and the options file is out of reach then."""
    rocksdb_options.preload_options()
    with monkeypatch.context() as unreadable:
        unreadable.setattr(rocksdb_options, "_OPTIONS_FILE_DIRECTORY", tmp_path / "missing")
        native_options(RocksDBOptions(), create=True)
        with pytest.raises(Exception, match="missing"):
            native_options(RocksDBOptions(), create=True)

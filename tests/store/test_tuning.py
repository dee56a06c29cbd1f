"""The operator's options reach RocksDB, and are read back."""

import os
import re
import resource
from contextlib import closing
from pathlib import Path

import pytest

from queueber.broker.storage import PutItems
from queueber.errors import StorageError
from queueber.plyvel import rocksdb, rocksdb_options
from queueber.store import Durability, open_store, unflushed_bytes
from queueber.store.datadir import database
from queueber.store.datadir.database import open_database
from queueber.store.tuning import DEFAULT_TUNING, TUNING_OPTIONS, Tuning, describe, flush_bytes_max, read_compression
from queueber.units import quantity

STORAGE_PAGE = (Path(__file__).parents[2] / "docs" / "storage.md").read_text()

CHOICES = [
    Tuning(parallelism=3, background_jobs=5),
    Tuning(write_buffer_bytes=1 << 20, write_buffers=6, log_bytes=3 << 20),
    Tuning(block_cache_bytes=1 << 20, bloom_bits=0, open_files=64),
    Tuning(prefix_extractor=True),
    Tuning(compression="none"),
    Tuning(compression="zstd:9"),
    Tuning(compression="zstd", blob_bytes=100),
    Tuning(blob_bytes=0, bytes_per_sync=0, wal_bytes_per_sync=4096),
    Tuning(deletions_trigger=0),
]


@pytest.mark.parametrize("choices", [DEFAULT_TUNING, *CHOICES], ids=str)
def test_the_chosen_options_are_in_force(tmp_path, choices):
    for _ in range(2):
        with closing(open_store(tmp_path / "data", durability=Durability.OS, tuning=choices)) as store:
            assert store.in_force == rocksdb_options.expected(database.rocksdb_options(choices))
            for option in TUNING_OPTIONS:
                chosen = getattr(choices, option.name)
                if option.rocksdb and option.unit is not None and option.name != "bloom_bits":
                    assert store.in_force[option.rocksdb] == str(chosen)


def test_rocksdb_runs_with_the_options_that_were_chosen(tmp_path):
    """Read from the OPTIONS file after opening twice, because rocksdict takes some options from the last opening."""
    open_database(tmp_path, create_if_missing=True).close()
    open_database(tmp_path, create_if_missing=True).close()
    wanted = {
        "wal_recovery_mode": "kTolerateCorruptedTailRecords",
        "paranoid_checks": "true",
        "recycle_log_file_num": "0",
        "wal_bytes_per_sync": "0",
        "manual_wal_flush": "false",
        "enable_pipelined_write": "false",
        "unordered_write": "false",
        "max_total_wal_size": str(128 << 20),
        "write_buffer_size": str(16 << 20),
        "max_write_buffer_number": "4",
        "bytes_per_sync": str(1 << 20),
        "compression": "kLZ4Compression",
        "enable_blob_files": "true",
        "min_blob_size": str(16 << 10),
        "enable_blob_garbage_collection": "false",
        "prefix_extractor": "nullptr",
        "max_open_files": "512",
        "keep_log_file_num": "5",
        "cache_index_and_filter_blocks": "true",
        "filter_policy": "bloomfilter",
    }
    found = rocksdb_options.in_force(Path(tmp_path), lambda _: None)
    assert {name: found.get(name) for name in wanted} == wanted


def test_a_store_reports_its_options_and_the_size_of_its_log(tmp_path, make):
    path = tmp_path / "data"
    store = open_store(path, durability=Durability.OS)
    assert store.in_force["wal_recovery_mode"] == "kTolerateCorruptedTailRecords"
    store.commit([PutItems(1, [make.item(5, b"x" * 100_000)])], make.mark)
    assert 100_000 < unflushed_bytes(path) < 200_000
    store.close()
    assert unflushed_bytes(path) < 100_000
    assert unflushed_bytes(tmp_path / "none") == 0


def test_a_flush_takes_no_more_space_than_its_estimate(tmp_path, make):
    """With incompressible contents, small and large."""
    with closing(open_store(tmp_path / "data")) as store:
        for begin, size in ((1, 100), (100_001, 40_000)):
            items = [make.item(begin + number, os.urandom(size)) for number in range(2_000_000 // size)]
            store.commit([PutItems(1, [item]) for item in items], make.mark)
        database = tmp_path / "data" / "db"
        before, reckoned = set(database.iterdir()), flush_bytes_max(store.unflushed_bytes)
        store.reclaim_space()
        made = set(database.iterdir()) - before
        assert {"sst", "blob"} <= {file.suffix[1:] for file in made}
        assert 4_000_000 < sum(file.stat().st_blocks * 512 for file in made) <= reckoned


def test_zstd_takes_its_level(tmp_path):
    open_store(tmp_path / "data", tuning=Tuning(compression="zstd:9")).close()
    text = max((tmp_path / "data" / "db").glob("OPTIONS-*"), key=lambda file: file.name).read_text()
    assert re.search(r"^\s*compression_opts=\{.*level=9;", text, re.MULTILINE)


def test_a_database_with_other_options_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(rocksdb_options.ALWAYS, "max_bgerror_resume_count", "7")
    with pytest.raises(StorageError, match="was opened with: max_bgerror_resume_count is 0 and not 7"):
        open_store(tmp_path / "data")
    monkeypatch.undo()
    open_store(tmp_path / "data").close()


@pytest.mark.parametrize("option", [each for each in TUNING_OPTIONS if each.rocksdb], ids=lambda each: each.name)
def test_an_option_that_does_not_apply_stops_the_start(tmp_path, monkeypatch, option):
    other = {"compression": "none", "prefix_extractor": True}.get(option.name, option.low or 4096)
    other = option.low + 1 if other == option.default else other
    chosen = Tuning(**{option.name: 0 if option.name == "bloom_bits" else other})
    assert getattr(chosen, option.name) != option.default
    usual = database.rocksdb_options(DEFAULT_TUNING)
    monkeypatch.setattr(rocksdb, "native_options", lambda _, **more: rocksdb_options.native_options(usual, **more))
    with pytest.raises(StorageError, match=f"was opened with: .*{option.rocksdb} is .* and not"):
        open_store(tmp_path / "data", tuning=chosen)
    open_store(tmp_path / "data").close()


def test_the_description_uses_the_names_of_the_options(tmp_path):
    chosen = Tuning(block_cache_bytes=1 << 20, compression="zstd:9", deletions_trigger=0, parallelism=3)
    with closing(open_store(tmp_path / "data", tuning=chosen)) as store:
        said = describe(chosen, store.in_force)
        assert store.fixed_options.keys() >= rocksdb_options.ALWAYS.keys()
    for figure in ("block-cache-bytes 1 MiB", "compression zstd:9", "deletions-trigger 0", "prefix-extractor no"):
        assert f"storage-{figure}," in said or f"storage-{figure};" in said
    assert said.endswith("; set, but not reported by RocksDB: storage-parallelism 3, storage-bloom-bits 10")
    assert all(f"storage-{option.name.replace('_', '-')} " in said for option in TUNING_OPTIONS)


def test_scans_return_every_row_with_a_prefix_extractor(tmp_path):
    with open_database(tmp_path / "db", create_if_missing=True, tuning=Tuning(prefix_extractor=True)) as db:
        rows = [(bytes([table, 0, 0, 0, queue, 7]), b"x") for table in range(5) for queue in range(50)]
        for key, value in rows:
            db.put(key, value)
        db.compact_range()
        assert list(db.iterator()) == rows
        assert list(db.iterator(start=rows[3][0], stop=rows[200][0])) == rows[3:200]
        assert list(db.iterator(reverse=True)) == rows[::-1]


@pytest.mark.parametrize("text", ["none", "lz4", "zstd", "zstd:1", "zstd:22"])
def test_a_compression_is_accepted(text):
    assert read_compression(text) == text


@pytest.mark.parametrize("text", ["", "zstd:0", "zstd:23", "lz4:3", "snappy"])
def test_another_compression_is_refused(text):
    with pytest.raises(ValueError, match="must be none, lz4, zstd"):
        read_compression(text)


def test_the_table_in_the_docs_matches_the_code():
    for option in TUNING_OPTIONS:
        name = f"storage-{option.name.replace('_', '-')}"
        if option.name in ("parallelism", "background_jobs"):
            default = "the cores this process may use, at least 2"
        elif option.unit is None:
            default = {False: "no"}.get(option.default, option.default)
        else:
            default = quantity(option.default, option.unit)
        (row,) = [line for line in STORAGE_PAGE.splitlines() if f"| `{name}` | {default} | {option.says} |" in line]
        assert f"`{option.rocksdb}`" in row.rpartition(" | ")[2] if option.rocksdb else row.endswith("| not reported |")


@pytest.mark.parametrize("option", [each for each in TUNING_OPTIONS if each.high], ids=lambda each: each.name)
def test_the_lowest_value_of_each_option_is_in_force(tmp_path, option):
    """RocksDB silently raises some values, and then the server would not start."""
    open_store(tmp_path / "data", tuning=Tuning(**{option.name: option.low})).close()


@pytest.mark.parametrize(
    ("chosen", "reported"),
    [
        (Tuning(compression="zstd:7"), {"blob_compression_type": "kZSTD", "compression_opts.level": "7"}),
        (Tuning(compression="zstd"), {"compression_opts.level": "3"}),
        (Tuning(compression="none", deletions_trigger=0), {"compression_opts.level": "32767", "deletion_trigger": "0"}),
        (Tuning(deletions_trigger=99), {"blob_compression_type": "kLZ4Compression", "deletion_trigger": "99"}),
    ],
    ids=str,
)
def test_nested_options_are_read_back(tmp_path, chosen, reported):
    with closing(open_store(tmp_path / "data", tuning=chosen)) as store:
        assert reported.items() <= store.in_force.items()


@pytest.mark.parametrize(
    ("allowed", "asked"), [(resource.RLIM_INFINITY, 512), (1024, 512), (300, 236), (80, 20), (64, 20)]
)
def test_open_files_leave_some_for_the_process(tmp_path, monkeypatch, allowed, asked):
    monkeypatch.setattr("resource.getrlimit", lambda _: (allowed, allowed))
    with closing(open_store(tmp_path / "data")) as store:
        assert store.in_force["max_open_files"] == str(asked)


def test_an_unfinished_options_file_is_ignored(tmp_path):
    """Found by power cuts: no server started on such a directory."""
    open_store(tmp_path / "data").close()
    (tmp_path / "data" / "db" / "OPTIONS-999999.dbtmp").write_text("half")
    open_store(tmp_path / "data").close()

"""plyvel's parameters reach RocksDB."""

from pathlib import Path

import pytest

from queueber import plyvel
from queueber.plyvel import DB, rocksdb_options


def test_parameters_reach_rocksdb(path):
    """After opening twice, because rocksdict takes some options from the last opening."""
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


def test_the_defaults_are_those_of_the_documentation(path):
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
def test_a_wrong_parameter_is_refused_before_anything_is_created(path, wanted, error):
    with pytest.raises(error):
        DB(path, **{"create_if_missing": True} | wanted)
    assert not Path(path).exists()
    if "create_if_missing" not in wanted and "error_if_exists" not in wanted:
        with pytest.raises(error):
            plyvel.repair_db(path, **wanted)


def test_info_logs_do_not_accumulate(path):
    for _ in range(8):
        DB(path, create_if_missing=True).close()
    assert len(list(Path(path).glob("LOG*"))) <= 6

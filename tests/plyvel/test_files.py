"""Sizes, properties, compaction, `repair_db` and `destroy_db`."""

from pathlib import Path

import pytest

from queueber import plyvel
from queueber.plyvel import DB


def fill(db, keys) -> None:
    with db.write_batch() as batch:
        for key in keys:
            batch.put(key, b"v" * 100)


def numbered(count):
    return [b"key-%06d" % i for i in range(count)]


def test_a_range_has_its_share_of_the_size(path):
    with DB(path, create_if_missing=True, compression=None) as db:
        fill(db, numbered(20_000))
        assert db.approximate_size(b"", b"\xff") == 0  # in the write buffer
        db.compact_range()
        whole = db.approximate_size(b"", b"\xff")
        assert 20_000 * 110 < whole < 20_000 * 130
        parts = [(b"key-000000", b"key-005000"), (b"key-005000", b"key-010000"), (b"key-010000", b"l")]
        first, second, last = db.approximate_sizes(*parts)
        assert first + second + last == pytest.approx(whole, abs=3)
        assert first == pytest.approx(whole / 4, rel=0.05)
        assert second == pytest.approx(whole / 4, rel=0.05)
        assert last == pytest.approx(whole / 2, rel=0.05)
        assert db.approximate_sizes((b"l", b"m"), (b"a", b"b"), (b"l", b"a"), (b"key-1", b"key-0")) == [0, 0, 0, 0]
        assert db.approximate_sizes() == []


@pytest.mark.parametrize(
    "key",
    [
        lambda number: b"%07d/x" % (number * 13),
        lambda number: b"%08x" % (number * 429_000),
        lambda number: (number * 429_000).to_bytes(4, "big") + b"\0tail",
    ],
    ids=["decimal", "hexadecimal", "binary"],
)
def test_size_estimates_recognise_common_encodings_of_numbers(path, key):
    with DB(path, create_if_missing=True, compression=None) as db:
        fill(db, [key(number) for number in range(10_000)])
        db.compact_range()
        whole = db.approximate_size(b"", b"\xff" * 9)
        for number in (1_000, 3_333, 5_000, 9_000):
            assert db.approximate_size(b"", key(number)) == pytest.approx(whole * number / 10_000, rel=0.05)


def test_sizes_of_ranges_between_adjacent_keys(path):
    with DB(path, create_if_missing=True, compression=None) as db:
        fill(db, [b"same"])
        db.compact_range()
        assert db.approximate_size(b"same", b"same") == 0
        assert db.approximate_size(b"a", b"same") == 0
        assert db.approximate_size(b"same", b"samf") > 0

    plyvel.destroy_db(path)
    with DB(path, create_if_missing=True, compression=None) as db:
        fill(db, [b"same", b"same\0"])
        db.compact_range()
        assert db.approximate_size(b"same", b"same\0") == 0
        assert db.approximate_size(b"same", b"same\0\0") > 0


def test_compaction_frees_the_space_of_deleted_rows(path):
    with DB(path, create_if_missing=True, compression=None) as db:
        fill(db, numbered(5_000))
        db.compact_range()
        before = db.approximate_size(b"", b"\xff")
        for key in numbered(5_000)[1_000:]:
            db.delete(key)
        db.compact_range(start=b"key-000000", stop=b"l")
        assert db.approximate_size(b"", b"\xff") < before / 3


def test_properties_have_leveldbs_and_rocksdbs_names(path):
    with DB(path, create_if_missing=True) as db:
        fill(db, numbered(100))
        assert int(db.get_property(b"leveldb.approximate-memory-usage")) > 100 * 100
        assert db.get_property(b"leveldb.num-files-at-level0") == b"0"
        assert db.get_property(b"rocksdb.estimate-num-keys") == b"100"
        assert b"Level" in db.get_property(b"leveldb.stats")
        db.compact_range()
        assert b"level 0" in db.get_property(b"leveldb.sstables")
        for unknown in (b"leveldb.unheard-of", b"rocksdb.unheard-of", b"stats", b"", b"\xff", b"leveldb.stats\0"):
            assert db.get_property(unknown) is None


def test_a_batch_has_the_size_that_leveldb_would_give_it(path):
    with DB(path, create_if_missing=True) as db:
        batch, other = db.write_batch(), db.prefixed_db(b"p").write_batch()
        assert batch.approximate_size() == 12
        batch.put(b"a" * 200, b"b" * 20_000)
        batch.delete(b"x")
        batch.put(b"", b"")
        assert batch.approximate_size() == 12 + (1 + 2 + 200 + 3 + 20_000) + (1 + 1 + 1) + (1 + 1 + 1)
        other.put(b"a", b"1")
        batch.clear()
        batch.append(other)
        batch.append(batch)
        other.clear()
        batch.write()
        assert list(db) == [(b"pa", b"1")]
        with pytest.raises(TypeError, match="WriteBatch"):
            batch.append([])


def test_a_batch_is_empty_after_its_block(path):
    with DB(path, create_if_missing=True) as db:
        for transaction in (False, True):
            with db.write_batch(transaction=transaction) as batch:
                batch.put(b"a", b"1")
            assert batch.approximate_size() == 12
            db.delete(b"a")
            batch.write()
            assert db.get(b"a") is None


def test_repair_rebuilds_a_lost_manifest(path):
    with DB(path, create_if_missing=True) as db:
        fill(db, numbered(1_000))
        db.compact_range()
        db.put(b"late", b"1")
    for manifest in Path(path).glob("MANIFEST-*"):
        manifest.unlink()
    with pytest.raises(plyvel.Error):
        DB(path)
    plyvel.repair_db(path, compression=None, max_open_files=100)
    with DB(path) as db:
        assert len(list(db)) == 1_001
        assert db.get(b"late") == b"1"


def test_an_open_database_is_neither_repaired_nor_destroyed(path):
    with DB(path, create_if_missing=True) as db:
        db.put(b"a", b"1")
        for use in (plyvel.repair_db, plyvel.destroy_db):
            with pytest.raises(plyvel.IOError, match="lock"):
                use(path)
        assert db.get(b"a") == b"1"


def test_destroy_removes_the_directory_unless_it_has_other_files(path):
    for _ in range(2):
        with DB(path, create_if_missing=True) as db:
            db.put(b"a", b"1")
        plyvel.destroy_db(path.encode())
        assert not Path(path).exists()
    plyvel.destroy_db(path)
    DB(path, create_if_missing=True).close()
    (Path(path) / "notes").write_text("mine")
    plyvel.destroy_db(path)
    assert [found.name for found in Path(path).iterdir()] == ["notes"]


def test_an_empty_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(plyvel.Error, match="No such file"):
        DB("", create_if_missing=True)
    assert list(tmp_path.iterdir()) == []

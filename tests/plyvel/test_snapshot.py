"""`Snapshot`, `Iterator` and `RawIterator`, over the present and over snapshots."""

import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from queueber import plyvel
from queueber.plyvel import DB
from queueber.plyvel.shared_snapshot import SharedSnapshot


def fill(db, count=100) -> list:
    rows = [(b"%05d" % i, b"%d" % i) for i in range(count)]
    with db.write_batch() as batch:
        for key, value in rows:
            batch.put(key, value)
    return rows


def test_a_snapshot_does_not_see_later_writes(db):
    rows = fill(db)
    snapshot = db.snapshot()
    for key, _ in rows[::2]:
        db.delete(key)
    db.put(b"00001", b"new")
    db.put(b"zz", b"new")
    db.compact_range()
    assert list(snapshot) == rows
    assert list(snapshot.iterator(reverse=True)) == rows[::-1]
    assert (snapshot.get(b"00001"), snapshot.get(b"zz"), snapshot.get(b"00000")) == (b"1", None, b"0")
    assert (snapshot.get(b"0000"), snapshot.get(b"zz", b"none")) == (None, b"none")
    assert len(list(db)) == 51


def test_iterators_of_one_snapshot_are_independent(db):
    rows = fill(db)
    snapshot = db.snapshot()
    one, other, raw = snapshot.iterator(), snapshot.iterator(reverse=True), snapshot.raw_iterator()
    raw.seek(b"00050")
    forward, backward = [], []
    for _ in rows:
        forward.append(next(one))
        snapshot.get(b"00007")
        backward.append(next(other))
        assert raw.item() == (b"00050", b"50")
    assert forward == rows
    assert backward == rows[::-1]
    alone = []
    for row in snapshot:
        alone.append(row)
        assert snapshot.get(b"00007") == b"7"
    assert alone == rows


def test_several_threads_can_read_a_snapshot(db):
    rows = fill(db, 300)
    snapshot = db.snapshot()

    def read(reverse) -> bool:
        found = list(snapshot.iterator(reverse=reverse))
        return found == (rows[::-1] if reverse else rows) and all(snapshot.get(key) == value for key, value in rows)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, [False, True] * 4))


@pytest.mark.parametrize("of", ["database", "snapshot"])
@pytest.mark.parametrize("wanted", [{}, {"start": b"00001", "stop": b"00004"}], ids=["all", "range"])
def test_next_and_then_prev_return_the_same_row(db, of, wanted):
    rows = fill(db, 6)[1:4] if wanted else fill(db, 3)
    source = db if of == "database" else db.snapshot()
    for reverse in (False, True):
        iterator = source.iterator(reverse=reverse, **wanted)
        ahead = rows[::-1] if reverse else rows
        for _ in range(2):
            assert list(iterator) == ahead
            assert [iterator.prev() for _ in rows] == ahead[::-1]
            with pytest.raises(StopIteration):
                iterator.prev()
        assert (next(iterator), next(iterator), iterator.prev(), iterator.prev()) == (
            ahead[0],
            ahead[1],
            ahead[1],
            ahead[0],
        )


@pytest.mark.parametrize("of", ["database", "snapshot"])
def test_a_seek_moves_before_a_row_and_stays_in_the_range(db, of):
    db.put(b"o", b"outside")
    below = db.prefixed_db(b"p")
    assert below.prefix == b"p"
    for key in (b"1", b"3", b"5"):
        below.put(key, key)
    source = below if of == "database" else below.snapshot()
    iterator = source.iterator(include_value=False)
    iterator.seek(b"2")
    assert (iterator.prev(), next(iterator), next(iterator)) == (b"1", b"1", b"3")
    iterator.seek_to_start()
    with pytest.raises(StopIteration):
        iterator.prev()
    assert next(iterator) == b"1"
    iterator.seek_to_stop()
    with pytest.raises(StopIteration):
        next(iterator)
    back = source.iterator(start=b"1", include_start=False, stop=b"5", include_stop=True, reverse=True)
    back.seek(b"9")
    assert list(back) == [(b"5", b"5"), (b"3", b"3")]
    back.seek(b"0")
    assert back.prev() == (b"3", b"3")
    assert list(source.iterator(include_key=False)) == [b"1", b"3", b"5"]
    assert list(source.iterator(reverse=True, include_key=False)) == [b"5", b"3", b"1"]
    assert list(source.iterator(reverse=True, include_key=False, include_value=False)) == [None] * 3


@pytest.mark.parametrize("of", ["database", "snapshot"])
def test_a_raw_iterator_is_at_a_row_or_invalid(db, of):
    fill(db, 3)
    raw = (db if of == "database" else db.snapshot()).raw_iterator()
    moves = [raw.seek_to_first, raw.next, raw.next, raw.prev, lambda: raw.seek(b"000011"), raw.seek_to_last, raw.next]
    places = []
    for move in moves:
        move()
        places.append(raw.key() if raw.valid() else None)
    assert places == [b"00000", b"00001", b"00002", b"00001", b"00002", b"00002", None]
    for use in (raw.next, raw.prev, raw.key, raw.value, raw.item):
        with pytest.raises(plyvel.IteratorInvalidError):
            use()


def shared_alive():
    """Return how many native snapshots are in memory."""
    return sum(isinstance(each, SharedSnapshot) for each in gc.get_objects())


def test_iterators_outlive_their_snapshot_and_then_release_it(db):
    rows = fill(db)
    before = shared_alive()
    snapshot = db.snapshot()
    iterator = snapshot.iterator()
    snapshot.release()
    snapshot.close()
    with pytest.raises(RuntimeError):
        snapshot.get(b"00000")
    db.delete(b"00000")
    assert list(iterator) == rows
    gc.disable()  # reference counts alone must release it
    try:
        iterator.close()
        assert shared_alive() == before
    finally:
        gc.enable()


def test_a_snapshot_is_closed_at_the_end_of_its_block(db):
    with db.snapshot() as snapshot, snapshot.raw_iterator() as raw:
        assert not raw.valid()
    for use in (raw.valid, snapshot.iterator, lambda: iter(snapshot)):
        with pytest.raises(RuntimeError):
            use()


def test_snapshots_and_iterators_do_not_keep_a_closed_database_open(path):
    db = DB(path, create_if_missing=True)
    kept = [db.snapshot(), db.snapshot().iterator(), db.raw_iterator()]
    db.close()
    DB(path).close()
    assert kept


def test_iterators_and_snapshots_keep_an_unreferenced_database_open(path):
    with DB(path, create_if_missing=True) as db:
        rows = fill(db)
    iterator = DB(path).iterator()
    assert list(iterator) == rows
    iterator.close()
    snapshot = DB(path).snapshot()
    assert list(snapshot) == rows
    del snapshot
    raw = DB(path).raw_iterator()
    raw.seek_to_last()
    assert raw.item() == rows[-1]


def test_a_snapshot_of_a_prefixed_db_has_its_keys_but_the_raw_iterator_has_all(db):
    db.put(b"a", b"1")
    db.put(b"pa", b"2")
    snapshot = db.prefixed_db(b"p").snapshot()
    assert (list(snapshot), snapshot.get(b"a")) == ([(b"a", b"2")], b"2")
    raw = snapshot.raw_iterator()
    raw.seek_to_first()
    assert raw.item() == (b"a", b"1")
    raw.seek_to_last()
    assert raw.item() == (b"pa", b"2")


def test_damage_is_not_mistaken_for_the_end_of_a_snapshot(path):
    with DB(path, create_if_missing=True, compression=None) as db:
        fill(db, 5_000)
    (table,) = Path(path).glob("*.sst")
    content = bytearray(table.read_bytes())
    for at in range(len(content) // 3, len(content) // 2):
        content[at] ^= 0x55
    table.write_bytes(content)
    with DB(path) as db:
        snapshot = db.snapshot()
        with pytest.raises(plyvel.CorruptionError):
            list(snapshot)
        with pytest.raises(plyvel.CorruptionError):
            list(snapshot.iterator(reverse=True))
        with pytest.raises(plyvel.CorruptionError):
            snapshot.get(b"02000")
        assert snapshot.get(b"00000") == b"0"
        for raw in (db.raw_iterator(), snapshot.raw_iterator()):
            raw.seek_to_first()
            with pytest.raises(plyvel.CorruptionError):  # noqa: PT012 - at one of the steps
                while raw.valid():
                    raw.next()
            with pytest.raises(plyvel.CorruptionError):
                raw.seek(b"02000")

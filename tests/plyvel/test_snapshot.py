"""A snapshot shows one moment, to all who look at it."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from queueber import plyvel
from queueber.plyvel import DB


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "db")


@pytest.fixture
def db(path):
    with DB(path, create_if_missing=True) as opened:
        yield opened


def fill(db, count=100) -> list:
    rows = [(b"%05d" % i, b"%d" % i) for i in range(count)]
    with db.write_batch() as batch:
        for key, value in rows:
            batch.put(key, value)
    return rows


def test_it_keeps_its_moment_whatever_is_done_later(db):
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


def test_its_iterators_do_not_get_in_each_others_way(db):
    rows = fill(db)
    snapshot = db.snapshot()
    one, other, raw = snapshot.iterator(), snapshot.iterator(reverse=True), snapshot.raw_iterator()
    raw.seek(b"00050")
    ups, downs = [], []
    for _ in rows:
        ups.append(next(one))
        snapshot.get(b"00007")
        downs.append(next(other))
        assert raw.item() == (b"00050", b"50")
    assert ups == rows
    assert downs == rows[::-1]
    alone = []
    for row in snapshot:
        alone.append(row)
        assert snapshot.get(b"00007") == b"7"
    assert alone == rows


def test_several_threads_may_read_it(db):
    rows = fill(db, 300)
    snapshot = db.snapshot()

    def read(reverse) -> bool:
        found = list(snapshot.iterator(reverse=reverse))
        return found == (rows[::-1] if reverse else rows) and all(snapshot.get(key) == value for key, value in rows)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, [False, True] * 4))


@pytest.mark.parametrize("of", ["database", "snapshot"])
@pytest.mark.parametrize("wanted", [{}, {"start": b"00001", "stop": b"00004"}], ids=["all", "range"])
def test_a_step_forth_and_one_back_give_the_same_row(db, of, wanted):
    rows = fill(db, 6)[1:4] if wanted else fill(db, 3)
    source = db if of == "database" else db.snapshot()
    for reverse in (False, True):
        walk = source.iterator(reverse=reverse, **wanted)
        ahead = rows[::-1] if reverse else rows
        for _ in range(2):
            assert list(walk) == ahead
            assert [walk.prev() for _ in rows] == ahead[::-1]
            with pytest.raises(StopIteration):
                walk.prev()
        assert (next(walk), next(walk), walk.prev(), walk.prev()) == (ahead[0], ahead[1], ahead[1], ahead[0])


@pytest.mark.parametrize("of", ["database", "snapshot"])
def test_a_seek_leads_before_a_row_and_not_out_of_the_range(db, of):
    db.put(b"o", b"outside")
    below = db.prefixed_db(b"p")
    assert below.prefix == b"p"
    for key in (b"1", b"3", b"5"):
        below.put(key, key)
    source = below if of == "database" else below.snapshot()
    walk = source.iterator(include_value=False)
    walk.seek(b"2")
    assert (walk.prev(), next(walk), next(walk)) == (b"1", b"1", b"3")
    walk.seek_to_start()
    with pytest.raises(StopIteration):
        walk.prev()
    assert next(walk) == b"1"
    walk.seek_to_stop()
    with pytest.raises(StopIteration):
        next(walk)
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


def test_its_iterators_outlive_it_and_then_let_the_moment_go(db):
    rows = fill(db)
    snapshot = db.snapshot()
    moment = weakref.ref(snapshot._shared)
    walk = snapshot.iterator()
    snapshot.release()
    snapshot.close()
    with pytest.raises(RuntimeError):
        snapshot.get(b"00000")
    db.delete(b"00000")
    assert list(walk) == rows
    gc.disable()  # nothing but the reference counts may be needed
    try:
        walk.close()
        assert moment() is None
    finally:
        gc.enable()


def test_a_block_closes_it(db):
    with db.snapshot() as snapshot, snapshot.raw_iterator() as raw:
        assert not raw.valid()
    for use in (raw.valid, snapshot.iterator, lambda: iter(snapshot)):
        with pytest.raises(RuntimeError):
            use()


def test_a_forgotten_snapshot_does_not_keep_a_closed_database(path):
    db = DB(path, create_if_missing=True)
    kept = [db.snapshot(), db.snapshot().iterator(), db.raw_iterator()]
    db.close()
    DB(path).close()
    assert kept


def test_an_iterator_needs_nobody_to_keep_its_database(path):
    with DB(path, create_if_missing=True) as db:
        rows = fill(db)
    walk = DB(path).iterator()
    assert list(walk) == rows
    walk.close()
    snapshot = DB(path).snapshot()
    assert list(snapshot) == rows
    del snapshot
    raw = DB(path).raw_iterator()
    raw.seek_to_last()
    assert raw.item() == rows[-1]


def test_a_snapshot_of_a_part_has_its_keys_but_its_raw_iterator_all(db):
    db.put(b"a", b"1")
    db.put(b"pa", b"2")
    snapshot = db.prefixed_db(b"p").snapshot()
    assert (list(snapshot), snapshot.get(b"a")) == ([(b"a", b"2")], b"2")
    raw = snapshot.raw_iterator()
    raw.seek_to_first()
    assert raw.item() == (b"a", b"1")
    raw.seek_to_last()
    assert raw.item() == (b"pa", b"2")


def test_damage_is_never_taken_for_the_end_in_a_snapshot_either(path):
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
            with pytest.raises(plyvel.CorruptionError):  # noqa: PT012 - somewhere on the way
                while raw.valid():
                    raw.next()
            with pytest.raises(plyvel.CorruptionError):
                raw.seek(b"02000")

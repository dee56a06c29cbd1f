"""Unreadable rows do not hide readable ones."""

import itertools
import random
import resource
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import define, field
from encoded_rows import item_value
from hypothesis import given, settings
from hypothesis import strategies as st

from queueber.broker.model import LOWEST, Item, Key, QueueNumber, QueueRecord
from queueber.broker.storage import PutItems, PutQueue
from queueber.errors import Damaged, Passing, StorageError, Withheld
from queueber.store import open_store, verify
from queueber.store.datadir.database import open_database
from queueber.store.rows import kv_store as keyvalue
from queueber.store.rows import scanning
from queueber.store.rows.keys import ITEM_KEY_BYTES, decode_item_key, item_key
from queueber.store.rows.kv_store import Durability, KeyValueStore
from queueber.store.rows.scanning import Scanner
from queueber.store.rows.values import Encoding

MAIL = QueueNumber(1)
LAST = QueueNumber(2**32 - 1)
MANY = 10**9


def dues(scan) -> list[int]:
    return [item.key.due for item in scan.items]


class TestATableFile:
    """A table file with many rows in each block of about 4 KiB."""

    ITEMS = 3_000

    @pytest.fixture
    def data(self, tmp_path, make):
        store = open_store(tmp_path / "data")
        # Incompressible, so that blocks keep their size.
        draw = random.Random(1)
        items = [make.item(due, draw.randbytes(50)) for due in range(1, self.ITEMS + 1)]
        queue = QueueRecord(MAIL, "mail", self.ITEMS, 0, LOWEST)
        store.commit([*(PutItems(MAIL, [each]) for each in items), PutQueue(queue)], make.mark)
        store.close()
        return tmp_path / "data"

    def spoil(self, data, *shares):
        (table,) = [each for each in (data / "db").glob("*.sst") if each.stat().st_size > 100_000]
        content = bytearray(table.read_bytes())
        for share in shares:
            content[int(len(content) * share)] ^= 1
        table.write_bytes(content)

    @pytest.mark.parametrize("shares", [(0.0001,), (0.5,), (0.2, 0.6), (0.0001, 0.3, 0.31, 0.9)])
    def test_a_changed_bit_in_a_block_hides_only_the_rows_of_that_block(self, data, make, shares):
        self.spoil(data, *shares)
        store = open_store(data)
        scan = store.scan(MAIL, LOWEST, items_max=MANY, bytes_max=MANY)
        found = dues(scan)
        assert found == sorted(set(found))
        assert self.ITEMS - 50 * len(shares) < len(found) < self.ITEMS
        assert 1 <= len(scan.gaps) <= len(shares)
        assert scan.exhausted
        for gap in scan.gaps:
            assert "Corruption" in str(gap.why)
            assert gap.after.due + 1 not in found
        # Reads by key fail for the rows of the same block and no others.
        assert {item.key.due for due in found[::50] for item in store.read(MAIL, [make.key(due)])} == set(found[::50])
        store.close()

    def test_damage_at_the_end_of_a_table_hides_only_its_block(self, data):
        self.spoil(data, 0.93)
        store = open_store(data)
        before = dues(store.scan(MAIL, LOWEST, items_max=MANY, bytes_max=MANY))
        after = store.scan(MAIL, LOWEST, items_max=len(before), bytes_max=MANY)
        assert (dues(after), after.exhausted) == (before, True)
        store.close()

    def test_verify_reports_the_damage(self, data):
        self.spoil(data, 0.5)
        (finding,) = verify(data).findings
        assert "nothing after it can be read: Corruption" in finding


def test_only_damaged_large_contents_are_skipped(tmp_path, make):
    """They are in blob files and their keys in the table; an iterator that fails at one does not return its key."""
    store = open_store(tmp_path / "data")
    draw = random.Random(1)
    begin = 1_701_000_000_000
    items = [make.item(begin + 1_000 * number, draw.randbytes(20_000)) for number in range(60)]
    queue = QueueRecord(MAIL, "mail", len(items), 0, LOWEST)
    store.commit([*(PutItems(MAIL, [each]) for each in items), PutQueue(queue)], make.mark)
    store.close()
    # A start moves the rows from the log to a table.
    open_store(tmp_path / "data").close()
    bad = [0, 1, 20, 40]
    (path,) = (tmp_path / "data" / "db").glob("*.blob")
    content = path.read_bytes()
    for number in bad:
        contents = items[number].contents
        content = content.replace(contents, bytes((contents[0] ^ 1,)) + contents[1:])
    path.write_bytes(content)
    store = open_store(tmp_path / "data")
    scan = store.scan(MAIL, LOWEST, items_max=MANY, bytes_max=MANY)
    assert scan.items == [item for number, item in enumerate(items) if number not in bad]
    assert [gap.after for gap in scan.gaps] == [LOWEST, items[19].key, items[39].key]
    store.close()


@define
class Engine:
    """An engine with rows of a queue, some unreadable: an iterator that reaches one raises, wherever it started."""

    dues: list[int] = field(converter=sorted)
    bad: set[int]
    queue: QueueNumber = MAIL
    passing: bool = False
    """Each failure is transient: the row is readable afterwards."""

    error: type[StorageError] = Damaged
    damaged: set[int] = field(factory=set)
    """Rows whose values are damaged."""

    blocks: list[tuple[int, int]] = field(factory=list)
    """Unreadable blocks, whose keys are unknown too: from after the first number to the second."""

    past_the_end: int | None = None
    """From here on every iterator fails."""

    refuses: dict[int, StorageError] = field(factory=dict)
    """Errors of the iterators with these numbers, before their first row."""

    reads: int = field(default=0, init=False)

    def iterator(self, *, start, stop):
        self.reads += 1
        if self.reads in self.refuses:
            raise self.refuses[self.reads]
        return FailingIterator(self, start, stop)


@define
class FailingIterator:
    engine: Engine
    start: bytes
    stop: bytes

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __iter__(self):
        engine = self.engine
        blocks = [[item_key(engine.queue, Key(due, bytes(16))) for due in block] for block in engine.blocks]
        if any(before < self.start <= last for before, last in blocks):
            raise Damaged("a block")
        for due in engine.dues[bisect_left(engine.dues, decode_item_key(self.start[:ITEM_KEY_BYTES]).due) :]:
            row = item_key(engine.queue, Key(due, bytes(16)))
            if row >= self.stop:
                break
            if self.start <= row:
                if any(before < row <= last for before, last in blocks):
                    raise Damaged(f"the block of {due}")
                if due in engine.bad:
                    if engine.passing:
                        engine.bad.discard(due)
                    raise engine.error(f"block {due}")
                yield row, b"?" if due in engine.damaged else item_value(item(due), engine.queue)
        if engine.past_the_end is not None and self.stop > item_key(engine.queue, Key(engine.past_the_end, bytes(16))):
            raise Damaged("the disk is gone")


def item(due):
    return Item(Key(due, bytes(16)), b"%d" % due, 0, 0)


def scan(engine, after=LOWEST, **bounds):
    bounds = {"items_max": MANY, "bytes_max": MANY} | bounds
    return Scanner(engine, engine.queue, after, **bounds).scan()


@pytest.mark.traced
@settings(derandomize=True)
@given(
    before=st.sets(st.integers(1, 2**20), max_size=9),
    bad=st.sets(st.one_of(st.integers(2**20 + 1, 2**20 + 99), st.integers(2**20 + 1, 2**40)), max_size=9),
    later=st.sets(st.integers(2**40 + 1, 2**63), max_size=9),
    items_max=st.integers(1, 20),
    queue=st.sampled_from([MAIL, LAST]),
)
def test_no_row_before_or_after_a_gap_is_missing(before, bad, later, items_max, queue):
    """Scans one after the other return all readable rows, and none says too early that there are no more."""
    engine = Engine([*before, *bad, *later], set(bad), queue)
    found, gaps, after, exhausted = [], [], LOWEST, False
    while not exhausted:
        try:
            part = scan(engine, after, items_max=items_max)
        except StorageError:
            assert not later
            break
        found += dues(part)
        gaps += part.gaps
        exhausted = part.exhausted
        after = part.items[-1].key if part.items else after
    assert found == sorted(before | later)
    assert [gap.after.due for gap in gaps] == [max(before, default=0)] * bool(bad and exhausted)


@given(rows=st.dictionaries(st.integers(1, 2**41), st.booleans(), max_size=30), near=st.integers(0, 2**41))
def test_no_row_between_unreadable_rows_is_missing(rows, near):
    rows |= {near + each: each % 2 == 0 for each in range(1, 7)}
    bad = set(itertools.islice((due for due in rows if not rows[due]), scanning.SINGLE_ROWS_MAX))
    found = scan(Engine([*rows], set(bad)))
    assert dues(found) == sorted(set(rows) - bad)
    assert found.exhausted
    # Adjacent unreadable rows are one gap.
    begins = [before for before, due in itertools.pairwise([0, *sorted(rows)]) if due in bad and before not in bad]
    assert [gap.after.due for gap in found.gaps] == begins


def test_rows_between_two_damaged_places_are_not_hidden():
    """At distances that the doubling steps of the search hit or miss."""
    for first, second in itertools.product((1, 1_000, 1_701_000_000_000), (2, 5_000, 2**43)):
        found = scan(Engine([first, first + 1, first + second, first + 2 * second], {first, first + second}))
        assert dues(found) == [first + 1, first + 2 * second]


def test_rows_between_two_damaged_blocks_are_not_hidden_if_they_are_as_many():
    begin = 1_701_000_000_000
    for between in (10, 11, 17, 40, 100, 500):
        engine = Engine([*range(begin, begin + 2_000)], set(), blocks=[(0, begin + 9)])
        for number in (1, 2, 3):
            second = begin + 9 + number * between + (number - 1) * 10
            engine.blocks.append((second, second + 10))
        found = scan(engine)
        assert dues(found) == [
            due for due in engine.dues if not any(before < due <= last for before, last in engine.blocks)
        ]
        assert len(found.gaps) == 4
        assert engine.reads < 4_000


def test_many_consecutive_unreadable_rows_are_not_found_one_by_one():
    begin = 1_701_000_000_000
    bad = {*range(begin, begin + 500), begin + 1_100}
    engine = Engine([*range(begin, begin + 2_000)], set(bad))
    assert dues(scan(engine)) == sorted(set(engine.dues) - bad)
    assert engine.reads < (scanning.SINGLE_ROWS_MAX + 5) * 300


def test_the_search_back_is_bounded(monkeypatch):
    begin = 1_701_000_000_000
    blocks = [(0 if number == 0 else begin + 20 * number - 11, begin + 20 * number - 1) for number in range(50)]
    monkeypatch.setattr(scanning, "SINGLE_ROWS_MAX", 1)
    engine = Engine([*range(begin - 10, begin + 2_000)], set(), blocks=blocks)
    # Cut short, it finds another run of readable rows, from its first.
    first = dues(scan(engine))[0]
    assert first in {last + 1 for _, last in blocks[1:]}


def test_a_transient_error_hides_nothing():
    found = scan(Engine([1, 2, 3], {1, 2, 3}, passing=True))
    assert dues(found) == [1, 2, 3]


class TestPassingErrors:
    """They skip no sound rows: the scan ends before the failed read, and the next one starts with it."""

    ROWS, BAD = [1, 2, 3, 1_000, 1_001, 2**40], {2, 1_000}

    def failing(self, number, error=None):
        return Engine([*self.ROWS], set(self.BAD), refuses={number: error or Passing("Too many open files")})

    def test_a_scan_skips_only_damage_whichever_of_its_reads_fails(self):
        whole = Engine([*self.ROWS], set(self.BAD))
        expected = scan(whole)
        assert whole.reads > 300
        for number in (*range(1, 12), *range(12, whole.reads + 1, 13)):
            engine, found, gaps, after, failed = self.failing(number), [], [], LOWEST, False
            while True:
                try:
                    part = scan(engine, after)
                except Passing:
                    assert not failed
                    failed = True
                    continue
                found += part.items
                gaps += part.gaps
                if part.exhausted:
                    break
                after = part.items[-1].key
            assert dues(expected) == [item.key.due for item in found], number
            assert [gap.after for gap in gaps] == [gap.after for gap in expected.gaps], number

    def test_a_scan_whose_first_read_fails_raises_the_error(self):
        with pytest.raises(Passing, match="Too many open files"):
            scan(self.failing(1))

    @pytest.mark.parametrize("error", [StorageError("Not implemented: x"), Withheld("Input/output error")])
    def test_an_error_that_may_not_be_damage_skips_nothing(self, error):
        with pytest.raises(type(error), match=str(error)):
            scan(self.failing(1, error))


def test_withheld_rows_are_skipped_after_a_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(keyvalue, "monotonic", lambda: now[0])
    engine = Engine([1, 2, 3], {2}, error=Withheld)
    store = KeyValueStore(engine, durability=Durability.OS, encoding=Encoding.UNPACKED)

    def look(after):
        return store.scan(MAIL, after, items_max=MANY, bytes_max=MANY)

    first = look(LOWEST)
    assert (dues(first), first.exhausted, first.gaps) == ([1], False, [])
    after = first.items[-1].key
    for _ in range(2):
        with pytest.raises(Withheld):
            look(after)
        now[0] += keyvalue.WITHHELD_SECONDS - 1
    # A successful read in between ends the waiting time.
    engine.bad.clear()
    assert dues(look(after)) == [2, 3]
    engine.bad.add(2)
    with pytest.raises(Withheld):
        look(after)
    # A failure at another place starts a new waiting time.
    with pytest.raises(Withheld):
        look(just_before(2))
    now[0] += keyvalue.WITHHELD_SECONDS
    with pytest.raises(Withheld):
        look(after)
    now[0] += keyvalue.WITHHELD_SECONDS
    found = look(after)
    assert (dues(found), [gap.after for gap in found.gaps], found.exhausted) == ([3], [after], True)


def just_before(due):
    return Key(due - 1, b"\xff" * 16)


def test_without_descriptors_nothing_is_skipped_and_later_everything_is_read(tmp_path, make):
    """
    Large contents are in blob files, one for each flush.

    Of four tables the engine would make one.  Without a descriptor that fails, and with it the next commit.
    """
    path = tmp_path / "data"
    draw = random.Random(1)
    items = [make.item(due, draw.randbytes(20_000)) for due in range(1, 31)]
    store = open_store(path)
    store.commit([PutQueue(QueueRecord(MAIL, "mail", len(items), 0, LOWEST))], make.mark)
    for each in items:
        store.commit([PutItems(MAIL, [each])], make.mark)
        if each.key.due % 15 == 0:
            store.reclaim_space()
    store.close()
    store = open_store(path)
    assert len(list((path / "db").glob("*.sst"))) == 3
    first = scan_of_some(store)
    assert (first.gaps, first.exhausted) == ([], False)
    assert 0 < len(first.items) < len(items)
    with only(0):
        with pytest.raises(Passing, match="Too many open files"):
            store.scan(MAIL, first.items[-1].key, items_max=MANY, bytes_max=MANY)
        with pytest.raises(Passing):
            store.read(MAIL, [items[-1].key])
        # Writing the mark needs no descriptor.
        store.commit([PutItems(MAIL, [make.item(99)])], make.mark)
        store.note_synced()
    rest = store.scan(MAIL, first.items[-1].key, items_max=MANY, bytes_max=MANY)
    assert [item.contents for item in (*first.items, *rest.items)] == [*(item.contents for item in items), b""]
    assert rest.exhausted
    store.close()


def scan_of_some(store):
    """Scan with descriptors for one table and its blobs; a thread of another test's store may use one of them."""
    failures = []
    for descriptors in range(1, 5):
        try:
            with only(descriptors):
                return store.scan(MAIL, LOWEST, items_max=MANY, bytes_max=MANY)
        except Passing as why:
            failures.append(str(why))
    raise AssertionError(failures)


@contextmanager
def only(descriptors: int) -> Iterator[None]:
    """Allow this many more open files during the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The descriptor of the listing itself is closed when each is examined.
    used = {int(entry.name) for entry in list(Path("/proc/self/fd").iterdir()) if entry.is_symlink()}
    free = (number for number in itertools.count() if number not in used)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(itertools.islice(free, descriptors, None)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_scan_ends_before_damage_without_an_end_and_the_next_one_fails():
    engine = Engine([1, 2], set(), past_the_end=3)
    first = scan(engine)
    assert (dues(first), first.exhausted, first.gaps) == ([1, 2], False, [])
    with pytest.raises(StorageError, match="the disk is gone"):
        scan(engine, first.items[-1].key)


@pytest.mark.parametrize("good", [[], [1]])
def test_the_number_of_reads_is_bounded(good, monkeypatch):
    monkeypatch.setattr(scanning, "READS_MAX", 5)
    engine = Engine([*good, *range(2, 100)], set(), damaged=set(range(2, 99)))
    if good:
        found = scan(engine)
        assert (dues(found), found.exhausted, len(found.gaps)) == ([1], False, 4)
    else:
        with pytest.raises(StorageError, match="damaged row"):
            scan(engine)


def test_a_search_takes_some_hundred_reads():
    engine = Engine([1, 2**40], {1})
    assert dues(scan(engine)) == [2**40]
    assert engine.reads < 400


def test_a_damaged_value_hides_one_row(data):
    with open_database(data / "db") as db:
        rows = [row for row, _ in db.iterator(prefix=item_key(QueueNumber(1), LOWEST)[:5])]
        db.put(rows[2], b"?")
    store = open_store(data)
    found = store.scan(QueueNumber(1), LOWEST, items_max=MANY, bytes_max=MANY)
    (gap,) = found.gaps
    assert dues(found) == [decode_item_key(row).due for number, row in enumerate(rows) if number != 2]
    assert (gap.after, rows[2].hex() in str(gap.why)) == (decode_item_key(rows[1]), True)
    store.close()
    assert any(rows[2].hex() in each for each in verify(data).findings)

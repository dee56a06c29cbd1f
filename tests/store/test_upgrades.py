"""Data of older formats is converted once, whatever interrupts that."""

from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from rows_in_memory import RowsInMemory

from queueber.broker.model import LOWEST, Item, ItemId, Key, LeaseId, LeaseRecord, QueueNumber, QueueRecord
from queueber.broker.storage import PutItems, PutLease, PutQueue
from queueber.capnp.layout import earlier_layout
from queueber.errors import Passing, Stopping
from queueber.store import Encoding, open_store
from queueber.store.datadir.database import open_database
from queueber.store.rows import upgrades
from queueber.store.rows.keys import PLACES_TABLE, QUEUES_TABLE, item_key, queue_key
from queueber.store.rows.meta import Format, read_format, upgrade, write_format
from queueber.store.rows.records import encode_writes
from queueber.store.rows.side_records import decode_place
from queueber.store.rows.state_records import decode_queue
from queueber.store.rows.values import encode_row
from queueber.units import WallMs

MAIL, EMPTIED, OTHER = QueueNumber(1), QueueNumber(2), QueueNumber(7)


class DictEngine(RowsInMemory):
    """A key-value engine in a dictionary, which fails at the write or sync of that number."""

    def __init__(self, rows: dict[bytes, bytes], fails_at: int = 0) -> None:
        super().__init__(rows)
        self._fails_at = fails_at
        self._done = 0
        self._synced = True

    def _step(self) -> None:
        self._done += 1
        if self._done == self._fails_at:
            raise Killed

    def write_many(self, writes) -> int:
        self._step()
        assert self._synced, "a batch follows one that is not synced"
        self._synced = False
        return super().write_many(writes)

    def sync(self) -> None:
        self._step()
        self._synced = True


class Killed(BaseException):
    """The end of the process."""


def first_format(writes, mark) -> dict[bytes, bytes]:
    """Return the rows that format 1 has for *writes*."""
    rows = {key: value for key, value in encode_writes(writes, mark, Encoding.UNPACKED) if key[:1] != PLACES_TABLE}
    for write in writes:
        if isinstance(write, PutQueue):
            number, name, added, removed, floor, *_ = write.record
            fields = {"added": added, "removed": removed, "floor": floor.due.to_bytes(8, "big") + floor.id}
            struct = earlier_layout("QueueRecord", data_words=2).build(name=name.encode(), **fields)
            rows[queue_key(number)] = encode_row(queue_key(number), struct)
    return rows


@pytest.fixture
def old_rows(make) -> dict[bytes, bytes]:
    """The rows of three queues: with items at their ids' times and elsewhere, without items, and with one item."""
    mail = [
        *(make.item(due, bytes(due)) for due in range(1, 8)),
        make.item(20, b"moved"),
        *(make.item(due, b"moved", number=number) for due, number in ((2**48, 1), (2**63, 2))),
        make.item(30, b"later", number=31 << 80),
        make.item(40, b"later", number=41 << 80, attempts=2),
    ]
    writes = [
        PutItems(MAIL, mail),
        PutItems(OTHER, [make.item(9, b"x" * 100, number=9)]),
        PutQueue(QueueRecord(MAIL, "mail", 20, 8, make.key(0))),
        PutQueue(QueueRecord(EMPTIED, "emptied", 3, 3, make.key(5))),
        PutQueue(QueueRecord(OTHER, "other", 1, 0, LOWEST)),
        PutLease(LeaseId(b"L" * 16), LeaseRecord(MAIL, WallMs(99), (make.key(1),))),
    ]
    engine = DictEngine(first_format(writes, make.mark))
    write_format(engine, "", 1)
    return engine.rows


@pytest.fixture(autouse=True)
def small_slices(monkeypatch):
    monkeypatch.setattr(upgrades, "_ITEMS_AT_ONCE", 3)
    monkeypatch.setattr(upgrades, "_QUEUES_AT_ONCE", 2)


def convert(rows, **options) -> dict[bytes, bytes]:
    engine = DictEngine(rows, **options)
    upgrade(engine, read_format(engine))
    return engine.rows


def test_places_and_counters_are_written(old_rows):
    before = dict(old_rows)
    rows = convert(old_rows)
    queues = {
        row[1]: row for row in [decode_queue(key, value) for key, value in rows.items() if key[:1] == QUEUES_TABLE]
    }
    assert queues["mail"][5:] == (sum(range(8)) + 5 * 5, 0, 0, 4)
    assert queues["emptied"][5:] == (0, 0, 0, 0)
    assert queues["other"][5:] == (100, 0, 0, 1)
    places = [decode_place(key, value) for key, value in rows.items() if key[:1] == PLACES_TABLE]
    assert sorted((queue, key.due) for queue, key in places) == [
        (MAIL, 30),
        (MAIL, 40),
        (MAIL, 2**48),
        (MAIL, 2**63),
        (OTHER, 9),
    ]
    unchanged = {key: value for key, value in before.items() if key[:1] != QUEUES_TABLE and key != b"mformat"}
    assert unchanged.items() <= rows.items()
    assert read_format(DictEngine(rows)) == Format(2, "")


def test_a_conversion_that_is_killed_at_any_write_or_sync_is_begun_again(old_rows):
    wanted = convert(dict(old_rows))
    for fails_at in count(1):
        rows = dict(old_rows)
        try:
            convert(rows, fails_at=fails_at)
        except Killed:
            assert convert(rows) == wanted
        else:
            break
    assert fails_at > 10


def test_the_progress_counts_items_and_may_end_the_conversion(old_rows):
    seen = []
    upgrade(DictEngine(dict(old_rows)), Format(1, ""), lambda *progress: seen.append(progress))
    assert seen == [(3, 13), (6, 13), (9, 13), (12, 13), (13, 13)]

    def stop(done: int, total: int) -> None:
        raise Stopping("enough")

    with pytest.raises(Stopping):
        upgrade(DictEngine(old_rows), Format(1, ""), stop)
    assert read_format(DictEngine(old_rows)).version == 1


def test_damaged_items_are_skipped_and_other_errors_end_the_conversion(old_rows, make, monkeypatch):
    old_rows[item_key(MAIL, make.key(2))] += b"?"
    old_rows[item_key(OTHER, make.key(9, 9))] = b"?"
    rows = convert(dict(old_rows))
    queues = {
        row[1]: row for row in [decode_queue(key, value) for key, value in rows.items() if key[:1] == QUEUES_TABLE]
    }
    assert (queues["mail"].bytes, queues["mail"].off_time) == (sum(range(8)) + 5 * 5 - 2, 4)
    assert (queues["other"].bytes, queues["other"].off_time) == (0, 0)

    def fail(self):
        raise Passing("too many open files")

    monkeypatch.setattr(upgrades.Scanner, "scan", fail)
    with pytest.raises(Passing):
        convert(old_rows)


def large_directory(path: Path, items: int, mark) -> None:
    """Write a data directory of format 1 with so many items, of which every tenth is delayed."""
    open_store(path).close()
    with open_database(path / "db") as db:
        for first in range(0, items, 10_000):
            numbers = range(first, min(items, first + 10_000))
            dues = [1_000 + number // 100 + (10_000_000 if number % 10 == 0 else 0) for number in numbers]
            put = [
                Item(Key(WallMs(due), item_id(number)), b"contents", WallMs(5))
                for due, number in zip(dues, numbers, strict=True)
            ]
            db.write_many(list(first_format([PutItems(MAIL, put)], mark).items()))
        db.write_many(list(first_format([PutQueue(QueueRecord(MAIL, "mail", items, 0, LOWEST))], mark).items()))
        write_format(db, "", 1)


def item_id(number: int) -> ItemId:
    """Return an id of the millisecond 1,000, and of one more after every hundred items."""
    return ItemId((1_000 + number // 100).to_bytes(6, "big") + number.to_bytes(10, "big"))


@pytest.mark.parametrize("items", [30_000, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.untraced])])
def test_a_large_directory_is_converted_in_a_few_batches(tmp_path, make, monkeypatch, items):
    monkeypatch.undo()
    large_directory(tmp_path / "data", items, make.mark)
    seen = []
    with closing(open_store(tmp_path / "data", upgrading=lambda *progress: seen.append(progress))) as store:
        (record,) = store.recover().queues
        wanted = [item_id(number) for number in (0, 7, 10, items - 1)]
        found = store.find([MAIL], wanted)
    assert (record.bytes, record.off_time) == (8 * items, items // 10)
    assert [each.item.key.id for each in found] == wanted
    assert seen[-1] == (items, items)
    assert len(seen) == items // 10_000

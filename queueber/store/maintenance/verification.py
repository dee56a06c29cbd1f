"""
Whether a data directory holds what it should: every row, and what must be true of all together.

The rules, beside that every row can be read and is as it was written:

1. the end of the log is not before what was known to be on disk;
2. a queue's name is its own, and its counters say how many items it has;
3. an item belongs to a queue that exists, and no other item has its id;
4. an item is held by one lease at most.  A lease may name items that are gone: they were removed;
5. an item at or below its queue's floor is leased.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from attrs import define, field

from queueber.broker.model import Key, LeaseRecord, QueueNumber, QueueRecord
from queueber.errors import Passing, QueueberError, StorageError
from queueber.limits import ID_BYTES, QUEUE_NAME_BYTES_MAX
from queueber.plyvel import prefix_successor
from queueber.store.datadir.directory import DATABASE, SYNCED, locked_shared
from queueber.store.datadir.synced import SyncedFile
from queueber.store.maintenance.copying import Progress, silent, viewing
from queueber.store.rows.engine_port import KeyValue
from queueber.store.rows.format import FORMAT, read_format
from queueber.store.rows.keys import CLEAN_KEY, FORMAT_KEY, ITEMS, LEASES, META, QUEUES, TABLES, TIME_KEY, lease_id
from queueber.store.rows.records import (
    decode_item,
    decode_lease,
    decode_queue,
    decode_sequence,
    decode_time,
)
from queueber.units import counted

FINDINGS_MAX: Final = 1_000
"""So many are kept, the rest only counted."""

_PROGRESS_ROWS: Final = 1_000
# Ids looked at together in one pass over the keys, so that their number does not decide about memory.
_IDS_AT_ONCE: Final = 2_000_000
_PASSES_MAX: Final = 256
_QUEUE_BYTES: Final = 4


@define
class Verified:
    """What was found."""

    findings: list[str] = field(factory=list)
    """What is wrong, a line each, naming table and key; the first thousand of them."""

    more: int = 0
    """Findings beyond those."""

    items: int = 0
    leases: int = 0
    queues: int = 0
    as_of: int | None = None
    """Queue time of the last commit."""

    def found(self, what: str) -> None:
        """Something is wrong."""
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(what)
        else:
            self.more += 1


def verify(path: Path, progress: Progress = silent) -> Verified:
    """
    Look at every row of the data directory *path*, which no server may hold; nothing in it is changed.

    Raises:
        StorageError: it cannot be opened at all; the text says why, in one line.
        Passing: a read failed for a reason that is not damage, so nothing can be said about the rest.
    """
    with locked_shared(path), viewing(path) as db:
        noted, reached = SyncedFile(path / SYNCED).read(), db.sequence()
        result = verify_rows(db, progress)
        # The engine was shown links, and names those.
        result.findings = [each.replace(str(db.name), str(path / DATABASE)) for each in result.findings]
        if noted is not None and reached < noted:
            result.found(f"acknowledged writes are missing: the log ends at {reached:,}, and {noted:,} was on disk")
        return result


def verify_rows(db: KeyValue, progress: Progress = silent, *, ids_at_once: int = _IDS_AT_ONCE) -> Verified:
    """The same for the rows of *db*; *progress* counts items."""
    return _Walk(db, progress, ids_at_once).result


class _Walk:
    """One look at everything."""

    def __init__(self, db: KeyValue, progress: Progress, ids_at_once: int) -> None:
        self._db = db
        self._progress = progress
        self.result = Verified()
        self._queues: dict[QueueNumber, QueueRecord] = {}
        self._leased: dict[QueueNumber, set[Key]] = {}
        self._whole = True
        """All tables could be read to their end."""

        self._check_meta()
        self._check_strangers()
        self._check_queues()
        self._check_leases()
        self._check_items()
        if self._whole:
            self._check_ids(ids_at_once)

    @contextmanager
    def _finding(self, row: bytes) -> Iterator[None]:
        """What cannot be read in *row* is a finding."""
        try:
            yield
        except Passing:
            raise
        except (QueueberError, ValueError) as error:
            text = str(error)
            self.result.found(text if row.hex() in text else f"{_name(row)}: {text}")

    def _rows(
        self, table: bytes | None = None, *, start: bytes | None = None, stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """The rows of a table, or between two, up to one that the engine cannot read."""
        last = table or start or b""
        try:
            with self._db.iterator(prefix=table, start=start, stop=stop) as rows:
                for row, value in rows:
                    last = row
                    yield row, value
        except Passing:
            raise
        except StorageError as error:
            self._whole = False
            self.result.found(f"{_name(last)}: nothing behind it can be read: {error}")

    def _check_meta(self) -> None:
        with self._finding(FORMAT_KEY):
            found = read_format(self._db)
            if found is None:
                raise StorageError("the database does not say of which format it is")
            if found.version > FORMAT:
                raise StorageError(f"the data is of format {found.version}; this Queueber knows up to {FORMAT}")
        for row, value in self._rows(META):
            with self._finding(row):
                if row == TIME_KEY:
                    self.result.as_of = decode_time(row, value).queue_time
                elif row == CLEAN_KEY:
                    decode_sequence(row, value)
                elif row != FORMAT_KEY:
                    raise StorageError("nobody has written that")

    def _check_strangers(self) -> None:
        """Rows outside of all tables."""
        start: bytes | None = None
        for table in [*sorted(TABLES), None]:
            for row, _ in self._rows(start=start, stop=table):
                self.result.found(f"{_name(row)}: nobody has written that")
            start = prefix_successor(table) if table else None

    def _check_queues(self) -> None:
        names: set[str] = set()
        for row, value in self._rows(QUEUES):
            self.result.queues += 1
            with self._finding(row):
                record = decode_queue(row, value)
                self._queues[record.number] = record
                if not 1 <= len(record.name.encode()) <= QUEUE_NAME_BYTES_MAX:
                    raise StorageError(f"its name is {len(record.name.encode())} bytes")
                if record.name in names:
                    raise StorageError(f"another queue is named {record.name!r} too")
                names.add(record.name)
                if record.removed > record.added:
                    raise StorageError(
                        f"{counted(record.removed, 'item was', 'items were')} removed, and {record.added:,} added"
                    )

    def _check_leases(self) -> None:
        for row, value in self._rows(LEASES):
            self.result.leases += 1
            with self._finding(row):
                lease_id(row)
                self._check_lease(decode_lease(row, value))

    def _check_lease(self, record: LeaseRecord) -> None:
        if record.queue not in self._queues:
            raise StorageError(f"it is on items of queue {record.queue}, which does not exist")
        named = self._leased.setdefault(record.queue, set())
        before = len(named)
        # Removed items too: a key that an item has left is never anybody's again.
        named.update(record.keys)
        twice = before + len(record.keys) - len(named)
        if twice:
            raise StorageError(f"{twice} of its items are held twice")

    def _check_items(self) -> None:
        expected = sum(record.added - record.removed for record in self._queues.values())
        counts: Counter[QueueNumber] = Counter()
        for row, value in self._rows(ITEMS):
            self.result.items += 1
            queue = QueueNumber(int.from_bytes(row[len(ITEMS) :][:_QUEUE_BYTES], "big"))
            counts[queue] += 1
            with self._finding(row):
                self._check_place(queue, decode_item(row, value).key)
            if self.result.items % _PROGRESS_ROWS == 0:
                self._progress(self.result.items, max(expected, self.result.items))
        self._progress(self.result.items, self.result.items)
        for number, record in self._queues.items():
            if self._whole and counts[number] != record.added - record.removed:
                self.result.found(
                    f"queue {record.name!r} counts {counted(record.added - record.removed, 'item')}"
                    f" and has {counts[number]:,}"
                )

    def _check_place(self, queue: QueueNumber, key: Key) -> None:
        record = self._queues.get(queue)
        if record is None:
            raise StorageError(f"it belongs to queue {queue}, which does not exist")
        if key <= record.floor and key not in self._leased.get(queue, ()):
            raise StorageError("it lies at or below its queue's floor and is not leased: it would never be handed out")

    def _check_ids(self, at_once: int) -> None:
        """Look for ids that two items have, a part of all ids at a time."""
        passes = min(_PASSES_MAX, -(-self.result.items // at_once))
        for turn in range(passes):
            seen: set[bytes] = set()
            with self._db.iterator(prefix=ITEMS, include_value=False) as rows:
                for row in rows:
                    item = row[-ID_BYTES:]
                    if item[-1] % passes == turn:
                        if item in seen:
                            self.result.found(f"{_name(row)}: another item has the same id")
                        seen.add(item)


def _name(row: bytes) -> str:
    return f"row in table {TABLES.get(row[:1], 'unknown')}, key {row.hex()}"

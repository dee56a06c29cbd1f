"""
Verification of a data directory: that each row is readable, and that all rows are consistent.

The rules for all rows together are:

1. The log reaches the sequence number that was known to be on disk.
2. A queue's name is unique, and its counters match its items, with those that are leased under a retired number of
   it.  Only the queue of its dead items has the same name.
3. An item belongs to a queue that exists or to a retired number, and its id is unique.
4. An item is held by at most one lease.  A lease may name items that do not exist: they were removed.
5. An item at or below its queue's floor is leased.
6. An item whose due is not the time in its id has a place, and no other item has one.
7. Settings belong to a queue that exists, and retired numbers are below the next one.
8. A deduplication record is in the index of ends.

Rows of format 1 have no places and no exact counters, so what these say is verified from format 2 on.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from attrs import define, field

from queueber.broker.model import NO_QUEUE, Key, LeaseRecord, QueueNumber, QueueRecord, off_time
from queueber.broker.storage import Ended
from queueber.errors import Passing, QueueberError, StorageError
from queueber.fixed_limits import ID_BYTES, QUEUE_NAME_BYTES_MAX
from queueber.plyvel import prefix_successor
from queueber.store.datadir.copying import ProgressCallback, no_progress, read_only_view
from queueber.store.datadir.directory import DATABASE, SYNCED, locked_shared
from queueber.store.datadir.synced import SyncedFile
from queueber.store.maintenance.places import PlaceCheck
from queueber.store.rows.engine_port import KeyValueEngine
from queueber.store.rows.keys import (
    CLEAN_KEY,
    DEDUP_TABLE,
    ENDS_TABLE,
    FORMAT_KEY,
    ITEMS_TABLE,
    LEASES_TABLE,
    META_TABLE,
    NUMBERS_KEY,
    PLACES_TABLE,
    QUEUES_TABLE,
    REQUESTS_TABLE,
    RETIRED_TABLE,
    SETTINGS_TABLE,
    TABLES,
    TIME_KEY,
    decode_dedup_key,
    decode_item_key,
    decode_lease_key,
    decode_queue_key,
    decode_request_key,
    end_key,
)
from queueber.store.rows.meta import FORMAT, read_format
from queueber.store.rows.records import (
    decode_item,
    decode_sync_mark,
    decode_time,
)
from queueber.store.rows.side_records import (
    decode_dedup,
    decode_end,
    decode_numbers,
    decode_retired,
    decode_settings,
)
from queueber.store.rows.state_records import decode_lease, decode_queue
from queueber.units import counted

FINDINGS_MAX: Final = 1_000
"""Findings that are kept; more are only counted."""

_PROGRESS_ROWS: Final = 1_000
# Ids that one pass over the keys compares, so that memory is bounded whatever the number of items.
_IDS_AT_ONCE: Final = 2_000_000
_PASSES_MAX: Final = 256
_QUEUE_BYTES: Final = 4


@define
class Verified:
    """The result of a verification."""

    findings: list[str] = field(factory=list)
    """Errors, a line each with table and key; at most `FINDINGS_MAX`."""

    more: int = 0
    """Number of further findings."""

    items: int = 0
    leases: int = 0
    queues: int = 0
    as_of: int | None = None
    """Queue time of the last commit."""

    def add(self, what: str) -> None:
        """Add a finding."""
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(what)
        else:
            self.more += 1


def verify(path: Path, progress: ProgressCallback = no_progress) -> Verified:
    """
    Verify every row of the data directory *path*, which no server may use.  Nothing is changed.

    Raises:
        StorageError: the database cannot be opened; the text is one line with the reason.
        Passing: a read failed for a reason other than damage, so the rest is unknown.
    """
    with locked_shared(path), read_only_view(path) as db:
        noted, reached = SyncedFile(path / SYNCED).read(), db.sequence()
        result = verify_rows(db, progress)
        # RocksDB's errors name the links through which it was opened.
        result.findings = [each.replace(str(db.name), str(path / DATABASE)) for each in result.findings]
        if noted is not None and reached < noted:
            result.add(f"acknowledged writes are missing: the log ends at {reached:,}, and {noted:,} was on disk")
        return result


def verify_rows(
    db: KeyValueEngine, progress: ProgressCallback = no_progress, *, ids_at_once: int = _IDS_AT_ONCE
) -> Verified:
    """Verify every row of *db*, without its log; *progress* counts items."""
    return _Verification(db, progress, ids_at_once).result


class _Verification:
    """One pass over all tables."""

    def __init__(self, db: KeyValueEngine, progress: ProgressCallback, ids_at_once: int) -> None:
        self._db = db
        self._progress = progress
        self.result = Verified()
        self._queues: dict[QueueNumber, QueueRecord] = {}
        self._leased: dict[QueueNumber, set[Key]] = {}
        self._retired: dict[QueueNumber, QueueNumber] = {}
        """The number of the queue to which leased items of a retired number return; 0 if it was deleted."""

        self._complete = True
        """Whether all tables could be read to their end."""

        self._next_number = QueueNumber(1)
        self._counted = False
        """Whether the rows are of a format with places and exact counters."""

        self._check_meta()
        self._check_foreign_rows()
        self._check_queues()
        self._check_settings_and_numbers()
        self._check_leases()
        self._check_items()
        self._check_deduplication()
        if self._complete:
            self._check_ids(ids_at_once)

    @contextmanager
    def _reporting(self, row_key: bytes) -> Iterator[None]:
        """Add an error of the block as a finding about the row at *row_key*."""
        try:
            yield
        except (QueueberError, ValueError) as error:
            self._report(row_key, error)

    def _report(self, row_key: bytes, error: Exception) -> None:
        """Add *error* as a finding about the row at *row_key*; raise it if it is `Passing`."""
        if isinstance(error, Passing):
            raise error
        text = str(error)
        self.result.add(text if row_key.hex() in text else f"{_name(row_key)}: {text}")

    def _rows(
        self, table: bytes | None = None, *, start: bytes | None = None, stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Return the rows of *table*, or from *start* to *stop*, up to the first that the engine cannot read."""
        last = table or start or b""
        try:
            with self._db.iterator(prefix=table, start=start, stop=stop) as rows:
                for row_key, value in rows:
                    last = row_key
                    yield row_key, value
        except Passing:
            raise
        except StorageError as error:
            self._complete = False
            self.result.add(f"{_name(last)}: nothing after it can be read: {error}")

    def _check_meta(self) -> None:
        with self._reporting(FORMAT_KEY):
            found = read_format(self._db)
            if found is None:
                raise StorageError("the database has no format version")
            if found.version > FORMAT:
                raise StorageError(f"the data is of format {found.version}; this Queueber knows up to {FORMAT}")
            self._counted = found.version > 1
        for row_key, value in self._rows(META_TABLE):
            with self._reporting(row_key):
                if row_key == TIME_KEY:
                    self.result.as_of = decode_time(row_key, value).queue_time
                elif row_key == CLEAN_KEY:
                    decode_sync_mark(row_key, value)
                elif row_key == NUMBERS_KEY:
                    self._next_number = decode_numbers(row_key, value)
                elif row_key != FORMAT_KEY:
                    raise StorageError("Queueber does not write this row")

    def _check_foreign_rows(self) -> None:
        """Report rows outside of all tables."""
        start: bytes | None = None
        for table in [*sorted(TABLES), None]:
            for row_key, _ in self._rows(start=start, stop=table):
                self.result.add(f"{_name(row_key)}: Queueber does not write this row")
            start = prefix_successor(table) if table else None

    def _check_queues(self) -> None:
        names: set[tuple[str, bool]] = set()
        ids: set[tuple[QueueNumber, bool]] = set()
        for row_key, value in self._rows(QUEUES_TABLE):
            self.result.queues += 1
            with self._reporting(row_key):
                record = decode_queue(row_key, value)
                self._queues[record.number] = record
                if not 1 <= len(record.name.encode()) <= QUEUE_NAME_BYTES_MAX:
                    raise StorageError(f"its name is {len(record.name.encode())} bytes")
                dead = record.dead_of != NO_QUEUE
                if (record.name, dead) in names:
                    raise StorageError(f"another queue is named {record.name!r} too")
                names.add((record.name, dead))
                own = record.dead_of or record.id or record.number, dead
                if own in ids:
                    raise StorageError(f"another queue has the id {own[0]} too")
                ids.add(own)
                if record.removed > record.added:
                    raise StorageError(
                        f"{counted(record.removed, 'item was', 'items were')} removed, and {record.added:,} added"
                    )

    def _check_leases(self) -> None:
        for row_key, value in self._rows(LEASES_TABLE):
            self.result.leases += 1
            with self._reporting(row_key):
                decode_lease_key(row_key)
                self._check_lease(decode_lease(row_key, value))

    def _check_settings_and_numbers(self) -> None:
        ids = {record.id or record.number: number for number, record in self._queues.items()}
        for row_key, value in self._rows(SETTINGS_TABLE):
            with self._reporting(row_key):
                decode_settings(row_key, value)
                queue = decode_queue_key(row_key)
                if queue not in ids:
                    raise StorageError(f"it belongs to a queue with the id {queue}, which does not exist")
        for row_key, value in self._rows(RETIRED_TABLE):
            with self._reporting(row_key):
                number = decode_queue_key(row_key)
                self._retired[number] = ids.get(decode_retired(row_key, value), NO_QUEUE)
                if number >= self._next_number:
                    raise StorageError(f"its number is not below {self._next_number}, the next one for a queue")

    def _check_lease(self, record: LeaseRecord) -> None:
        if record.queue not in self._queues and record.queue not in self._retired:
            raise StorageError(f"it is on items of queue {record.queue}, which does not exist")
        named = self._leased.setdefault(record.queue, set())
        before = len(named)
        # Also keys of removed items: no other item ever gets the same key.
        named.update(record.keys)
        twice = before + len(record.keys) - len(named)
        if twice:
            raise StorageError(f"{twice} of its items are held more than once")

    def _check_items(self) -> None:
        expected = sum(record.added - record.removed for record in self._queues.values())
        counts: defaultdict[QueueNumber, list[int]] = defaultdict(lambda: [0, 0, 0])
        places = PlaceCheck(self._db, self.result.add)
        for row_key, value in self._rows(ITEMS_TABLE):
            self.result.items += 1
            queue = QueueNumber(int.from_bytes(row_key[len(ITEMS_TABLE) :][:_QUEUE_BYTES], "big"))
            count = counts[self._owner(queue, row_key) if queue in self._retired else queue]
            count[0] += 1
            try:  # `_reporting` costs a microsecond
                item = decode_item(row_key, value)
                count[1] += len(item.contents)
                if off_time(item.key):
                    count[2] += 1
                    if self._counted:
                        places.expect(queue, item.key)
                self._check_place(queue, item.key)
            except (QueueberError, ValueError) as error:
                self._report(row_key, error)
            if self.result.items % _PROGRESS_ROWS == 0:
                self._progress(self.result.items, max(expected, self.result.items))
        self._progress(self.result.items, self.result.items)
        places.finish()
        for row_key, value in self._rows(PLACES_TABLE):
            with self._reporting(row_key):
                places.check_row(row_key, value)
        places.finish()
        if self._complete:
            self._check_counters(counts)

    def _owner(self, number: QueueNumber, row_key: bytes) -> QueueNumber:
        """Return the queue that counts an item of the retired *number*; 0 if none does, because it is not leased."""
        with suppress(StorageError):
            if decode_item_key(row_key) in self._leased.get(number, ()):
                return self._retired[number]
        return NO_QUEUE

    def _check_counters(self, counts: Mapping[QueueNumber, Sequence[int]]) -> None:
        """Compare the counters of all queues with their items: number, length of contents, and those off their time."""
        for number, record in self._queues.items():
            items, size, moved = counts[number]
            if items != record.added - record.removed:
                self.result.add(
                    f"queue {record.name!r} counts {counted(record.added - record.removed, 'item')} and has {items:,}"
                )
            elif self._counted and size != record.bytes:
                self.result.add(f"queue {record.name!r} counts {counted(record.bytes, 'byte')} and has {size:,}")
            elif self._counted and moved != record.off_time:
                self.result.add(
                    f"queue {record.name!r} counts {counted(record.off_time, 'item')} off their ids' time"
                    f" and has {moved:,}"
                )

    def _check_deduplication(self) -> None:
        for table in (DEDUP_TABLE, REQUESTS_TABLE):
            for row_key, value in self._rows(table):
                with self._reporting(row_key):
                    queue, key = (
                        decode_dedup_key(row_key) if table == DEDUP_TABLE else (NO_QUEUE, decode_request_key(row_key))
                    )
                    record = decode_dedup(row_key, value)
                    if self._db.get(end_key(Ended(record.indexed_at, queue, key))) is None:
                        raise StorageError("it is not in the index of ends, so it would stay for ever")
        for row_key, value in self._rows(ENDS_TABLE):
            with self._reporting(row_key):
                decode_end(row_key, value)

    def _check_place(self, queue: QueueNumber, key: Key) -> None:
        record = self._queues.get(queue)
        if record is None and queue in self._retired:
            return
        if record is None:
            raise StorageError(f"it belongs to queue {queue}, which does not exist")
        if key <= record.floor and key not in self._leased.get(queue, ()):
            raise StorageError("it lies at or below its queue's floor and is not leased: it would never be delivered")

    def _check_ids(self, at_once: int) -> None:
        """Report ids that two items have, in several passes over a part of all ids each."""
        passes = min(_PASSES_MAX, -(-self.result.items // at_once))
        for turn in range(passes):
            seen: set[bytes] = set()
            with self._db.iterator(prefix=ITEMS_TABLE, include_value=False) as rows:
                for row_key in rows:
                    item = row_key[-ID_BYTES:]
                    if item[-1] % passes == turn:
                        if item in seen:
                            self.result.add(f"{_name(row_key)}: another item has the same id")
                        seen.add(item)


def _name(row_key: bytes) -> str:
    return f"row in table {TABLES.get(row_key[:1], 'unknown')}, key {row_key.hex()}"

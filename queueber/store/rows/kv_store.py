"""The broker's storage port, implemented on any ordered key-value engine."""

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from itertools import islice, repeat
from time import monotonic
from typing import Final

from queueber.broker.model import Item, ItemId, Key, LeaseId, LeaseRecord, QueueNumber, TimeMark
from queueber.broker.storage import (
    DedupRecord,
    Digest,
    Ended,
    Found,
    Recovered,
    RequestId,
    Scan,
    StoreStalled,
    Write,
)
from queueber.errors import Damaged, Stalled, Stopping, Withheld
from queueber.store.rows.engine_port import KeyValueEngine
from queueber.store.rows.keys import (
    ENDS_TABLE,
    LEASES_TABLE,
    NUMBERS_KEY,
    QUEUES_TABLE,
    RETIRED_TABLE,
    SETTINGS_TABLE,
    TIME_KEY,
    decode_item_key,
    decode_lease_key,
    decode_queue_key,
    dedup_key,
    ends_after,
    item_key,
    items_end,
    place_key,
    record_key,
    request_key,
    time_of,
)
from queueber.store.rows.records import decode_item, decode_time, encode_writes
from queueber.store.rows.scanning import Scanner
from queueber.store.rows.side_records import (
    decode_dedup,
    decode_end,
    decode_numbers,
    decode_place,
    decode_retired,
    decode_settings,
)
from queueber.store.rows.state_records import decode_lease, decode_queue
from queueber.store.rows.values import Encoding
from queueber.units import MIB, WallMs


class Durability(StrEnum):
    """Failures that a returned commit survives."""

    FSYNC = "fsync"
    """A power cut."""

    OS = "os"
    """The end of the process, but not of the machine."""

    NONE = "none"
    """None: only a clean stop keeps the data."""


WITHHELD_SECONDS: Final = 60.0
"""Time for which a block that the disk does not return, or a missing file, may come back.  Later it is damage."""

# Number of leased items that recovery looks up at once.  Their contents are read too, so the number adapts to their
# size.  It grows slowly, so that contents that become larger do not fill the memory.
_LOOKUP_ROWS_MIN: Final = 8
_LOOKUP_ROWS_MAX: Final = 512
_LOOKUP_BYTES: Final = 4 * MIB


class KeyValueStore:
    """
    A `queueber.broker.storage.Store` on *db*, which it closes.

    Each commit is one batch.  The batch is written first and synced in a step
    of its own, because the write holds the GIL and the sync, which takes far
    longer, does not.
    """

    def __init__(
        self,
        db: KeyValueEngine,
        *,
        durability: Durability,
        encoding: Encoding,
        on_sync: Callable[[float], object] | None = None,
    ) -> None:
        """Store rows in *db*; *on_sync* is called with the seconds that each sync took, on the thread that made it."""
        self._db = db
        self._encoding = encoding
        self._sync = durability is Durability.FSYNC
        self._synced_sequence = 0
        self._on_sync = on_sync
        self.recovered_leases = 0
        """Number of leases that `recover` has read so far.  Other threads may read it."""

        self._cancelled = False
        self._withheld: dict[QueueNumber, tuple[Key, float]] = {}
        """Key after which scans of a queue fail because the disk withholds rows, and time of the first failure."""

    @property
    def synced_sequence(self) -> int:
        """The engine's sequence number after the last synced commit; 0 before the first."""
        return self._synced_sequence

    def recover(self) -> Recovered:
        """
        Read the state from which a broker starts.

        Raises:
            StorageError: a row cannot be read; the text names it.
            Stopping: `cancel_recovery` was called.
        """
        with self._db.iterator(prefix=QUEUES_TABLE) as rows:
            queues = [decode_queue(row_key, value) for row_key, value in rows]
        with self._db.iterator(prefix=LEASES_TABLE) as rows:
            records: list[tuple[LeaseId, LeaseRecord]] = []
            for row_key, value in rows:
                records.append((decode_lease_key(row_key), decode_lease(row_key, value)))
                self.recovered_leases += 1
                self._check_cancelled()
        with self._db.iterator(prefix=SETTINGS_TABLE) as rows:
            settings = {decode_queue_key(row_key): decode_settings(row_key, value) for row_key, value in rows}
        with self._db.iterator(prefix=RETIRED_TABLE) as rows:
            retired = {decode_queue_key(row_key): decode_retired(row_key, value) for row_key, value in rows}
        mark, numbers = self._db.get_many([TIME_KEY, NUMBERS_KEY])
        return Recovered(
            queues=queues,
            leases=dict(self._with_existing_items(records)),
            mark=None if mark is None else decode_time(TIME_KEY, mark),
            settings=settings,
            retired=retired,
            next_number=QueueNumber(1) if numbers is None else decode_numbers(NUMBERS_KEY, numbers),
        )

    def cancel_recovery(self) -> None:
        """Make a `recover` in another thread raise `Stopping` soon."""
        self._cancelled = True

    def _check_cancelled(self) -> None:
        if self._cancelled:
            raise Stopping("the server is stopping")

    def _with_existing_items(
        self, records: Sequence[tuple[LeaseId, LeaseRecord]]
    ) -> Iterator[tuple[LeaseId, LeaseRecord]]:
        """Return the leases in *records*, each with those of its items that still exist."""
        # The keys of all leases first, so that items of many leases are looked up together.
        rows = iter(
            [
                (item_key(record.queue, key), size)
                for _, record in records
                for key, size in zip(record.keys, record.sizes or repeat(None), strict=False)
            ]
        )
        sizes = iter(list(self._sizes(rows)))
        for lease, record in records:
            found = [(key, size) for key, size in zip(record.keys, sizes, strict=False) if size is not None]
            keys, existing = tuple(key for key, _ in found), tuple(size for _, size in found)
            yield lease, record._replace(keys=keys, sizes=existing)

    def _sizes(self, rows: Iterator[tuple[bytes, int | None]]) -> Iterator[int | None]:
        """
        Return the length of contents for each of *rows*, None for a row that does not exist.

        *rows* are keys of items with the length if it is known.
        """
        count = _LOOKUP_ROWS_MIN
        while some := list(islice(rows, count)):
            self._check_cancelled()
            values = self._db.get_many([row_key for row_key, _ in some])
            for (row_key, known), value in zip(some, values, strict=True):
                yield None if value is None else _contents_size(row_key, value) if known is None else known
            size = sum(len(value) for value in values if value is not None)
            count = min(2 * count, _LOOKUP_ROWS_MAX, max(1, count * _LOOKUP_BYTES // max(1, size)))

    def commit(self, writes: Sequence[Write], mark: TimeMark) -> None:
        """Apply *writes* atomically, with the durability that the store was opened with."""
        rows = encode_writes(writes, mark, self._encoding)
        try:
            sequence = self._db.write_many(rows)
        except Stalled as stalled:
            raise StoreStalled(str(stalled)) from stalled
        if self._sync:
            began = monotonic()
            self._db.sync()
            self._synced_sequence = sequence
            if self._on_sync is not None:
                self._on_sync(monotonic() - began)

    def scan(self, queue: QueueNumber, after: Key, *, items_max: int, bytes_max: int) -> Scan:
        """Return the rows of *queue* above *after*, reading at most one row more than is returned."""
        try:
            found = Scanner(self._db, queue, after, items_max, bytes_max).scan()
        except Withheld:
            withheld_after, since = self._withheld.get(queue, (None, 0.0))
            if withheld_after != after:
                self._withheld[queue] = (after, monotonic())
                raise
            if monotonic() - since < WITHHELD_SECONDS:
                raise
            return Scanner(self._db, queue, after, items_max, bytes_max, withheld_is_damage=True).scan()
        self._withheld.pop(queue, None)
        return found

    def read(self, queue: QueueNumber, keys: Sequence[Key]) -> list[Item | None]:
        """Return the items at *keys* in the same order, None where there is no row."""
        row_keys = [item_key(queue, key) for key in keys]
        return [
            None if value is None else decode_item(row_key, value)
            for row_key, value in zip(row_keys, self._db.get_many(row_keys), strict=True)
        ]

    def keys(self, queue: QueueNumber, after: Key, *, items_max: int) -> Sequence[Key]:
        """Return up to *items_max* keys of rows of *queue* above *after*."""
        start, stop = item_key(queue, after), items_end(queue)
        with self._db.iterator(start=start, stop=stop, include_start=False, include_value=False) as rows:
            return [decode_item_key(row_key) for row_key in islice(rows, items_max)]

    def find(self, queues: Sequence[QueueNumber], ids: Sequence[ItemId]) -> list[Found | None]:
        """Return the items with these ids, in that order; None for one that is in none of *queues*."""
        place_keys = [place_key(item) for item in ids]
        row_keys: list[bytes] = []
        owners: list[tuple[int, QueueNumber]] = []
        for index, (place, value) in enumerate(zip(place_keys, self._db.get_many(place_keys), strict=True)):
            if value is None:
                key = Key(time_of(ids[index]), ids[index])
                candidates = [(queue, key) for queue in queues]
            else:
                candidates = [found for found in [decode_place(place, value)] if found[0] in queues]
            owners += [(index, queue) for queue, _ in candidates]
            row_keys += [item_key(queue, key) for queue, key in candidates]
        result: list[Found | None] = [None] * len(ids)
        for (index, queue), row_key, value in zip(owners, row_keys, self._db.get_many(row_keys), strict=True):
            if value is not None:
                result[index] = Found(queue, decode_item(row_key, value))
        return result

    def dedup(self, queue: QueueNumber, digests: Sequence[Digest]) -> list[DedupRecord | None]:
        """Return the records of deduplication keys, in that order."""
        return self._dedup_records([dedup_key(queue, digest) for digest in digests])

    def requests(self, ids: Sequence[RequestId]) -> list[DedupRecord | None]:
        """Return the records of request ids, in that order."""
        return self._dedup_records([request_key(request) for request in ids])

    def ended(self, now: WallMs, *, entries_max: int) -> Sequence[tuple[Ended, DedupRecord | None]]:
        """Return the first entries of the index whose ends are not after *now*, each with its record."""
        with self._db.iterator(start=ENDS_TABLE, stop=ends_after(now)) as rows:
            entries = [decode_end(row_key, value) for row_key, value in islice(rows, entries_max)]
        return list(zip(entries, self._dedup_records([record_key(entry) for entry in entries]), strict=True))

    def _dedup_records(self, row_keys: list[bytes]) -> list[DedupRecord | None]:
        return [
            None if value is None else decode_dedup(row_key, value)
            for row_key, value in zip(row_keys, self._db.get_many(row_keys), strict=True)
        ]

    def close(self) -> None:
        """Sync all writes, and close the database."""
        self._db.sync()
        self._db.close()


def _contents_size(row_key: bytes, value: bytes) -> int:
    """Return the length of the contents of an item; 0 if its row is damaged, which a later read reports."""
    try:
        return len(decode_item(row_key, value).contents)
    except Damaged:
        return 0

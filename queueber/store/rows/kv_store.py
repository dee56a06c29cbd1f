"""The broker's port on top of any ordered map from bytes to bytes."""

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from itertools import compress, islice
from time import monotonic
from typing import Final

from queueber.broker.model import Item, Key, LeaseId, LeaseRecord, QueueNumber, TimeMark
from queueber.broker.storage import Recovered, RecoveredLease, Scan, StoreStalled, Write
from queueber.errors import Stopping, Withheld
from queueber.plyvel.errors import Stalled
from queueber.store.rows.engine_port import KeyValue
from queueber.store.rows.keys import LEASES, QUEUES, TIME_KEY, item_key, lease_id
from queueber.store.rows.records import Encoding, decode_item, decode_lease, decode_queue, decode_time, encode_writes
from queueber.store.rows.scanning import Scanner
from queueber.units import MIB


class Durability(StrEnum):
    """What a commit that has returned survives."""

    FSYNC = "fsync"
    """A power cut."""

    OS = "os"
    """The end of the process, but not of the machine."""

    NONE = "none"
    """Nothing but a clean stop."""


WITHHELD_SECONDS: Final = 60.0
"""A disk that has not returned a block for so long, or has had no file, is damaged.  Until then it may recover."""

# Rows read at a time to find out which of the leased items are there.  Their contents come along, so the number adapts
# to what they weigh; it grows slowly, in order that one turn from small to large contents does not fill the memory.
_CHECK_ROWS_MIN: Final = 8
_CHECK_ROWS_MAX: Final = 512
_CHECK_BYTES: Final = 4 * MIB


def _ignore(_: float) -> None:
    """Do nothing."""


class KeyValueStore:
    """
    A `queueber.broker.storage.Store` on *db*, which it closes.

    Each commit is one batch.  The batch is written first and synced in a step
    of its own, because the write holds the GIL and the sync, which takes far
    longer, does not.
    """

    def __init__(
        self,
        db: KeyValue,
        *,
        durability: Durability,
        encoding: Encoding,
        on_sync: Callable[[float], object] = _ignore,
    ) -> None:
        """Store rows in *db*; *on_sync* is called with the seconds that each sync took, on the thread that made it."""
        self._db = db
        self._encoding = encoding
        self._sync = durability is Durability.FSYNC
        self._synced_sequence = 0
        self._on_sync = on_sync
        self.recovered_leases = 0
        """Leases that `recover` has read so far; may be looked at from another thread meanwhile."""

        self._given_up = False
        self._withheld: dict[QueueNumber, tuple[Key, float]] = {}
        """Where scans of a queue have failed since when, because the disk withholds the rows that are next."""

    @property
    def synced_sequence(self) -> int:
        """The engine's number for the last commit that is known to be on disk; 0 before the first."""
        return self._synced_sequence

    def recover(self) -> Recovered:
        """
        Read what a broker starts from.

        Raises:
            StorageError: a row cannot be read; the text names it.
            Stopping: somebody gave it up.
        """
        with self._db.iterator(prefix=QUEUES) as rows:
            queues = [decode_queue(row, value) for row, value in rows]
        with self._db.iterator(prefix=LEASES) as rows:
            records: list[tuple[LeaseId, LeaseRecord]] = []
            for row, value in rows:
                records.append((lease_id(row), decode_lease(row, value)))
                self.recovered_leases += 1
                self._go_on()
        mark = self._db.get(TIME_KEY)
        return Recovered(
            queues=queues,
            leases=list(self._without_removed(records)),
            mark=None if mark is None else decode_time(TIME_KEY, mark),
        )

    def give_up(self) -> None:
        """Have a `recover` end soon; from any thread."""
        self._given_up = True

    def _go_on(self) -> None:
        if self._given_up:
            raise Stopping("the server is stopping")

    def _without_removed(self, records: Sequence[tuple[LeaseId, LeaseRecord]]) -> Iterator[RecoveredLease]:
        """The leases in *records*, with those of their items that are still there."""
        # All of them first: rows of many leases are looked up together.
        exist = iter(list(self._exist(item_key(record.queue, key) for _, record in records for key in record.keys)))
        for lease, record in records:
            yield RecoveredLease(lease, record.queue, record.deadline, tuple(compress(record.keys, exist)))

    def _exist(self, rows: Iterator[bytes]) -> Iterator[bool]:
        """For each of *rows*, whether it is there."""
        count = _CHECK_ROWS_MIN
        while asked := list(islice(rows, count)):
            self._go_on()
            values = self._db.get_many(asked)
            yield from (value is not None for value in values)
            size = sum(len(value) for value in values if value is not None)
            count = min(2 * count, _CHECK_ROWS_MAX, max(1, count * _CHECK_BYTES // max(1, size)))

    def commit(self, writes: Sequence[Write], mark: TimeMark) -> None:
        """Apply all of *writes*, as durably as this store was opened to be."""
        rows = encode_writes(writes, mark, self._encoding)
        try:
            sequence = self._db.write_many(rows)
        except Stalled as stalled:
            raise StoreStalled(str(stalled)) from stalled
        if self._sync:
            began = monotonic()
            self._db.sync()
            self._synced_sequence = sequence
            self._on_sync(monotonic() - began)

    def scan(self, queue: QueueNumber, after: Key, *, items_max: int, bytes_max: int) -> Scan:
        """The rows of *queue* above *after*, none of which is looked at but those that are returned and one more."""
        try:
            found = Scanner(self._db, queue, after, items_max, bytes_max).scan()
        except Withheld:
            place, since = self._withheld.get(queue, (None, 0.0))
            if place != after:
                self._withheld[queue] = (after, monotonic())
                raise
            if monotonic() - since < WITHHELD_SECONDS:
                raise
            return Scanner(self._db, queue, after, items_max, bytes_max, lasting=True).scan()
        self._withheld.pop(queue, None)
        return found

    def read(self, queue: QueueNumber, keys: Sequence[Key]) -> list[Item | None]:
        """The items at *keys*, in that order; None where there is no row."""
        rows = [item_key(queue, key) for key in keys]
        return [
            None if value is None else decode_item(row, value)
            for row, value in zip(rows, self._db.get_many(rows), strict=True)
        ]

    def close(self) -> None:
        """Make durable what is not yet, and close the database."""
        self._db.sync()
        self._db.close()

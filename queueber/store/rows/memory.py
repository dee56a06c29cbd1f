"""`MemoryStore`: a store in dictionaries, without a disk."""

from bisect import bisect_right, insort
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from threading import Lock
from typing import Any, Final

from queueber.broker.model import Item, ItemId, Key, LeaseId, LeaseRecord, QueueNumber, QueueRecord, TimeMark
from queueber.broker.storage import (
    DedupRecord,
    DeleteDedup,
    DeleteEnded,
    DeleteItem,
    DeleteLease,
    DeleteQueue,
    DeleteRequest,
    DeleteRetired,
    DeleteSettings,
    Digest,
    Ended,
    Found,
    PutDedup,
    PutItems,
    PutLease,
    PutNumbers,
    PutQueue,
    PutRequest,
    PutRetired,
    PutSettings,
    Recovered,
    RequestId,
    Scan,
    SettingFields,
    Write,
)
from queueber.units import WallMs

_NO_QUEUE = QueueNumber(0)


class MemoryStore:
    """
    A `queueber.broker.storage.Store` in memory, which passes the same contract tests as the one on a disk.

    Commits last as long as the object, so another broker can `recover` from it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._items: dict[QueueNumber, dict[Key, Item]] = {}
        self._order: dict[QueueNumber, list[Key]] = {}
        self.leases: dict[LeaseId, LeaseRecord] = {}
        self.queues: dict[QueueNumber, QueueRecord] = {}
        self.settings: dict[QueueNumber, SettingFields] = {}
        self.retired: dict[QueueNumber, QueueNumber] = {}
        self._next_number = QueueNumber(1)
        self.records: dict[tuple[QueueNumber, Digest | RequestId], DedupRecord] = {}
        """The records of deduplication keys, and those of request ids with queue 0."""

        self._ends: list[Ended] = []
        self._mark: TimeMark | None = None
        self._closed = False

    def recover(self) -> Recovered:
        """Return the state from which a broker starts."""
        with self._open_lock():
            return Recovered(
                list(self.queues.values()),
                {lease: self._with_existing_items(record) for lease, record in self.leases.items()},
                self._mark,
                dict(self.settings),
                dict(self.retired),
                self._next_number,
            )

    def _with_existing_items(self, record: LeaseRecord) -> LeaseRecord:
        rows = self._items.get(record.queue, {})
        found = [rows[key] for key in record.keys if key in rows]
        sizes = tuple(len(item.contents) for item in found)
        return record._replace(keys=tuple(item.key for item in found), sizes=sizes)

    def commit(self, writes: Sequence[Write], mark: TimeMark) -> None:
        """Apply *writes* atomically."""
        with self._open_lock():
            for write in writes:
                self._apply(write)
            self._mark = mark

    def _apply(self, write: Write) -> None:
        if isinstance(write, PutItems):
            self._put_items(write.queue, write.items)
        elif isinstance(write, DeleteItem):
            if self._items.get(write.queue, {}).pop(write.key, None) is not None:
                order = self._order[write.queue]
                del order[bisect_right(order, write.key) - 1]
        elif isinstance(write, PutDedup):
            self._put_dedup(write.queue, write.digest, write.record)
        elif isinstance(write, PutRequest):
            self._put_dedup(_NO_QUEUE, write.id, write.record)
        elif isinstance(write, DeleteEnded):
            if write.entry in self._ends:
                self._ends.remove(write.entry)
        elif isinstance(write, PutNumbers):
            self._next_number = write.next
        else:
            _ROW_WRITES[type(write)](self, write)

    def _put_items(self, queue: QueueNumber, items: Sequence[Item]) -> None:
        rows = self._items.setdefault(queue, {})
        for item in items:
            if item.key not in rows:
                insort(self._order.setdefault(queue, []), item.key)
            rows[item.key] = item

    def _put_dedup(self, queue: QueueNumber, key: Digest | RequestId, record: DedupRecord) -> None:
        self.records[queue, key] = record
        entry = Ended(record.indexed_at, queue, key)
        if entry not in self._ends:
            insort(self._ends, entry)

    def scan(self, queue: QueueNumber, after: Key, *, items_max: int, bytes_max: int) -> Scan:
        """Return the rows of *queue* above *after*."""
        with self._open_lock():
            order, rows = self._order.get(queue, []), self._items.get(queue, {})
            start = bisect_right(order, after)
            found: list[Item] = []
            size = 0
            for key in islice(order, start, start + items_max):
                if found and size >= bytes_max:
                    break
                found.append(rows[key])
                size += len(rows[key].contents)
            return Scan(found, exhausted=start + len(found) == len(order))

    def read(self, queue: QueueNumber, keys: Sequence[Key]) -> list[Item | None]:
        """Return the items at *keys*, None where there is no row."""
        with self._open_lock():
            rows = self._items.get(queue, {})
            return [rows.get(key) for key in keys]

    def keys(self, queue: QueueNumber, after: Key, *, items_max: int) -> Sequence[Key]:
        """Return up to *items_max* keys of *queue* above *after*."""
        with self._open_lock():
            order = self._order.get(queue, [])
            start = bisect_right(order, after)
            return order[start : start + items_max]

    def find(self, queues: Sequence[QueueNumber], ids: Sequence[ItemId]) -> list[Found | None]:
        """Return the items with these ids, None for one that is in none of *queues*."""
        with self._open_lock():
            rows = {key.id: Found(queue, item) for queue in queues for key, item in self._items.get(queue, {}).items()}
            return [rows.get(item) for item in ids]

    def dedup(self, queue: QueueNumber, digests: Sequence[Digest]) -> list[DedupRecord | None]:
        """Return the records of deduplication keys, None where there is none."""
        with self._open_lock():
            return [self.records.get((queue, digest)) for digest in digests]

    def requests(self, ids: Sequence[RequestId]) -> list[DedupRecord | None]:
        """Return the records of request ids, None where there is none."""
        with self._open_lock():
            return [self.records.get((_NO_QUEUE, request)) for request in ids]

    def ended(self, now: WallMs, *, entries_max: int) -> Sequence[tuple[Ended, DedupRecord | None]]:
        """Return the first entries of the index whose ends are not after *now*, each with its record."""
        with self._open_lock():
            entries = [entry for entry in self._ends[:entries_max] if entry.ends <= now]
            return [(entry, self.records.get((entry.queue, entry.key))) for entry in entries]

    def close(self) -> None:
        """Close the store; later calls raise `RuntimeError`."""
        self._closed = True

    def _open_lock(self) -> Lock:
        """Return the lock, which every access holds; raise `RuntimeError` after `close`."""
        if self._closed:
            raise RuntimeError("the store is closed")
        return self._lock


_ROW_WRITES: Final[Mapping[type, Callable[[MemoryStore, Any], object]]] = {
    PutLease: lambda store, write: store.leases.update({write.id: write.record}),
    DeleteLease: lambda store, write: store.leases.pop(write.id, None),
    PutQueue: lambda store, write: store.queues.update({write.record.number: write.record}),
    DeleteQueue: lambda store, write: store.queues.pop(write.number, None),
    PutSettings: lambda store, write: store.settings.update({write.queue: write.configured}),
    DeleteSettings: lambda store, write: store.settings.pop(write.queue, None),
    PutRetired: lambda store, write: store.retired.update({write.number: write.queue}),
    DeleteRetired: lambda store, write: store.retired.pop(write.number, None),
    DeleteDedup: lambda store, write: store.records.pop((write.queue, write.digest), None),
    DeleteRequest: lambda store, write: store.records.pop((_NO_QUEUE, write.id), None),
}
"""The writes that put or delete one entry of a dictionary."""

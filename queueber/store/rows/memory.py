"""`MemoryStore`: a store in dictionaries, without a disk."""

from bisect import bisect_right, insort
from collections.abc import Sequence
from itertools import islice
from threading import Lock

from queueber.broker.model import Item, Key, LeaseId, LeaseRecord, QueueNumber, QueueRecord, TimeMark
from queueber.broker.storage import (
    DeleteItem,
    DeleteLease,
    PutItems,
    PutLease,
    Recovered,
    RecoveredLease,
    Scan,
    Write,
)


class MemoryStore:
    """
    A `queueber.broker.storage.Store` in memory, which passes the same contract tests as the one on a disk.

    Commits last as long as the object, so another broker can `recover` from it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._items: dict[QueueNumber, dict[Key, Item]] = {}
        self._order: dict[QueueNumber, list[Key]] = {}
        self._leases: dict[LeaseId, LeaseRecord] = {}
        self._queues: dict[QueueNumber, QueueRecord] = {}
        self._mark: TimeMark | None = None
        self._closed = False

    def recover(self) -> Recovered:
        """Return the state from which a broker starts."""
        with self._open_lock():
            leases = [
                RecoveredLease(
                    lease,
                    record.queue,
                    record.deadline,
                    tuple(key for key in record.keys if key in self._items.get(record.queue, ())),
                )
                for lease, record in self._leases.items()
            ]
            return Recovered(list(self._queues.values()), leases, self._mark)

    def commit(self, writes: Sequence[Write], mark: TimeMark) -> None:
        """Apply *writes* atomically."""
        with self._open_lock():
            for write in writes:
                self._apply(write)
            self._mark = mark

    def _apply(self, write: Write) -> None:
        if isinstance(write, PutItems):
            rows = self._items.setdefault(write.queue, {})
            for item in write.items:
                if item.key not in rows:
                    insort(self._order.setdefault(write.queue, []), item.key)
                rows[item.key] = item
        elif isinstance(write, DeleteItem):
            if self._items.get(write.queue, {}).pop(write.key, None) is not None:
                order = self._order[write.queue]
                del order[bisect_right(order, write.key) - 1]
        elif isinstance(write, PutLease):
            self._leases[write.id] = write.record
        elif isinstance(write, DeleteLease):
            self._leases.pop(write.id, None)
        else:
            self._queues[write.record.number] = write.record

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

    def close(self) -> None:
        """Close the store; later calls raise `RuntimeError`."""
        self._closed = True

    def _open_lock(self) -> Lock:
        """Return the lock, which every access holds; raise `RuntimeError` after `close`."""
        if self._closed:
            raise RuntimeError("the store is closed")
        return self._lock

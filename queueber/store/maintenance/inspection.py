"""
What is in a data directory, for a person: read beside a server that may run, and nothing is written there.

What a running server has committed is seen up to the moment of the look.  It
may remove files that are still to be read; then the look has to be taken again.
"""

import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from attrs import define, frozen

from queueber.broker.model import LOWEST, Item, Key, LeaseRecord, QueueRecord, TimeMark
from queueber.errors import InvalidRequest, StorageError, reason
from queueber.plyvel import prefix_successor
from queueber.store.datadir.clean_shutdown import was_closed
from queueber.store.datadir.directory import DATABASE, LOCK, READY, SYNCED, refusal
from queueber.store.datadir.synced import SyncedFile
from queueber.store.maintenance.copying import size_of, viewing
from queueber.store.rows.engine_port import KeyValue
from queueber.store.rows.format import Format, read_format
from queueber.store.rows.keys import LEASES, QUEUES, TIME_KEY, item_key, items_of
from queueber.store.rows.records import decode_item, decode_lease, decode_queue, decode_time
from queueber.units import WallMs

ATTEMPTS: Final = 5
_LOCKS: Final = Path("/proc/locks")


@frozen
class QueueView:
    """One queue."""

    record: QueueRecord
    leases: int
    leased: int
    delayed: int

    @property
    def items(self) -> int:
        """All of them."""
        return self.record.added - self.record.removed

    @property
    def ready(self) -> int:
        """Neither leased nor delayed."""
        return self.items - self.leased - self.delayed


@frozen
class ItemView:
    """One item."""

    item: Item
    state: str
    """`leased`, `delayed` or `ready`."""


@define
class Inspection:
    """What was seen."""

    format: Format | None
    held: bool
    """A process holds the directory."""

    clean: bool
    """The last server closed it in order; False while one runs, too."""

    fresh: bool
    """It is a backup or a restored one, on which no server has run yet."""

    mark: TimeMark | None
    noted: int | None
    """How far the log was known to be on disk."""

    failed: bool
    """That was noted by a server that ended itself for a failed write."""

    reached: int
    """How far it goes."""

    disk_bytes: int
    queues: list[QueueView]
    items: list[ItemView]


def inspect(
    path: Path, at: Callable[[TimeMark | None], WallMs], *, queue: str | None = None, limit: int = 0
) -> Inspection:
    """
    Show what is in the data directory *path*, with the first *limit* items of *queue*.

    *at* returns the queue time by which items are ready or delayed, given the mark of the last commit if there is one.

    Raises:
        InvalidRequest: there is no such queue.
        StorageError: it is no data directory, or cannot be read.
    """
    if not (path / READY).is_file():
        raise refusal(path, f"it is not a data directory of Queueber's, or not a whole one: {READY!r} is missing")
    attempt = 1
    while True:
        try:
            with viewing(path) as db:
                return _look(path, db, at, queue, limit)
        except StorageError:
            # A running server may just have removed a file.
            if attempt == ATTEMPTS or not is_held(path):
                raise
        attempt += 1


def is_held(path: Path) -> bool:
    """
    Whether a process holds the data directory *path*.

    Asked of the kernel and not by trying the lock, which would stand in the way of a server that starts just then.

    Raises:
        StorageError: the kernel does not say.
    """
    try:
        status = (path / LOCK).stat()
        locks = _LOCKS.read_text()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise refusal(path, f"who holds it cannot be seen: {reason(error)}") from error
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    return any(device in line.split() and "FLOCK" in line for line in locks.splitlines())


def _is_fresh(path: Path) -> bool:
    lock = path / LOCK
    return not lock.exists() or not lock.stat().st_size


def _look(
    path: Path, db: KeyValue, at: Callable[[TimeMark | None], WallMs], queue: str | None, limit: int
) -> Inspection:
    with db.iterator(prefix=QUEUES) as rows:
        records = [decode_queue(row, value) for row, value in rows]
    with db.iterator(prefix=LEASES) as rows:
        leases = [decode_lease(row, value) for row, value in rows]
    found = db.get(TIME_KEY)
    mark = None if found is None else decode_time(TIME_KEY, found)
    now = at(mark)
    synced = SyncedFile(path / SYNCED)
    return Inspection(
        format=read_format(db),
        held=is_held(path),
        clean=was_closed(db),
        fresh=_is_fresh(path),
        mark=mark,
        noted=synced.read(),
        failed=synced.failed,
        reached=db.sequence(),
        disk_bytes=size_of(path / DATABASE),
        queues=[_queue(db, record, leases, now) for record in records],
        items=[] if queue is None else list(_items(db, _named(records, queue), leases, now, limit)),
    )


def _named(records: list[QueueRecord], name: str) -> QueueRecord:
    for record in records:
        if record.name == name:
            return record
    raise InvalidRequest(f"there is no queue {name!r}")


def _queue(db: KeyValue, record: QueueRecord, leases: list[LeaseRecord], now: WallMs) -> QueueView:
    own = [lease for lease in leases if lease.queue == record.number]
    named = {key for lease in own for key in lease.keys}
    rows = [item_key(record.number, key) for key in named]
    held = {key for key, value in zip(named, db.get_many(rows), strict=True) if value is not None}
    after = item_key(record.number, Key(WallMs(now + 1), LOWEST.id))
    with db.iterator(start=after, stop=prefix_successor(items_of(record.number)), include_value=False) as later:
        delayed = sum(1 for _ in later) - sum(1 for key in held if key.due > now)
    return QueueView(record, len(own), len(held), delayed)


def _items(db: KeyValue, record: QueueRecord, leases: list[LeaseRecord], now: WallMs, limit: int) -> Iterator[ItemView]:
    held = {key for lease in leases if lease.queue == record.number for key in lease.keys}
    with db.iterator(prefix=items_of(record.number)) as rows:
        for row, value in islice(rows, limit):
            item = decode_item(row, value)
            state = "leased" if item.key in held else "delayed" if item.key.due > now else "ready"
            yield ItemView(item, state)

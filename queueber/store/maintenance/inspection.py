"""
The contents of a data directory, for `queueber inspect`.  Writes nothing there, and a server may be using it.

Commits of a running server are visible up to the start of the inspection.  The
server may remove files that are yet to be read; then the inspection starts again.
"""

import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from attrs import define, frozen

from queueber.broker.model import LOWEST, NO_QUEUE, Item, Key, LeaseRecord, QueueRecord, TimeMark
from queueber.broker.storage import SettingFields
from queueber.errors import InvalidRequest, StorageError, reason
from queueber.store.datadir.copying import read_only_view, size_of
from queueber.store.datadir.directory import DATABASE, LOCK, READY, SYNCED, directory_error
from queueber.store.datadir.synced import SyncedFile
from queueber.store.rows.engine_port import KeyValueEngine
from queueber.store.rows.keys import (
    LEASES_TABLE,
    QUEUES_TABLE,
    RETIRED_TABLE,
    SETTINGS_TABLE,
    TIME_KEY,
    decode_queue_key,
    item_key,
    items_end,
    items_prefix,
)
from queueber.store.rows.meta import Format, read_format, was_shut_down_cleanly
from queueber.store.rows.records import decode_item, decode_time
from queueber.store.rows.side_records import decode_settings
from queueber.store.rows.state_records import decode_lease, decode_queue
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
    settings: SettingFields
    """The settings that were configured."""

    @property
    def dead(self) -> bool:
        """Whether these are the dead items of the queue of that name."""
        return self.record.dead_of != NO_QUEUE

    @property
    def items(self) -> int:
        """Number of items."""
        return self.record.added - self.record.removed

    @property
    def ready(self) -> int:
        """Number of items that are neither leased nor delayed."""
        return self.items - self.leased - self.delayed


@frozen
class InspectedItem:
    """One item."""

    item: Item
    state: str
    """`leased`, `delayed` or `ready`."""


@define
class Inspection:
    """The contents of a data directory."""

    format: Format | None
    locked: bool
    """Whether a process has locked the directory."""

    clean_shutdown: bool
    """Whether the last server shut down cleanly; False while one runs."""

    never_served: bool
    """Whether it is a backup or a restored directory, on which no server has run yet."""

    mark: TimeMark | None
    noted: int | None
    """The sequence number up to which the log is known to be on disk; None if there is none."""

    failed: bool
    """Whether that was noted by a server that ended itself because of a failed write or sync."""

    reached: int
    """The sequence number of the last write."""

    disk_bytes: int
    retired: int
    """Numbers of queues that were purged or deleted, and whose items are yet to be deleted."""

    queues: list[QueueView]
    items: list[InspectedItem]


def inspect(
    path: Path, at: Callable[[TimeMark | None], WallMs], *, queue: str | None = None, limit: int = 0
) -> Inspection:
    """
    Return the contents of the data directory *path*, with the first *limit* items of *queue*.

    Args:
        path: the data directory.
        at: returns the queue time at which items are ready or delayed, given the time mark of the last commit, if any.
        queue: a queue's name; None for no items.
        limit: the number of items.

    Raises:
        InvalidRequest: there is no such queue.
        StorageError: *path* is no data directory, or cannot be read.
    """
    if not (path / READY).is_file():
        raise directory_error(
            path, f"it is not a data directory of Queueber's, or not a whole one: {READY!r} is missing"
        )
    attempt = 1
    while True:
        try:
            with read_only_view(path) as db:
                return _inspect(path, db, at, queue, limit)
        except StorageError:
            # A running server may just have removed a file.
            if attempt == ATTEMPTS or not is_locked(path):
                raise
        attempt += 1


def is_locked(path: Path) -> bool:
    """
    Return whether a process has locked the data directory *path*.

    The kernel's list of locks is read.  Trying the lock would block a server that starts at the same time.

    Raises:
        StorageError: the list cannot be read.
    """
    try:
        status = (path / LOCK).stat()
        locks = _LOCKS.read_text()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise directory_error(path, f"which process has locked it cannot be read: {reason(error)}") from error
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    return any(device in line.split() and "FLOCK" in line for line in locks.splitlines())


def _never_served(path: Path) -> bool:
    lock = path / LOCK
    return not lock.exists() or not lock.stat().st_size


def _inspect(
    path: Path, db: KeyValueEngine, at: Callable[[TimeMark | None], WallMs], queue: str | None, limit: int
) -> Inspection:
    with db.iterator(prefix=QUEUES_TABLE) as rows:
        records = [decode_queue(row_key, value) for row_key, value in rows]
    with db.iterator(prefix=LEASES_TABLE) as rows:
        leases = [decode_lease(row_key, value) for row_key, value in rows]
    with db.iterator(prefix=SETTINGS_TABLE) as rows:
        settings = {decode_queue_key(row_key): decode_settings(row_key, value) for row_key, value in rows}
    with db.iterator(prefix=RETIRED_TABLE, include_value=False) as keys:
        retired = sum(1 for _ in keys)
    found = db.get(TIME_KEY)
    mark = None if found is None else decode_time(TIME_KEY, found)
    now = at(mark)
    synced = SyncedFile(path / SYNCED)
    return Inspection(
        format=read_format(db),
        locked=is_locked(path),
        clean_shutdown=was_shut_down_cleanly(db),
        never_served=_never_served(path),
        mark=mark,
        noted=synced.read(),
        failed=synced.failed,
        reached=db.sequence(),
        disk_bytes=size_of(path / DATABASE),
        retired=retired,
        queues=[
            _queue_view(db, record, leases, settings.get(record.id or record.number, {}), now) for record in records
        ],
        items=[] if queue is None else list(_item_views(db, _find(records, queue), leases, now, limit)),
    )


def _find(records: list[QueueRecord], name: str) -> QueueRecord:
    for record in records:
        if record.name == name and record.dead_of == NO_QUEUE:
            return record
    raise InvalidRequest(f"there is no queue {name!r}")


def _queue_view(
    db: KeyValueEngine, record: QueueRecord, leases: list[LeaseRecord], settings: SettingFields, now: WallMs
) -> QueueView:
    own = [lease for lease in leases if lease.queue == record.number]
    named = {key for lease in own for key in lease.keys}
    row_keys = [item_key(record.number, key) for key in named]
    leased = {key for key, value in zip(named, db.get_many(row_keys), strict=True) if value is not None}
    after = item_key(record.number, Key(WallMs(now + 1), LOWEST.id))
    with db.iterator(start=after, stop=items_end(record.number), include_value=False) as later:
        delayed = sum(1 for _ in later) - sum(1 for key in leased if key.due > now)
    return QueueView(record, len(own), len(leased), delayed, settings)


def _item_views(
    db: KeyValueEngine, record: QueueRecord, leases: list[LeaseRecord], now: WallMs, limit: int
) -> Iterator[InspectedItem]:
    leased = {key for lease in leases if lease.queue == record.number for key in lease.keys}
    with db.iterator(prefix=items_prefix(record.number)) as rows:
        for row_key, value in islice(rows, limit):
            item = decode_item(row_key, value)
            state = "leased" if item.key in leased else "delayed" if item.key.due > now else "ready"
            yield InspectedItem(item, state)

"""
The steps that convert a database to the next format.

A step that was interrupted begins anew at the next start, so each can be run
over its own half-done work.  It syncs every batch before it writes the next:
the log may be damaged at its end after a power cut, and a start cuts that off
only if no batch follows.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Final

from queueber.broker.model import LOWEST, Item, QueueNumber, QueueRecord, off_time
from queueber.errors import Passing, StorageError
from queueber.store.rows.engine_port import KeyValueEngine, KeyWrite, write_retrying
from queueber.store.rows.keys import QUEUES_TABLE, queue_key
from queueber.store.rows.scanning import Scanner
from queueber.store.rows.side_records import encode_place
from queueber.store.rows.state_records import build_queue, decode_queue
from queueber.store.rows.values import Encoding, encode_row
from queueber.units import MIB

Progress = Callable[[int, int], object]
"""Called with the number of items done and in total, from the thread that works.  It may raise to end the upgrade."""

UpgradeStep = Callable[[KeyValueEngine, Progress], None]
"""Converts a database to the next version, durably."""

_ITEMS_AT_ONCE: Final = 10_000
_BYTES_AT_ONCE: Final = 16 * MIB
_QUEUES_AT_ONCE: Final = 1_000


def add_places(db: KeyValueEngine, progress: Progress) -> None:
    """
    Convert format 1 to 2: write the places of items that are not found by their ids, and the counters of queues.

    Unreadable items are skipped, as they are by every scan.
    """
    with db.iterator(prefix=QUEUES_TABLE) as rows:
        queues = [decode_queue(row_key, value) for row_key, value in rows]
    total = sum(record.added - record.removed for record in queues)
    done = 0
    counted: list[QueueRecord] = []
    for record in queues:
        size = moved = 0
        for items in _slices(db, record.number):
            places = [item.key for item in items if off_time(item.key)]
            _write(db, [encode_place(key.id, record.number, key.due, Encoding.UNPACKED) for key in places])
            size += sum(len(item.contents) for item in items)
            moved += len(places)
            done += len(items)
            progress(done, max(done, total))
        counted.append(record._replace(bytes=size, off_time=moved))
    records = iter(counted)
    while some := list(islice(records, _QUEUES_AT_ONCE)):
        _write(db, [_queue_row(record) for record in some])


def _slices(db: KeyValueEngine, queue: QueueNumber) -> Iterator[list[Item]]:
    """Return all readable items of *queue*, some thousand at a time."""
    after = LOWEST
    while True:
        try:
            scan = Scanner(db, queue, after, _ITEMS_AT_ONCE, _BYTES_AT_ONCE, withheld_is_damage=True).scan()
        except Passing:
            raise
        except StorageError:
            # None of the rest can be read.
            return
        if scan.items:
            yield list(scan.items)
            after = scan.items[-1].key
        if scan.exhausted:
            return


def _queue_row(record: QueueRecord) -> KeyWrite:
    row_key = queue_key(record.number)
    return row_key, encode_row(row_key, build_queue(record))


def _write(db: KeyValueEngine, rows: list[KeyWrite]) -> None:
    if rows:
        write_retrying(db, rows)
        db.sync()


UPGRADES: Final[Mapping[int, UpgradeStep]] = MappingProxyType({1: add_places})
"""The step from each older version to the next."""

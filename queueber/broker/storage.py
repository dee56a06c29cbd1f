"""
The interface of a durable store, and the writes that the broker requests.

Writes are an ordered list of operations on rows.  A store applies those of one
commit together or not at all.  A later operation on a row replaces an earlier
one.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, NewType, Protocol, TypeAlias

from attrs import frozen

from queueber.broker.model import (
    Item,
    ItemId,
    Key,
    LeaseId,
    LeaseRecord,
    QueueNumber,
    QueueRecord,
    TimeMark,
)
from queueber.errors import StorageError
from queueber.units import WallMs

Digest = NewType("Digest", bytes)
"""16 bytes that stand for a deduplication key."""

RequestId = NewType("RequestId", bytes)
"""16 bytes that stand for a call, chosen by the client."""

SettingValue: TypeAlias = int | bool | tuple[tuple[str, str], ...]
"""A number, a flag, or labels as pairs of name and value."""

SettingFields: TypeAlias = Mapping[str, SettingValue]
"""The configured settings of a queue, by the schema's names of the fields; the others have the server's defaults."""


class DedupRecord(NamedTuple):
    """The ids of an add, from which a second one is answered."""

    ends: WallMs
    """Queue time from which the record is ignored; 0: until the item is removed."""

    ids: tuple[ItemId, ...]
    """One item for a deduplication key, those of the whole call for a request id."""

    duplicates: tuple[int, ...] = ()
    """For a request id: the places of the items that were not added."""

    check: WallMs = WallMs(0)
    """For a record without an end: the queue time at which a sweep looks whether its item is gone."""

    @property
    def indexed_at(self) -> WallMs:
        """The time of its entry in the index of ends."""
        return self.ends or self.check


class Ended(NamedTuple):
    """An entry of the index of ends, in whose order records are deleted."""

    ends: WallMs
    """The end of the record, or the time of the next check of one without an end."""

    queue: QueueNumber
    """The queue's id; 0 for a request id."""

    key: Digest | RequestId


class PutItems(NamedTuple):
    """Write the rows of items of one queue, each at its key."""

    queue: QueueNumber
    items: Sequence[Item]


class DeleteItem(NamedTuple):
    """Delete the item's row at a key."""

    queue: QueueNumber
    key: Key


class PutLease(NamedTuple):
    """Write a lease's row."""

    id: LeaseId
    record: LeaseRecord


class DeleteLease(NamedTuple):
    """Delete a lease's row."""

    id: LeaseId


class PutQueue(NamedTuple):
    """Write a queue's row."""

    record: QueueRecord


class DeleteQueue(NamedTuple):
    """Delete a queue's row."""

    number: QueueNumber


class PutSettings(NamedTuple):
    """Write the row with a queue's settings, which belong to the queue's id."""

    queue: QueueNumber
    configured: SettingFields


class DeleteSettings(NamedTuple):
    """Delete the row with a queue's settings."""

    queue: QueueNumber


class PutRetired(NamedTuple):
    """Mark a number as retired: its items will be deleted."""

    number: QueueNumber
    queue: QueueNumber
    """The id of the queue to which leased items return; 0 if it was deleted."""


class DeleteRetired(NamedTuple):
    """Delete the row of a retired number, whose items are all gone."""

    number: QueueNumber


class PutNumbers(NamedTuple):
    """Write the lowest number that no queue ever had."""

    next: QueueNumber


class PutDedup(NamedTuple):
    """Write the record of a deduplication key, and its entry in the index of ends."""

    queue: QueueNumber
    """The queue's id."""

    digest: Digest
    record: DedupRecord


class DeleteDedup(NamedTuple):
    """Delete the record of a deduplication key, but not its entry in the index."""

    queue: QueueNumber
    digest: Digest


class PutRequest(NamedTuple):
    """Write the record of a request id, and its entry in the index of ends."""

    id: RequestId
    record: DedupRecord


class DeleteRequest(NamedTuple):
    """Delete the record of a request id, but not its entry in the index."""

    id: RequestId


class DeleteEnded(NamedTuple):
    """Delete an entry of the index of ends, but not the record."""

    entry: Ended


Write: TypeAlias = (
    PutItems
    | DeleteItem
    | PutLease
    | DeleteLease
    | PutQueue
    | DeleteQueue
    | PutSettings
    | DeleteSettings
    | PutRetired
    | DeleteRetired
    | PutNumbers
    | PutDedup
    | DeleteDedup
    | PutRequest
    | DeleteRequest
    | DeleteEnded
)


@frozen
class Gap:
    """Rows that cannot be read."""

    after: Key
    """The key above which they lie."""

    why: StorageError


@frozen
class Scan:
    """Consecutive rows of one queue, in the order of their keys."""

    items: Sequence[Item]
    exhausted: bool
    """Whether the queue has no row after the last of *items*."""

    gaps: Sequence[Gap] = ()
    """Rows that were skipped."""


class Found(NamedTuple):
    """An item that was found by its id."""

    queue: QueueNumber
    item: Item


_NO_SETTINGS: Final[Mapping[QueueNumber, SettingFields]] = MappingProxyType({})
_FIRST_NUMBER: Final = QueueNumber(1)
_NO_NUMBERS: Final[Mapping[QueueNumber, QueueNumber]] = MappingProxyType({})


@frozen
class Recovered:
    """Everything that a broker reads from a store at start."""

    queues: Sequence[QueueRecord]
    leases: Mapping[LeaseId, LeaseRecord]
    """The records of all leases, without the items that do not exist any more; `sizes` may be empty."""

    mark: TimeMark | None
    """The mark of the last commit; None in a new store."""

    settings: Mapping[QueueNumber, SettingFields] = _NO_SETTINGS
    """The configured settings by the queue's id."""

    retired: Mapping[QueueNumber, QueueNumber] = _NO_NUMBERS
    """The retired numbers whose items are yet to be deleted, each with the id of its queue, or 0."""

    next_number: QueueNumber = _FIRST_NUMBER
    """A number from which on no queue ever had one, as far as `PutNumbers` wrote it.  Queues may have higher ones."""


class StoreStalled(Exception):
    """Nothing was written, because the engine has to catch up first.  Wait, then commit the same writes again."""


class Store(Protocol):
    """
    Durable rows.  Every method blocks.  All but `close` may be called from several threads at once.

    If `commit` raises anything but `StoreStalled`, the disk can no longer be trusted: nothing may be acknowledged any
    more, and the process has to end.
    """

    def recover(self) -> Recovered:
        """Read the state from which a broker starts.  Called once, before anything else."""

    def commit(self, writes: Sequence[Write], mark: TimeMark) -> None:
        """
        Apply all of *writes* atomically, and return once they are as durable as the store was opened to be.

        Raises:
            StoreStalled: nothing was written; the same writes may be tried again.
        """

    def scan(self, queue: QueueNumber, after: Key, *, items_max: int, bytes_max: int) -> Scan:
        """
        Return the rows of *queue* with keys strictly above *after*, from one snapshot.

        Returns at most *items_max* rows, and no more once their contents have reached *bytes_max*.  Damaged rows are
        skipped and reported as gaps.

        Raises:
            StorageError: there are rows, but none can be read.  Or the first row cannot be read for a reason other
                than damage, and the same scan may succeed later.
        """

    def read(self, queue: QueueNumber, keys: Sequence[Key]) -> list[Item | None]:
        """Return the items at *keys*, in that order; None where there is no row."""

    def keys(self, queue: QueueNumber, after: Key, *, items_max: int) -> Sequence[Key]:
        """Return up to *items_max* keys of rows of *queue*, strictly above *after* and in order, without the rows."""

    def find(self, queues: Sequence[QueueNumber], ids: Sequence[ItemId]) -> list[Found | None]:
        """
        Return the items with these ids, in that order; None for an item that is in none of *queues*.

        Commits may go on meanwhile, so an item that a plan moves may be found at either place or not at all.  The
        caller applies all plans that were not durable at the call or were made since.
        """

    def dedup(self, queue: QueueNumber, digests: Sequence[Digest]) -> list[DedupRecord | None]:
        """Return the records of deduplication keys of the queue with the id *queue*, in that order."""

    def requests(self, ids: Sequence[RequestId]) -> list[DedupRecord | None]:
        """Return the records of request ids, in that order."""

    def ended(self, now: WallMs, *, entries_max: int) -> Sequence[tuple[Ended, DedupRecord | None]]:
        """
        Return the first entries of the index whose ends are not after *now*, each with the record that there is.

        A record with another end than its entry was renewed: only the entry may be deleted.
        """

    def close(self) -> None:
        """Close the store.  No method may be called afterwards."""

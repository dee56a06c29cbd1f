"""
The interface of a durable store, and the writes that the broker requests.

Writes are an ordered list of operations on rows.  A store applies those of one
commit together or not at all.  A later operation on a row replaces an earlier
one.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeAlias

from attrs import frozen

from queueber.broker.model import Item, Key, LeaseId, LeaseRecord, QueueNumber, QueueRecord, TimeMark
from queueber.errors import StorageError
from queueber.units import WallMs


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


Write: TypeAlias = PutItems | DeleteItem | PutLease | DeleteLease | PutQueue


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


@frozen
class RecoveredLease:
    """A lease read from the disk at start."""

    id: LeaseId
    queue: QueueNumber
    deadline: WallMs
    keys: tuple[Key, ...]
    """Its items that still exist; empty if all were removed."""


@frozen
class Recovered:
    """Everything that a broker reads from a store at start."""

    queues: Sequence[QueueRecord]
    leases: Sequence[RecoveredLease]
    mark: TimeMark | None
    """The mark of the last commit; None in a new store."""


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

    def close(self) -> None:
        """Close the store.  No method may be called afterwards."""

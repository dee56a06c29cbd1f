"""
What the broker needs of durable storage, and the writes it asks for.

A `Writes` is an ordered list of operations on rows.  A store applies those of
one commit together or not at all, a later operation on a row replacing an
earlier one.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeAlias

from attrs import frozen

from queueber.broker.model import Item, Key, LeaseId, LeaseRecord, QueueNumber, QueueRecord, TimeMark
from queueber.errors import StorageError
from queueber.units import WallMs


class PutItem(NamedTuple):
    """Write an item's row at its key."""

    queue: QueueNumber
    item: Item


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


Write: TypeAlias = PutItem | DeleteItem | PutLease | DeleteLease | PutQueue


@frozen
class Gap:
    """Rows that cannot be read."""

    after: Key
    """They lie above it."""

    why: StorageError


@frozen
class Scan:
    """A stretch of one queue's rows in the order of their keys."""

    items: Sequence[Item]
    exhausted: bool
    """No row of the queue lies behind the last of *items*."""

    gaps: Sequence[Gap] = ()
    """What is missing, and was passed over."""


@frozen
class RecoveredLease:
    """A lease found at start-up."""

    id: LeaseId
    queue: QueueNumber
    deadline: WallMs
    keys: tuple[Key, ...]
    """Those of its items that still exist; empty when all were removed."""


@frozen
class Recovered:
    """Everything a broker must know of a store before it can go on."""

    queues: Sequence[QueueRecord]
    leases: Sequence[RecoveredLease]
    mark: TimeMark | None
    """From the last commit; None in a new store."""


class StoreStalled(Exception):
    """Nothing was written, because the engine has to catch up first: wait, then commit the same writes again."""


class Store(Protocol):
    """
    Rows at rest.  Every method blocks; all but `close` may be called from several threads at once.

    An exception other than `StoreStalled` out of `commit` means that the disk can no longer be trusted: nothing may
    be acknowledged any more and the process has to end.
    """

    def recover(self) -> Recovered:
        """Read what a broker starts from.  To be called once, before anything else."""

    def commit(self, writes: Sequence[Write], mark: TimeMark) -> None:
        """
        Apply all of *writes* atomically; when this returns they are as durable as the store was opened to be.

        Raises:
            StoreStalled: nothing was written; the same writes may be tried again.
        """

    def scan(self, queue: QueueNumber, after: Key, *, items_max: int, bytes_max: int) -> Scan:
        """
        The rows of *queue* with keys strictly above *after*, from one snapshot.

        At most *items_max* of them, and no more once their contents have reached *bytes_max*.  Those that cannot be
        read because they are damaged are passed over and told.

        Raises:
            StorageError: there are rows, and none of them can be read; or the first of them cannot be read for a
                reason that is not damage, and the same scan may succeed later.
        """

    def read(self, queue: QueueNumber, keys: Sequence[Key]) -> list[Item | None]:
        """The items at *keys*, in that order; None where there is no row."""

    def close(self) -> None:
        """Leave everything in order.  Nothing may be called afterwards."""

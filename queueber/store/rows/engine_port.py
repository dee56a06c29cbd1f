"""
The interface of a key-value engine that the store needs: a part of plyvel's, and four additions.

The additions are `sync`, because a commit is written first and made durable
afterwards; `get_many`, during which other threads run; `write_many`, which
costs no Python call per row; and `sequence`, the number of the last write.
`queueber.plyvel` is the implementation in use; others may take its place.
"""

from collections.abc import Iterator, Sequence
from time import sleep
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias

from queueber.errors import Stalled

_RETRY_SECONDS = 0.01
"""Delay between attempts of a write that the engine stalls."""

KeyWrite: TypeAlias = tuple[bytes, bytes | None]
"""A key and its new value, or None to delete the key."""

Row: TypeAlias = Any
"""Element of an iterator: a pair of key and value, or a key without `include_value`."""


class RowIterator(Protocol):
    """An iterator over a range of keys in one snapshot, in order."""

    def __enter__(self) -> Self:
        """Return the iterator; it is closed at the end of the block."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Close the iterator."""

    def __iter__(self) -> Iterator[Row]:
        """Return the remaining rows."""


class KeyValueEngine(Protocol):
    """An ordered map from bytes to bytes, on a disk.  All methods except `close` are thread-safe."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value of *key*, or None."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of *keys* in the same order, None for a missing key."""

    def write_many(self, writes: Sequence[KeyWrite]) -> int:
        """
        Set each key to its value, or delete it if that is None, in order and atomically; durable after `sync`.

        Returns:
            `sequence` after these writes.

        Raises:
            Stalled: nothing was written.
        """

    def iterator(
        self,
        *,
        start: bytes | None = None,
        stop: bytes | None = None,
        include_start: bool = True,
        prefix: bytes | None = None,
        include_value: bool = True,
    ) -> RowIterator:
        """Return the rows from *start* up to but not including *stop*, or all with *prefix*; or their keys only."""

    def sync(self) -> None:
        """Return when all earlier writes would survive a power cut.  An error is final."""

    def sequence(self) -> int:
        """Return the sequence number of the last write: incremented by each row written, and persistent."""

    def close(self) -> None:
        """Close the files."""


def write_retrying(db: KeyValueEngine, writes: Sequence[KeyWrite]) -> None:
    """Apply *writes* atomically, not yet durably, and retry as long as the engine stalls them."""
    while True:
        try:
            db.write_many(writes)
        except Stalled:
            sleep(_RETRY_SECONDS)
        else:
            return

"""
The interface of a key-value engine that the store needs: a part of plyvel's, and four additions.

The additions are `sync`, because a commit is written first and made durable
afterwards; `get_many`, during which other threads run; `write_many`, which
costs no Python call per row; and `sequence`, the number of the last write.
`queueber.plyvel` is the implementation in use; others may take its place.
"""

from collections.abc import Iterable, Iterator, Sequence
from time import sleep
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias

from queueber.plyvel.errors import Stalled

_PATIENCE = 0.01
"""Seconds between attempts."""


Row: TypeAlias = Any
"""What a walk gives: a pair of key and value unless it was asked for one of them only."""


class Rows(Protocol):
    """A walk over one snapshot of a range of keys, in their order."""

    def __enter__(self) -> Self:
        """Itself; leaving the block closes it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Close it."""

    def __iter__(self) -> Iterator[Row]:
        """The rows that are left: pairs of key and value."""


class KeyValue(Protocol):
    """An ordered map from bytes to bytes, at rest on a disk.  All but `close` may be called from any thread."""

    def get(self, key: bytes) -> bytes | None:
        """The value of *key*, or None."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of *keys*, in that order, None for those that are not there."""

    def write_many(self, writes: Sequence[tuple[bytes, bytes | None]]) -> int:
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
    ) -> Rows:
        """The rows from *start* up to but not including *stop*, or all that begin with *prefix*; or their keys only."""

    def sync(self) -> None:
        """Return once everything written before the call would survive a power cut.  A failure here is final."""

    def sequence(self) -> int:
        """A number that every write makes larger and that no restart makes smaller."""

    def close(self) -> None:
        """Let go of the files."""


def write_all(db: KeyValue, puts: Iterable[tuple[bytes, bytes]] = (), deletes: Iterable[bytes] = ()) -> None:
    """Write *puts* and *deletes* as one batch, not yet durable, however long the engine has to catch up first."""
    writes = [*puts, *((key, None) for key in deletes)]
    while True:
        try:
            db.write_many(writes)
        except Stalled:
            sleep(_PATIENCE)
        else:
            return

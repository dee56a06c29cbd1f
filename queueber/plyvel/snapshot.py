"""`Snapshot`: a consistent view of the database at one time."""

from typing import Unpack

from queueber.plyvel.arguments import as_bool, check_key
from queueber.plyvel.cursor import read_options
from queueber.plyvel.errors import translating_errors
from queueber.plyvel.handle import Closable, Handle
from queueber.plyvel.iterator import Iterator, IteratorArguments, new_iterator
from queueber.plyvel.raw_iterator import RawIterator
from queueber.plyvel.shared_snapshot import SharedSnapshot


class Snapshot(Closable):
    """
    plyvel's `Snapshot`, of a database or of a `PrefixedDB`.

    Iterators made from a snapshot remain usable after it is closed; the rows
    are released when all of them are closed.  All iterators of one snapshot
    share one native iterator, which makes them slower when used alternately.
    """

    __slots__ = ("__weakref__", "_handle", "_options", "_prefix", "_shared")

    def __init__(self, handle: Handle, prefix: bytes) -> None:
        self._handle = handle
        self._prefix = prefix
        self._options = read_options(verify_checksums=True, fill_cache=True)
        with translating_errors:
            self._shared: SharedSnapshot | None = SharedSnapshot(handle.cursor(self._options, None))
        handle.register(self)

    def close(self) -> None:
        """Release the snapshot.  Idempotent."""
        self._shared = None

    def release(self) -> None:
        """Release the snapshot; an alias of `close`."""
        self.close()

    def get(
        self, key: bytes, default: bytes | None = None, *, verify_checksums: bool = True, fill_cache: bool = True
    ) -> bytes | None:
        """
        Return the value that *key* had, or *default* if there was none.

        Checksums are always verified and the cache is always filled, whatever the arguments.
        """
        _check_flags(verify_checksums, fill_cache)
        shared = self._open_snapshot()
        with translating_errors:
            value = shared.get(self._prefix + check_key(key))
        return default if value is None else value

    def iterator(self, **arguments: Unpack[IteratorArguments]) -> Iterator:
        """Return an iterator over a range of the rows; always verifies checksums and fills the cache."""
        return new_iterator(self._handle, self._open_snapshot(), self._prefix, arguments)

    def raw_iterator(self, *, verify_checksums: bool = True, fill_cache: bool = True) -> RawIterator:
        """Return a raw iterator over the whole database, as plyvel does also for a snapshot of a `PrefixedDB`."""
        _check_flags(verify_checksums, fill_cache)
        return RawIterator(
            self._handle, self._open_snapshot(), verify_checksums=verify_checksums, fill_cache=fill_cache
        )

    def _open_snapshot(self) -> SharedSnapshot:
        if self._shared is None:
            raise RuntimeError("the database or the snapshot is closed")
        return self._shared

    def __iter__(self) -> Iterator:
        return self.iterator()


def _check_flags(verify_checksums: object, fill_cache: object) -> None:
    as_bool(verify_checksums, "verify_checksums")
    as_bool(fill_cache, "fill_cache")

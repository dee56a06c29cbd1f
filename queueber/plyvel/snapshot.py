"""The database as it was."""

from types import TracebackType
from typing import Self, Unpack

from queueber.plyvel.arguments import flag_of, key_of
from queueber.plyvel.cursor import read_options
from queueber.plyvel.errors import translating
from queueber.plyvel.handle import Handle, NoCopy
from queueber.plyvel.iterator import Iterator, Range, iterate
from queueber.plyvel.raw_iterator import RawIterator
from queueber.plyvel.shared_snapshot import SharedSnapshot


class Snapshot(NoCopy):
    """
    plyvel's `Snapshot`: what the database, or a part of it, held when this was made.

    Iterators made from here stay usable after it is closed, and keep the
    moment until they are closed themselves.  Those of one snapshot take turns
    with one cursor, so they are slower than those of the database when used
    alternately.
    """

    __slots__ = ("__weakref__", "_handle", "_moment", "_options", "_prefix")

    def __init__(self, handle: Handle, prefix: bytes) -> None:
        self._handle = handle
        self._prefix = prefix
        self._options = read_options(verify_checksums=True, fill_cache=True)
        with translating():
            self._moment: SharedSnapshot | None = SharedSnapshot(handle.cursor(self._options, None))
        handle.keep(self)

    def close(self) -> None:
        """Let go of the moment.  Does nothing the second time."""
        self._moment = None

    def release(self) -> None:
        """The same as `close`."""
        self.close()

    def get(
        self, key: bytes, default: bytes | None = None, *, verify_checksums: bool = True, fill_cache: bool = True
    ) -> bytes | None:
        """The value of *key* at that time, or *default*.  Checksums are always verified, and the cache filled."""
        _check(verify_checksums, fill_cache)
        moment = self._opened()
        with translating():
            value = moment.get(self._prefix + key_of(key))
        return default if value is None else value

    def iterator(self, **wanted: Unpack[Range]) -> Iterator:
        """A walk over the rows in a range, as they were.  Checksums are always verified, and the cache filled."""
        return iterate(self._handle, self._opened(), self._prefix, wanted)

    def raw_iterator(self, *, verify_checksums: bool = True, fill_cache: bool = True) -> RawIterator:
        """A raw iterator over the whole database as it was, even if this is a snapshot of a part."""
        _check(verify_checksums, fill_cache)
        return RawIterator(self._handle, self._opened(), verify_checksums=verify_checksums, fill_cache=fill_cache)

    def _opened(self) -> SharedSnapshot:
        if self._moment is None:
            raise RuntimeError("the database or the snapshot is closed")
        return self._moment

    def __iter__(self) -> Iterator:
        return self.iterator()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


def _check(verify_checksums: object, fill_cache: object) -> None:
    flag_of(verify_checksums, "verify_checksums")
    flag_of(fill_cache, "fill_cache")

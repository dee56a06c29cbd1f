"""Where in the rows a walk is: what RocksDB's lowest-level iterator does, and who owns one."""

from types import TracebackType
from typing import Protocol, Self

import rocksdict

from queueber.plyvel.handle import NoCopy


class Cursor(Protocol):
    """
    A place among the rows of one moment, in the words of rocksdict's `RdictIter`, which is one.

    The comfortable iterators (`items`, `keys`) end at damaged data as if there
    were no more rows.  This one has `status`, to be asked whenever it is not valid.
    """

    def valid(self) -> bool:
        """Whether it is at a row."""

    def status(self) -> None:
        """Raise what RocksDB stumbled over, if it did."""

    def key(self) -> bytes:
        """The key of the row, if valid."""

    def value(self) -> bytes:
        """The value of the row, if valid."""

    def next(self) -> None:
        """Go one row forwards; only if valid."""

    def prev(self) -> None:
        """Go one row backwards; only if valid."""

    def seek(self, target: bytes, /) -> None:
        """Go to the first row at or above *target*."""

    def seek_to_first(self) -> None:
        """Go to the first row."""

    def seek_to_last(self) -> None:
        """Go to the last row below the upper bound it was made with."""


class Source(Protocol):
    """What cursors come from: the database as it is, or one moment of it."""

    def cursor(self, options: rocksdict.ReadOptions, upper: bytes | None) -> Cursor:
        """A cursor over the rows below *upper*, which is also in *options*; the caller keeps those alive."""


def read_options(
    verify_checksums: bool | None, fill_cache: bool | None, upper: bytes | None = None
) -> rocksdict.ReadOptions:
    """Options for reading, for rows below *upper*."""
    options = rocksdict.ReadOptions()
    # Without a prefix extractor this is how it is anyway; with one a walk would otherwise see only part of the rows.
    options.set_total_order_seek(True)
    if not verify_checksums:
        options.set_verify_checksums(False)
    if not fill_cache:
        options.fill_cache(False)  # type: ignore[call-arg] # its stub has forgotten the argument
    if upper is not None:
        # There is a lower bound too, but rocksdict 0.3.29 sets the upper one by it.
        options.set_iterate_upper_bound(upper)
    return options


class CursorOwner(NoCopy):
    """What plyvel's two iterators share: a cursor that is closed with them, or with the database."""

    __slots__ = ("__weakref__", "_cursor", "_options")

    _cursor: Cursor | None
    _options: rocksdict.ReadOptions
    """Kept for as long as the cursor, which reads its bound from there."""

    def close(self) -> None:
        """Let go of what the database held when this was made.  Does nothing the second time."""
        self._cursor = None

    def _opened(self) -> Cursor:
        """The cursor, for all but the two methods that are called for each row."""
        if self._cursor is None:
            raise closed_iterator()
        return self._cursor

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


def closed_iterator() -> RuntimeError:
    """What the use of a closed iterator raises."""
    return RuntimeError("the database or the iterator is closed")

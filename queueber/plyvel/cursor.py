"""The native iterator's interface, the options of reads, and the base class of plyvel's two iterators."""

from typing import Protocol

import rocksdict

from queueber.plyvel.handle import Closable


class Cursor(Protocol):
    """
    A position in the rows of one snapshot: a part of the interface of rocksdict's `RdictIter`.

    rocksdict's other iterators (`items`, `keys`) end silently at damaged data.
    With this one, call `status` whenever it is not valid.
    """

    def valid(self) -> bool:
        """Return whether the cursor is at a row."""

    def status(self) -> None:
        """Raise the error that made the cursor invalid, if any."""

    def key(self) -> bytes:
        """Return the row's key.  Requires `valid`."""

    def value(self) -> bytes:
        """Return the row's value.  Requires `valid`."""

    def next(self) -> None:
        """Move to the next row.  Requires `valid`."""

    def prev(self) -> None:
        """Move to the previous row.  Requires `valid`."""

    def seek(self, target: bytes, /) -> None:
        """Move to the first row at or above *target*."""

    def seek_to_first(self) -> None:
        """Move to the first row."""

    def seek_to_last(self) -> None:
        """Move to the last row below the cursor's upper bound."""


class NativeIterator(Cursor, Protocol):
    """The interface of rocksdict's `RdictIter`, whose own types leave out that keys and values are bytes."""

    def seek_for_prev(self, target: bytes, /) -> None:
        """Move to the last row at or below *target*."""


class CursorSource(Protocol):
    """A database or a snapshot."""

    def cursor(self, options: rocksdict.ReadOptions, upper: bytes | None) -> Cursor:
        """Return a cursor over the rows below *upper*.  *options* must include that bound and outlive the cursor."""


def read_options(
    verify_checksums: bool | None, fill_cache: bool | None, upper: bytes | None = None
) -> rocksdict.ReadOptions:
    """Return rocksdict's options for reading rows below *upper*."""
    options = rocksdict.ReadOptions()
    # Matters only with a prefix extractor, with which an iterator would otherwise skip rows outside its prefix.
    options.set_total_order_seek(True)
    if not verify_checksums:
        options.set_verify_checksums(False)
    if not fill_cache:
        options.fill_cache(False)  # type: ignore[call-arg] # the stub lacks the argument
    if upper is not None:
        # There is no lower bound: in rocksdict 0.3.29, `set_iterate_lower_bound` sets the upper one.
        options.set_iterate_upper_bound(upper)
    return options


class IteratorBase(Closable):
    """Base of plyvel's two iterators: owns a cursor, which is released on `close` or when the database closes."""

    __slots__ = ("__weakref__", "_cursor", "_options")

    _cursor: Cursor | None
    _options: rocksdict.ReadOptions
    """Owns the bound that the cursor refers to, so both have the same lifetime."""

    def close(self) -> None:
        """Release the rows as they were when the iterator was made.  Idempotent."""
        self._cursor = None

    def _open_cursor(self) -> Cursor:
        if self._cursor is None:
            raise closed_error()
        return self._cursor


def closed_error() -> RuntimeError:
    """Return the error for the use of a closed iterator."""
    return RuntimeError("the database or the iterator is closed")

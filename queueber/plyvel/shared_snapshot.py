"""
One moment of the database, for as many readers as want it.

rocksdict's own snapshots do not give that: in 0.3.29 only their look-ups by
key see the moment, their iterators see the present.  But each iterator of the
database keeps the moment at which it was made, so a moment is one of these,
never read from twice at a time, and its cursors are bookmarks in it.
"""

from collections.abc import Callable
from threading import Lock
from typing import cast

import rocksdict

from queueber.plyvel.errors import translated


class SharedSnapshot:
    """
    What the database held when this was made, for several threads.

    It keeps the table files and the memory of that time for as long as it lives.
    """

    def __init__(self, native: rocksdict.RdictIter) -> None:
        """Become the owner of *native*."""
        self.native = native
        self.lock = Lock()
        self.last: object = None
        """Who moved it last, and therefore finds it where they left it."""

    def get(self, key: bytes) -> bytes | None:
        """The value of *key* at that time."""
        native = self.native
        with self.lock:
            self.last = None
            native.seek(key)
            if native.valid():
                return cast(bytes, native.value()) if native.key() == key else None
            native.status()
        return None

    def cursor(self, options: rocksdict.ReadOptions, upper: bytes | None) -> "SharedCursor":  # noqa: ARG002
        """A cursor over the rows below *upper*.  The rest of the options are those of the moment."""
        return SharedCursor(self, upper)


class SharedCursor:
    """
    A `Cursor` in a moment that it shares: it remembers its row, and goes there again if others have moved since.

    Errors wait for `status`, as those of RocksDB's iterators do.
    """

    def __init__(self, moment: SharedSnapshot, upper: bytes | None) -> None:
        self._moment = moment
        self._upper = upper
        self._key: bytes | None = None
        self._error: Exception | None = None
        # Not itself, which would tie a knot that only the garbage collector could undo.
        self._me = object()

    def valid(self) -> bool:
        """Whether it is at a row."""
        return self._key is not None

    def status(self) -> None:
        """Raise what RocksDB stumbled over, if it did."""
        if self._error is not None:
            raise self._error

    def key(self) -> bytes:
        """The key of the row, if valid."""
        assert self._key is not None
        return self._key

    def value(self) -> bytes:
        """The value of the row, if valid."""
        with self._moment.lock:
            self._return()
            return cast(bytes, self._moment.native.value())

    def next(self) -> None:
        """Go one row forwards; only if valid."""
        self._move(lambda native: native.next(), back=True)

    def prev(self) -> None:
        """Go one row backwards; only if valid."""
        self._move(lambda native: native.prev(), back=True)

    def seek(self, target: bytes) -> None:
        """Go to the first row at or above *target*."""
        self._move(lambda native: native.seek(target))

    def seek_to_first(self) -> None:
        """Go to the first row."""
        self._move(lambda native: native.seek_to_first())

    def seek_to_last(self) -> None:
        """Go to the last row below the upper bound."""
        self._move(self._to_last)

    def _to_last(self, native: rocksdict.RdictIter) -> None:
        if self._upper is None:
            native.seek_to_last()
            return
        native.seek_for_prev(self._upper)
        if native.valid() and native.key() == self._upper:
            native.prev()

    def _return(self) -> None:
        """Go to the row of this bookmark, unless there already."""
        moment = self._moment
        if moment.last is not self._me:
            moment.native.seek(self.key())
            moment.last = self._me

    def _move(self, move: Callable[[rocksdict.RdictIter], None], *, back: bool = False) -> None:
        """Move, from this bookmark's row if *back*, and remember where that led to."""
        native = self._moment.native
        with self._moment.lock:
            if back:
                self._return()
            self._moment.last = self._me
            self._key = self._error = None
            move(native)
            if native.valid():
                key = native.key()
                if self._upper is None or key < self._upper:
                    self._key = key
                return
            try:
                native.status()
            except Exception as error:  # noqa: BLE001 - rocksdict knows no other kind
                self._error = translated(error)

"""
A snapshot that several readers share, made of one native iterator.

rocksdict's own snapshots cannot be used: in 0.3.29 only their `get` reads the
snapshot, and their iterators read the present.  But each native iterator reads
the rows as they were when it was made.  So a snapshot is one native iterator,
used by one reader at a time, and each of its cursors remembers a key.
"""

from collections.abc import Callable
from threading import Lock

import rocksdict

from queueber.plyvel.cursor import NativeIterator
from queueber.plyvel.errors import translate_error


class SharedSnapshot:
    """
    The rows as they were when *native* was made.  Thread-safe.

    Holds the table files and write buffers of that time until the last reference is gone.
    """

    def __init__(self, native: NativeIterator) -> None:
        """Take ownership of *native*."""
        self.native = native
        self.lock = Lock()
        """Held while the native iterator is moved or read."""

        self.positioned_by: object = None
        """Identity of the cursor that moved the native iterator last; None after a `get`."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value of *key*, or None if there is none."""
        native = self.native
        with self.lock:
            self.positioned_by = None
            native.seek(key)
            if native.valid():
                return native.value() if native.key() == key else None
            native.status()
        return None

    def cursor(self, options: rocksdict.ReadOptions, upper: bytes | None) -> "SharedCursor":  # noqa: ARG002
        """Return a cursor over the rows below *upper*.  Other options are those of the native iterator."""
        return SharedCursor(self, upper)


class SharedCursor:
    """
    A `Cursor` of a shared snapshot.

    Remembers the key of its row, and seeks to it again if another reader has moved the native iterator since.
    Errors are kept until `status`, as in a native iterator.
    """

    def __init__(self, snapshot: SharedSnapshot, upper: bytes | None) -> None:
        self._snapshot = snapshot
        self._upper = upper
        self._key: bytes | None = None
        self._error: Exception | None = None
        # Stands for this cursor in `positioned_by`, where the cursor itself would make a reference cycle.
        self._identity = object()

    def valid(self) -> bool:
        """Return whether the cursor is at a row."""
        return self._key is not None

    def status(self) -> None:
        """Raise the error that made the cursor invalid, if any."""
        if self._error is not None:
            raise self._error

    def key(self) -> bytes:
        """Return the row's key.  Requires `valid`."""
        assert self._key is not None
        return self._key

    def value(self) -> bytes:
        """Return the row's value.  Requires `valid`."""
        with self._snapshot.lock:
            self._restore_position()
            return self._snapshot.native.value()

    def next(self) -> None:
        """Move to the next row.  Requires `valid`."""
        self._move(lambda native: native.next(), relative=True)

    def prev(self) -> None:
        """Move to the previous row.  Requires `valid`."""
        self._move(lambda native: native.prev(), relative=True)

    def seek(self, target: bytes) -> None:
        """Move to the first row at or above *target*."""
        self._move(lambda native: native.seek(target))

    def seek_to_first(self) -> None:
        """Move to the first row."""
        self._move(lambda native: native.seek_to_first())

    def seek_to_last(self) -> None:
        """Move to the last row below the upper bound."""
        self._move(self._seek_native_to_last)

    def _seek_native_to_last(self, native: NativeIterator) -> None:
        if self._upper is None:
            native.seek_to_last()
            return
        native.seek_for_prev(self._upper)
        if native.valid() and native.key() == self._upper:
            native.prev()

    def _restore_position(self) -> None:
        """Move the native iterator to this cursor's row, unless it is there."""
        snapshot = self._snapshot
        if snapshot.positioned_by is not self._identity:
            snapshot.native.seek(self.key())
            snapshot.positioned_by = self._identity

    def _move(self, move: Callable[[NativeIterator], None], *, relative: bool = False) -> None:
        """Apply *move* to the native iterator, from this cursor's row if *relative*, and remember the new row."""
        native = self._snapshot.native
        with self._snapshot.lock:
            if relative:
                self._restore_position()
            self._snapshot.positioned_by = self._identity
            self._key = self._error = None
            move(native)
            if native.valid():
                key = native.key()
                if self._upper is None or key < self._upper:
                    self._key = key
                return
            try:
                native.status()
            except Exception as error:  # noqa: BLE001 - rocksdict raises bare `Exception`
                self._error = translate_error(error)

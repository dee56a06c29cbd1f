"""`RawIterator`, LevelDB's own style of iterator: moved and read by separate calls."""

from collections.abc import Callable

from queueber.plyvel.arguments import check_key
from queueber.plyvel.cursor import Cursor, CursorSource, IteratorBase, read_options
from queueber.plyvel.errors import IteratorInvalidError, translating_errors
from queueber.plyvel.handle import Handle


class RawIterator(IteratorBase):
    """
    plyvel's `RawIterator`, over the rows as they were when it was made.

    Either at a row or invalid: before the first seek, and after moving past either end.
    """

    __slots__ = ()

    def __init__(self, handle: Handle, source: CursorSource, *, verify_checksums: bool, fill_cache: bool) -> None:
        self._options = read_options(verify_checksums, fill_cache)
        with translating_errors:
            self._cursor = source.cursor(self._options, None)
        handle.register(self)

    def valid(self) -> bool:
        """Return whether the iterator is at a row."""
        return self._open_cursor().valid()

    def seek_to_first(self) -> None:
        """Move to the first row."""
        self._move(self._open_cursor().seek_to_first)

    def seek_to_last(self) -> None:
        """Move to the last row."""
        self._move(self._open_cursor().seek_to_last)

    def seek(self, target: bytes) -> None:
        """Move to the first row at or above *target*."""
        cursor, target = self._open_cursor(), check_key(target, "target")
        self._move(lambda: cursor.seek(target))

    def next(self) -> None:
        """Move to the next row; raise `IteratorInvalidError` if there is no current one."""
        self._move(self._valid_cursor().next)

    def prev(self) -> None:
        """Move to the previous row; raise `IteratorInvalidError` if there is no current one."""
        self._move(self._valid_cursor().prev)

    def key(self) -> bytes:
        """Return the current key; raise `IteratorInvalidError` if there is no current row."""
        return self._valid_cursor().key()

    def value(self) -> bytes:
        """Return the current value; raise `IteratorInvalidError` if there is no current row."""
        cursor = self._valid_cursor()
        with translating_errors:
            return cursor.value()

    def item(self) -> tuple[bytes, bytes]:
        """Return the current key and value; raise `IteratorInvalidError` if there is no current row."""
        return self.key(), self.value()

    def _valid_cursor(self) -> Cursor:
        cursor = self._open_cursor()
        if not cursor.valid():
            raise IteratorInvalidError("the iterator is at no row")
        return cursor

    def _move(self, move: Callable[[], None]) -> None:
        cursor = self._open_cursor()
        with translating_errors:
            move()
            if not cursor.valid():
                cursor.status()

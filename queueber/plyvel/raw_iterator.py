"""LevelDB's own kind of iterator."""

from collections.abc import Callable

from queueber.plyvel.arguments import key_of
from queueber.plyvel.cursor import Cursor, CursorOwner, Source, read_options
from queueber.plyvel.errors import IteratorInvalidError, translating
from queueber.plyvel.handle import Handle


class RawIterator(CursorOwner):
    """plyvel's `RawIterator`: at a row, or at none, over what the database held when this was made."""

    __slots__ = ()

    def __init__(self, handle: Handle, source: Source, *, verify_checksums: bool, fill_cache: bool) -> None:
        self._options = read_options(verify_checksums, fill_cache)
        with translating():
            self._cursor = source.cursor(self._options, None)
        handle.keep(self)

    def valid(self) -> bool:
        """Whether it is at a row; it is not before the first seek."""
        return self._opened().valid()

    def seek_to_first(self) -> None:
        """Go to the first row."""
        self._move(self._opened().seek_to_first)

    def seek_to_last(self) -> None:
        """Go to the last row."""
        self._move(self._opened().seek_to_last)

    def seek(self, target: bytes) -> None:
        """Go to the first row at or above *target*."""
        cursor, wanted = self._opened(), key_of(target, "target")
        self._move(lambda: cursor.seek(wanted))

    def next(self) -> None:
        """Go to the next row; an `IteratorInvalidError` if it is at none."""
        self._move(self._at_row().next)

    def prev(self) -> None:
        """Go to the row before; an `IteratorInvalidError` if it is at none."""
        self._move(self._at_row().prev)

    def key(self) -> bytes:
        """The key of the row; an `IteratorInvalidError` if it is at none."""
        return self._at_row().key()

    def value(self) -> bytes:
        """The value of the row; an `IteratorInvalidError` if it is at none."""
        cursor = self._at_row()
        with translating():
            return cursor.value()

    def item(self) -> tuple[bytes, bytes]:
        """Both; an `IteratorInvalidError` if it is at none."""
        return self.key(), self.value()

    def _at_row(self) -> Cursor:
        cursor = self._opened()
        if not cursor.valid():
            raise IteratorInvalidError("the iterator is at no row")
        return cursor

    def _move(self, move: Callable[[], None]) -> None:
        cursor = self._opened()
        with translating():
            move()
            if not cursor.valid():
                cursor.status()

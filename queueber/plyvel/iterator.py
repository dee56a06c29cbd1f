"""`Iterator`: iterates over a range of keys, in both directions."""

from typing import Any, Self, TypeAlias, TypedDict

from queueber.plyvel.arguments import check_key, check_keywords, type_error
from queueber.plyvel.cursor import Cursor, CursorSource, IteratorBase, closed_error, read_options
from queueber.plyvel.errors import translate_error, translating_errors
from queueber.plyvel.handle import Handle

Row: TypeAlias = Any
"""Element of an iterator: a pair of key and value, one of them, or None, as `include_key` and `include_value` say."""


class IteratorArguments(TypedDict, total=False):
    """The keyword arguments of plyvel's `iterator`."""

    reverse: bool
    """Iterate from the last row to the first; False by default."""

    start: bytes | None
    """Lower bound; None for no bound."""

    stop: bytes | None
    """Upper bound; None for no bound."""

    include_start: bool
    """Whether *start* itself is in the range; True by default."""

    include_stop: bool
    """Whether *stop* itself is in the range; False by default."""

    prefix: bytes | None
    """Iterate over the keys with this prefix.  Excludes *start* and *stop*."""

    include_key: bool
    include_value: bool
    """Both True by default: pairs."""

    verify_checksums: bool
    """True by default; plyvel's default is False."""

    fill_cache: bool
    """Whether the blocks that are read go to the block cache; True by default."""


_BYTES_ARGUMENTS = ("start", "stop", "prefix")


def prefix_successor(prefix: bytes) -> bytes | None:
    """Return the smallest key greater than all keys with *prefix*, for use as `stop`; None if there is no such key."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else None


def new_iterator(handle: Handle, source: CursorSource, base: bytes, arguments: IteratorArguments) -> "Iterator":
    """
    Return an iterator over the rows of *source* whose keys begin with *base*.

    Keys and bounds are without *base*, both in *arguments* and in the rows that the iterator returns.

    Raises:
        TypeError: an argument is of the wrong type or unknown, or there are both a prefix and another bound.
    """
    for name, value in arguments.items():
        if type(value) is not (bytes if name in _BYTES_ARGUMENTS else bool) and value is not None:
            check_keywords("iterator", arguments, IteratorArguments)
            raise type_error(name, "bytes" if name in _BYTES_ARGUMENTS else "a bool", value)
    kind = ReverseIterator if arguments.get("reverse") else Iterator
    try:  # `translating_errors` would add a fifth to the cost
        return kind(handle, source, base, **arguments)
    except Exception as error:
        translated = translate_error(error)
        if translated is error:
            raise
        raise translated from error


class Iterator(IteratorBase):
    """
    plyvel's `Iterator`, over the rows as they were when it was made.

    The position is always between two rows, or at an end of the range.  A step
    in either direction returns the row it passes, so `next` and then `prev`
    return the same row.

    The native cursor is at one of the two adjacent rows:

    | `_cursor_before` | the cursor is at     | an invalid cursor means a position | reached by             |
    |------------------|----------------------|------------------------------------|------------------------|
    | False            | the row after it     | after the last row                 | a step forward, a seek |
    | True             | the row before it    | before the first row               | a step backward        |
    """

    __slots__ = ("_base", "_base_length", "_cursor_before", "_lower", "_with_key", "_with_value")

    def __init__(
        self,
        handle: Handle,
        source: CursorSource,
        base: bytes,
        *,
        reverse: bool = False,
        start: bytes | None = None,
        stop: bytes | None = None,
        include_start: bool = True,
        include_stop: bool = False,
        prefix: bytes | None = None,
        include_key: bool = True,
        include_value: bool = True,
        verify_checksums: bool = True,
        fill_cache: bool = True,
    ) -> None:
        if prefix is not None:
            if start is not None or stop is not None:
                raise TypeError("'prefix' cannot be used together with 'start' or 'stop'")
            lower, upper = base + prefix, prefix_successor(base + prefix)
        else:
            lower = base if start is None else base + start + (b"" if include_start else b"\0")
            upper = prefix_successor(base) if stop is None else base + stop + (b"\0" if include_stop else b"")
        self._base = base
        self._base_length = len(base)
        self._lower = lower
        self._with_key = include_key
        self._with_value = include_value
        self._options = options = read_options(verify_checksums, fill_cache, upper)
        self._cursor = cursor = source.cursor(options, upper)
        self._cursor_before = reverse
        if reverse:
            cursor.seek_to_last()
        else:
            cursor.seek(lower)
        handle.register(self)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Row:
        cursor = self._cursor
        if cursor is None:
            raise closed_error()
        key, value = b"", None
        try:
            if self._cursor_before:
                self._cross_forward(cursor)
            more = cursor.valid()
            if more:
                key = cursor.key()
                value = cursor.value() if self._with_value else None
                cursor.next()
            else:
                # Invalid both at the end of the range and after a read error; `status` raises the latter.
                cursor.status()
        except Exception as error:
            raise translate_error(error) from error
        if not more:
            raise StopIteration
        if self._base_length:
            key = key[self._base_length :]
        if self._with_key:
            return (key, value) if self._with_value else key
        return value

    def prev(self) -> Row:
        """
        Return the row before the position, and move before it.

        Raises:
            StopIteration: the range has no row before the position.
        """
        cursor = self._cursor
        if cursor is None:
            raise closed_error()
        key, value = b"", None
        try:
            if not self._cursor_before:
                self._cross_backward(cursor)
            more = cursor.valid()
            if more:
                key = cursor.key()
                more = key >= self._lower
                if more:
                    value = cursor.value() if self._with_value else None
                    cursor.prev()
            else:
                cursor.status()
        except Exception as error:
            raise translate_error(error) from error
        if not more:
            raise StopIteration
        if self._base_length:
            key = key[self._base_length :]
        if self._with_key:
            return (key, value) if self._with_value else key
        return value

    def _cross_forward(self, cursor: Cursor) -> None:
        """Move *cursor* from the row before the position to the one after it."""
        if cursor.valid():
            cursor.next()
        else:
            cursor.status()
            cursor.seek(self._lower)
        self._cursor_before = False

    def _cross_backward(self, cursor: Cursor) -> None:
        """Move *cursor* from the row after the position to the one before it."""
        if cursor.valid():
            cursor.prev()
        else:
            cursor.status()
            cursor.seek_to_last()
        self._cursor_before = True

    def seek_to_start(self) -> None:
        """Move before the first row of the range, also if the iterator is reversed."""
        cursor = self._open_cursor()
        with translating_errors:
            cursor.seek(self._lower)
        self._cursor_before = False

    def seek_to_stop(self) -> None:
        """Move after the last row of the range, also if the iterator is reversed."""
        cursor = self._open_cursor()
        with translating_errors:
            cursor.seek_to_last()
        self._cursor_before = True

    def seek(self, target: bytes) -> None:
        """Move before the first row at or above *target*, or to the nearer end if *target* is outside of the range."""
        cursor = self._open_cursor()
        wanted = max(self._base + check_key(target, "target"), self._lower)
        with translating_errors:
            cursor.seek(wanted)
        self._cursor_before = False


class ReverseIterator(Iterator):
    """An iterator with `reverse`: `next` steps backward and `prev` forward."""

    __slots__ = ()

    __next__ = Iterator.prev
    prev = Iterator.__next__

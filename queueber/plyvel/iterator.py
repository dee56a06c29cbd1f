"""A walk over a range of keys, in both directions."""

from typing import Any, Self, TypeAlias, TypedDict

from queueber.plyvel.arguments import check_words, key_of, wrong_type
from queueber.plyvel.cursor import Cursor, CursorOwner, Source, closed_iterator, read_options
from queueber.plyvel.errors import translated, translating
from queueber.plyvel.handle import Handle

Row: TypeAlias = Any
"""A row of an iterator: a pair of key and value, or one of them if `include_key` or `include_value` is off."""


class Range(TypedDict, total=False):
    """The keyword arguments of plyvel's `iterator`."""

    reverse: bool
    start: bytes | None
    stop: bytes | None
    include_start: bool
    include_stop: bool
    prefix: bytes | None
    include_key: bool
    include_value: bool
    verify_checksums: bool
    fill_cache: bool


_BOUNDS = ("start", "stop", "prefix")


def prefix_successor(prefix: bytes) -> bytes | None:
    """Return the smallest key greater than every key that begins with *prefix*, or None if there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else None


def iterate(handle: Handle, source: Source, base: bytes, wanted: Range) -> "Iterator":
    """
    A walk over what *source* has below *base*, whose keys are taken and given without it.

    Raises:
        TypeError: *wanted* has a prefix and another bound, or something that is no argument of plyvel's.
    """
    for name, value in wanted.items():
        if type(value) is not (bytes if name in _BOUNDS else bool) and value is not None:
            check_words("iterator", wanted, Range)
            raise wrong_type(name, "bytes" if name in _BOUNDS else "a bool", value)
    kind = Backwards if wanted.get("reverse") else Iterator
    try:  # as `translating` does, which would be a fifth of the whole
        return kind(handle, source, base, **wanted)
    except Exception as error:
        better = translated(error)
        if better is error:
            raise
        raise better from error


class Iterator(CursorOwner):
    """
    plyvel's `Iterator`, over what the database held when this was made.

    Its place is always between two rows, or before the first or behind the
    last one of its range.  A step to either side returns the row that it steps
    over, so that a step forth and one back return the same row.

    The cursor is at one of the two rows beside that place:

    | `_passed` | cursor is | cursor at no row means | after |
    |---|---|---|---|
    | no  | at the row behind the place | the place is behind the last row | a step forwards, a seek |
    | yes | at the row before the place | the place is before the first row | a step backwards |
    """

    __slots__ = ("_base", "_lower", "_passed", "_strip", "_with_key", "_with_value")

    def __init__(
        self,
        handle: Handle,
        source: Source,
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
        self._strip = len(base)
        self._lower = lower
        self._with_key = include_key
        self._with_value = include_value
        self._options = options = read_options(verify_checksums, fill_cache, upper)
        self._cursor = cursor = source.cursor(options, upper)
        self._passed = reverse
        if reverse:
            cursor.seek_to_last()
        else:
            cursor.seek(lower)
        handle.keep(self)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Row:
        cursor = self._cursor
        if cursor is None:
            raise closed_iterator()
        key, value = b"", None
        try:
            if self._passed:
                self._turn_forwards(cursor)
            more = cursor.valid()
            if more:
                key = cursor.key()
                value = cursor.value() if self._with_value else None
                cursor.next()
            else:
                # The end and a row that cannot be read look the same until one asks.
                cursor.status()
        except Exception as error:
            raise translated(error) from error
        if not more:
            raise StopIteration
        if self._strip:
            key = key[self._strip :]
        if self._with_key:
            return (key, value) if self._with_value else key
        return value

    def prev(self) -> Row:
        """
        The row before this place, which is then behind it.

        Raises:
            StopIteration: there is none in the range.
        """
        cursor = self._cursor
        if cursor is None:
            raise closed_iterator()
        key, value = b"", None
        try:
            if not self._passed:
                self._turn_backwards(cursor)
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
            raise translated(error) from error
        if not more:
            raise StopIteration
        if self._strip:
            key = key[self._strip :]
        if self._with_key:
            return (key, value) if self._with_value else key
        return value

    def _turn_forwards(self, cursor: Cursor) -> None:
        """Put *cursor* behind the place."""
        if cursor.valid():
            cursor.next()
        else:
            cursor.status()
            cursor.seek(self._lower)
        self._passed = False

    def _turn_backwards(self, cursor: Cursor) -> None:
        """Put *cursor* before the place."""
        if cursor.valid():
            cursor.prev()
        else:
            cursor.status()
            cursor.seek_to_last()
        self._passed = True

    def seek_to_start(self) -> None:
        """Go before the first row of the range, whatever the direction."""
        cursor = self._opened()
        with translating():
            cursor.seek(self._lower)
        self._passed = False

    def seek_to_stop(self) -> None:
        """Go behind the last row of the range, whatever the direction."""
        cursor = self._opened()
        with translating():
            cursor.seek_to_last()
        self._passed = True

    def seek(self, target: bytes) -> None:
        """Go before the first row at or above *target*, but not out of the range."""
        cursor = self._opened()
        wanted = max(self._base + key_of(target, "target"), self._lower)
        with translating():
            cursor.seek(wanted)
        self._passed = False


class Backwards(Iterator):
    """An iterator made with `reverse`: the same, but a step ahead is one back."""

    __slots__ = ()

    __next__ = Iterator.prev
    prev = Iterator.__next__

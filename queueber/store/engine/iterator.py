"""A walk over a range of keys."""

from types import TracebackType
from typing import Self, TypedDict

import rocksdict

from queueber.store.engine.errors import translated
from queueber.store.kv import Row, first_after


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


class Iterator:
    """
    plyvel's `Iterator`, forwards or backwards, over what the database held when this was made.

    It drives rocksdict's lowest-level iterator.  The comfortable ones
    (`items`, `keys`) end at damaged data as if there were no more rows, and
    `set_iterate_lower_bound` sets the *upper* bound in rocksdict 0.3.29.
    """

    def __init__(
        self,
        source: rocksdict.Rdict,
        *,
        base: bytes = b"",
        reverse: bool = False,
        start: bytes | None = None,
        stop: bytes | None = None,
        include_start: bool = True,
        include_stop: bool = False,
        prefix: bytes | None = None,
        include_key: bool = True,
        include_value: bool = True,
    ) -> None:
        """Walk over *source*, or the keys in it that begin with *base*, given without it; the rest is plyvel's."""
        if prefix is not None:
            if start is not None or stop is not None:
                raise TypeError("'prefix' cannot be used together with 'start' or 'stop'")
            lower, upper = base + prefix, first_after(base + prefix)
        else:
            lower = base if start is None else base + start + (b"" if include_start else b"\0")
            upper = first_after(base) if stop is None else base + stop + (b"\0" if include_stop else b"")
        self._lower = lower
        self._reverse = reverse
        self._strip = len(base)
        self._with_key = include_key
        self._with_value = include_value
        self._options = rocksdict.ReadOptions()
        if upper is not None:
            self._options.set_iterate_upper_bound(upper)
        self._native: rocksdict.RdictIter | None = source.iter(self._options)
        if reverse:
            self._native.seek_to_last()
        else:
            self._native.seek(lower)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Row:
        native = self._native
        if native is None:
            raise RuntimeError("the iterator is closed")
        key, value = b"", None
        try:
            more = native.valid()
            if more:
                key = native.key()
                value = native.value() if self._with_value else None
                if self._reverse:
                    native.prev()
                else:
                    native.next()
            else:
                # The end and a row that cannot be read look the same until one asks.
                native.status()
        except Exception as error:
            raise translated(error) from error
        if not more or key < self._lower:
            raise StopIteration
        if self._strip:
            key = key[self._strip :]
        if self._with_key:
            return (key, value) if self._with_value else key
        return value

    def close(self) -> None:
        """Let go of what the database held when this was made."""
        self._native = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

"""
Checks of arguments.

Each returns the value in the form in which the wire takes it, or raises an
`InvalidRequest` that names the argument, what it must be and what it was.
"""

import os
from collections.abc import Iterable
from operator import index
from pathlib import Path
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Final, TypeVar

from queueber.errors import InvalidRequest, too_large
from queueber.limits import PEER_LIMITS
from queueber.wire import DATA_BYTES_MAX

if TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")

FRAME_BYTES_HIGHEST: Final = next(limit.high for limit in PEER_LIMITS if limit.name == "frame_bytes")
"""The longest message that any server can be configured to take."""

SPAN_MS_MAX: Final = (1 << 64) - 1
"""The longest span that the wire can carry."""

_PRINTED_BITS_MAX = 256
"""Python refuses to print integers of some thousand digits; longer ones than this are described by their size."""


def wrong(name: str, value: object, wanted: str) -> InvalidRequest:
    """The error for *value* given as the argument *name*, which must be *wanted*."""
    return InvalidRequest(f"{name} is {_shown(value)}; it must be {wanted}")


def buffer(name: str, value: "Buffer") -> bytes:
    """
    All bytes of *value*, in the order of its items, whatever their width and however they are nested.

    Raises:
        InvalidRequest: *value* has no buffer, or more bytes than fit in one field.
    """
    if type(value) is bytes and len(value) <= DATA_BYTES_MAX:
        return value
    try:
        with memoryview(value) as view:
            # Before the copy: a mapped file may be larger than memory.
            if view.nbytes > DATA_BYTES_MAX:
                raise too_large(name, value=view.nbytes, limit=DATA_BYTES_MAX, unit="bytes")
            return bytes(view)
    except TypeError:
        raise wrong(name, value, "bytes, or another object with a buffer") from None
    except (ValueError, BufferError) as why:
        # A memory view that was released, a file that is not mapped any more.
        raise InvalidRequest(f"{name} is {_shown(value)}, whose bytes cannot be had: {why}") from None


def buffers(name: str, values: Iterable["Buffer"]) -> list[bytes]:
    """
    As `buffer`, for each of *values*.

    Raises:
        InvalidRequest: for one of them, or all of them together are longer than any message may be.
    """
    total, found = 0, []
    for at, value in enumerate(values):
        # The usual case first: naming the argument costs more than the check.
        if type(value) is bytes and len(value) <= DATA_BYTES_MAX:
            found.append(value)
        else:
            found.append(buffer(f"{name}[{at}]", value))
        total += len(found[-1])
        if total > FRAME_BYTES_HIGHEST:
            raise too_large(f"{name} up to [{at}]", value=total, limit=FRAME_BYTES_HIGHEST, unit="bytes")
    return found


def integer(name: str, value: int, least: int, most: int, unit: str) -> int:
    """
    *value*, if the wire can carry it.  The limits of a server are for the server to check.

    Raises:
        InvalidRequest: *value* is no integer, or not between *least* and *most*.
    """
    try:
        number = None if isinstance(value, bool) else index(value)
    except TypeError:
        number = None
    if number is None:
        raise wrong(name, value, f"a whole number of {unit}")
    if number < least:
        raise InvalidRequest(f"{name} is {_figure(number)} {unit}; the least is {least:,}")
    if number > most:
        raise InvalidRequest(f"{name} is {_figure(number)} {unit}; the limit is {most:,}")
    return number


def timeout(value: int | None) -> int | None:
    """
    *value*, the argument `timeout_ms`: milliseconds, or None.

    Raises:
        InvalidRequest: *value* is neither, or less than 1.
    """
    return None if value is None else integer("timeout_ms", value, 1, SPAN_MS_MAX, "ms")


def flag(name: str, value: bool) -> bool:
    """
    *value* itself.

    Raises:
        InvalidRequest: *value* is not a bool.
    """
    return instance(name, value, bool, "True or False")


def path(name: str, value: str | os.PathLike[str]) -> Path:
    """
    *value* as a path.

    Raises:
        InvalidRequest: *value* is not a path, or it is empty or holds a NUL.
    """
    found = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(found, str) or not found or "\0" in found:
        raise wrong(name, value, "a path as text or `os.PathLike`, not empty and without a NUL")
    return Path(found)


def text(name: str, value: str) -> str:
    """
    *value* itself.

    Raises:
        InvalidRequest: *value* is not text, or empty.
    """
    if not isinstance(value, str) or not value:
        raise wrong(name, value, "text of at least one character")
    return value


def instance(name: str, value: T, kind: type, wanted: str) -> T:
    """
    *value* itself.

    Raises:
        InvalidRequest: *value* is not an instance of *kind*.
    """
    if not isinstance(value, kind):
        raise wrong(name, value, wanted)
    return value


def _figure(number: int) -> str:
    bits = number.bit_length()
    return f"{number:,}" if bits <= _PRINTED_BITS_MAX else f"a number of {bits:,} bits, in"


def _shown(value: object) -> str:
    """*value* on one line, and its type."""
    try:
        text = " ".join(shortened(value).split())
    except Exception:  # noqa: BLE001  (the caller's own `__repr__`)
        text = "an object"
    return text if value is None else f"{text} ({type(value).__name__})"

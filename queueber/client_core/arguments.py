"""
Checks of arguments, and of the length of a call.

Each check of an argument returns the value in the form that the wire needs, or
raises an `InvalidRequest` with the argument's name, the allowed values and its
value.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from operator import index
from reprlib import repr as shortened
from typing import TYPE_CHECKING, Final, TypeVar

from queueber.capnp import DATA_BYTES_MAX
from queueber.errors import InvalidRequest, too_large
from queueber.fixed_limits import FRAME_BYTES_HIGHEST, ID_BYTES
from queueber.units import counted, measured

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Buffer

T = TypeVar("T")

CALL_OVERHEAD_BYTES: Final = 1_024
"""Upper bound for a call's message without its content."""

FROM_ARGUMENT: Final = "set by the argument limits of connect"
FROM_SERVER: Final = "set by the server's option --limit-frame-bytes"
FROM_DEFAULT: Final = "by default: this server does not state its limit; if it is higher, pass limits to connect"
"""Sources of the limit on a message, for `call_too_long`."""

SPAN_MS_MAX: Final = (1 << 64) - 1
"""The longest span that the wire can carry."""

PAIR: Final = 2

_PRINTED_BITS_MAX = 256
"""Longer integers are described by their size, because Python refuses to print some thousand digits."""


def wrong(name: str, value: object, wanted: str) -> InvalidRequest:
    """Return the error for *value* of the argument *name*, which must be *wanted*."""
    return InvalidRequest(f"{name} is {_described(value)}; it must be {wanted}")


def call_too_long(length: int, frame_bytes: int, source: str) -> InvalidRequest:
    """Return the error for a call with *length* bytes of content; *source* says where *frame_bytes* is set."""
    limit = frame_bytes - CALL_OVERHEAD_BYTES
    return InvalidRequest(f"the call is {length:,} bytes; the limit is {limit:,}, {source}", limit="frame_bytes")


def buffer(name: str, value: Buffer) -> bytes:
    """
    Return all bytes of *value*, in the order of its elements, for any width and shape.

    Raises:
        InvalidRequest: *value* has no buffer, or more bytes than fit in one field.
    """
    if type(value) is bytes and len(value) <= DATA_BYTES_MAX:
        return value
    try:
        with memoryview(value) as view:
            # Checked before the copy, because a mapped file may be larger than memory.
            if view.nbytes > DATA_BYTES_MAX:
                raise too_large(name, value=view.nbytes, limit=DATA_BYTES_MAX, unit="bytes")
            return bytes(view)
    except TypeError:
        raise wrong(name, value, "bytes, or another object with a buffer") from None
    except (ValueError, BufferError) as why:
        # A released memory view, or a closed mmap.
        raise InvalidRequest(f"{name} is {_described(value)}, whose bytes cannot be read: {why}") from None


def identifier(name: str, value: Buffer) -> bytes:
    """
    Return the 16 bytes of *value*, the id of an item or a lease.

    Raises:
        InvalidRequest: *value* has no buffer, or not 16 bytes.
    """
    found = buffer(name, value)
    if len(found) != ID_BYTES:
        raise InvalidRequest(f"{name} is {counted(len(found), 'byte')}; it must be {ID_BYTES}")
    return found


def buffers(name: str, values: Iterable[Buffer]) -> list[bytes]:
    """
    Return the bytes of each of *values*, as `buffer` does.

    Raises:
        InvalidRequest: one of *values* is invalid, or together they are longer than any message may be.
    """
    total, found = 0, []
    for at, value in enumerate(values):
        # The usual case first: formatting the argument's name costs more than the check.
        if type(value) is bytes and len(value) <= DATA_BYTES_MAX:
            found.append(value)
        else:
            found.append(buffer(f"{name}[{at}]", value))
        total += len(found[-1])
        if total > FRAME_BYTES_HIGHEST:
            raise too_large(f"{name} up to [{at}]", value=total, limit=FRAME_BYTES_HIGHEST, unit="bytes")
    return found


def elements(name: str, values: Iterable[T], wanted: str) -> list[T]:
    """
    Return *values* as a list.

    Raises:
        InvalidRequest: *values* is text, bytes, or not iterable.
    """
    if isinstance(values, str | bytes | bytearray | memoryview) or not isinstance(values, Iterable):
        raise wrong(name, values, wanted)
    return list(values)


def texts(name: str, value: Iterable[str], wanted: str) -> tuple[str, str]:
    """
    Return *value*, a pair of texts.

    Raises:
        InvalidRequest: *value* is something else, or cannot be encoded in UTF-8.
    """
    found = elements(name, value, wanted)
    if len(found) != PAIR or not all(isinstance(each, str) for each in found):
        raise wrong(name, value, wanted)
    return utf_8(name, found[0]), utf_8(name, found[1])


def utf_8(name: str, value: str) -> str:
    """
    Return *value*, which may be empty.

    Raises:
        InvalidRequest: *value* is not text, or cannot be encoded in UTF-8.
    """
    instance(name, value, str, "text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{name} is not UTF-8: {value!a}") from None
    return value


def integer(name: str, value: int, least: int, most: int, unit: str) -> int:
    """
    Return *value* if the wire can carry it.  The server checks its own limits.

    Raises:
        InvalidRequest: *value* is not an integer, or not between *least* and *most*.
    """
    try:
        number = None if isinstance(value, bool) else index(value)
    except TypeError:
        number = None
    if number is None:
        raise wrong(name, value, f"a whole number of {unit}")
    if number < least:
        raise InvalidRequest(f"{name} is {_quantity(number, unit)}; the least is {least:,}")
    if number > most:
        raise InvalidRequest(f"{name} is {_quantity(number, unit)}; the limit is {most:,}")
    return number


def timeout(value: int | None) -> int | None:
    """
    Return *value*, the argument `timeout_ms`: milliseconds, or None.

    Raises:
        InvalidRequest: *value* is neither, or less than 1.
    """
    return None if value is None else integer("timeout_ms", value, 1, SPAN_MS_MAX, "ms")


def flag(name: str, value: bool) -> bool:
    """
    Return *value* unchanged.

    Raises:
        InvalidRequest: *value* is not a bool.
    """
    return instance(name, value, bool, "True or False")


def path(name: str, value: str | os.PathLike[str]) -> Path:
    """
    Return *value* as a path.

    Raises:
        InvalidRequest: *value* is not a path, is empty or contains a NUL, or half of a surrogate pair.
    """
    found = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(found, str) or not found or "\0" in found or not _is_file_name(found):
        raise wrong(name, value, "a path as text or `os.PathLike`, not empty and without a NUL")
    # Imported here, because few programs pass paths.
    from pathlib import Path  # noqa: PLC0415

    return Path(found)


def _is_file_name(value: str) -> bool:
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True


def text(name: str, value: str) -> str:
    """
    Return *value* unchanged.

    Raises:
        InvalidRequest: *value* is not text, or empty.
    """
    if not isinstance(value, str) or not value:
        raise wrong(name, value, "text of at least one character")
    return value


def instance(name: str, value: T, kind: type, wanted: str) -> T:
    """
    Return *value* unchanged.

    Raises:
        InvalidRequest: *value* is not an instance of *kind*.
    """
    if not isinstance(value, kind):
        raise wrong(name, value, wanted)
    return value


def _quantity(number: int, unit: str) -> str:
    bits = number.bit_length()
    return measured(number, unit) if bits <= _PRINTED_BITS_MAX else f"a number of {bits:,} bits, in {unit}"


def _described(value: object) -> str:
    """Return *value* shortened to one line, with its type."""
    try:
        text = " ".join(shortened(value).split())
    except Exception:  # noqa: BLE001  (the caller's own `__repr__`)
        text = "an object"
    return text if value is None else f"{text} ({type(value).__name__})"

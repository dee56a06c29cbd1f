"""
Checks of arguments, as strict about types as plyvel is.

Programs written for plyvel may rely on its errors.  The texts name the
argument, the expected type and the given one.
"""

from collections.abc import Iterable
from enum import Enum


def type_error(name: str, wanted: str, value: object) -> TypeError:
    """Return the error for the argument *name*, which must be *wanted*, and was *value*."""
    return TypeError(f"argument {name!r} must be {wanted}, not {type(value).__name__}")


def check_key(key: object, name: str = "key") -> bytes:
    """
    Return *key*, a key, a bound or a prefix, unchanged.

    Raises:
        TypeError: not exactly `bytes`.  plyvel accepts any buffer as a value, but only `bytes` as a key.
    """
    if type(key) is not bytes:
        raise type_error(name, "bytes", key)
    return key


def as_bytes(value: object) -> bytes:
    """
    Return the content of *value*, a bytes-like object.  `bytes` are returned as they are, anything else is copied.

    Raises:
        TypeError: *value* is not bytes-like.
        BufferError: the buffer is not contiguous.
    """
    if type(value) is bytes:
        return value
    view = memoryview(value)  # type: ignore[arg-type]
    if not view.c_contiguous:
        raise BufferError("memoryview: underlying buffer is not C-contiguous")
    return bytes(view)


class CType(Enum):
    """C integer types of plyvel's size parameters, each with its lowest and highest value."""

    SIZE_T = (0, 2**64 - 1)
    INT = (-(2**31), 2**31 - 1)


def as_integer(value: object, name: str, c_type: CType) -> int:
    """
    Convert *value* as plyvel does: by its `__int__`, which truncates a float.

    Raises:
        TypeError: no `__int__`; a string is not converted.
        OverflowError: outside the range of *c_type*, or infinite.
        ValueError: not a number (NaN).
    """
    if not hasattr(value, "__int__"):
        raise type_error(name, "an integer", value)
    number = int(value)
    low, high = c_type.value
    if not low <= number <= high:
        raise OverflowError(f"argument {name!r} must be {low} to {high}, not {number}")
    return number


def as_bool(value: object, name: str) -> bool:
    """
    Return *value*, a `bool`, with None meaning False as in plyvel.

    Raises:
        TypeError: neither a `bool` nor None.
    """
    if value is not None and type(value) is not bool:
        raise type_error(name, "a bool", value)
    return bool(value)


def check_keywords(function: str, given: Iterable[str], allowed: type) -> None:
    """
    Check that *given*, the keywords in a call of *function*, are keys of the `TypedDict` class *allowed*.

    Raises:
        TypeError: with Python's own text, naming the public function.
    """
    for keyword in given:
        if keyword not in allowed.__annotations__:
            raise TypeError(f"{function}() got an unexpected keyword argument {keyword!r}")

"""What callers may pass: plyvel's strictness about types, which its users' tests rely on."""

from collections.abc import Iterable
from enum import Enum


def wrong_type(name: str, wanted: str, value: object) -> TypeError:
    """The error for *value* given as *name*, which must be *wanted*."""
    return TypeError(f"argument {name!r} must be {wanted}, not {type(value).__name__}")


def key_of(key: object, name: str = "key") -> bytes:
    """
    *key* itself.

    Raises:
        TypeError: it is not `bytes`.  plyvel takes any buffer for a value, but nothing else than this for a key.
    """
    if type(key) is not bytes:
        raise wrong_type(name, "bytes", key)
    return key


def as_bytes(value: object) -> bytes:
    """
    A copy of *value*, or itself if it is bytes already.

    Raises:
        TypeError: it is not a bytes-like object.
        BufferError: its bytes do not lie one after the other.
    """
    if type(value) is bytes:
        return value
    view = memoryview(value)  # type: ignore[arg-type]
    if not view.c_contiguous:
        raise BufferError("memoryview: underlying buffer is not C-contiguous")
    return bytes(view)


class Size(Enum):
    """The integers of C that plyvel's sizes become."""

    SIZE = (0, 2**64 - 1)
    INT = (-(2**31), 2**31 - 1)


def integer_of(value: object, name: str, size: Size) -> int:
    """
    *value* as plyvel takes it: what has an `__int__`, so that a fraction is cut off a float.

    Raises:
        TypeError: it has none; a text is no number.
        OverflowError: it is not in the range of *size*, or infinite.
        ValueError: it is not a number.
    """
    if not hasattr(value, "__int__"):
        raise wrong_type(name, "an integer", value)
    number = int(value)
    low, high = size.value
    if not low <= number <= high:
        raise OverflowError(f"argument {name!r} must be {low} to {high}, not {number}")
    return number


def check_words(function: str, given: Iterable[str], known: type) -> None:
    """
    See to it that *function* was *given* only keyword arguments of the typed dictionary *known*.

    Raises:
        TypeError: Python's own, but naming the function that was called.
    """
    for word in given:
        if word not in known.__annotations__:
            raise TypeError(f"{function}() got an unexpected keyword argument {word!r}")


def flag_of(value: object, name: str) -> bool:
    """
    *value*, where None means no as it does for plyvel.

    Raises:
        TypeError: it is neither a bool nor None.
    """
    if value is not None and type(value) is not bool:
        raise wrong_type(name, "a bool", value)
    return bool(value)

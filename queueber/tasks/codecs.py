"""
Conversion of values to JSON and back, by the annotations of a function's parameters.

A codec is compiled once from an annotation.  Its `encode` returns what the
`json` module can write, and `decode` makes the value again from that.  A value
that would come back as something else is refused when it is encoded, so a task
never gets text where its caller passed a date.

Here are the types without parts; `container_codecs` has collections and unions,
and `class_codecs` classes with fields, and `Compiler`, the entry point.
"""

import math
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from reprlib import repr as shortened
from types import NoneType
from typing import Any, Final
from uuid import UUID

from queueber.units import US_PER_SECOND

Convert = Callable[[Any], Any]


class Unfit(Exception):
    """A value that a codec does not accept."""

    def __init__(self, value: object, wanted: str, path: str = "") -> None:
        super().__init__(value, wanted, path)
        self.value, self.wanted, self.path = value, wanted, path

    def __str__(self) -> str:
        at = f" at {self.path}" if self.path else ""
        return f"{self.described}{at}; it must be {self.wanted}"

    @property
    def described(self) -> str:
        """The value, shortened to one line, with its type."""
        try:
            text = " ".join(shortened(self.value).split())
        except Exception:  # noqa: BLE001  (the caller's own `__repr__`, or a number of thousands of digits)
            text = "an object"
        return text if self.value is None else f"{text} ({type(self.value).__name__})"

    def within(self, place: str) -> "Unfit":
        """Return the same error for the container that has the value at *place*."""
        return type(self)(self.value, self.wanted, f"{place}{self.path}")


class Changing(Unfit):
    """A value of the right type that would not arrive as it is."""


class Unsupported(Exception):
    """An annotation that has no form in JSON."""


class Codec:
    """A pair of conversions.  Both raise `Unfit`."""

    __slots__ = ("decode", "encode", "plain")

    def __init__(self, encode: Convert, decode: Convert, plain: type | None = None) -> None:
        self.encode = encode
        self.decode = decode
        self.plain = plain
        """A type whose instances both return unchanged, though not those of its subclasses; None: there is none."""


Compile = Callable[[Any], Codec]
"""Returns the codec of an annotation."""

ANNOTATE: Final = (
    "None, a bool, int, float, str, list, tuple, or dict with str keys, "
    "because the annotation names no type; annotate the parameter with the value's type"
)


def json_value(value: Any) -> Any:  # noqa: ANN401
    """
    Return *value*, which has no annotation, if JSON can represent it; tuples arrive as lists.

    Raises:
        Unfit: it, or a value in it, is of another type.
    """
    if value is None or (isinstance(value, str | bool | int) and not isinstance(value, Enum)):
        return value
    if isinstance(value, float):
        return _finite(value)
    if isinstance(value, list | tuple):
        return [at_place(f"[{place}]", json_value, each) for place, each in enumerate(value)]
    if isinstance(value, dict):
        if strange := [key for key in value if not isinstance(key, str) or isinstance(key, Enum)]:
            raise Unfit(strange[0], "a str, as the key of a dict whose annotation names no type of keys")
        return {key: at_place(f"[{key!r}]", json_value, each) for key, each in value.items()}
    raise Unfit(value, ANNOTATE)


def _same(value: Any) -> Any:  # noqa: ANN401
    return value


def at_place(place: str, convert: Convert, value: Any) -> Any:  # noqa: ANN401
    """Return *value* converted; an `Unfit` has its *place*."""
    try:
        return convert(value)
    except Unfit as why:
        raise why.within(place) from None


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise Unfit(value, "a finite number")
    return value


def instance(kind: type | tuple[type, ...], wanted: str) -> Convert:
    """Return the check for instances of *kind*."""

    def check(value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, kind):
            return value
        raise Unfit(value, wanted)

    return check


def _float(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, float):
        return value if math.isfinite(value) else _finite(value)
    if isinstance(value, int) and not isinstance(value, bool | Enum):
        return value
    raise Unfit(value, "a float")


def _date(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    raise Unfit(value, "a date without time")


def _plain(kind: type, wanted: str) -> Convert:
    """Return the check for instances of *kind*, but no members of enumerations, which would not arrive as these."""

    def check(value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, kind) and not isinstance(value, Enum):
            return value
        raise Unfit(value, wanted)

    return check


def _time(value: Any) -> str:  # noqa: ANN401
    if not isinstance(value, time):
        raise Unfit(value, "a time")
    if value.tzinfo is not None and value.utcoffset() is None:
        raise Unfit(value, "a time without a time zone, or with one that has the same UTC offset on all days")
    return value.isoformat()


def text_codec(kind: type, wanted: str, write: Callable[[Any], str], read: Callable[[str], Any]) -> Codec:
    """Return the codec of a class whose instances *write* and *read* convert to text and back."""
    check = instance(kind, wanted)

    def decode(value: Any) -> Any:  # noqa: ANN401
        if not isinstance(value, str):
            raise Unfit(value, f"text of {wanted}")
        try:
            return read(value)
        except (ValueError, ArithmeticError):
            raise Unfit(value, f"text of {wanted}") from None

    return Codec(lambda value: write(check(value)), decode)


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(text) from None


def _to_base64(value: bytes) -> str:
    return b2a_base64(value, newline=False).decode()


def _from_base64(text: str) -> bytes:
    return a2b_base64(text, strict_mode=True)


def _seconds(value: Any) -> float:  # noqa: ANN401
    """Return the seconds of a span; beyond a century a number does not hold each microsecond."""
    seconds: float = _TIMEDELTA(value).total_seconds()
    if _span(seconds) != value:
        raise Unfit(value, "a timedelta that a number of seconds holds to the microsecond")
    return seconds


def _span(value: Any) -> timedelta:  # noqa: ANN401
    # Imported here, because few tasks have spans.
    from fractions import Fraction  # noqa: PLC0415

    try:
        # A fraction, because a float rounds once more.
        return timedelta(microseconds=round(Fraction(_float(value)) * US_PER_SECOND))
    except OverflowError:
        raise Unfit(value, "a number of seconds that fits a timedelta") from None


_ANY: Final = Codec(json_value, _same)
_INT: Final = _plain(int, "an int")
_STR: Final = _plain(str, "a str")
_BOOL: Final = instance(bool, "a bool")
_NONE: Final = instance(NoneType, "None")
_TIMEDELTA: Final = instance(timedelta, "a timedelta")

SCALARS: Final[Mapping[Any, Codec]] = {
    Any: _ANY,
    object: _ANY,
    None: Codec(_NONE, _NONE),
    NoneType: Codec(_NONE, _NONE),
    bool: Codec(_BOOL, _BOOL, bool),
    int: Codec(_INT, _INT, int),
    float: Codec(_float, _float, int),
    str: Codec(_STR, _STR, str),
    bytes: text_codec(bytes, "bytes", _to_base64, _from_base64),
    datetime: text_codec(datetime, "a datetime", datetime.isoformat, datetime.fromisoformat),
    date: Codec(_date, text_codec(date, "a date", date.isoformat, date.fromisoformat).decode),
    time: Codec(_time, text_codec(time, "a time", time.isoformat, time.fromisoformat).decode),
    timedelta: Codec(_seconds, _span),
    UUID: text_codec(UUID, "a UUID", str, UUID),
    Decimal: text_codec(Decimal, "a Decimal", str, _decimal),
}
"""The codecs of types without parts."""

"""
Fields of requests, read one by one with limits.

A `Fields` is a struct within a request, together with its path, so that an error
names the field as the schema does: ``entries[3].error``.  Every limit is checked
before anything is copied.

All methods raise `InvalidRequest` for a value that exceeds a limit, and
`RemoteProtocolError` for malformed pointers.
"""

from collections.abc import Iterator
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

from queueber.capnp.layout import Layout, layout
from queueber.capnp.reader import (
    EMPTY,
    Frame,
    ListAt,
    StructAt,
    bytes_at,
    numbers_in,
    pointer_list_at,
    slot_at,
    struct_at,
    struct_list_at,
    text_at,
)
from queueber.errors import InvalidRequest, too_large
from queueber.fixed_limits import ID_BYTES
from queueber.rpc.messages import Params
from queueber.units import measured

Chosen = TypeVar("Chosen", bound=IntEnum)

_ENUM_BITS = 16


class Fields(NamedTuple):
    """The fields of one struct."""

    frame: Frame
    struct: StructAt
    layout: Layout
    path: str = ""
    """The path of the struct within the request, with a final dot; empty for the parameters themselves."""

    def number(self, name: str) -> int:
        """Return a number; the default if the field is absent."""
        return self.layout.numbers[name].of(self.frame, self.struct)

    def flag(self, name: str) -> bool:
        """Return a Bool."""
        return bool(self.number(name))

    def choice(self, name: str, kind: type[Chosen]) -> Chosen:
        """Return an enumerator of *kind*."""
        return chosen(self.path + name, self.number(name), kind)

    def data(self, name: str, most: int) -> bytes:
        """Return a Data of at most *most* bytes."""
        at = self._pointer(name)
        if at is None:
            return b""
        first, last = bytes_at(self.frame, at, *self.struct[3:])
        if last - first > most:
            raise too_large(self.path + name, value=last - first, limit=most, unit="bytes")
        return self.frame.data[first:last]

    def id(self, name: str, *, optional: bool = False) -> bytes:
        """Return a Data of exactly 16 bytes, or none if it is *optional*."""
        at = self._pointer(name)
        first, last = (0, 0) if at is None else bytes_at(self.frame, at, *self.struct[3:])
        return self._id(self.path + name, self.frame, first, last, optional=optional)

    def text(self, name: str, most: int) -> str:
        """Return a Text of at most *most* bytes of UTF-8."""
        at = self._pointer(name)
        return "" if at is None else self._text(self.path + name, self.frame, (at, *self.struct[3:]), most)

    def request(self, struct: str) -> "Fields":
        """Return the fields of the only parameter or result of a method, of the type *struct*."""
        return Fields(self.frame, slot_at(self.frame, self.struct, 0), layout(struct))

    def inner(self, name: str, struct: str) -> "Fields | None":
        """Return the fields of the struct *name* of the type *struct*; None if it is null."""
        found = slot_at(self.frame, self.struct, self.layout.slots[name])
        return None if found == EMPTY else Fields(self.frame, found, layout(struct), f"{self.path}{name}.")

    def structs(self, name: str, struct: str, most: int) -> Iterator["Fields"]:
        """Return the elements of the list *name* of the type *struct*, at most *most*."""
        found = self.elements(name, most)
        inner = layout(struct)
        for index in range(found.count):
            yield Fields(found.frame, found.element(index), inner, f"{self.path}{name}[{index}].")

    def elements(self, name: str, most: int | None = None) -> ListAt:
        """Return the place of the list *name*, of at most *most* structs or numbers; of any number by default."""
        at = self._pointer(name)
        if at is None:
            return ListAt(self.frame, 0, 0, 0, 0, 0, 0)
        found = struct_list_at(self.frame, at, *self.struct[3:], most)
        if most is not None:
            self._check_count(name, found.count, most)
        return found

    def choices(self, name: str, kind: type[Chosen], most: int) -> list[Chosen]:
        """Return the enumerators of *kind* in the list *name*, at most *most*."""
        values = numbers_in(self.elements(name, most), _ENUM_BITS)
        return [chosen(f"{self.path}{name}[{index}]", value, kind) for index, value in enumerate(values)]

    def ids(self, name: str, most: int) -> list[bytes]:
        """Return the Data of 16 bytes each in the list *name*, at most *most*."""
        found = self._pointers(name, most)
        return [
            self._id(f"{self.path}{name}[{index}]", found.frame, *bytes_at(found.frame, at, found.start, found.end))
            for index, at in enumerate(found.words())
        ]

    def texts(self, name: str, most: int, most_bytes: int) -> list[str]:
        """Return the Texts of at most *most_bytes* each in the list *name*, at most *most*."""
        found = self._pointers(name, most)
        return [
            self._text(f"{self.path}{name}[{index}]", found.frame, (at, found.start, found.end), most_bytes)
            for index, at in enumerate(found.words())
        ]

    def _pointer(self, name: str) -> int | None:
        """Return the word of the pointer *name*; None if the struct ends before it."""
        at = self.struct[1] + self.layout.slots[name]
        return at if at < self.struct[2] else None

    def _pointers(self, name: str, most: int) -> ListAt:
        at = self._pointer(name)
        if at is None:
            return ListAt(self.frame, 0, 0, 0, 0, 0, 0)
        found = pointer_list_at(self.frame, at, *self.struct[3:])
        self._check_count(name, found.count, most)
        return found

    def _check_count(self, name: str, count: int, most: int) -> None:
        if count > most:
            raise too_large(self.path + name, value=count, limit=most, unit="elements")

    @staticmethod
    def _id(path: str, frame: Frame, first: int, last: int, *, optional: bool = False) -> bytes:
        size = last - first
        if size != ID_BYTES and (size or not optional):
            raise InvalidRequest(f"{path} is {measured(size, 'bytes')}; it must be {ID_BYTES}")
        return frame.data[first:last]

    @staticmethod
    def _text(path: str, frame: Frame, pointer: tuple[int, int, int], most: int) -> str:
        budget = frame.budget
        first, last = bytes_at(frame, *pointer)
        if last - first > most + 1:
            raise too_large(path, value=last - first - 1, limit=most, unit="bytes")
        frame.budget = budget
        try:
            return text_at(frame, *pointer).decode()
        except UnicodeDecodeError:
            raise InvalidRequest(f"{path} is not UTF-8") from None


def fields_of(params: Params, struct: str) -> Fields:
    """Return the fields of the parameters of a call, a struct of the type *struct*."""
    frame = params.frame
    return Fields(frame, struct_at(frame, params.at, params.start, params.end), layout(struct))


def request_of(params: Params, method: str, struct: str) -> Fields:
    """Return the fields of the request of the type *struct*, the only parameter of *method*."""
    return fields_of(params, f"{method}$Params").request(struct)


def values_of(content: Params, struct: str) -> dict[str, Any]:
    """
    Return all values of the struct at *content*, of the type *struct*, without limits: for results of a server.

    Raises:
        RemoteProtocolError: the content is malformed.
    """
    return layout(struct).values(content.frame, struct_at(content.frame, content.at, content.start, content.end))


def answered(value: int, kind: type[Chosen]) -> Chosen:
    """
    Return the enumerator of *kind* with the number *value* in the results of a server.

    For a number that only a newer server knows it is a placeholder named ``UNKNOWN_7`` for the number 7.
    """
    try:
        return kind(value)
    except ValueError:
        # As the members of flags that are made for unknown bits: no iteration over *kind* has it.
        placeholder = int.__new__(kind, value)
        placeholder._name_, placeholder._value_ = f"UNKNOWN_{value}", value
        return placeholder


def chosen(path: str, value: int, kind: type[Chosen]) -> Chosen:
    """Return the enumerator of *kind* with the number *value*, which the request has at *path*."""
    try:
        return kind(value)
    except ValueError:
        last = max(kind)
        raise InvalidRequest(f"{path} is {value}; the last that this server knows is {last} ({last.name})") from None

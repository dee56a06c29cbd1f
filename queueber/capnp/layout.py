"""
Struct layouts: structs read and built by field name.

A layout is compiled from the schema once.  Codecs of frequent messages take the
places of fields from it and do the rest by hand; all other code reads with
`Layout.values` and builds with `Layout.body`.

A number lies within one word, so its place is a word, a shift and a mask,
together with the default with which the encoding XORs it.  A struct from a peer
with an older or newer schema may be shorter or longer: absent fields have their
defaults, and unknown ones are ignored.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeAlias

from queueber.capnp.builder import (
    Body,
    data_body,
    numbers_body,
    pointers_body,
    segment,
    struct_body,
    struct_pointer,
    structs_body,
    text_body,
)
from queueber.capnp.reader import (
    EMPTY,
    Frame,
    StructAt,
    bytes_at,
    numbers_in,
    pointer_list_at,
    single_segment,
    struct_at,
    struct_list_at,
    text_at,
)
from queueber.capnp.schema import FieldNode, StructNode, schema
from queueber.errors import RemoteProtocolError
from queueber.fixed_limits import POINTER_DEPTH_MAX

Value: TypeAlias = Any
"""
A field's value: an `int`, `bool`, `str` for Text, `bytes` for Data, None for
Void, a mapping for a struct or group, a sequence for a list.  Building takes a
`Body` for any pointer.
"""

WORD_BITS = 64

_BITS: Final = {"bool": 1, "uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64, "enum": 16}
"""The kinds of numbers in our schemas, and their bits."""

_OPAQUE: Final = {"anyPointer", "interface"}
"""The kinds of pointers without a declared type of content; codecs follow them by hand."""

_NO_POINTERS: Final = {"group", "void"}
_POINTERS: Final = {*_OPAQUE, "struct", "data", "text", "list"}
_ELEMENTS: Final = {"", "struct", "data", "text", *_BITS.keys() - {"bool"}}
"""The kinds without and with a pointer, other than numbers, and the kinds of a list's elements, that we have."""


class Number:
    """The place of a number, an enum or a boolean in a struct's data."""

    __slots__ = ("default", "mask", "shift", "word")

    def __init__(self, word: int, shift: int, mask: int, default: int) -> None:
        self.word = word
        self.shift = shift
        self.mask = mask
        self.default = default

    def of(self, frame: Frame, struct: StructAt) -> int:
        """Return the value in *struct*."""
        at = struct[0] + self.word
        return (frame.words[at] >> self.shift & self.mask if at < struct[1] else 0) ^ self.default

    def put(self, words: list[int], value: int) -> None:
        """
        Write the value into a struct's data.

        Raises:
            OverflowError: *value* does not fit.
        """
        if value & ~self.mask:
            raise OverflowError(f"{value:,} does not fit its field")
        words[self.word] |= (value ^ self.default) << self.shift


def _number(bits: int, offset: int, default: int) -> Number:
    word, shift = divmod(offset * bits, WORD_BITS)
    return Number(word, shift, (1 << bits) - 1, default)


class Layout:
    """The layout of a struct, or of a group of a struct."""

    __slots__ = ("by_name", "data_words", "discriminant", "fields", "members", "name", "numbers", "pointers", "slots")

    def __init__(self, node: StructNode) -> None:
        """
        Compile the layout of *node*.

        Raises:
            NotImplementedError: it has a field of a kind that no schema of ours had before.
        """
        fields = node.fields
        self.name = node.name
        self.data_words = node.data_words
        self.pointers = node.pointers
        self.numbers: Mapping[str, Number] = {
            each.name: _number(_BITS[each.kind], each.offset, each.default) for each in fields if each.kind in _BITS
        }
        self.slots: Mapping[str, int] = {
            each.name: each.offset for each in fields if each.kind not in _BITS and each.kind not in _NO_POINTERS
        }
        """The index of each pointer among the struct's pointers."""

        self.members: Mapping[str, int] = {
            each.name: each.discriminant for each in fields if each.discriminant is not None
        }
        """The discriminant of each member of the union."""

        union = node.discriminant_offset
        self.discriminant = None if union is None else _number(16, union, 0)
        """The place of the union's discriminant."""

        self.fields = fields
        self.by_name: Mapping[str, FieldNode] = {each.name: each for each in fields}
        """The fields by their names."""

        if not all(each.kind in _POINTERS and each.element in _ELEMENTS for each in fields if each.name in self.slots):
            raise NotImplementedError(f"{node.name} has a field of a kind that no schema of ours had before")

    @property
    def pointer(self) -> int:
        """The pointer to such a struct that begins in the next word."""
        return struct_pointer(self.data_words, self.pointers)

    def build(self, **fields: Value) -> bytes:
        """
        Build the struct as a segment of its own, which begins with the root pointer.

        Fields that are not given have their defaults.  At most one member of a
        union may be given.
        """
        return segment(self.body(fields))

    def read(self, data: bytes) -> dict[str, Value]:
        """
        Return the fields of the struct at the root of the segment *data*.

        Raises:
            RemoteProtocolError: *data* is malformed.
        """
        frame = single_segment(data)
        if frame.end == 0:
            raise RemoteProtocolError("a segment without a root pointer")
        return self.values(frame, struct_at(frame, 0, 0, frame.end))

    def body(self, fields: Mapping[str, Value]) -> Body:
        """Build the body of the struct with these *fields*."""
        return struct_body(*self.sections(fields))

    def list_body(self, elements: Sequence[Mapping[str, Value]]) -> Body:
        """Build the body of a list of such structs."""
        return structs_body(self.data_words, self.pointers, [self.sections(fields) for fields in elements])

    def sections(self, fields: Mapping[str, Value]) -> tuple[list[int], list[Body | None]]:
        """Return the data and the pointers of the struct with these *fields*, as `structs_body` takes them."""
        data: list[int] = [0] * self.data_words
        pointers: list[Body | None] = [None] * self.pointers
        self._fill(data, pointers, fields)
        return data, pointers

    def _fill(self, data: list[int], pointers: list[Body | None], fields: Mapping[str, Value]) -> None:
        if not fields.keys() <= self.by_name.keys():
            unknown = fields.keys() - self.by_name.keys()
            raise TypeError(f"{self.name} has no field {', '.join(sorted(unknown))}")
        for name, value in fields.items():
            node = self.by_name[name]
            if node.discriminant is not None and self.discriminant is not None:
                self.discriminant.put(data, node.discriminant)
            if name in self.numbers:
                self.numbers[name].put(data, value)
            elif node.kind == "group":
                layout(node.struct)._fill(data, pointers, value)  # noqa: SLF001 -- our own kind
            elif node.kind != "void":
                pointers[self.slots[name]] = _body(node, value)

    def which(self, frame: Frame, struct: StructAt) -> str | None:
        """Return the name of the union's member; None for one that this schema does not know."""
        assert self.discriminant is not None
        found = self.discriminant.of(frame, struct)
        return next((name for name, value in self.members.items() if value == found), None)

    def values(self, frame: Frame, struct: StructAt, depth: int = POINTER_DEPTH_MAX) -> dict[str, Value]:
        """
        Return the fields of *struct*, down to *depth* pointers below it; of a union, only its present member.

        An absent struct is None.  Pointers without a declared type are omitted.
        """
        if not depth:
            raise RemoteProtocolError("pointers lie deeper than the limit")
        which = self.which(frame, struct) if self.discriminant else None
        found = {}
        for field in self.fields:
            if field.kind not in _OPAQUE and (field.discriminant is None or field.name == which):
                found[field.name] = self._value(field, frame, struct, depth)
        return found

    def _value(self, field: FieldNode, frame: Frame, struct: StructAt, depth: int) -> Value:
        number = self.numbers.get(field.name)
        if number is not None:
            value = number.of(frame, struct)
            return bool(value) if field.kind == "bool" else value
        if field.kind == "group":
            return layout(field.struct).values(frame, struct, depth)
        if field.kind == "void":
            return None
        at = struct[1] + self.slots[field.name]
        if at >= struct[2]:
            return {"struct": None, "data": b"", "text": ""}.get(field.kind, [])
        return _pointed(field, frame, (at, *struct[3:]), depth - 1)


def field_name(name: str) -> str:
    """Return the schema's name of a field: `frameBytes` for *name* `frame_bytes`."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def _pointed(field: FieldNode, frame: Frame, pointer: tuple[int, int, int], depth: int) -> Value:
    """Return the value of *field*, whose pointer is at *pointer*."""
    if field.kind == "data":
        first, last = bytes_at(frame, *pointer)
        return frame.data[first:last]
    if field.kind == "text":
        return text_at(frame, *pointer).decode("utf-8", "replace")
    if field.kind == "struct":
        struct = struct_at(frame, *pointer)
        return layout(field.struct).values(frame, struct, depth) if struct != EMPTY else None
    return _elements(field, frame, pointer, depth)


def _elements(field: FieldNode, frame: Frame, pointer: tuple[int, int, int], depth: int) -> list[Value]:
    """Return the elements of the list *field*, whose pointer is at *pointer*."""
    if field.element == "struct":
        structs = struct_list_at(frame, *pointer)
        frame.spend(structs.count)
        inner = layout(field.struct)
        return [inner.values(structs.frame, structs.element(i), depth) for i in range(structs.count)]
    if field.element in _BITS:
        return numbers_in(struct_list_at(frame, *pointer), _BITS[field.element])
    found = pointer_list_at(frame, *pointer)
    if field.element == "text":
        return [text_at(found.frame, at, found.start, found.end).decode("utf-8", "replace") for at in found.words()]
    spans = [bytes_at(found.frame, at, found.start, found.end) for at in found.words()]
    return [frame.data[first:last] for first, last in spans]


def _body(field: FieldNode, value: Value) -> Body:
    """Build the body of *value*."""
    if isinstance(value, Body):
        return value
    if field.kind == "data":
        return data_body(value)
    if field.kind == "text":
        return text_body(value)
    if field.kind == "struct":
        return layout(field.struct).body(value)
    return _list_body(field, value)


def _list_body(field: FieldNode, value: Sequence[Value]) -> Body:
    """Build the body of the list *value*."""
    if field.element == "struct":
        return layout(field.struct).list_body(value)
    if field.element in _BITS:
        return numbers_body(value, _BITS[field.element])
    return pointers_body([(text_body if field.element == "text" else data_body)(content) for content in value])


@cache
def layout(name: str) -> Layout:
    """
    Return the layout of the struct *name*, such as `StoredItem` or `Queue.add$Params`.

    Raises:
        KeyError: no schema file declares it.
    """
    return Layout(schema().structs[name])


def earlier_layout(name: str, **changes: Any) -> Layout:  # noqa: ANN401
    """Return the layout of the struct *name* in an earlier schema: *changes* of its `StructNode`, such as the sizes."""
    return Layout(schema().structs[name]._replace(**changes))

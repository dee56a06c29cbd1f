"""
The compiled schemas, as plain values.

``make schema`` compiles the schema files to the file `COMPILED`, so that no
process parses them at its start: many clients are processes that make one call.
"""

import json
import os
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple

_PACKAGE: Final = os.path.dirname(os.path.dirname(__file__))

COMPILED = "compiled.json"
"""The name of the file, next to the schema files."""


class FieldNode(NamedTuple):
    """One field of a struct, or one group in it."""

    name: str
    kind: str
    """The type's name in ``schema.capnp`` (`uint64`, `data`, `struct` and so on), or `group`."""

    offset: int
    """The offset, in multiples of the field's own size; 0 for a group."""

    default: int
    """The default of a number or a boolean; 0 for other kinds."""

    discriminant: int | None
    """The value that selects this member of the struct's union; None for a field outside the union."""

    element: str
    """The kind of a list's elements; empty for other kinds."""

    struct: str
    """The name of the struct type of this field, group or list element; empty for other kinds."""


class StructNode(NamedTuple):
    """One struct."""

    name: str
    """The name within its file, with the enclosing scopes: `PromisedAnswer.Op`."""

    id: int
    data_words: int
    pointers: int
    discriminant_offset: int | None
    """The offset of the union's discriminant, in units of 16 bits; None without a union."""

    fields: tuple[FieldNode, ...]


class InterfaceNode(NamedTuple):
    """One interface."""

    name: str
    id: int
    methods: tuple[str, ...]
    """The names in the order of their ordinals, without inherited methods."""

    params: tuple[str, ...]
    """The name of the struct of each method's parameters."""

    results: tuple[str, ...]
    """The name of the struct of each method's results."""


class Schema(NamedTuple):
    """All declarations of the schema files, by name."""

    file_ids: Mapping[str, int]
    structs: Mapping[str, StructNode]
    interfaces: Mapping[str, InterfaceNode]


def schema_directory(package: str = _PACKAGE) -> str:
    """Return the folder of our schema files: inside the installed *package*, or next to it in a checkout."""
    installed = os.path.join(package, "schema")
    return installed if os.path.isdir(installed) else os.path.join(os.path.dirname(package), "schema")


@cache
def schema() -> Schema:
    """Return the schemas of the public interface, of administration, of storage and of the RPC protocol."""
    with open(os.path.join(schema_directory(), COMPILED), "rb") as compiled:
        return from_json(compiled.read())


def from_json(content: bytes) -> Schema:
    """Read a `Schema` from JSON, with an object for each node."""
    found = json.loads(content)
    structs = {name: _struct(**node) for name, node in found["structs"].items()}
    interfaces = {name: _interface(**node) for name, node in found["interfaces"].items()}
    return Schema(MappingProxyType(found["file_ids"]), MappingProxyType(structs), MappingProxyType(interfaces))


def _struct(fields: list[dict[str, Any]], **node: Any) -> StructNode:  # noqa: ANN401
    return StructNode(fields=tuple(FieldNode(**field) for field in fields), **node)


def _interface(methods: list[str], params: list[str], results: list[str], **node: Any) -> InterfaceNode:  # noqa: ANN401
    return InterfaceNode(methods=tuple(methods), params=tuple(params), results=tuple(results), **node)

"""
What the schema files say, as plain values.

pycapnp parses the files once, when they are first asked for, and that is all
it does here: it never sees a byte from a peer, because a hostile pointer can
end its process.  This is the only module that imports it.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import capnp
from attrs import frozen

# The hook would compile any module name ending in `_capnp` that somebody imports.
capnp.remove_import_hook()

_Foreign: TypeAlias = Any
"""An object of pycapnp, which has no types."""

_NOT_IN_A_UNION = 0xFFFF


@frozen(kw_only=True)
class FieldNode:
    """One field of a struct, or one group in it."""

    name: str
    kind: str
    """The type's name in ``schema.capnp`` (`uint64`, `data`, `struct` and so on), or `group`."""

    offset: int
    """Where it lies, in multiples of its own size; 0 for a group."""

    default: int
    """The default of a number or a boolean; 0 for other kinds."""

    discriminant: int | None
    """The value that selects this member of the struct's union; None outside of it."""

    element: str
    """The kind of a list's elements; empty for other kinds."""

    struct: str
    """The name of the struct that this field, group or list element is; empty for other kinds."""


@frozen(kw_only=True)
class StructNode:
    """One struct's place on the wire."""

    name: str
    """Its name within its file, after those of the scopes around it: `PromisedAnswer.Op`."""

    id: int
    data_words: int
    pointers: int
    discriminant_offset: int | None
    """Where the union's discriminant lies, in units of 16 bits; None without a union."""

    fields: tuple[FieldNode, ...]


@frozen(kw_only=True)
class InterfaceNode:
    """One interface."""

    name: str
    id: int
    methods: tuple[str, ...]
    """Names in the order of their ordinals; inherited methods are not among them."""

    params: tuple[str, ...]
    """The name of the struct of each method's parameters."""

    results: tuple[str, ...]
    """The name of the struct of each method's results."""


@frozen
class Schema:
    """Everything the schema files declare, by name."""

    file_ids: Mapping[str, int]
    structs: Mapping[str, StructNode]
    interfaces: Mapping[str, InterfaceNode]


def schema_directory(package: Path = Path(__file__).parent.parent) -> Path:
    """Where our own schema files are: inside the installed *package*, or beside it in a checkout."""
    installed = package / "schema"
    return installed if installed.is_dir() else package.parent / "schema"


@cache
def schema() -> Schema:
    """The schemas of the public interface, of administration, of storage and of the RPC protocol."""
    site_packages = Path(capnp.__file__).parent.parent
    ours = schema_directory()
    file_ids: dict[str, int] = {}
    structs: dict[str, StructNode] = {}
    interfaces: dict[str, InterfaceNode] = {}
    names = ("queueber.capnp", "admin.capnp", "storage.capnp")
    for file in (*(ours / name for name in names), site_packages / "capnp" / "rpc.capnp"):
        # Without `imports`, a file that imports "/capnp/c++.capnp" ends the process.
        module = capnp.load(str(file), imports=[str(site_packages)])
        file_node = module._nodeProto  # noqa: SLF001 -- pycapnp's only way to a file's own node
        file_ids[file.name] = file_node.id
        for nested in file_node.nestedNodes:
            declared = getattr(module, nested.name).schema
            if declared.node.which() == "struct":
                _collect_structs(declared, structs)
            else:
                interface = _interface(declared)
                interfaces[interface.name] = interface
                for method in declared.methods.values():
                    _collect_structs(method.param_type, structs)
                    _collect_structs(method.result_type, structs)
    return Schema(MappingProxyType(file_ids), MappingProxyType(structs), MappingProxyType(interfaces))


def _short_name(node: _Foreign) -> str:
    name: str = node.displayName
    return name.partition(":")[2]


def _interface(declared: _Foreign) -> InterfaceNode:
    methods = [declared.methods[method.name] for method in declared.node.interface.methods]
    return InterfaceNode(
        name=_short_name(declared.node),
        id=declared.node.id,
        methods=tuple(method.name for method in declared.node.interface.methods),
        params=tuple(_short_name(method.param_type.node) for method in methods),
        results=tuple(_short_name(method.result_type.node) for method in methods),
    )


def _collect_structs(declared: _Foreign, found: dict[str, StructNode]) -> None:
    """Add *declared* and every struct that can be reached from it to *found*."""
    node = declared.node
    name = _short_name(node)
    if name in found:
        return
    union = node.struct.discriminantCount > 0
    found[name] = StructNode(
        name=name,
        id=node.id,
        data_words=node.struct.dataWordCount,
        pointers=node.struct.pointerCount,
        discriminant_offset=node.struct.discriminantOffset if union else None,
        fields=tuple(_field(field) for field in declared.fields.values()),
    )
    for inner in _inner_structs(declared):
        _collect_structs(inner, found)


def _inner_structs(declared: _Foreign) -> Iterator[_Foreign]:
    """The struct schemas that the fields of *declared* are made of."""
    for field in declared.fields.values():
        inner = _struct_of(field)
        if inner is not None:
            yield inner


def _struct_of(field: _Foreign) -> _Foreign:
    """The schema of the struct, group or list element that *field* is; None for other kinds."""
    if field.proto.which() == "group":
        return field.schema
    kind = field.proto.slot.type.which()
    if kind == "struct":
        return field.schema
    if kind == "list" and field.proto.slot.type.list.elementType.which() == "struct":
        return field.schema.elementType
    return None


def _field(field: _Foreign) -> FieldNode:
    proto = field.proto
    inner = _struct_of(field)
    discriminant = proto.discriminantValue
    kind, offset, default, element = "group", 0, 0, ""
    if proto.which() == "slot":
        kind, offset = proto.slot.type.which(), proto.slot.offset
        value = getattr(proto.slot.defaultValue, kind, 0)
        default = int(value) if isinstance(value, int) else 0
        element = proto.slot.type.list.elementType.which() if kind == "list" else ""
    return FieldNode(
        name=proto.name,
        kind=str(kind),
        offset=offset,
        default=default,
        discriminant=None if discriminant == _NOT_IN_A_UNION else discriminant,
        element=str(element),
        struct=_short_name(inner.node) if inner is not None else "",
    )

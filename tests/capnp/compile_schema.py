"""
Compiles the schema files: ``make schema`` writes what they say to ``schema/compiled.json``.

pycapnp parses them.  It is not needed at run time, and never sees a byte from a
peer there, because a hostile pointer can end its process.  The nodes are those of
`queueber.capnp.schema`, as dictionaries: nothing of ours is imported, because it reads the file that is written here.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import capnp

# The hook would compile any imported module whose name ends in `_capnp`.
capnp.remove_import_hook()

SCHEMAS = Path(__file__).parents[2] / "schema"
NAMES = ("queueber.capnp", "admin.capnp", "storage.capnp")

_Foreign: TypeAlias = Any
"""An object of pycapnp, which has no types."""

_Node: TypeAlias = dict[str, Any]

_NOT_IN_A_UNION = 0xFFFF


def compiled() -> str:
    """Return the schemas as JSON, with each node on a line of its own, so that diffs are small."""
    site_packages = Path(capnp.__file__).parent.parent
    file_ids: dict[str, int] = {}
    structs: dict[str, _Node] = {}
    interfaces: dict[str, _Node] = {}
    for file in (*(SCHEMAS / name for name in NAMES), site_packages / "capnp" / "rpc.capnp"):
        # Without `imports`, a file that imports "/capnp/c++.capnp" ends the process.
        module = capnp.load(str(file), imports=[str(site_packages)])
        file_node = module._nodeProto
        file_ids[file.name] = file_node.id
        for nested in file_node.nestedNodes:
            declared = getattr(module, nested.name).schema
            if declared.node.which() == "struct":
                _collect_structs(declared, structs)
            elif declared.node.which() == "interface":
                interface = _interface(declared)
                interfaces[interface["name"]] = interface
                for method in declared.methods.values():
                    _collect_structs(method.param_type, structs)
                    _collect_structs(method.result_type, structs)
    return (
        f'{{"file_ids": {json.dumps(file_ids)},\n'
        f'"structs": {{\n{_lines(structs)}\n}},\n'
        f'"interfaces": {{\n{_lines(interfaces)}\n}}}}\n'
    )


def _lines(nodes: dict[str, _Node]) -> str:
    return ",\n".join(f"{json.dumps(name)}: {json.dumps(node)}" for name, node in sorted(nodes.items()))


def _short_name(node: _Foreign) -> str:
    name: str = node.displayName
    return name.partition(":")[2]


def _interface(declared: _Foreign) -> _Node:
    methods = [declared.methods[method.name] for method in declared.node.interface.methods]
    return _Node(
        name=_short_name(declared.node),
        id=declared.node.id,
        methods=tuple(method.name for method in declared.node.interface.methods),
        params=tuple(_short_name(method.param_type.node) for method in methods),
        results=tuple(_short_name(method.result_type.node) for method in methods),
    )


def _collect_structs(declared: _Foreign, found: dict[str, _Node]) -> None:
    """Add *declared* and every struct that can be reached from it to *found*."""
    node = declared.node
    name = _short_name(node)
    if name in found:
        return
    union = node.struct.discriminantCount > 0
    found[name] = _Node(
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
    """Yield the struct schemas of the fields of *declared*."""
    for field in declared.fields.values():
        inner = _struct_of(field)
        if inner is not None:
            yield inner


def _struct_of(field: _Foreign) -> _Foreign:
    """Return the schema of the struct type of *field*, a struct, group or list; None for other kinds."""
    if field.proto.which() == "group":
        return field.schema
    kind = field.proto.slot.type.which()
    if kind == "struct":
        return field.schema
    if kind == "list" and field.proto.slot.type.list.elementType.which() == "struct":
        return field.schema.elementType
    return None


def _field(field: _Foreign) -> _Node:
    proto = field.proto
    inner = _struct_of(field)
    discriminant = proto.discriminantValue
    kind, offset, default, element = "group", 0, 0, ""
    if proto.which() == "slot":
        kind, offset = proto.slot.type.which(), proto.slot.offset
        value = getattr(proto.slot.defaultValue, kind, 0)
        default = int(value) if isinstance(value, int) else 0
        element = proto.slot.type.list.elementType.which() if kind == "list" else ""
    return _Node(
        name=proto.name,
        kind=str(kind),
        offset=offset,
        default=default,
        discriminant=None if discriminant == _NOT_IN_A_UNION else discriminant,
        element=str(element),
        struct=_short_name(inner.node) if inner is not None else "",
    )


if __name__ == "__main__":
    (SCHEMAS / "compiled.json").write_text(compiled())

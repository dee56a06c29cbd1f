"""
Builds and reads structs with pycapnp, for tests of our own codec.

One JSON question a line on standard input, one JSON answer a line on standard
output.  A value is a mapping of fields: Data as hexadecimal digits, an absent
struct and Void as null; pointers of no declared type are left out.
"""

import json
import sys
from pathlib import Path

import capnp

capnp.remove_import_hook()

SITE_PACKAGES = Path(capnp.__file__).parents[1]
SCHEMAS = Path(__file__).parents[2] / "schema"
FILES = [
    capnp.load(str(file), imports=[str(SITE_PACKAGES)])
    for file in (
        SCHEMAS / "queueber.capnp",
        SCHEMAS / "admin.capnp",
        SCHEMAS / "storage.capnp",
        SITE_PACKAGES / "capnp" / "rpc.capnp",
    )
]
OPAQUE = {"anyPointer", "interface"}


def module(name):
    """Return pycapnp's class of a struct."""
    for file in FILES:
        found = file
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is not None:
            return found
    raise LookupError(name)


def new_message(name, segment_words):
    """An empty struct; the parameters and results of methods have no module of their own."""
    interface, _, rest = name.partition(".")
    method, _, role = rest.partition("$")
    if not role:
        return module(name).new_message(num_first_segment_words=segment_words)
    return capnp.lib.capnp._MallocMessageBuilder(segment_words).init_root(schema_of(interface, method, role))


def schema_of(interface, method, role):
    called = module(interface).schema.methods[method]
    return called.param_type if role == "Params" else called.result_type


def kind(field):
    return field.proto.which() if field.proto.which() == "group" else field.proto.slot.type.which()


def element(field):
    return field.proto.slot.type.list.elementType.which()


def plain(reader):
    """A struct as JSON has it."""
    fields = reader.schema.fields
    members = reader.schema.union_fields
    which = str(reader.which()) if members else None
    return {
        name: plain_field(reader, name, field)
        for name, field in fields.items()
        if kind(field) not in OPAQUE and (name not in members or name == which)
    }


def plain_field(reader, name, field):
    of = kind(field)
    if of == "void" or (of == "struct" and not reader._has(name)):
        return None
    value = getattr(reader, name)
    if of in {"struct", "group"}:
        return plain(value)
    if of == "data":
        return value.hex()
    if of == "enum":
        return value.raw
    if of == "list":
        return [plain_element(element(field), each) for each in value]
    return value


def plain_element(of, value):
    if of == "struct":
        return plain(value)
    if of == "data":
        return value.hex()
    return value.raw if of == "enum" else value


def fill(builder, value):
    """Set the fields that *value* has, in the order in which it has them."""
    fields = builder.schema.fields
    for name, inner in value.items():
        of = kind(fields[name])
        if of == "group":
            fill(builder.init(name), inner)
        elif of == "struct":
            if inner is not None:
                fill(builder.init(name), inner)
        elif of == "data":
            setattr(builder, name, bytes.fromhex(inner))
        elif of == "list":
            if element(fields[name]) == "enum":
                # A list takes an enumerator by its name only.
                names = {value: each for each, value in fields[name].schema.elementType.enumerants.items()}
                inner = [names[each] for each in inner]  # noqa: PLW2901
            fill_list(builder.init(name, len(inner)), element(fields[name]), inner)
        else:
            setattr(builder, name, inner)


def fill_list(builder, of, values):
    for index, inner in enumerate(values):
        if of == "struct":
            fill(builder[index], inner)
        else:
            builder[index] = bytes.fromhex(inner) if of == "data" else inner


def build(struct, value, segment_words):
    message = new_message(struct, segment_words)
    fill(message, value)
    return [bytes(segment).hex() for segment in message.to_segments()]


def read(struct, segments):
    interface, _, rest = struct.partition(".")
    method, _, role = rest.partition("$")
    if role:
        # Without a module of its own it is read as the content of a Payload, whose pointer to it is put before it.
        (segment,) = segments
        payload = module("Payload").from_segments([(1 << 48).to_bytes(8, "little") + bytes.fromhex(segment)])
        return plain(payload.content.as_struct(schema_of(interface, method, role)))
    return plain(module(struct).from_segments([bytes.fromhex(segment) for segment in segments]))


def pack(struct, value):
    message = new_message(struct, 1 << 21)
    fill(message, value)
    return [message.to_bytes().hex(), message.to_bytes_packed().hex()]


def unpack(struct, packed):
    return plain(module(struct).from_bytes_packed(bytes.fromhex(packed)))


DEEDS = {"build": build, "read": read, "pack": pack, "unpack": unpack}

for line in sys.stdin:
    question = json.loads(line)
    try:
        answer = {"ok": DEEDS[question.pop("do")](**question)}
    except Exception as error:  # noqa: BLE001 -- the test that asked shall see it
        answer = {"error": repr(error)}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()

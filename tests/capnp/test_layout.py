"""Structs by field name, against pycapnp byte for byte and value for value."""

from array import array
from ctypes import c_uint64
from mmap import mmap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queueber.capnp.builder import DATA_BYTES_MAX, data_body, segment, struct_body, structs_body
from queueber.capnp.layout import Number, layout
from queueber.capnp.reader import single_segment, struct_at
from queueber.capnp.schema import schema
from queueber.errors import InvalidRequest, RemoteProtocolError
from tests.support.examples import examples

NUMBERS = {"uint8": 8, "uint16": 16, "uint32": 32, "uint64": 64}
OPAQUE = {"anyPointer", "interface"}

# A union of which pycapnp cannot set every member cannot be compared whole.
STRUCTS = sorted(name for name, node in schema().structs.items() if "sendResultsTo" not in name and "." not in name)


def values(name, depth=2):
    """Random fields of a struct, in the order of their pointers, which is the one in which we write them."""
    fields = [field for field in schema().structs[name].fields if field.kind not in OPAQUE]
    plain = [field for field in fields if field.discriminant is None]
    union = [field for field in fields if field.discriminant is not None]
    chosen = st.just([]) if not union else st.sampled_from(union).map(lambda field: [field])
    return chosen.flatmap(lambda member: _some(sorted(plain + member, key=lambda field: field.offset), depth))


def _some(fields, depth):
    given_fields = {field.name: field_values(field, depth) for field in fields}
    required = {name: value for name, value in given_fields.items() if value is not None}
    return st.fixed_dictionaries(
        {name: required[name] for name in required if _member(fields, name)},
        optional={name: required[name] for name in required if not _member(fields, name)},
    ).map(lambda found: {field.name: found[field.name] for field in fields if field.name in found})


def _member(fields, name):
    return any(field.name == name and field.discriminant is not None for field in fields)


def field_values(field, depth):
    """Random values of a field."""
    if field.kind in NUMBERS:
        return st.integers(0, (1 << NUMBERS[field.kind]) - 1)
    simple = {
        "bool": st.booleans(),
        "enum": st.integers(0, 3),
        "data": st.binary(max_size=20),
        "text": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
        "void": st.none(),
    }
    if field.kind in simple:
        return simple[field.kind]
    if field.element in NUMBERS:
        return st.lists(st.integers(0, (1 << NUMBERS[field.element]) - 1), max_size=5)
    if field.element in simple:
        return st.lists(simple[field.element], max_size=3)
    if not depth:
        return st.just([]) if field.kind == "list" else st.just({})
    inner = values(field.struct, depth - 1)
    return st.lists(inner, max_size=3) if field.kind == "list" else inner


def hexed(value):
    """Convert a value to JSON."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: hexed(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [hexed(inner) for inner in value]
    return value


structs = st.sampled_from(STRUCTS).flatmap(lambda name: st.tuples(st.just(name), values(name)))


@pytest.mark.slow
@settings(max_examples=examples(200))
@given(struct=structs)
def test_pycapnp_writes_the_same_bytes(pycapnp, struct):
    name, value = struct
    assert pycapnp.build(name, hexed(value)) == [layout(name).build(**value)]


@pytest.mark.slow
@settings(max_examples=examples(200))
@given(struct=structs)
def test_pycapnp_reads_what_we_write(pycapnp, struct):
    name, value = struct
    built = layout(name).build(**value)
    assert pycapnp.read(name, [built]) == hexed(layout(name).read(built))


@pytest.mark.traced
@pytest.mark.slow
@settings(derandomize=True, max_examples=examples(200))
@given(struct=structs, words=st.integers(1, 20))
def test_we_read_what_pycapnp_writes_in_many_segments(pycapnp, frame_of, stream_of, struct, words):
    name, value = struct
    segments = pycapnp.build(name, hexed(value), segment_words=words)
    frame = frame_of(stream_of(segments))
    found = layout(name).values(frame, struct_at(frame, frame.start, frame.start, frame.end))
    assert hexed(found) == pycapnp.read(name, segments)


def test_fields_that_are_not_given_have_their_defaults():
    """Some defaults are not zero, and the encoding XORs values with them."""
    assert layout("Finish").read(layout("Finish").build()) == {
        "questionId": 0,
        "releaseResultCaps": True,
        "requireEarlyCancellationWorkaround": True,
    }
    assert layout("CapDescriptor").read(layout("CapDescriptor").build(attachedFd=3))["attachedFd"] == 3
    assert layout("CapDescriptor").build(attachedFd=255) == layout("CapDescriptor").build()


def test_absent_fields_of_a_shorter_struct_have_their_defaults():
    """A peer with an older schema writes such structs."""
    old = segment(struct_body([7], []))
    assert layout("StoredItem").read(old) == {"contents": b"", "addedAtMs": 7, "attempts": 0, "facts": None}
    assert layout("Finish").read(segment(struct_body([], [None])))["releaseResultCaps"] is True
    assert layout("Return").read(segment(struct_body([], [None])))["results"] is None


def test_unknown_fields_of_a_longer_struct_are_ignored():
    """A peer with a newer schema writes such structs."""
    new = segment(struct_body([7, 8, 9], [data_body(b"contents"), None, data_body(b"more")]))
    assert layout("StoredItem").read(new) == {"contents": b"contents", "addedAtMs": 7, "attempts": 8, "facts": None}


def test_the_elements_of_a_list_may_be_shorter_and_longer():
    short = segment(struct_body([], [structs_body(0, 1, [((), [data_body(b"a")]), ((), [data_body(b"b")])])]))
    long = segment(struct_body([], [structs_body(3, 2, [((1, 2, 3), [data_body(b"a"), data_body(b"?")])])]))
    delays = {"visibilityTimeoutSecs": 0, "visibilityTimeoutMs": 0}
    assert layout("AddRequest").read(short)["items"] == [{"contents": b"a"} | delays, {"contents": b"b"} | delays]
    (item,) = layout("AddRequest").read(long)["items"]
    assert item == {"contents": b"a", "visibilityTimeoutSecs": 1, "visibilityTimeoutMs": 2}


def test_an_unknown_member_of_a_union_is_omitted():
    unknown = segment(struct_body([0xFFFF], [None]))
    assert layout("Message").read(unknown) == {}


def test_a_null_root_has_nothing_but_defaults():
    assert layout("SyncMark").read(bytes(8)) == {"sequence": 0, "failed": False}


def test_invalid_utf_8_in_a_text_is_replaced():
    text = data_body(b"\xff\0")
    assert layout("Format").read(segment(struct_body([0], [text])))["durability"] == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("broken", [b"", bytes(7), bytes(9)])
def test_a_malformed_segment_is_refused(broken):
    with pytest.raises(RemoteProtocolError):
        layout("StoredItem").read(broken)


def nested(depth):
    """Return an Unimplemented that holds an Unimplemented, and so on."""
    message = struct_body([0], [None])
    for _ in range(depth - 1):
        message = struct_body([0], [message])
    return segment(message)


def test_the_depth_of_pointers_is_bounded():
    assert layout("Message").read(nested(64))
    with pytest.raises(RemoteProtocolError, match="deeper"):
        layout("Message").read(nested(65))


def test_a_long_list_of_void_is_not_walked():
    nothing = (1 | (500_000_000 << 35)).to_bytes(8, "little")
    with pytest.raises(RemoteProtocolError, match="more is read"):
        layout("AddRequest").read(segment(struct_body([], [None]))[:8] + nothing)


def test_a_struct_pointer_has_the_size_of_the_struct():
    item = layout("StoredItem")
    assert item.build()[:8] == item.pointer.to_bytes(8, "little")


def test_an_unknown_field_name_is_a_type_error():
    with pytest.raises(TypeError, match="StoredItem has no field content"):
        layout("StoredItem").build(content=b"")


def test_a_number_that_does_not_fit_is_an_overflow_error():
    for value in (1 << 32, -1):
        with pytest.raises(OverflowError):
            layout("Release").build(id=value)


@pytest.mark.parametrize(
    "buffer",
    [
        bytearray(b"abcdefgh"),
        memoryview(b"abcdefgh"),
        memoryview(b"a-b-c-d-e-f-g-h-")[::2],
        memoryview(b"abcdefgh").cast("B", (2, 4)),
        memoryview(b"abcdefgh").cast("I"),
        array("Q", b"abcdefgh"),
        c_uint64.from_buffer_copy(b"abcdefgh"),
    ],
    ids=["bytearray", "memoryview", "every other byte", "nested", "wider", "array", "without dimensions"],
)
def test_all_bytes_of_any_buffer_are_written(buffer):
    """Also next to other fields, which a wrong length would shift."""
    item, remove = layout("Item"), layout("RemoveRequest")
    assert item.build(contents=buffer) == item.build(contents=b"abcdefgh")
    assert remove.build(id=buffer, lease=b"lease") == remove.build(id=b"abcdefgh", lease=b"lease")


@pytest.mark.parametrize("value", ["text", 8, [1, 2], None])
def test_only_a_buffer_is_data(value):
    with pytest.raises(TypeError):
        layout("Item").build(contents=value)


def test_data_is_as_long_as_its_pointer_can_count_and_no_longer():
    """The memory is mapped and never touched, so the test is cheap."""
    with mmap(-1, DATA_BYTES_MAX + 1) as content, pytest.raises(InvalidRequest, match=r"the limit is 536,870,911"):
        layout("Item").build(contents=content)


def test_an_unknown_struct_name_is_a_key_error():
    with pytest.raises(KeyError):
        layout("NoSuchStruct")


@given(st.integers(0, (1 << 16) - 1), st.integers(0, 3))
def test_a_number_is_stored_xor_its_default(value, place):
    number = Number(0, 16 * place, 0xFFFF, 0xA5A5)
    words = [0]
    number.put(words, value)
    frame = single_segment(words[0].to_bytes(8, "little"))
    assert number.of(frame, (0, 1, 1, 0, 1)) == value

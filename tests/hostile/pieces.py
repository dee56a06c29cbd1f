"""The parts of hostile messages: words, invalid pointers, segments, and frames around them."""

from struct import pack

from queueber.api import ADD, QUEUE_INTERFACE_ID
from queueber.capnp import layout
from queueber.capnp.framing import framed
from queueber.rpc import encoder

VOID, BIT, BYTE, TWO, FOUR, EIGHT, POINTER, COMPOSITE = range(8)
"""The sizes of a list's elements."""

MOST = (1 << 29) - 1
"""The largest number that a list pointer can name."""

QUESTION = 1_000
"""The number that the calls of the catalogue have, unless the case is about the number."""


def struct_pointer(offset, data, pointers):
    """Return a pointer to a struct of *data* words and *pointers*, *offset* words after the pointer."""
    return (offset << 2 & 0xFFFFFFFF) | data << 32 | pointers << 48


def list_pointer(offset, size, count):
    """Return a pointer to a list of *count* elements, or words if it is composite."""
    return 1 | (offset << 2 & 0xFFFFFFFF) | size << 32 | count << 35


def far_pointer(segment, word, *, double=False):
    """Return a pointer to a landing pad."""
    return 2 | (4 if double else 0) | word << 3 | segment << 32


def tag(count, data, pointers):
    """Return the tag word of a composite list."""
    return struct_pointer(count, data, pointers)


def words(*numbers):
    """Return each number as a word, and bytes unchanged."""
    return b"".join(each if isinstance(each, bytes) else each.to_bytes(8, "little") for each in numbers)


def stream(*segments, padding=b"\0"):
    """Return a framed message of these segments."""
    table = pack(f"<I{len(segments)}I", len(segments) - 1, *[len(segment) // 8 for segment in segments])
    return table + padding * (-len(table) % 8) + b"".join(segments)


def message(**member):
    """Return a framed RPC message."""
    return framed(layout("Message").build(**member))


def call(content, *, question=QUESTION, method=ADD, interface=QUEUE_INTERFACE_ID, target=0):
    """Return a Call with *content*, a segment of its own, as its parameters."""
    return encoder.call(question, target, interface, method, content) + content


CALL_WORDS = len(call(b"")) // 8 - 1
"""The words of a Call's segment before its content."""


def add_with(*items):
    """Return an add whose `items` are these words; the first is the pointer."""
    return call(words(struct_pointer(0, 0, 1), struct_pointer(0, 0, 1), *items))


ITEMS_AT = CALL_WORDS + 2
"""The word in the first segment at which the `items` of `add_with` begin."""


def add_of_one(*contents):
    """Return an add of one item whose `contents` are these words; the first is the pointer."""
    return add_with(list_pointer(0, COMPOSITE, 1), tag(1, 0, 1), *contents)


CONTENTS_AT = ITEMS_AT + 2
"""The word in the first segment at which the `contents` of `add_of_one` begin."""


def in_segments(framed_message, *others):
    """Return a message of one segment, followed by others."""
    return stream(framed_message[8:], *[words(*each) for each in others])

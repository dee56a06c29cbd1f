"""Pointers: every legal encoding is read, and every illegal one is refused."""

import sys

import pytest

from queueber.capnp.builder import data_body, pointers_body, segment, structs_body
from queueber.capnp.reader import (
    EMPTY,
    bytes_at,
    capability_at,
    pointer_list_at,
    single_segment,
    slot_at,
    struct_at,
    struct_list_at,
    text_at,
    words_of,
)
from queueber.errors import RemoteProtocolError

VOID, BIT, BYTE, TWO, FOUR, EIGHT, POINTER, COMPOSITE = range(8)
BIG = 1 << 29


def struct_pointer(offset, data, pointers):
    return (offset << 2 & 0xFFFFFFFF) | data << 32 | pointers << 48


def list_pointer(offset, size, count):
    return 1 | (offset << 2 & 0xFFFFFFFF) | size << 32 | count << 35


def far_pointer(segment_index, offset, *, double=False):
    return 2 | (4 if double else 0) | offset << 3 | segment_index << 32


def words(*numbers):
    return b"".join(number.to_bytes(8, "little") for number in numbers)


def only(*numbers):
    """A frame of one segment, and the bounds of its first word as a pointer."""
    frame = single_segment(words(*numbers))
    return frame, 0, 0, len(numbers)


@pytest.fixture
def several(stream_of, frame_of):
    """A frame of several segments, and the bounds of its first word as a pointer."""

    def several(*segments):
        frame = frame_of(stream_of([words(*numbers) for numbers in segments]))
        return frame, frame.start, frame.start, frame.end

    return several


def read_everything(frame, at, start, end):
    """Read the pointer as each kind, and return the values and the number of refusals."""
    refused = 0
    for read in (struct_at, struct_list_at, pointer_list_at, bytes_at, text_at, capability_at):
        try:
            read(frame, at, start, end)
        except RemoteProtocolError:
            refused += 1
    return refused


def test_a_null_pointer_is_an_empty_value_of_any_kind():
    pointer = only(0)
    assert struct_at(*pointer) == EMPTY
    assert bytes_at(*pointer) == (0, 0)
    assert text_at(*pointer) == b""
    assert capability_at(*pointer) is None
    assert struct_list_at(*pointer).count == 0
    assert pointer_list_at(*pointer).count == 0


def test_a_far_pointer_may_lead_to_a_null_pointer(several):
    pointer = several([far_pointer(1, 0)], [0])
    assert struct_at(*pointer) == EMPTY
    assert bytes_at(*pointer) == (0, 0)
    assert capability_at(*pointer) is None


def test_a_struct_may_lie_on_either_side_of_its_pointer():
    assert struct_at(*only(struct_pointer(1, 1, 1), 0, 5, 0)) == (2, 3, 4, 0, 4)
    frame, _, start, end = only(5, struct_pointer(-2, 1, 0))
    assert struct_at(frame, 1, start, end) == (0, 1, 1, 0, 2)


def test_an_empty_struct_has_a_pointer_to_itself():
    """The offset distinguishes the pointer from null."""
    frame, at, start, end = only(struct_pointer(-1, 0, 0))
    assert struct_at(frame, at, start, end) == (0, 0, 0, 0, 1)


def test_a_slot_that_a_struct_does_not_have_is_empty():
    frame, at, start, end = only(struct_pointer(0, 0, 1), struct_pointer(0, 1, 0), 7)
    struct = struct_at(frame, at, start, end)
    assert slot_at(frame, struct, 0) == (2, 3, 3, 0, 3)
    assert slot_at(frame, struct, 1) == EMPTY
    assert slot_at(frame, EMPTY, 0) == EMPTY


@pytest.mark.parametrize(
    "pointer",
    [
        struct_pointer(0, 2, 0),
        struct_pointer(0, 0, 2),
        struct_pointer(1, 1, 0),
        struct_pointer(-3, 1, 0),
        struct_pointer(BIG - 1, 1, 0),
        struct_pointer(-BIG, 1, 0),
        struct_pointer(0, 0xFFFF, 0xFFFF),
        list_pointer(0, BYTE, 9),
        list_pointer(-3, BYTE, 8),
        list_pointer(0, BYTE, BIG - 1),
        list_pointer(0, EIGHT, 2),
        list_pointer(-3, POINTER, 1),
        list_pointer(0, FOUR, 3),
        list_pointer(-3, TWO, 1),
        list_pointer(0, COMPOSITE, 1),
        list_pointer(-3, COMPOSITE, 0),
    ],
)
def test_a_pointer_out_of_its_segment_is_refused(pointer):
    """The neighbouring words exist, but belong to other messages."""
    frame = single_segment(words(0xBAD, pointer, 0, 0xBAD))
    assert read_everything(frame, 1, 1, 3) == 6


def test_each_reader_refuses_pointers_of_other_kinds():
    struct = only(struct_pointer(0, 1, 0), 0)
    assert read_everything(*struct) == 5
    assert read_everything(*only(list_pointer(0, BIT, 1), 0)) == 6
    assert read_everything(*only(list_pointer(0, BYTE, 1), 0)) == 3  # bytes, a text, and structs of a byte each
    assert read_everything(*only(list_pointer(0, TWO, 1), 0)) == 5
    assert read_everything(*only(list_pointer(0, POINTER, 1), 0)) == 4
    assert read_everything(*only(3)) == 5


@pytest.mark.parametrize("reserved", [1 << 2, 1 << 31])
def test_a_pointer_of_a_reserved_kind_is_not_a_capability(reserved):
    assert read_everything(*only(3 | reserved)) == 6


def test_a_capability_is_its_index(several):
    assert capability_at(*only(3 | 5 << 32)) == 5
    assert capability_at(*several([far_pointer(1, 1)], [0, 3 | 6 << 32])) == 6


def test_a_far_pointer_leads_to_a_pointer_in_another_segment(several):
    frame, at, start, end = several([far_pointer(1, 1)], [0xBAD, struct_pointer(0, 1, 0), 7])
    body, pointers, stop, start, end = struct_at(frame, at, start, end)
    assert (frame.words[body], pointers, stop) == (7, body + 1, body + 1)
    assert (start, end) == frame.segments[1]


def test_a_double_far_pointer_leads_to_content_and_its_kind(several):
    pointer = several([far_pointer(1, 0, double=True)], [far_pointer(2, 1), list_pointer(0, BYTE, 3)], [0, 0x636261])
    frame = pointer[0]
    first, last = bytes_at(*pointer)
    assert frame.data[first:last] == b"abc"


def test_a_far_pointer_may_lead_into_its_own_segment():
    frame, at, start, end = only(far_pointer(0, 1), struct_pointer(0, 1, 0), 7)
    assert struct_at(frame, at, start, end) == (2, 3, 3, 0, 3)


@pytest.mark.parametrize(
    "segments",
    [
        [[far_pointer(2, 0)], [0]],  # to no segment
        [[far_pointer(1, 1)], [0]],  # after the segment
        [[far_pointer(1, BIG - 1)], [0]],
        [[far_pointer(0, 0)], [0]],  # to itself
        [[far_pointer(1, 0)], [far_pointer(0, 0)]],  # round and round
        [[far_pointer(1, 0, double=True)], [far_pointer(0, 0)]],  # half a landing pad
        [[far_pointer(1, 0, double=True)], [far_pointer(0, 0, double=True), struct_pointer(0, 0, 0)]],
        [[far_pointer(1, 0, double=True)], [struct_pointer(0, 0, 1), struct_pointer(0, 1, 0)]],
        [[far_pointer(1, 0, double=True)], [far_pointer(0, 0), far_pointer(0, 0)]],
        [[far_pointer(1, 0, double=True)], [far_pointer(9, 0), struct_pointer(0, 1, 0)]],
        [[far_pointer(1, 0, double=True)], [far_pointer(0, 1), struct_pointer(0, 1, 0)]],  # content after the segment
    ],
)
def test_far_pointers_to_nowhere_are_refused(several, segments):
    with pytest.raises(RemoteProtocolError):
        struct_at(*several(*segments))


def test_a_frame_of_one_segment_has_no_other():
    with pytest.raises(RemoteProtocolError, match="segment"):
        struct_at(*only(far_pointer(1, 0)))


def test_a_text_ends_with_nul():
    assert text_at(*only(list_pointer(0, BYTE, 3), 0x6261)) == b"ab"
    assert text_at(*only(list_pointer(0, BYTE, 1), 0)) == b""
    for count in (0, 2):
        with pytest.raises(RemoteProtocolError, match="NUL"):
            text_at(*only(list_pointer(0, BYTE, count), 0x6261))


def elements(found):
    """The data words and the pointer words of each element."""
    spans = [found.element(index)[:3] for index in range(found.count)]
    content = found.frame.words
    return [(list(content[first:mid]), list(content[mid:last])) for first, mid, last in spans]


def test_a_list_of_structs_may_have_been_a_list_of_something_else():
    """An older schema's element is the first field of the newer one's struct."""
    assert elements(struct_list_at(*only(list_pointer(0, VOID, 3)))) == [([], [])] * 3
    assert elements(struct_list_at(*only(list_pointer(0, BYTE, 3), 0x030201))) == [([1], []), ([2], []), ([3], [])]
    assert elements(struct_list_at(*only(list_pointer(0, TWO, 2), 0x00020001))) == [([1], []), ([2], [])]
    assert elements(struct_list_at(*only(list_pointer(0, FOUR, 1), 7))) == [([7], [])]
    assert elements(struct_list_at(*only(list_pointer(0, EIGHT, 2), 7, 8))) == [([7], []), ([8], [])]
    assert elements(struct_list_at(*only(list_pointer(0, POINTER, 2), 0, 3))) == [([], [0]), ([], [3])]


def test_a_list_of_pointers_may_have_become_one_of_structs():
    frame, at, start, end = only(list_pointer(0, COMPOSITE, 4), struct_pointer(2, 1, 1), 9, 3, 9, 3 | 1 << 32)
    found = pointer_list_at(frame, at, start, end)
    assert [capability_at(frame, word, found.start, found.end) for word in found.words()] == [0, 1]
    with pytest.raises(RemoteProtocolError):
        pointer_list_at(*only(list_pointer(0, COMPOSITE, 1), struct_pointer(1, 1, 0), 9))


@pytest.mark.parametrize(
    "tag",
    [
        struct_pointer(3, 1, 0),  # three elements in two words
        struct_pointer(-1, 1, 0),  # a negative number of them
        struct_pointer(1, 0xFFFF, 0xFFFF),
        list_pointer(1, BYTE, 1),
        far_pointer(0, 0),
    ],
)
def test_a_tag_that_does_not_fit_its_list_is_refused(tag):
    with pytest.raises(RemoteProtocolError, match="tag"):
        struct_list_at(*only(list_pointer(0, COMPOSITE, 2), tag, 0, 0))


def test_a_list_may_be_longer_than_its_elements():
    found = struct_list_at(*only(list_pointer(0, COMPOSITE, 3), struct_pointer(1, 1, 0), 7, 0, 0))
    assert elements(found) == [([7], [])]


def test_elements_without_a_size_cost_nothing_until_they_are_walked():
    frame, at, start, end = only(list_pointer(0, COMPOSITE, 0), struct_pointer(1_000_000, 0, 0))
    found = struct_list_at(frame, at, start, end)
    assert found.count == 1_000_000
    with pytest.raises(RemoteProtocolError, match="more is read"):
        frame.spend(found.count)


def test_repeated_reads_of_the_same_bytes_are_bounded():
    """Two thousand pointers to one blob must not become two thousand blobs."""
    blob = data_body(bytes(8_000))
    frame = single_segment(segment(blob))
    for _ in range(2):
        bytes_at(frame, 0, 0, frame.end)
    with pytest.raises(RemoteProtocolError, match="more is read"):
        bytes_at(frame, 0, 0, frame.end)


@pytest.mark.parametrize(
    ("read", "numbers", "cost"),
    [
        (bytes_at, (list_pointer(0, BYTE, 16), 0, 0), 2),
        (bytes_at, (list_pointer(0, BYTE, 9), 0, 0), 2),
        (text_at, (list_pointer(0, BYTE, 8), 0), 1),
        (struct_list_at, (list_pointer(0, BYTE, 3), 0), 3),
        (struct_list_at, (list_pointer(0, EIGHT, 2), 0, 0), 2),
        (struct_list_at, (list_pointer(0, POINTER, 2), 0, 0), 2),
        (struct_list_at, (list_pointer(0, COMPOSITE, 2), struct_pointer(2, 1, 0), 0, 0), 2),
        (pointer_list_at, (list_pointer(0, POINTER, 2), 0, 0), 2),
        (pointer_list_at, (list_pointer(0, COMPOSITE, 2), struct_pointer(2, 0, 1), 0, 0), 2),
        (capability_at, (far_pointer(0, 1), 3), 1),
    ],
)
def test_the_whole_budget_may_be_spent_and_not_a_word_more(read, numbers, cost):
    frame, at, start, end = only(*numbers)

    def limit_hit(budget):
        frame.budget = budget
        try:
            read(frame, at, start, end)
        except RemoteProtocolError as why:
            return why.limit
        return None

    assert (limit_hit(cost), limit_hit(cost - 1)) == (None, "traversal_factor")


@pytest.mark.parametrize(
    "content",
    [
        structs_body(1, 0, [((1,), ())] * 100),
        pointers_body([None] * 100),
        structs_body(0, 1, [((), (None,))] * 100),
    ],
)
def test_repeated_reads_of_the_same_list_are_bounded(content):
    frame = single_segment(segment(content))
    refused = [read_everything(frame, 0, 0, frame.end) for _ in range(4)]
    assert refused[0] < refused[-1] == 6


def test_numbers_are_charged_at_their_widened_size():
    frame, at, start, end = only(list_pointer(0, BYTE, 24), 0, 0, 0)
    with pytest.raises(RemoteProtocolError, match="more is read"):
        struct_list_at(frame, at, start, end)


def test_a_segment_is_whole_words():
    with pytest.raises(RemoteProtocolError, match="whole number"):
        single_segment(bytes(9))


def test_words_are_little_endian_on_every_machine(monkeypatch):
    data = bytes(range(17))
    expected = [int.from_bytes(data[at : at + 8], "little") for at in (0, 8)]
    assert list(words_of(data)) == expected
    monkeypatch.setattr("queueber.capnp.reader.LITTLE_ENDIAN", sys.byteorder != "little")
    turned = [int.from_bytes(word.to_bytes(8, "little"), "big") for word in expected]
    assert list(words_of(data)) == turned


@pytest.mark.parametrize("size", [BYTE, TWO, FOUR])
def test_a_list_that_is_too_long_must_lie_in_its_segment(size):
    """The length alone must not be the error: a list out of bounds is malformed."""
    assert struct_list_at(*only(list_pointer(0, size, 17), *[0] * 9), 16).count == 17
    with pytest.raises(RemoteProtocolError, match="out of its segment"):
        struct_list_at(*only(list_pointer(0, size, 1_000)), 16)

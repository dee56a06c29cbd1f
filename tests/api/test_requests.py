"""The parameters of the queue's methods: there and back, from pycapnp, from other versions, and beyond limits."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queueber.api import (
    AddRequest,
    ExtendRequest,
    NewItem,
    PollRequest,
    RemoveRequest,
    read_add_request,
    read_add_requests,
    read_extend_request,
    read_extend_requests,
    read_poll_request,
    read_poll_requests,
    read_queue_request,
    read_remove_request,
    read_remove_requests,
    write_add_request,
    write_extend_request,
    write_poll_request,
    write_queue_request,
    write_remove_request,
)
from queueber.api import requests as queue_requests
from queueber.api.fields import Fields
from queueber.api.options import with_options
from queueber.capnp import layout, reader
from queueber.capnp.builder import Body, data_body, pointers_body, segment, struct_body, structs_body
from queueber.capnp.reader import bytes_at, single_segment, struct_list_at
from queueber.errors import InvalidRequest, RemoteProtocolError
from queueber.limits import Limits
from queueber.rpc import Calls
from queueber.rpc.messages import NO_CONTENT, AnswerId, Params
from queueber.units import SpanMs, span_from

# What is there and back again; how long a delay may be is another matter.
LIMITS = Limits(delay_ms=SpanMs(1 << 80))
LIST_OF_BYTES = 1 | 2 << 32


def params(content):
    frame = single_segment(content)
    return Params(frame, 0, 0, frame.end)


def added(items, limits=LIMITS):
    """Read an add with *items* as the list, of any kind."""
    request = struct_body([], [items])
    return read_add_request(params(segment(struct_body([], [request]))), limits).items


spans = st.integers(0, 2**63).map(SpanMs)
blobs = st.binary(max_size=40)
new_items = st.builds(NewItem, blobs, spans, st.none())


@pytest.mark.traced
@settings(derandomize=True)
@given(st.builds(AddRequest, st.lists(new_items, max_size=5), st.just(b"")))
def test_add_there_and_back(request):
    assert read_add_request(params(write_add_request(request)), LIMITS) == request


@pytest.mark.traced
@settings(derandomize=True)
@given(count=st.integers(3, 30), size=st.integers(0, 40), delay=st.sampled_from([0, 0, 5]))
def test_an_add_of_many_of_one_length_there_and_back(count, size, delay):
    items = [NewItem(bytes([number]) * size, SpanMs(delay)) for number in range(count)]
    assert read_add_request(params(write_add_request(AddRequest(items))), LIMITS).items == items


def one_by_one(params, limits):
    """Read the items of an add one by one, by their layout."""
    _, request = queue_requests.structs_of(params)
    if request[1] == request[2]:
        return []
    items = struct_list_at(params.frame, request[1], request[3], request[4])
    structs = [items.element(index) for index in range(items.count)]
    item = layout("Item")
    delays = [
        span_from(
            *[item.numbers[name].of(items.frame, each) for name in ("visibilityTimeoutSecs", "visibilityTimeoutMs")]
        )
        for each in structs
    ]
    if any(delay > limits.delay_ms for delay in delays):
        raise InvalidRequest("delay")
    found = []
    for each, delay in zip(structs, delays, strict=True):
        first, last = bytes_at(items.frame, each[1], *each[3:]) if each[1] < each[2] else (0, 0)
        if (
            last - first > limits.contents_bytes
            or sum(len(item.contents) for item in found) + last - first > limits.add_bytes
        ):
            raise InvalidRequest("size")
        found.append(NewItem(items.frame.data[first:last], delay))
    if any(params.frame.words[request[1] + 1 : request[2]]):
        # A change has made the request longer, as those with options are.
        fields = Fields(params.frame, request, layout("AddRequest"))
        found = with_options(found, fields)
        fields.id("requestId", optional=True)
    return found


def outcome(read, content, limits):
    """Return the result of *read* and the rest of the budget, or the type of its error."""
    given = params(content)
    try:
        return read(given, limits), given.frame.budget
    except (InvalidRequest, RemoteProtocolError) as why:
        return type(why)


@pytest.mark.traced
@settings(derandomize=True)
@given(
    count=st.integers(4, 12),
    size=st.integers(1, 30),
    changes=st.lists(st.tuples(st.integers(0, 80), st.integers(-70, 63)), min_size=1, max_size=3),
)
def test_items_read_together_are_those_read_one_by_one(count, size, changes):
    """With any change of a word: a bit flipped, or another offset."""
    words = list(single_segment(write_add_request(AddRequest([NewItem(b"c" * size, SpanMs(0))] * count))).words)
    for place, change in changes:
        at = place % len(words)
        words[at] = (words[at] ^ 1 << change if change >= 0 else words[at] + (change + 35 << 2)) & (1 << 64) - 1
    content = b"".join(word.to_bytes(8, "little") for word in words)
    for limits in (LIMITS, Limits(contents_bytes=20, add_bytes=100)):
        together = outcome(lambda *args: read_add_request(*args).items, content, limits)
        assert together == outcome(one_by_one, content, limits)


@pytest.mark.traced
@settings(derandomize=True)
@given(st.builds(RemoveRequest, blobs, blobs))
def test_remove_there_and_back(request):
    assert read_remove_request(params(write_remove_request(request))) == request


counts = st.integers(1, 2**32 - 1)
no_session = st.just(b"")
polls = st.one_of(
    st.builds(PollRequest, spans, counts, st.none() | st.integers(1, 2**63), st.just(False), no_session),
    st.builds(PollRequest, spans, counts, st.none(), st.just(True), no_session),
)


@pytest.mark.traced
@settings(derandomize=True)
@given(polls)
def test_poll_there_and_back(request):
    assert read_poll_request(params(write_poll_request(request))) == request


@pytest.mark.traced
@settings(derandomize=True)
@given(st.builds(ExtendRequest, blobs, spans))
def test_extend_there_and_back(request):
    assert read_extend_request(params(write_extend_request(request))) == request


@pytest.mark.traced
@settings(derandomize=True)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_queue_there_and_back(name):
    assert read_queue_request(params(write_queue_request(name))) == name


@pytest.mark.traced
@settings(derandomize=True)
@given(items=st.lists(new_items, max_size=3), words=st.sampled_from([1, 2, 5, 1 << 16]))
def test_items_in_many_segments_are_read(pycapnp, stream_of, frame_of, items, words):
    value = {"items": [{"contents": item.contents.hex(), "visibilityTimeoutMs": item.delay} for item in items]}
    segments = pycapnp.build("Queue.add$Params", {"req": value}, segment_words=words)
    frame = frame_of(stream_of(segments))
    assert read_add_request(Params(frame, frame.start, frame.start, frame.end), LIMITS).items == items


# What is not there.


def test_null_is_the_default_everywhere():
    for content in (NO_CONTENT, params(segment(struct_body([], [None]))), params(segment(struct_body([7], [])))):
        assert read_add_request(content, LIMITS) == AddRequest([])
        assert read_remove_request(content) == RemoveRequest(b"", b"")
        assert read_poll_request(content) == PollRequest(SpanMs(0), 1, None, no_wait=False)
        assert read_extend_request(content) == ExtendRequest(b"", SpanMs(0))
        assert read_queue_request(content) == ""


def test_a_shorter_request_has_defaults_at_its_end():
    """From a client of the first schema, or one that omits zeros."""
    assert read_remove_request(params(segment(struct_body([], [struct_body([], [data_body(b"id")])])))) == (
        RemoveRequest(b"id", b"")
    )
    original = struct_body([30, 5, 10], [])
    assert read_poll_request(params(segment(struct_body([], [original])))) == (
        PollRequest(SpanMs(30_000), 5, SpanMs(10_000), no_wait=False)
    )


# Spans.


@pytest.mark.parametrize(
    ("seconds", "ms", "span"), [(0, 0, 0), (3, 0, 3_000), (3, 7, 7), (0, 7, 7), (2**64 - 1, 0, (2**64 - 1) * 1_000)]
)
def test_milliseconds_replace_seconds_unless_they_are_zero(seconds, ms, span):
    item = {"visibilityTimeoutSecs": seconds, "visibilityTimeoutMs": ms}
    request = layout("Queue.add$Params").build(req={"items": [item]})
    assert read_add_request(params(request), LIMITS).items == [NewItem(b"", span)]
    fields = {"leaseValiditySecs": seconds, "leaseValidityMs": ms, "timeoutSecs": seconds, "timeoutMs": ms}
    poll = read_poll_request(params(layout("Queue.poll$Params").build(req=fields)))
    assert (poll.lease, poll.wait) == (span, span or None)
    del fields["timeoutSecs"], fields["timeoutMs"]
    assert read_extend_request(params(layout("Queue.extend$Params").build(req=fields))).span == span


def test_seconds_are_rounded_up():
    """A server without the field in milliseconds must not end a lease early."""
    request = PollRequest(SpanMs(1_001), 1, SpanMs(1), no_wait=False)
    written = layout("Queue.poll$Params").read(write_poll_request(request))["req"]
    assert (written["leaseValiditySecs"], written["timeoutSecs"]) == (2, 1)
    written = layout("Queue.add$Params").read(write_add_request(AddRequest([NewItem(b"", SpanMs(999))])))["req"]
    assert written["items"][0]["visibilityTimeoutSecs"] == 1
    written = layout("Queue.extend$Params").read(write_extend_request(ExtendRequest(b"", SpanMs(59_500))))["req"]
    assert written["leaseValiditySecs"] == 60


def test_a_wait_of_zero_is_sent_as_no_wait():
    for request in (PollRequest(SpanMs(1), 1, SpanMs(0), no_wait=False), PollRequest(SpanMs(1), 1, None, no_wait=True)):
        fields = layout("Queue.poll$Params").read(write_poll_request(request))["req"]
        assert (fields["noWait"], fields["timeoutSecs"], fields["timeoutMs"]) == (True, 1, 0)


def test_no_wait_ignores_the_timeouts():
    content = layout("Queue.poll$Params").build(req={"noWait": True, "timeoutMs": 500, "numItems": 0})
    assert read_poll_request(params(content)) == PollRequest(SpanMs(0), 1, None, no_wait=True)


# Items as other schemas have them.


def test_items_may_come_in_every_encoding_of_a_list():
    blobs = [data_body(b"a"), None, data_body(b"c")]
    contents = [NewItem(b"a", 0), NewItem(b"", 0), NewItem(b"c", 0)]
    assert added(pointers_body(blobs)) == contents
    assert added(structs_body(0, 1, [((), [blob]) for blob in blobs])) == contents
    assert added(structs_body(1, 1, [((2,), [blob]) for blob in blobs])) == [
        NewItem(item.contents, 2_000) for item in contents
    ]
    assert added(structs_body(3, 2, [((2, 7, 9), [blob, data_body(b"?")]) for blob in blobs])) == [
        NewItem(item.contents, 7) for item in contents
    ]
    assert added(structs_body(1, 0, [((2,), [])])) == [NewItem(b"", 2_000)]
    assert added(structs_body(0, 0, [((), [])] * 3)) == [NewItem(b"", 0)] * 3
    assert added(Body(1 | 5 << 32 | 2 << 35, [bytes([1]) + bytes(7), bytes([2]) + bytes(7)], 2)) == [
        NewItem(b"", 1_000),
        NewItem(b"", 2_000),
    ]


# Too much.


def test_items_are_counted_before_they_are_read():
    """A million items without a size fit in 32 bytes."""
    nothing = Body(1 | 7 << 32, [(1_000_000 << 2).to_bytes(8, "little")], 1)
    with pytest.raises(InvalidRequest, match="items is 1,000,000 items; the limit is 1,000"):
        added(nothing)
    assert len(added(structs_body(0, 0, [((), [])] * 1_000))) == 1_000
    with pytest.raises(InvalidRequest, match="items is 3 items; the limit is 2"):
        added(pointers_body([None] * 3), Limits(items_per_add=2))


def test_the_error_of_a_long_span_names_the_field_that_was_sent():
    """The field in milliseconds if that is set, and the index of the item in an add."""
    limits = Limits(delay_ms=SpanMs(1_000), lease_ms=SpanMs(1_000))
    items = [{}, {"visibilityTimeoutSecs": 1}, {"visibilityTimeoutSecs": 2}]
    with pytest.raises(InvalidRequest, match=r"items\[2\].visibilityTimeoutSecs is 2,000 ms; the limit is 1,000"):
        read_add_request(params(layout("Queue.add$Params").build(req={"items": items})), limits)
    items[2]["visibilityTimeoutMs"] = 1_001
    with pytest.raises(InvalidRequest, match=r"items\[2\].visibilityTimeoutMs is 1,001 ms"):
        read_add_request(params(layout("Queue.add$Params").build(req={"items": items})), limits)
    for read, method in ((read_poll_request, "poll"), (read_extend_request, "extend")):
        for fields, said in (
            ({"leaseValiditySecs": 2}, "leaseValiditySecs is 2,000 ms; the limit is 1,000"),
            ({"leaseValiditySecs": 1, "leaseValidityMs": 1_001}, "leaseValidityMs is 1,001 ms"),
        ):
            with pytest.raises(InvalidRequest, match=said) as refused:
                read(params(layout(f"Queue.{method}$Params").build(req=fields)), limits)
            assert refused.value.limit == "lease_ms"
        assert read(params(layout(f"Queue.{method}$Params").build(req={"leaseValiditySecs": 1})), limits)


def test_contents_are_measured_before_they_are_copied():
    limits = Limits(contents_bytes=10, add_bytes=25)

    def contents(*lengths):
        return pointers_body([data_body(bytes(length)) for length in lengths])

    assert [len(item.contents) for item in added(contents(10, 10, 5), limits)] == [10, 10, 5]
    with pytest.raises(InvalidRequest, match=r"items\[1\].contents is 11 bytes; the limit is 10"):
        added(contents(1, 11), limits)
    with pytest.raises(InvalidRequest, match=r"contents up to items\[2\] is 26 bytes; the limit is 25"):
        added(contents(10, 10, 6), limits)


@pytest.mark.parametrize("kind", [2, 3, 4])
def test_items_as_a_list_of_numbers_are_counted_before_they_are_widened(kind, monkeypatch):
    """Four million numbers fit in a frame, and each would become an object."""
    monkeypatch.setattr(reader, "_widened", lambda *_: pytest.fail("widened"))
    numbers = Body(1 | kind << 32 | 8_000 << 35, [bytes(32_000)], 4_000)
    with pytest.raises(InvalidRequest, match="items is 8,000"):
        added(numbers)


def test_many_pointers_to_the_same_contents_are_not_many_contents():
    """92 kB on the wire would be 120 MB in memory."""
    blob = bytes(60_000)
    count = 1_000
    pointers = [LIST_OF_BYTES | (count - 1 - index) << 2 | len(blob) << 35 for index in range(count)]
    body = [pointer.to_bytes(8, "little") for pointer in pointers]
    shared = Body(1 | 6 << 32 | count << 35, [*body, blob], count + len(blob) // 8)
    with pytest.raises(RemoteProtocolError, match="more is read"):
        added(shared)


def test_a_name_is_utf_8():
    with pytest.raises(InvalidRequest, match="UTF-8"):
        read_queue_request(params(segment(struct_body([], [data_body(b"\xff\0")]))))


# What is malformed.


@pytest.mark.parametrize(
    "contents",
    [
        struct_body([1], []),
        Body(1 | 1 << 32 | 8 << 35, [bytes(8)], 1),  # bits
        Body(1 | 3 << 32 | 4 << 35, [bytes(8)], 1),  # numbers of two bytes
        Body(3, [], 0),  # a capability
        Body(LIST_OF_BYTES | ((1 << 29) - 1) << 35, [], 0),  # bytes far beyond the end
        Body(LIST_OF_BYTES | 9 << 35, [bytes(8)], 1),  # one byte beyond the end
        Body(2 | 7 << 32, [], 0),  # in a segment that is not there
    ],
)
def test_contents_that_are_not_bytes_end_the_connection(contents):
    items = pointers_body([contents])
    with pytest.raises(RemoteProtocolError):
        added(items)


@pytest.mark.parametrize(
    "items", [struct_body([1], []), data_body(b"text"), Body(1 | 1 << 32 | 8 << 35, [bytes(8)], 1)]
)
def test_a_malformed_list_of_items_ends_the_connection(items):
    """A list of bytes is a list of items of one byte each, as an upgrade would have it; the rest is malformed."""
    if items.pointer & 1 and items.pointer >> 32 & 7 == 2:
        assert added(items) == [NewItem(b"", 1_000 * byte) for byte in b"text"]
    else:
        with pytest.raises(RemoteProtocolError):
            added(items)


def test_a_request_that_is_not_a_struct_ends_the_connection():
    for read in (lambda it: read_add_request(it, LIMITS), read_remove_request, read_poll_request, read_extend_request):
        with pytest.raises(RemoteProtocolError):
            read(params(segment(struct_body([], [data_body(b"?")]))))
        with pytest.raises(RemoteProtocolError):
            read(params(segment(data_body(b"?"))))


@pytest.mark.parametrize(
    ("read", "content", "expected"),
    [
        (read_add_requests, write_add_request(AddRequest([NewItem(b"one", SpanMs(5))])), [NewItem(b"one", SpanMs(5))]),
        (read_remove_requests, write_remove_request(RemoveRequest(b"i", b"l")), RemoveRequest(b"i", b"l")),
        (
            read_poll_requests,
            write_poll_request(PollRequest(SpanMs(1), 2, SpanMs(3), no_wait=False)),
            PollRequest(SpanMs(1), 2, SpanMs(3), no_wait=False),
        ),
        (read_extend_requests, write_extend_request(ExtendRequest(b"l", SpanMs(7))), ExtendRequest(b"l", SpanMs(7))),
    ],
)
def test_a_batch_is_read_whether_the_fast_path_has_read_it_or_not(read, content, expected):
    in_full = Calls([AnswerId(1)], None, 0, 0, params(content), [len(content)])
    read_before = in_full._replace(requests=[expected, expected])
    assert read(in_full, LIMITS) == [expected]
    assert read(read_before, LIMITS) == [expected, expected]

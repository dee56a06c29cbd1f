"""Options and facts that are read by hand: the same as the layouts read, whatever the message is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interface_values import blobs, facts, headers, ids, long, new_items, params, polled_items, results, short

from queueber import api
from queueber.capnp.builder import structs_body
from queueber.capnp.layout import layout
from queueber.capnp.reader import single_segment, struct_at
from queueber.errors import InvalidRequest, RemoteProtocolError
from queueber.fixed_limits import HEADER_BYTES_MAX, HEADER_NAME_BYTES_MAX
from queueber.limits import Limits
from queueber.units import SpanMs
from queueber.values import ItemOptions, NewItem
from tests.support.examples import examples

LIMITS = Limits(lease_ms=1 << 29, delay_ms=1 << 40)

# Most of the values have the form that is read by hand.
with_headers = st.builds(NewItem, blobs, st.just(0), headers.map(ItemOptions))
add_requests = st.builds(api.AddRequest, st.lists(with_headers | new_items, max_size=4), st.just(b"") | ids)
usual_facts = st.builds(api.DeliveryFacts, short, short, long, st.just(""), headers, st.none())
poll_responses = st.builds(
    api.PollResponse,
    st.lists(polled_items, max_size=3),
    ids,
    long,
    st.booleans(),
    st.lists(usual_facts | facts, max_size=3).map(tuple),
)
changes = st.lists(st.tuples(st.integers(0, 90), st.integers(-70, 63)), max_size=2)


def changed(content, changes):
    """*content* with bits flipped or offsets moved, in words counted from the last."""
    words = list(single_segment(content).words)
    for place, change in changes:
        at = -1 - place % len(words)
        words[at] = (words[at] ^ 1 << change if change >= 0 else words[at] + (change + 35 << 2)) & (1 << 64) - 1
    return b"".join(word.to_bytes(8, "little") for word in words)


def in_full(content, struct):
    """The values that the layouts read, with all the budget that they need; None for a malformed message."""
    frame = single_segment(content, factor=1_000)
    try:
        return layout(struct).values(frame, struct_at(frame, 0, 0, frame.end))
    except RemoteProtocolError:
        return None


def pairs(headers):
    """The headers among values of a layout."""
    return tuple((each["name"], each["value"]) for each in headers)


@settings(max_examples=examples(150))
@given(add_requests, changes)
def test_options_are_read_as_by_the_layouts(request, changes):
    """A name that is not UTF-8 or empty, and what exceeds a limit, is refused."""
    content = changed(api.write_add_request(request), changes)
    try:
        read = api.read_add_request(params(content), LIMITS).items
    except (InvalidRequest, RemoteProtocolError):
        return
    values = in_full(content, "Queue.add$Params")
    assert values is not None
    options = (values["req"] or {"options": []})["options"]
    assert [(each.options or ItemOptions()).headers for each in read[: len(options)]] == [
        pairs(each["headers"]) for each in options
    ]


@pytest.mark.traced
@settings(derandomize=True, max_examples=examples(150))
@given(poll_responses, changes)
def test_polled_items_are_read_as_by_the_layouts(response, changes):
    """Items and facts."""
    content = changed(api.write_poll_responses([response])[0], changes)
    try:
        read = api.read_poll_response(results(content))
    except RemoteProtocolError:
        return
    values = in_full(content, "Queue.poll$Results")
    assert values is not None
    found = values["resp"] or {"items": [], "facts": []}
    assert read.items == [(each["contents"], each["id"], each["attempt"], each["addedAtMs"]) for each in found["items"]]
    assert [
        (each.failures, each.losses, each.first_leased_at, each.last_error, each.headers) for each in read.facts
    ] == [
        (each["failures"], each["losses"], each["firstLeasedAtMs"], each["lastError"], pairs(each["headers"]))
        for each in found["facts"]
    ]


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ([("", b"v")], r"headers\[0\].name is empty; it must be 1 to 255 bytes"),
        ([("n", b""), ("n" * (HEADER_NAME_BYTES_MAX + 1), b"")], r"headers\[1\].name is 256 bytes"),
        ([("n", bytes(HEADER_BYTES_MAX)), ("m", b"")], r"headers up to options\[0\].headers\[0\] is 4,097 bytes"),
        ([("n", bytes(HEADER_BYTES_MAX + 1))], r"headers\[0\].value is 4,097 bytes"),
        ([("n", b"")] * 65, r"options\[0\].headers is 65 elements"),
    ],
)
def test_headers_that_exceed_a_limit_are_refused(headers, why):
    """The message names the field, the value and the limit."""
    item = NewItem(b"x", SpanMs(0), ItemOptions(headers=tuple(headers)))
    content = api.write_add_request(api.AddRequest([item]))
    with pytest.raises(InvalidRequest, match=why):
        api.read_add_request(params(content), LIMITS)


def test_a_name_that_is_not_utf_8_is_refused_in_a_request_and_replaced_in_a_response():
    """A client has to go on with what it was given."""
    item = NewItem(b"x", SpanMs(0), ItemOptions(headers=(("name", b"v"),)))
    request = api.write_add_request(api.AddRequest([item])).replace(b"name", b"n\xffme")
    with pytest.raises(InvalidRequest, match="name is not UTF-8"):
        api.read_add_request(params(request), LIMITS)
    polled = api.PolledItem(b"x", bytes(16), 1, 5)
    response = api.PollResponse([polled], bytes(16), 5, facts=(api.DeliveryFacts(headers=(("name", b"v"),)),))
    (content,) = api.write_poll_responses([response])
    (facts,) = api.read_poll_response(results(content.replace(b"name", b"n\xffme"))).facts
    assert facts.headers == (("n\ufffdme", b"v"),)


@pytest.mark.parametrize(
    ("size", "facts"),
    [((1, 0), api.DeliveryFacts(failures=7)), ((2, 2), api.DeliveryFacts(headers=(("n", b"v"),)))],
    ids=["failures alone", "no death"],
)
def test_facts_of_an_older_schema_are_read(size, facts):
    """Their structs are shorter."""
    fields = {"failures": facts.failures, "headers": [{"name": name, "value": value} for name, value in facts.headers]}
    data, pointers = layout("DeliveryFacts").sections(fields)
    older = structs_body(*size, [(data[: size[0]], pointers[: size[1]])])
    content = layout("Queue.poll$Results").build(resp={"facts": older})
    assert api.read_poll_response(results(content)).facts == (facts,)


def test_options_of_another_schema_are_read():
    """Headers that are their values alone have no name, and options that are a list of numbers have no headers."""
    nameless = structs_body(0, 1, [((), (None,))])
    options = structs_body(3, 2, [((0, 0, 0), (nameless, None))])
    items = [{"contents": b"x"}]
    content = layout("Queue.add$Params").build(req={"items": items, "options": options})
    with pytest.raises(InvalidRequest, match="name is empty"):
        api.read_add_request(params(content), LIMITS)
    content = layout("Queue.add$Params").build(req={"items": items, "options": structs_body(1, 0, [((0,), ())])})
    assert api.read_add_request(params(content), LIMITS).items == [NewItem(b"x", SpanMs(0))]


def test_a_name_that_does_not_end_with_nul_is_malformed():
    """A client in C would read beyond its end."""
    item = NewItem(b"x", SpanMs(0), ItemOptions(headers=(("name", b"v"),)))
    content = api.write_add_request(api.AddRequest([item])).replace(b"name\0", b"name!")
    with pytest.raises(RemoteProtocolError, match="a text does not end with NUL"):
        api.read_add_request(params(content), LIMITS)

"""The results of the queue's methods: there and back, to and from pycapnp, and from other versions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queueber.api import (
    QUEUE_RESPONSE,
    AddResponse,
    PollAnyResponse,
    PolledItem,
    PollResponse,
    ServerLimits,
    read_add_response,
    read_bootstrap,
    read_extend_response,
    read_limits_response,
    read_poll_any_lease,
    read_poll_lease,
    read_poll_response,
    read_queue_response,
    read_remove_response,
    write_add_responses,
    write_extend_responses,
    write_limits_request,
    write_limits_response,
    write_poll_any_response,
    write_poll_responses,
    write_remove_responses,
)
from queueber.capnp.builder import CAPABILITY, Body, data_body, pointers_body, segment, struct_body, structs_body
from queueber.capnp.reader import single_segment
from queueber.errors import RemoteProtocolError
from queueber.limits import Limits
from queueber.rpc import Results
from queueber.rpc.messages import NO_CONTENT, Params
from queueber.units import WallMs


def results(content, capabilities=()):
    frame = single_segment(content)
    return Results(Params(frame, 0, 0, frame.end), capabilities)


def response(body):
    """The results of a method whose response is *body*."""
    return results(segment(struct_body([], [body])))


NOTHING = Results(NO_CONTENT, ())

ids = st.binary(min_size=16, max_size=16)
numbers = st.integers(0, 2**64 - 1)
items = st.builds(PolledItem, st.binary(max_size=40), ids, st.integers(0, 2**32 - 1), numbers)
leases = st.one_of(ids, st.just(b""))
polled = st.builds(PollResponse, st.lists(items, max_size=5), leases, numbers, st.just(False), st.just(()))


@pytest.mark.traced
@settings(derandomize=True)
@given(found=st.lists(ids, max_size=300))
def test_add_there_and_back(pycapnp, found):
    content = write_add_responses([found])[0]
    assert read_add_response(results(content)) == AddResponse(found)
    assert pycapnp.read("AddResponse", [content[8:]]) == {
        "ids": [each.hex() for each in found],
        "duplicates": [],
    }


def test_several_adds_are_written_as_each_alone():
    replies = [[bytes([number]) * 16 for number in range(count)] for count in (1, 3, 1, 0)]
    assert write_add_responses(replies) == [write_add_responses([found])[0] for found in replies]
    assert write_add_responses(replies[:1]) == [write_add_responses([replies[0]])[0]]


@pytest.mark.untraced
@given(st.randoms(use_true_random=False), st.integers(1, 140), st.sampled_from([0, 1, 8, 13, 64, 4_096, 4_097]))
def test_a_poll_is_written_as_the_layouts_do(draw, count, size):
    polled_items = [
        PolledItem(draw.randbytes(size), draw.randbytes(16), draw.randrange(1 << 32), WallMs(draw.randrange(1 << 64)))
        for _ in range(count)
    ]
    answer = PollResponse(polled_items, draw.randbytes(16), WallMs(draw.randrange(1 << 64)))
    one_by_one = pointers_of(answer)
    assert write_poll_responses([answer])[0] == segment(struct_body([], [one_by_one]))


def pointers_of(answer):
    """The response, by the writer for anything."""
    elements = [
        ((item.attempt, item.added_at), (data_body(item.contents), data_body(item.id))) for item in answer.items
    ]
    return struct_body([answer.deadline], [structs_body(2, 2, elements), data_body(answer.lease)])


@pytest.mark.traced
@settings(derandomize=True)
@given(answer=polled)
def test_poll_there_and_back(pycapnp, answer):
    content = write_poll_responses([answer])[0]
    assert read_poll_response(results(content)) == answer
    assert pycapnp.read("PollResponse", [content[8:]]) == {
        "items": [
            {
                "contents": item.contents.hex(),
                "id": item.id.hex(),
                "attempt": item.attempt,
                "addedAtMs": item.added_at,
            }
            for item in answer.items
        ],
        "lease": answer.lease.hex(),
        "leaseDeadlineMs": answer.deadline,
        "session": False,
        "facts": [],
    }


@pytest.mark.parametrize("flag", [True, False])
def test_flags_there_and_back(pycapnp, flag):
    assert read_remove_response(results(write_remove_responses([flag])[0])) is flag
    assert read_extend_response(results(write_extend_responses([flag])[0])) is flag
    assert pycapnp.read("RemoveResponse", [write_remove_responses([flag])[0][8:]]) == {"removed": flag}
    assert pycapnp.read("ExtendResponse", [write_extend_responses([flag])[0][8:]]) == {"extended": flag}


def test_a_queue_is_the_first_capability():
    assert read_queue_response(results(QUEUE_RESPONSE, (7, 8))) == 7


def test_absent_fields_have_their_defaults():
    for nothing in (NOTHING, results(segment(struct_body([], [None]))), response(struct_body([0], []))):
        assert read_add_response(nothing) == AddResponse([])
        assert read_poll_response(nothing) == PollResponse([], b"", 0)
        assert read_remove_response(nothing) is False
        assert read_extend_response(nothing) is False


def test_a_server_of_the_first_schema_is_understood():
    item = ((), [data_body(b"contents"), data_body(b"id")])
    original = struct_body([], [structs_body(0, 2, [item]), data_body(b"lease")])
    assert read_poll_response(response(original)) == PollResponse([PolledItem(b"contents", b"id", 0, 0)], b"lease", 0)


def test_items_may_have_been_a_list_of_contents():
    upgraded = struct_body([], [pointers_body([data_body(b"a"), None])])
    assert read_poll_response(response(upgraded)).items == [PolledItem(b"a", b"", 0, 0), PolledItem(b"", b"", 0, 0)]


def test_ids_may_have_become_structs():
    upgraded = struct_body([], [structs_body(1, 1, [((7,), [data_body(b"a")]), ((8,), [data_body(b"b")])])])
    assert read_add_response(response(upgraded)) == AddResponse([b"a", b"b"])


@pytest.mark.parametrize(
    "ids",
    [
        structs_body(1, 0, [((7,), [])]),
        data_body(b"ids"),
        struct_body([1], []),
        pointers_body([struct_body([1], [])]),
        Body(1 | 6 << 32 | 100_000_000 << 35, [], 0),
    ],
)
def test_malformed_ids_are_refused(ids):
    with pytest.raises(RemoteProtocolError):
        read_add_response(response(struct_body([], [ids])))


def test_huge_lists_of_items_without_a_size_are_refused():
    nothing = Body(1 | 7 << 32, [(500_000_000 << 2).to_bytes(8, "little")], 1)
    with pytest.raises(RemoteProtocolError, match="more is read"):
        read_poll_response(response(struct_body([0], [nothing])))


@pytest.mark.parametrize(
    ("content", "capabilities"),
    [
        (QUEUE_RESPONSE, ()),
        (QUEUE_RESPONSE, (None,)),
        (segment(struct_body([], [None])), (7,)),
        (segment(struct_body([7], [])), (7,)),
        (segment(struct_body([], [Body(CAPABILITY | 1 << 32, [], 0)])), (7,)),
        (segment(struct_body([], [data_body(b"?")])), (7,)),
    ],
)
def test_a_queue_that_is_not_a_capability_is_refused(content, capabilities):
    with pytest.raises(RemoteProtocolError):
        read_queue_response(results(content, capabilities))


def test_a_bootstrap_is_a_capability_alone():
    assert read_bootstrap(results(segment(Body(CAPABILITY, [], 0)), (5,))) == 5
    for broken in (NOTHING, results(QUEUE_RESPONSE, (5,))):
        with pytest.raises(RemoteProtocolError):
            read_bootstrap(broken)


def test_the_lease_of_a_poll_is_read_alone():
    lease, item = b"l" * 16, PolledItem(b"contents", b"i" * 16, 1, WallMs(2))
    assert read_poll_lease(results(write_poll_responses([PollResponse([item], lease, WallMs(3))])[0])) == lease
    assert read_poll_lease(results(write_poll_responses([PollResponse([], b"", WallMs(0))])[0])) == b""


def test_limits_there_and_back():
    """`Broker.limits` has no parameters; an older server's reply has no limits."""
    limits = Limits(contents_bytes=100, add_bytes=200)
    found = read_limits_response(results(write_limits_response(limits)))
    assert (found.contents_bytes, found.add_bytes) == (100, 200)
    assert single_segment(write_limits_request()).words
    assert read_limits_response(results(segment(struct_body([], [None])))) == ServerLimits()


def test_the_lease_of_a_poll_in_several_queues_is_read_without_its_items():
    items = [PolledItem(b"contents", b"i" * 16, 1, WallMs(5))]
    for name, poll in (("mail", PollResponse(items, b"l" * 16, WallMs(9))), ("", PollResponse([], b"", WallMs(0)))):
        response = write_poll_any_response(PollAnyResponse(name, poll))
        assert read_poll_any_lease(results(response)) == poll.lease

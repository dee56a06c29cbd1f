"""Calls read on the fast path are equal to calls read in full."""

from random import Random
from struct import pack, unpack
from unittest.mock import patch

import pytest
from calls import (
    BOOTSTRAP,
    LAYOUTS,
    LIMITS,
    ROOT,
    add,
    begun,
    cpp_call,
    extend,
    foreign_call,
    our_call,
    poll,
    remove,
    rust_call,
    standard_call,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from queueber.api import (
    ADD,
    EXTEND,
    POLL,
    QUEUE_INTERFACE_ID,
    REMOVE,
    RemoveRequest,
    read_add_request,
    read_extend_request,
    read_poll_request,
    read_remove_request,
    write_remove_request,
)
from queueber.api.templates import template_readers
from queueber.capnp import layout
from queueber.capnp.builder import (
    BYTE_LIST,
    LIST_COUNT_SHIFT,
    Body,
    data_body,
    pointers_body,
    segment,
    struct_body,
    structs_body,
)
from queueber.capnp.framing import framed
from queueber.capnp.reader import WORD
from queueber.errors import QueueberError, RemoteProtocolError
from queueber.limits import Limits
from queueber.rpc import Calls, Connection, Finished, PromisedAnswer, encoder, fastpath
from queueber.rpc.fastpath import BACKOFF_MAX, PATTERNS_MAX
from queueber.rpc.patterns import FIXED_BYTES_MAX
from tests.support.examples import examples

ID, LEASE = b"i" * 16, b"l" * 16
EMPTY = bytes(WORD)

READERS = {
    ADD: lambda params: read_add_request(params, LIMITS).items,
    REMOVE: read_remove_request,
    POLL: lambda params: read_poll_request(params, LIMITS),
    EXTEND: lambda params: read_extend_request(params, LIMITS),
}


def asked(event):
    """Return the request of each call as plain values, however they were read."""
    read = READERS.get(event.method_id, read_remove_request)
    requests = [read(event.params)] if event.encoded else event.requests
    return [list(map(tuple, each)) if event.method_id == ADD else tuple(each) for each in requests]


TRIES = 12
"""Messages after which the fast path has tried at least three, however few fit."""


def fits(connection, data):
    """Return whether the one call of *data* is read by a pattern."""
    (event,) = connection.receive_data(data)
    return not event.encoded


def any_fits(connection, frames):
    """Return whether a call of *frames*, each in a read of its own, is read by a pattern."""
    events = [event for frame in frames for event in connection.receive_data(frame)]
    return any(not event.encoded for event in events if isinstance(event, Calls))


def taught(*requests, call=our_call, limits=LIMITS):
    """Return a connection with a pattern of each of *requests*."""
    connection = begun(limits)
    for request in requests or (add(b"12345678"), remove(ID, LEASE), poll(3), extend(LEASE)):
        for number in range(1_000, 1_004):
            for event in connection.receive_data(call(number, *request)):
                connection.return_results(event.answers, [EMPTY])
            list(connection.receive_data(finishes(number)[0]))
    connection.data_to_send()
    return connection


def finishes(*numbers):
    return [encoder.finish(number, release_result_caps=False) for number in numbers]


@pytest.mark.parametrize("call", LAYOUTS)
def test_adds_with_contents_of_any_length_are_one_batch(call):
    connection = taught(call=call)
    contents = [bytes([number]) * size for number, size in enumerate([0, 1, 8, 13, 64, 7], start=1)]
    frames = [call(number, *add(each)) for number, each in enumerate(contents)]

    (event,) = connection.receive_data(b"".join(frames))

    assert event.answers == list(range(6))
    assert event.requests == [((each, 0, None),) for each in contents]
    assert event.sizes == [len(frame) - WORD for frame in frames]
    assert (event.target, event.interface_id, event.method_id) == (ROOT, QUEUE_INTERFACE_ID, ADD)
    assert connection.stats().unanswered == 6


@pytest.mark.parametrize("call", LAYOUTS)
def test_removes_extends_and_polls_are_batches(call):
    connection = taught(call=call)
    pairs = [(bytes([number]) * 16, bytes([number + 100]) * 16) for number in range(3)]
    pieces = [call(number, *remove(*pair)) for number, pair in enumerate(pairs)]
    pieces += [call(number, *extend(bytes([number]) * 16)) for number in range(3, 6)]
    pieces += [call(number, *poll(3)) for number in range(6, 9)]

    removes, extends, polls = connection.receive_data(b"".join(pieces))

    assert removes.requests == pairs
    assert extends.requests == [(bytes([number]) * 16, 1000) for number in range(3, 6)]
    assert polls.requests == [(1000, 3, None, False, b"")] * 3
    assert [removes.answers, extends.answers, polls.answers] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


@pytest.mark.parametrize("call", LAYOUTS)
@pytest.mark.parametrize("cuts", ["finish and call", "call and finish", "finish alone", "header alone"])
def test_one_call_at_a_time_is_read_by_a_pattern(call, cuts):
    """Clients send the Finish of a call with the next call, after it, or in a read of its own."""
    connection = begun()
    fit = []
    for number in range(1, 40):
        frame = call(number, *add(b"c" * (number % 60)))
        before = finishes(number - 1)[0]
        made = {
            "finish and call": [before + frame],
            "call and finish": [frame + before],
            "finish alone": [before, frame],
            "header alone": [before, frame[:WORD], frame[WORD:]],
        }[cuts]
        for event in [event for piece in made for event in connection.receive_data(piece)]:
            fit.append(not event.encoded)
            assert asked(event) == [[(b"c" * (number % 60), 0, None)]]
            connection.return_results(event.answers, [EMPTY])
    assert len(fit) == 39
    assert all(fit[3:])
    assert connection.stats().answers <= 3


def test_a_worker_that_polls_and_removes_is_read_by_patterns():
    connection = begun()
    fit = []
    for number in range(20):
        for frame in (rust_call(1, *poll(1)), rust_call(2, *remove(bytes([number]) * 16, LEASE)), *finishes(2, 1)):
            for event in connection.receive_data(frame):
                fit.append(not event.encoded)
                connection.return_results(event.answers, [EMPTY])
    assert all(fit[4:])


def test_calls_to_a_capability_in_results_go_to_what_the_answer_holds_now():
    """The answer's number may be used again, for another object."""
    connection, first, second = begun(), object(), object()
    results = layout("Broker.queue$Results").build(queue=Body(3, [], 0))
    content = layout("Broker.queue$Params").build(name="mail")

    def called(number):
        (event,) = connection.receive_data(foreign_call(number, *add(b"x"), target=(7, (0,))))
        connection.return_results(event.answers, [EMPTY])
        list(connection.receive_data(finishes(number)[0]))
        return event.target, not event.encoded

    for queue in (first, second):
        for event in connection.receive_data(our_call(7, 0, content)):
            connection.return_capabilities(event.answer, results, (queue,))
        targets, fit = zip(*[called(number) for number in range(10, 15)], strict=True)
        assert {*targets} == {queue}
        assert fit[-1]
        list(connection.receive_data(encoder.finish(7, release_result_caps=True)))


def test_a_capability_in_results_can_be_called_though_it_was_released():
    """Rust clients release the result of a bootstrap, and call it by the answer from then on."""
    connection = taught(call=rust_call)
    list(connection.receive_data(encoder.release(0, 1)))
    assert any_fits(connection, [rust_call(number, *add(b"x")) for number in (1, 2)])


@pytest.mark.parametrize("call", LAYOUTS)
def test_plain_requests_of_the_present_schema_are_read_by_patterns(pycapnp, call):
    """Their structs have room for an id, options and a session, and none of these."""

    def built(method, fields):
        (content,) = pycapnp.build(f"Queue.{method}$Params", {"req": fields})
        return content

    polled = POLL, built("poll", {"leaseValidityMs": 1_000, "numItems": 3})
    adds = [(ADD, built("add", {"items": [{"contents": (b"x" * size).hex()}]})) for size in (8, 0, 13, 60)]
    connection = taught(adds[0], polled, call=call)
    (event,) = connection.receive_data(b"".join(call(number, *each) for number, each in enumerate(adds)))
    assert event.requests == [((b"x" * size, 0, None),) for size in (8, 0, 13, 60)]
    (event,) = connection.receive_data(call(9, *polled))
    assert event.requests == [(1_000, 3, None, False, b"")]


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("add", {"requestId": ID.hex()}),
        ("add", {"options": [{"dueMs": 7}]}),
        ("add", {"options": [{"headers": [{"name": "n", "value": "00"}]}]}),
        ("add", {"options": []}),
        ("poll", {"session": ID.hex()}),
    ],
)
@pytest.mark.parametrize("call", LAYOUTS)
def test_requests_with_an_id_options_or_a_session_are_read_in_full(pycapnp, call, method, fields):
    """Such a request makes no pattern, and fits none."""
    plain = {"items": [{"contents": "00"}]} if method == "add" else {"leaseValidityMs": 1_000}
    number = {"add": ADD, "poll": POLL}[method]
    (content,) = pycapnp.build(f"Queue.{method}$Params", {"req": {**plain, **fields}})
    (other,) = pycapnp.build(f"Queue.{method}$Params", {"req": plain})
    for connection in (taught((number, content), call=call), taught((number, other), call=call)):
        frames = [call(question, number, content) for question in range(TRIES)]
        assert not any_fits(connection, frames)


def test_a_poll_with_other_fields_is_read_in_full():
    connection = taught()
    (event,) = connection.receive_data(our_call(1, *poll(4)))
    assert event.encoded
    assert asked(event) == [(1000, 4, None, False, b"")]


@pytest.mark.parametrize("call", LAYOUTS)
def test_calls_may_alternate_with_finishes(call):
    connection = taught(call=call)
    list(connection.receive_data(b"".join(call(number, *add(b"x")) for number in range(6))))
    connection.return_results(range(6), [EMPTY] * 6)

    pairs = zip(finishes(*range(6)), [call(number, *add(b"y" * number)) for number in range(6)], strict=True)
    (event,) = connection.receive_data(b"".join(piece for pair in pairs for piece in pair))

    assert event.answers == list(range(6))
    assert connection.stats().answers == 1 + 6


def test_a_finish_of_a_call_of_the_same_read_comes_after_the_call():
    connection = taught()

    data = our_call(2, *add(b"x")) + our_call(3, *add(b"x")) + encoder.finish(2, release_result_caps=False)
    calls, finished = connection.receive_data(data)

    assert calls.answers == [2, 3]
    assert finished == Finished(2)


def test_a_finish_of_a_call_that_was_answered_at_once_is_no_event():
    connection = taught()

    events = connection.receive_data(our_call(2, *add(b"x")) + encoder.finish(2, release_result_caps=False))
    assert next(events).answers == [2]
    connection.return_results([2], [EMPTY])

    assert list(events) == []
    assert connection.stats().answers == 1


def test_a_finish_by_a_later_version_is_read_in_full():
    connection = taught()
    list(connection.receive_data(our_call(1, *add(b"x"))))
    connection.return_results([1], [EMPTY])
    longer = framed(layout("Message").build(finish={"questionId": 1, "releaseResultCaps": False}) + bytes(WORD))

    assert list(connection.receive_data(longer)) == []
    assert connection.stats().answers == 1


def test_a_call_to_results_of_the_one_before_sees_them():
    """Every call must be handled before the next message is read."""
    connection = taught()
    content = layout("Broker.queue$Params").build(name="mail")
    pipelined = encoder.pipelined_call(3, PromisedAnswer(2, (0,)), QUEUE_INTERFACE_ID, *add(b"x"))

    events = connection.receive_data(our_call(1, *add(b"x")) + our_call(2, 0, content) + pipelined)
    assert next(events).answers == [1]
    assert next(events).answer == 2
    queue = object()
    connection.return_capabilities(2, layout("Broker.queue$Results").build(queue=Body(3, [], 0)), (queue,))
    called = next(events)

    assert (called.answer, called.target) == (3, queue)


def test_a_finish_of_held_results_or_errors_is_read_in_full():
    connection = taught()
    list(connection.receive_data(our_call(1, *add(b"x")) + our_call(2, *add(b"x"))))
    connection.return_capabilities(1, layout("Broker.queue$Results").build(queue=Body(3, [], 0)), (ROOT,))
    connection.return_exception(2, QueueberError.kind, "because")

    assert list(connection.receive_data(b"".join(finishes(1, 2)))) == []

    connection.check()
    assert connection.stats().answers == 1


def test_calls_beyond_the_limit_are_refused_alone():
    connection = taught(limits=Limits(outstanding_calls=3))

    (event,) = connection.receive_data(b"".join(our_call(number, *add(b"x")) for number in range(1, 8)))

    assert event.answers == [1, 2, 3]
    assert connection.stats().unanswered == 3
    assert connection.data_to_send().count(b"the limit is 3") == 4


def test_calls_beyond_the_bound_of_open_answers_end_the_connection_after_those_before():
    connection = taught(limits=Limits(open_answers=4))

    events = connection.receive_data(b"".join(our_call(number, *add(b"x")) for number in range(1, 8)))

    assert next(events).answers == [1, 2, 3]
    with pytest.raises(RemoteProtocolError, match="open_answers"):
        next(events)


def test_calls_before_a_fault_come_before_it():
    connection = taught()

    events = connection.receive_data(our_call(2, *add(b"x")) + our_call(3, *add(b"x")) + our_call(2, *add(b"x")))

    assert next(events).answers == [2, 3]
    with pytest.raises(RemoteProtocolError, match="question 2 is used again"):
        next(events)


@pytest.mark.parametrize("after", [encoder.bootstrap(9), our_call(3, *add(b"x", b"y"))])
def test_a_connection_closed_by_a_handler_yields_no_more_events(after):
    connection = taught()

    events = connection.receive_data(our_call(2, *add(b"x")) + after)
    next(events)
    connection.abort("enough")

    assert list(events) == []


def test_a_released_object_cannot_be_called():
    connection = taught()
    list(connection.receive_data(encoder.finish(BOOTSTRAP, release_result_caps=False) + encoder.release(0, 1)))

    with pytest.raises(RemoteProtocolError, match="0 is not an export"):
        list(connection.receive_data(our_call(2, *add(b"x"))))


def test_a_message_that_is_too_long_is_refused_even_if_it_fits_a_pattern():
    limits = Limits(frame_bytes=1 << 10, contents_bytes=1 << 12)
    connection = taught(limits=limits)

    events = connection.receive_data(our_call(1, *add(b"x")) + our_call(2, *add(bytes(1 << 11))))

    assert next(events).answers == [1]
    with pytest.raises(RemoteProtocolError, match="the limit is 1,024"):
        next(events)


def test_contents_that_are_too_long_are_read_in_full():
    connection = taught()
    (event,) = connection.receive_data(our_call(1, *add(bytes(65))))
    with pytest.raises(QueueberError, match=r"items\[0\].contents"):
        asked(event)


def test_contents_never_reach_into_the_next_message():
    connection = taught()
    longer = bytearray(our_call(3, *add(b"12345678")))
    place = len(longer) - 2 * WORD
    pointer = int.from_bytes(longer[place : place + WORD], "little")
    longer[place : place + WORD] = (pointer + (1 << 35)).to_bytes(WORD, "little")

    event = next(connection.receive_data(bytes(longer) + our_call(4, *add(b"x"))))

    assert event.encoded
    with pytest.raises(RemoteProtocolError, match="leads out of its segment"):
        asked(event)


def test_a_message_in_pieces_is_no_miss():
    connection = taught()
    frame = our_call(1, *add(b"12345678"))
    for cut in range(1, len(frame)):
        assert list(connection.receive_data(frame[:cut])) == []
        (event,) = connection.receive_data(frame[cut:])
        assert not event.encoded
        connection.return_results([1], [EMPTY])
        list(connection.receive_data(finishes(1)[0]))


# What becomes a template


def learns(request, call=our_call):
    """Return whether calls like *request* are read by a pattern in the end."""
    return any_fits(begun(), [call(number, *request) for number in range(TRIES)])


def add_of(*bodies):
    """Return a call of `add` with these bodies as the pointers of its request."""
    return ADD, segment(struct_body([], [struct_body([], list(bodies))]))


@pytest.mark.parametrize("call", LAYOUTS)
def test_items_in_other_layouts_are_read_in_full(call):
    one = data_body(b"x")
    assert not learns(add_of(structs_body(3, 2, [((0, 0, 0), (one, None))])), call)
    assert learns(add_of(structs_body(0, 1, [((), (one,))])), call)
    assert learns(add(b"x"), call)
    # Of items before they had numbers.
    assert learns(add_of(pointers_body([one])), call)
    assert not learns(add(b"x", b"y"), call)
    assert not learns(add(), call)


def test_removes_and_extends_with_malformed_ids_are_read_in_full():
    assert not learns(remove(b"", LEASE))
    assert not learns(remove(ID, b"l" * 17))
    assert not learns((REMOVE, segment(struct_body([], []))))
    assert not learns(extend(b""))
    assert not learns((POLL, segment(struct_body([], []))))
    assert not learns((POLL, segment(struct_body([], [None]))), standard_call), "the request is a null pointer"
    assert not learns((77, remove(ID, LEASE)[1])), "an unknown method"


def test_an_invalid_request_makes_no_pattern():
    assert not learns(add(bytes(65)))
    assert not learns(extend(LEASE, 1 << 50))


def laid(number, id_words, lease_words, *data):
    """Encode a remove whose pointers have these offsets in words, with *data* after the pointers."""
    request = struct_body([], [data_body(bytes([9]) * 16), data_body(bytes([9]) * 16)])
    content = segment(struct_body([], [request]))
    at = content.index(bytes([9]) * 16) - 2 * WORD
    pointers = [BYTE_LIST | words << 2 | 16 << LIST_COUNT_SHIFT for words in (id_words, lease_words)]
    return our_call(number, REMOVE, content[:at] + pack("<2Q", *pointers) + b"".join(data))


@pytest.mark.parametrize(
    ("lay", "fit"),
    [
        (lambda number, item, lease: laid(number, 3, 0, lease, item), True),
        (lambda number, item, lease: laid(number, 1, 3, EMPTY, item, EMPTY, lease), True),
        # The lease begins with the id's second half.
        (lambda number, item, lease: laid(number, 1, 1, item, lease), False),
    ],
    ids=["lease first", "something in between", "one in the other"],
)
def test_ids_and_leases_may_be_laid_out_in_any_order(lay, fit):
    connection, plain = begun(), begun(templates=False)
    calls = [lay(number, bytes([number + 1]) * 16, bytes([number + 100]) * 16) for number in range(12)]
    for call in calls[:3]:
        list(connection.receive_data(call))

    events = list(connection.receive_data(b"".join(calls[3:])))

    expected = [asked(event)[0] for call in calls[3:] for event in plain.receive_data(call)]
    assert [each for event in events for each in asked(event)] == expected
    assert [not event.encoded for event in events] == ([True] if fit else [False] * 9)


def test_a_target_within_the_contents_is_read_in_full():
    """The contents of a call are not compared with those of its pattern, but here they name the object."""
    connection = begun()

    def called(number, export):
        contents = pack("<3Q", export, 0, 0)
        words = list(unpack("<22Q", our_call(number, *add(contents))))
        words[7] = len(words) - 3 - 8 << 2 | 1 << 32 | 1 << 48
        return connection.receive_data(pack("<22Q", *words))

    for number in range(TRIES):
        (event,) = called(number, 0)
        assert event.encoded
        assert event.target is ROOT
    with pytest.raises(RemoteProtocolError, match="5 is not an export"):
        list(called(TRIES, 5))


def unusual(number):
    """Encode a remove as question *number* in five ways that no client uses."""
    content = write_remove_request(RemoveRequest(ID, LEASE))
    whole = standard_call(number, REMOVE, content)[8:]
    far_target = bytearray(whole)
    # The target is reached by a far pointer to a landing pad at the end of the segment.
    pointer = 6 * WORD
    near = int.from_bytes(whole[pointer : pointer + WORD], "little")
    pad = len(whole) // WORD
    to = 7 + (near >> 2 & 0x3FFFFFFF) - pad - 1
    far_target[pointer : pointer + WORD] = (2 | pad << 3).to_bytes(WORD, "little")
    far_target += ((to << 2) & 0xFFFFFFFF | near >> 32 << 32).to_bytes(WORD, "little")
    in_two_segments = pack("<4I", 1, len(whole) // WORD, 0, 0) + whole
    null = layout("Message").build(call={"questionId": number, "interfaceId": QUEUE_INTERFACE_ID, "methodId": REMOVE})
    call = {"questionId": number, "interfaceId": QUEUE_INTERFACE_ID, "methodId": REMOVE, "target": {"importedCap": 0}}
    call["params"] = {
        "content": Body(int.from_bytes(content[:WORD], "little"), [content[WORD:]], len(content) // WORD - 1)
    }
    elsewhere = framed(layout("Message").build(call={**call, "sendResultsTo": {"yourself": None}}))
    # A word lies between the root pointer and the message.
    root = int.from_bytes(whole[:WORD], "little") + (1 << 2)
    apart = framed(root.to_bytes(WORD, "little") + EMPTY + standard_call(number, REMOVE, content)[2 * WORD :])
    return framed(bytes(far_target)), in_two_segments, framed(null), elsewhere, apart


@pytest.mark.parametrize("index", range(5), ids=["far target", "two segments", "null", "yourself", "gap"])
def test_unusual_messages_make_no_pattern(index):
    connection = begun()
    assert not any_fits(connection, [unusual(number)[index] for number in range(TRIES)])
    assert not connection.closed


def words_in(frame):
    """Return the words of *frame* after its header."""
    return list(unpack(f"<{len(frame) // WORD - 1}Q", frame[WORD:]))


def frame_of(words):
    return framed(pack(f"<{len(words)}Q", *words))


def without_transform(question, method, content):
    """Lay out a call of an answer's root with a null pointer in place of an empty list of operations."""
    words = words_in(foreign_call(question, method, content, target=(BOOTSTRAP, ())))
    words[-2] = 0
    return frame_of(words)


def with_far_transform(question, method, content):
    """Lay out a call of an answer's root with a far pointer to the list of operations."""
    words = words_in(foreign_call(question, method, content, target=(BOOTSTRAP, ())))
    words[-2] = 2 | len(words) << 3
    return frame_of([*words, (-2 << 2) & 0xFFFFFFFF | 1 | 7 << 32])


def with_target_in_contents(question, method, content):
    """Lay out an add of eight zero bytes that are the import number of its target, too."""
    words = words_in(our_call(question, method, content))
    place = 6
    words[place] = len(words) - 2 - place << 2 | 1 << 32 | 1 << 48
    return frame_of([*words, 0])


def test_targets_laid_out_otherwise_are_read_in_full_unless_all_pointers_lead_forward():
    assert learns(add(b"x"), without_transform)
    assert not learns(add(b"x"), with_far_transform)
    assert not learns(add(bytes(8)), with_target_in_contents)


def test_a_call_with_other_words_after_its_contents_is_read_in_full():
    connection = taught(call=cpp_call)
    frame = cpp_call(1, *add(b"x"))
    # The null pointer of a union's other member, which no reader follows.
    assert frame.endswith(bytes(WORD))
    assert not fits(connection, frame[:-WORD] + bytes([1, *bytes(WORD - 1)]))


def test_the_parameters_of_a_call_without_template_are_at_hand():
    (event,) = begun(templates=False).receive_data(our_call(1, *remove(ID, LEASE)))
    assert read_remove_request(event.params).id == ID


def test_a_remove_with_a_far_pointer_is_read_in_full():
    """The landing pad lies after everything else in the same segment."""
    method, content = remove(ID, LEASE)
    words = list(unpack(f"<{len(content) // WORD}Q", content))
    first = len(our_call(0, method, content)) // WORD - len(words) - 1
    pad = first + len(words)
    near = words[2]
    to = 3 + (near >> 2 & 0x3FFFFFFF) - len(words) - 1
    words[2] = 2 | pad << 3
    words.append((to << 2) & 0xFFFFFFFF | near & 3 | near >> 32 << 32)
    far = pack(f"<{len(words)}Q", *words)
    (event,) = begun().receive_data(our_call(0, method, far))
    assert asked(event) == [(ID, LEASE)]

    assert not learns((method, far))


def export_queue(connection):
    """Return a new object to the peer, which holds it under the next export number."""
    (event,) = connection.receive_data(our_call(100, 0, layout("Broker.queue$Params").build(name="mail")))
    results = layout("Broker.queue$Results").build(queue=Body(3, [], 0))
    connection.return_capabilities(event.answer, results, (object(),))
    list(connection.receive_data(finishes(100)[0]))


def fits_answered(connection, export):
    """Return whether a call of *export* is read by a pattern; answer it."""
    (event,) = connection.receive_data(foreign_call(1, *remove(ID, LEASE), target=export))
    connection.return_results(event.answers, [EMPTY])
    list(connection.receive_data(finishes(1)[0]))
    return not event.encoded


def test_a_new_pattern_evicts_the_oldest():
    """The number of patterns is bounded, because each connection has its own."""
    connection = begun()
    for export in range(1, 2 * PATTERNS_MAX):
        export_queue(connection)
        assert any(fits_answered(connection, export) for _ in range(TRIES))
    last = range(2 * PATTERNS_MAX - 1, 0, -1)
    fit = [fits_answered(connection, export) for export in last[: PATTERNS_MAX + 1]]
    assert fit == [True] * PATTERNS_MAX + [False]


def test_the_length_of_a_pattern_is_bounded():
    connection, gap = begun(), 1_000
    for number in range(TRIES):
        words = list(unpack(f"<{len(our_call(number, *add(b'x'))) // WORD}Q", our_call(number, *add(b"x"))))
        words[14] |= gap << 2  # the pointer to the items leads over a gap
        words[15:15] = [0] * gap
        words[0] = len(words) - 1 << 32
        (event,) = connection.receive_data(pack(f"<{len(words)}Q", *words))
        assert event.encoded
        assert asked(event) == [[(b"x", 0, None)]]

    frames = [cpp_call(number, *remove(ID, LEASE))[WORD:] for number in range(TRIES)]
    assert not any_fits(begun(), [framed(frame + bytes(FIXED_BYTES_MAX)) for frame in frames])


def test_the_bytes_of_a_read_are_released():
    connection = taught()
    list(connection.receive_data(our_call(1, *add(b"x"))))
    assert (connection.framer.data, len(connection.framer.words)) == (b"", 0)


# Backing off


class CountedReaders(dict):
    """Template readers that count the calls which the fast path tried in vain."""

    tries = 0

    def get(self, key, default=None):
        self.tries += 1
        return super().get(key, default)


def test_traffic_that_fits_no_pattern_is_tried_rarely():
    readers = CountedReaders(template_readers(LIMITS))
    connection = Connection(limits=Limits(), bootstrap=ROOT, templates=readers)
    messages = [our_call(number, *add(b"x", b"y")) for number in range(1_000)]

    list(connection.receive_data(encoder.bootstrap(BOOTSTRAP) + b"".join(messages)))

    assert 1_000 / BACKOFF_MAX < readers.tries < 8 + 1_000 / BACKOFF_MAX


def test_a_hit_ends_the_backing_off():
    connection = taught(limits=Limits())
    list(connection.receive_data(b"".join(our_call(number, *add(b"x", b"y")) for number in range(20))))

    assert [fits(connection, our_call(number, *add(b"x"))) for number in range(30, 47)] == [False] * 16 + [True]

    list(connection.receive_data(our_call(50, *add(b"x", b"y"))))
    assert [fits(connection, our_call(number, *add(b"x"))) for number in (51, 52)] == [False, True]


# Against reading in full


@st.composite
def blocks(draw):
    """Messages of one kind with contents of any length, one of them possibly damaged, and how their calls end."""
    kind = draw(st.sampled_from(["add", "add", "adds", "remove", "extend", "finish", "poll", "bootstrap"]))
    count = draw(st.integers(1, 12))
    first = draw(st.integers(0, 30))
    step = draw(st.sampled_from([1, 1, 1, 0, 2]))
    numbers = [first + step * index for index in range(count)]
    call = draw(st.sampled_from(LAYOUTS))
    if kind == "add":
        sizes = draw(st.lists(st.integers(0, 70), min_size=count, max_size=count))
        delay = draw(st.sampled_from([0, 0, 7]))
        made = [call(number, *add(b"c" * size, delay=delay)) for number, size in zip(numbers, sizes, strict=True)]
    elif kind == "adds":
        made = [call(number, *add(*[b"c"] * (number % 4))) for number in numbers]
    elif kind == "remove":
        length = draw(st.sampled_from([16, 16, 16, 15]))
        made = [call(number, *remove(bytes([number % 256]) * length, LEASE)) for number in numbers]
    elif kind == "extend":
        made = [call(number, *extend(bytes([number % 256]) * 16, 1000 + number % 3)) for number in numbers]
    elif kind == "finish":
        made = finishes(*numbers)
    elif kind == "poll":
        made = [call(number, *poll(3 + number % 2)) for number in numbers]
    else:
        made = [encoder.bootstrap(number) for number in numbers]
    if draw(st.integers(0, 3)) == 0:
        which = draw(st.integers(0, count - 1))
        damaged = bytearray(made[which])
        # Not the table: the stream would be beyond repair.
        at = draw(st.integers(WORD, len(damaged) - 1))
        damaged[at] ^= 1 << draw(st.integers(0, 7))
        made[which] = bytes(damaged)
    if kind not in {"finish", "bootstrap"} and draw(st.booleans()):
        before = draw(st.integers(0, 30))
        pairs = zip(finishes(*[before + step * index for index in range(count)]), made, strict=True)
        made = [piece for pair in pairs for piece in pair]
    return made, draw(st.sampled_from(["answer", "wait", "fail"]))


def cut(data, dice):
    """Cut *data* into pieces."""
    while data:
        size = dice.choice([len(data), len(data), dice.randrange(1, len(data) + 1)])
        yield data[:size]
        data = data[size:]


def reads(made, dice):
    """Return the reads in which *made* may arrive: message by message, whole, or in pieces."""
    return made if dice.random() < 0.4 else cut(b"".join(made), dice)


def calls_of(event):
    """Return the calls of an event one by one with their requests; other events unchanged."""
    if not isinstance(event, Calls):
        return [event]
    try:
        requests = asked(event)
    except QueueberError as why:
        requests = [str(why)]
    same = (event.target, event.interface_id, event.method_id)
    return [(*same, *each) for each in zip(event.answers, requests, event.sizes, strict=True)]


def outcome_of(connection, pieces, then, open_calls):
    """Return the events of *pieces*, call by call, and the bytes to send after the calls were ended as *then* says."""
    events = []
    try:
        for piece in pieces:
            for event in connection.receive_data(piece):
                events += calls_of(event)
                open_calls += getattr(event, "answers", [])
    except RemoteProtocolError as why:
        events.append(str(why))
    if then == "answer":
        connection.return_results(open_calls, [EMPTY] * len(open_calls))
    elif then == "fail":
        for answer in open_calls:
            connection.return_exception(answer, QueueberError.kind, "because")
    if then != "wait":
        open_calls.clear()
    return events, connection.data_to_send()


@pytest.mark.traced
@pytest.mark.slow
@settings(derandomize=True, max_examples=examples(300), deadline=None)
@given(
    st.sampled_from(LAYOUTS),
    st.sampled_from(["add", "remove", "poll", "extend"]),
    st.lists(st.tuples(st.integers(-12, 24), st.integers(-40, 63)), max_size=4),
    st.lists(st.tuples(st.integers(0, 70), st.sampled_from([b"c", b"\0", b"\1"])), min_size=3, max_size=6),
)
@example(rust_call, "add", [(-5, 4), (7, 48)], [(0, b"")] * 3)
def test_calls_in_any_layout_are_read_as_in_full(call, kind, changes, contents):
    """Each call has equal bits and offsets changed, counted from either end, so that odd ones become patterns."""
    limits = Limits(contents_bytes=64, add_bytes=100)
    fast, plain = begun(limits), begun(limits, templates=False)
    for number, (size, fill) in enumerate(contents):
        method, content = {
            "add": add(fill * size),
            "remove": remove(bytes([number]) * 16, LEASE),
            "poll": poll(2),
            "extend": extend(bytes([number]) * 16),
        }[kind]
        frame = call(number, method, content)
        words = list(unpack(f"<{len(frame) // WORD}Q", frame))
        for place, change in changes:
            # Neither the frame's header nor the question id.
            at = place % len(words)
            if at != 0 and (at, change > 31) != (4, False):
                words[at] = words[at] ^ 1 << change if change >= 0 else words[at] + (change + 20 << 2) & (1 << 64) - 1
        odd = pack(f"<{len(words)}Q", *words)
        with patch.object(fastpath, "BACKOFF_MAX", 0):
            assert outcome_of(fast, [odd], "answer", []) == outcome_of(plain, [odd], "answer", [])
        assert fast.dump() == plain.dump()


@pytest.mark.slow
@settings(max_examples=examples(200), deadline=None)
@given(st.lists(blocks(), min_size=1, max_size=8), st.integers(0, 1 << 32))
@example([([our_call(number, *add(b"abc")) for number in range(5)], "answer")] * 3, 0)
def test_the_fast_path_reads_what_reading_in_full_does(script, seed):
    """For mixtures of messages, lengths and layouts, valid and damaged, pipelined, and cut anywhere."""
    dice = Random(seed)
    limits = Limits(contents_bytes=64, add_bytes=100, outstanding_calls=25, open_answers=40)
    fast, plain = begun(limits), begun(limits, templates=False)
    open_fast, open_plain = [], []
    for made, then in script:
        with patch.object(fastpath, "BACKOFF_MAX", dice.choice([0, BACKOFF_MAX])):
            quickly = outcome_of(fast, reads(made, dice), then, open_fast)
        assert quickly == outcome_of(plain, made, then, open_plain)
        assert fast.dump() == plain.dump()
        assert fast.closed == plain.closed
    if not fast.closed:
        fast.check()

"""Calls that are like earlier ones are read as any others, only faster."""

from random import Random

import pytest
from calls import LIMITS, add, begun, our_call, poll, remove, standard_call
from hypothesis import example, given
from hypothesis import strategies as st

from queueber.errors import InvalidRequest, RemoteProtocolError
from queueber.limits import Limits
from queueber.wire import (
    ADD,
    POLL,
    QUEUE_INTERFACE_ID,
    REMOVE,
    Called,
    CalledAlike,
    Finished,
    NewItem,
    PromisedAnswer,
    RemoveRequest,
    encoder,
    layout,
    one_by_one,
    read_add_request,
    read_alike_add,
    read_alike_remove,
    read_poll_request,
    read_remove_request,
    write_remove_request,
)
from queueber.wire.alike import AddTemplate
from queueber.wire.builder import Body, data_body, pointers_body, segment, struct_body, structs_body
from queueber.wire.framing import framed
from queueber.wire.messages import Params
from queueber.wire.reader import WORD

READERS = {
    ADD: lambda params: read_add_request(params, LIMITS).items,
    REMOVE: read_remove_request,
    POLL: read_poll_request,
}


def heard(connection, data):
    """What a connection makes of *data*, with all parameters read, up to the error that ends it if there is one."""
    told = []
    try:
        for event in one_by_one(connection.receive_data(data)):
            if isinstance(event, Called):
                told.append((event.answer, event.target, event.interface_id, event.method_id, *read(event)))
            else:
                told.append(event)
    except RemoteProtocolError as why:
        told.append(str(why))
    return told, connection.data_to_send()


def read(called):
    """The parameters the long way, and whether the short way, which must say the same or nothing, was taken."""
    params = called.params
    alike = read_alike_add(params, LIMITS), read_alike_remove(params)
    long_way = READERS.get(called.method_id, read_remove_request)
    budget = params.frame.budget
    try:
        found = long_way(Params(params.frame, params.at, params.start, params.end))
        params.frame.budget = budget
        assert long_way(params) == found
    except (InvalidRequest, RemoteProtocolError) as why:
        assert alike == (None, None), "what cannot be read was read"
        return type(why), str(why)
    if alike[0] is not None:
        assert (called.method_id, [alike[0]]) == (ADD, found)
    if alike[1] is not None:
        assert (called.method_id, RemoveRequest(*alike[1])) == (REMOVE, found)
    return found, alike != (None, None)


def without_short_ways(connection):
    connection._shapes = Forgetful()
    return connection


class Forgetful:
    """Shapes that are never known again."""

    def find(self, frame):
        return None

    def learn(self, frame, call):
        pass


def said(told):
    """What was heard, but for whether the short way was taken."""
    return [each[:5] if isinstance(each, tuple) else each for each in told]


@pytest.mark.parametrize("call", [our_call, standard_call])
def test_calls_in_a_row_are_one_event_and_are_read_the_short_way(call):
    connection = begun()
    calls = [call(number, *add(b"%d" % number * number)) for number in range(6)]

    events = list(connection.receive_data(b"".join(calls)))
    first, again = events
    assert isinstance(first, Called)
    assert isinstance(again, CalledAlike)
    assert again.answers == [1, 2, 3, 4, 5]
    assert [read_alike_add(each, LIMITS) for each in again.params] == [None] * 5, "nothing has been learned yet"

    assert READERS[ADD](again.params[0]) == [NewItem(b"1", 0)]
    assert [read_alike_add(each, LIMITS).contents for each in again.params] == [b"%d" % n * n for n in range(1, 6)]


def test_removes_are_read_the_short_way_too():
    connection = begun()
    calls = [our_call(number, *remove(bytes([number]) * 16, bytes([number + 100]) * 16)) for number in range(4)]

    _, again = connection.receive_data(b"".join(calls))

    assert [read_alike_remove(each) for each in again.params] == [None] * 3
    read_remove_request(again.params[0])
    expected = [(bytes([number]) * 16, bytes([number + 100]) * 16) for number in (1, 2, 3)]
    assert [read_alike_remove(each) for each in again.params] == expected


def test_a_finish_in_between_does_not_part_calls():
    connection = begun()
    list(connection.receive_data(b"".join(our_call(number, *add(b"x")) for number in (1, 2))))
    for number in (1, 2):
        connection.return_results(number, bytes(WORD))

    data = our_call(3, *add(b"x")) + encoder.finish(1, release_result_caps=False) + our_call(4, *add(b"y"))
    (event,) = connection.receive_data(data)

    assert event.answers == [3, 4]
    assert connection.stats().answers == 4


def test_a_call_is_told_before_that_it_was_finished():
    connection = begun()
    list(connection.receive_data(our_call(1, *poll(1))))

    list(connection.receive_data(our_call(4, *add(b"x"))))
    data = our_call(2, *add(b"x")) + our_call(3, *add(b"x")) + encoder.finish(2, release_result_caps=False)
    calls, finished = connection.receive_data(data)

    assert calls.answers == [2, 3]
    assert finished == Finished(2)


def test_a_call_that_is_answered_at_once_is_not_told_to_be_finished():
    """Although the Finish was read before the call was told."""
    connection = begun()
    list(connection.receive_data(our_call(1, *add(b"x"))))

    events = connection.receive_data(our_call(2, *add(b"x")) + encoder.finish(2, release_result_caps=False))
    assert next(events).answer == 2
    connection.return_canceled(2)

    assert list(events) == []
    assert connection.stats().answers == 2


def test_a_call_to_what_the_one_before_returns_waits_for_that():
    """The driver must have seen the calls in hand before the next message is judged."""
    connection = begun()
    list(connection.receive_data(our_call(1, *add(b"x"))))
    content = layout("Broker.queue$Params").build(name="mail")
    first = our_call(2, 0, content)
    pipelined = encoder.pipelined_call(3, PromisedAnswer(2, (0,)), QUEUE_INTERFACE_ID, *add(b"x"))

    events = connection.receive_data(first + pipelined)
    assert next(events).answer == 2
    queue = object()
    connection.return_results(2, layout("Broker.queue$Results").build(queue=Body(3, [], 0)), (queue,))
    called = next(events)

    assert (called.answer, called.target) == (3, queue)


def test_calls_beyond_the_limit_are_refused_one_by_one():
    connection = begun(Limits(outstanding_calls=3))
    list(connection.receive_data(our_call(1, *add(b"x"))))

    (event,) = connection.receive_data(b"".join(our_call(number, *add(b"x")) for number in range(2, 8)))

    assert event.answers == [2, 3]
    assert connection.stats().unanswered == 3
    assert connection.data_to_send().count(b"the limit is 3") == 4


def test_calls_in_hand_are_told_before_the_fault_that_follows():
    connection = begun()
    list(connection.receive_data(our_call(1, *add(b"x"))))

    events = connection.receive_data(our_call(2, *add(b"x")) + our_call(3, *add(b"x")) + our_call(2, *add(b"x")))

    assert next(events).answers == [2, 3]
    with pytest.raises(RemoteProtocolError, match="question 2 is used again"):
        next(events)


def test_a_connection_that_was_closed_meanwhile_tells_no_more():
    connection = begun()
    list(connection.receive_data(our_call(1, *add(b"x"))))
    data = our_call(2, *add(b"x")) + encoder.bootstrap(9) + our_call(3, *add(b"x"))

    events = connection.receive_data(data)
    next(events)
    connection.abort("enough")

    assert list(events) == []


def test_an_object_that_was_given_back_is_not_called():
    connection = begun()
    list(connection.receive_data(our_call(1, *add(b"x"))))
    list(connection.receive_data(encoder.finish(1_000_000, release_result_caps=False) + encoder.release(0, 1)))

    with pytest.raises(RemoteProtocolError, match="0 is not an export"):
        list(connection.receive_data(our_call(2, *add(b"x"))))


def test_only_so_many_shapes_are_remembered():
    connection = begun()
    for method in range(50):
        list(connection.receive_data(our_call(method, method, add(b"x")[1])))
    assert len(connection._shapes._known) == 16


def test_a_message_in_several_segments_or_with_odd_parts_teaches_nothing():
    connection = begun()
    content = write_remove_request(RemoveRequest(b"i" * 16, b"l" * 16))
    whole = standard_call(1, REMOVE, content)[8:]
    far_target = bytearray(whole)
    # The target is reached by a far pointer to a landing pad at the end of the segment.
    pointer = 6 * WORD
    near = int.from_bytes(whole[pointer : pointer + WORD], "little")
    pad = len(whole) // WORD
    to = 7 + (near >> 2 & 0x3FFFFFFF) - pad - 1
    far_target[pointer : pointer + WORD] = (2 | pad << 3).to_bytes(WORD, "little")
    far_target += ((to << 2) & 0xFFFFFFFF | near >> 32 << 32).to_bytes(WORD, "little")
    list(connection.receive_data(framed(bytes(far_target))))
    table = (1).to_bytes(4, "little") + (len(whole) // WORD).to_bytes(4, "little") + (0).to_bytes(8, "little")
    two = bytearray(whole)
    two[3 * WORD : 3 * WORD + 4] = (2).to_bytes(4, "little")
    list(connection.receive_data(table + bytes(two)))
    promised = encoder.pipelined_call(3, PromisedAnswer(1_000_000), QUEUE_INTERFACE_ID, REMOVE, content)
    list(connection.receive_data(promised))

    assert connection.stats().answers == 4
    assert len(connection._shapes._known) == 0


REQUESTS = st.one_of(
    st.builds(lambda contents, delay: add(contents, delay=delay), st.binary(max_size=70), st.sampled_from([0, 0, 7])),
    st.builds(lambda contents: add(*contents), st.lists(st.binary(max_size=40), max_size=6)),
    st.builds(remove, st.binary(max_size=17), st.binary(max_size=17)),
    st.builds(remove, st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16)),
    st.builds(poll, st.integers(0, 3)),
)


@given(
    requests=st.lists(st.tuples(st.sampled_from([our_call, standard_call]), REQUESTS), min_size=1, max_size=8),
    spoils=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 63), st.booleans()), max_size=3),
    seed=st.integers(0, 1 << 32),
)
@example(requests=[(our_call, add(b"abc"))] * 5, spoils=[], seed=0)
@example(requests=[(standard_call, remove(b"i" * 16, b"l" * 16))] * 5, spoils=[(0.5, 3, True)], seed=1)
def test_the_short_way_says_what_the_long_one_says(requests, spoils, seed):
    """Whatever bytes come: sound ones over and over, and copies of them with bits or words changed."""
    dice = Random(seed)
    frames = [call(number, *request) for number, (call, request) in enumerate(requests)]
    for place, bit, whole_word in spoils:
        at = dice.randrange(len(frames))
        frame = bytearray(frames[at])
        word = int(place * (len(frame) // WORD - 2)) + 1
        value = int.from_bytes(frame[word * WORD : (word + 1) * WORD], "little")
        value = dice.choice([0, 1 << bit, value + (1 << 2), value - (1 << 2)]) if whole_word else value ^ 1 << bit
        frame[word * WORD : (word + 1) * WORD] = (value & (1 << 64) - 1).to_bytes(WORD, "little")
        frames.insert(at + 1, bytes(frame))
    finishes = [encoder.finish(number, release_result_caps=False) for number in range(len(frames))]
    data = b"".join(
        piece for pair in zip(frames, finishes, strict=True) for piece in (pair[0], dice.choice([b"", pair[1]]))
    )

    short, long = begun(), without_short_ways(begun())
    for part in (data, data):
        (told, out), (plainly, plain_out) = heard(short, part), heard(long, part)
        assert said(told) == said(plainly)
        assert out == plain_out
    short.check()


def test_what_is_absent_is_no_shape():
    """A call whose parameters are a null pointer."""
    connection = begun()
    call = {"questionId": 1, "interfaceId": 1, "methodId": 1, "target": {"importedCap": 0}}
    (event,) = connection.receive_data(framed(layout("Message").build(call=call)))
    assert isinstance(event, Called)
    assert len(connection._shapes._known) == 0


def add_of(*bodies):
    """A call of `add` whose request is made of these struct bodies."""
    return ADD, segment(struct_body([], [struct_body([], list(bodies))]))


def templates(call, request, times=3):
    """What has been learned after *times* calls."""
    connection = begun()
    for number in range(times):
        heard(connection, call(number, *request))
    return [shape.template for shape in connection._shapes._known.values()]


@pytest.mark.parametrize("call", [our_call, standard_call])
def test_items_laid_out_otherwise_are_read_the_long_way(call):
    one = data_body(b"x")
    wide = structs_body(3, 2, [((0, 0, 0), (one, None))])
    narrow = structs_body(0, 1, [((), (one,))])
    assert templates(call, add_of(wide)) == [None]
    assert [type(each) for each in templates(call, add_of(narrow))] == [AddTemplate]
    assert [type(each) for each in templates(call, add(b"x"))] == [AddTemplate]
    # Of items before they had numbers.
    assert [type(each) for each in templates(call, add_of(pointers_body([one])))] == [AddTemplate]


def test_removes_without_id_or_lease_are_read_the_long_way():
    assert templates(our_call, remove(b"", b"l" * 16)) == [None]
    assert templates(our_call, (REMOVE, segment(struct_body([], [])))) == []


def test_contents_that_reach_out_of_the_message_are_not_read_on_into_the_next():
    connection = begun()
    heard(connection, b"".join(our_call(number, *add(b"12345678")) for number in range(3)))
    method, content = add(b"12345678")
    longer = bytearray(our_call(3, method, content))
    place = len(longer) - 2 * WORD
    pointer = int.from_bytes(longer[place : place + WORD], "little")
    longer[place : place + WORD] = (pointer + (1 << 35)).to_bytes(WORD, "little")

    events = list(connection.receive_data(bytes(longer) + our_call(4, *add(b"x"))))

    (params, _) = events[0].params
    assert read_alike_add(params, LIMITS) is None
    with pytest.raises(RemoteProtocolError, match="leads out of its segment"):
        read_add_request(params, LIMITS)


def test_a_remove_with_a_far_pointer_is_read_the_long_way():
    """The landing pad lies behind everything else in the same segment."""
    method, content = remove(b"i" * 16, b"l" * 16)
    words = [int.from_bytes(content[at : at + WORD], "little") for at in range(0, len(content), WORD)]
    message = our_call(0, method, content)
    first = len(message) // WORD - len(words) - 1
    pad = first + len(words)
    near = words[2]
    to = 3 + (near >> 2 & 0x3FFFFFFF) - len(words) - 1
    words[2] = 2 | pad << 3
    words.append((to << 2) & 0xFFFFFFFF | near & 3 | near >> 32 << 32)
    far = b"".join(word.to_bytes(WORD, "little") for word in words)

    connection = begun()
    for number in range(3):
        ((_, _, _, _, found, short),), _ = heard(connection, our_call(number, method, far))
        assert (found, short) == (RemoveRequest(b"i" * 16, b"l" * 16), False)
    assert [shape.template for shape in connection._shapes._known.values()] == [None]


def test_answers_after_the_end_are_not_sent():
    connection = begun()
    list(connection.receive_data(b"".join(our_call(number, *add(b"x")) for number in (1, 2))))
    connection.data_to_send()
    connection.end()
    connection.return_each([1, 2], [bytes(WORD), bytes(WORD)])
    assert connection.data_to_send() == b""

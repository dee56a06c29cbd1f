"""Messages that lie in a row are taken in as they would be one by one, only faster."""

from struct import pack, unpack

import pytest
from calls import LIMITS, add, begun, our_call, poll, remove, standard_call
from hypothesis import given, settings
from hypothesis import strategies as st

from queueber.errors import LocalProtocolError, QueueberError, RemoteProtocolError
from queueber.limits import Limits
from queueber.wire import (
    ADD,
    REMOVE,
    Called,
    CalledAlike,
    encoder,
    layout,
    one_by_one,
    read_add_request,
    read_remove_request,
)
from queueber.wire.builder import BYTE_LIST, LIST_COUNT_SHIFT, data_body, segment, struct_body
from queueber.wire.framing import Framer, framed
from queueber.wire.reader import WORD
from queueber.wire.runs import LEAST, _known, row_of, rows_of
from queueber.wire.shapes import KEY_TO

BOOTSTRAP = 1_000_000
"""The question that `begun` asks."""

ID, LEASE = b"i" * 16, b"l" * 16


def taught(limits=LIMITS, call=our_call):
    """A connection that has read an add and a remove in full twice, so that it knows what they are like."""
    connection = begun(limits)
    for number, (method, content) in enumerate([add(b"12345678"), remove(ID, LEASE)] * 2, start=2_000_000):
        for event in connection.receive_data(call(number, method, content)):
            read(event.method_id, event.params)
            connection.return_results(event.answer, bytes(WORD))
        list(connection.receive_data(encoder.finish(number, release_result_caps=False)))
    connection.data_to_send()
    return connection


def read(method, params):
    if method == ADD:
        return read_add_request(params, LIMITS).items
    return read_remove_request(params)


def adds(*numbers, contents=b"contents", call=our_call):
    return [call(number, *add(contents)) for number in numbers]


def finishes(*numbers):
    return [encoder.finish(number, release_result_caps=False) for number in numbers]


@pytest.mark.parametrize("call", [our_call, standard_call])
@pytest.mark.parametrize("size", [0, 1, 8, 13])
def test_adds_in_a_row_are_read_in_one_step(call, size):
    connection = taught(call=call)
    contents = [bytes([number]) * size for number in range(1, 7)]

    data = b"".join(call(number, *add(each)) for number, each in enumerate(contents))
    (event,) = connection.receive_data(data)

    assert event.answers == list(range(6))
    assert event.requests == [(each, 0) for each in contents]
    assert [read(ADD, each.params)[0].contents for each in event.each()] == contents
    assert [each.frame_bytes for each in event.params] == [len(data) // 6 - WORD] * 6
    assert event.bytes_at_least(1) == len(data) - 6 * WORD
    assert event.bytes_at_least(1_000) == 6_000
    assert connection.stats().unanswered == 6


@pytest.mark.parametrize("call", [our_call, standard_call])
def test_removes_in_a_row_are_read_in_one_step(call):
    connection = taught(call=call)
    pairs = [(bytes([number]) * 16, bytes([number + 100]) * 16) for number in range(5)]

    (event,) = connection.receive_data(b"".join(call(number, *remove(*pair)) for number, pair in enumerate(pairs)))

    assert event.requests == pairs
    assert [(each.id, each.lease) for each in map(read_remove_request, event.params)] == pairs
    assert event.params[1:3][0].at == event.params[1].at
    with pytest.raises(IndexError):
        event.params[5]


def laid(number, id_words, lease_words, *data):
    """A remove whose pointers lead over so many words to 16 bytes each, and what lies behind the pointers."""
    request = struct_body([], [data_body(bytes([9]) * 16), data_body(bytes([9]) * 16)])
    content = segment(struct_body([], [request]))
    at = content.index(bytes([9]) * 16) - 2 * WORD
    pointers = [BYTE_LIST | words << 2 | 16 << LIST_COUNT_SHIFT for words in (id_words, lease_words)]
    return our_call(number, REMOVE, content[:at] + pack("<2Q", *pointers) + b"".join(data))


def asked(event):
    request = read_remove_request(event.params)
    return request.id, request.lease


@pytest.mark.parametrize(
    ("lay", "in_one_step"),
    [
        (lambda number, item, lease: laid(number, 3, 0, lease, item), True),
        (lambda number, item, lease: laid(number, 1, 3, bytes(0), item, bytes(WORD), lease), True),
        # The lease begins with the id's second half.
        (lambda number, item, lease: laid(number, 1, 1, item, lease), False),
    ],
    ids=["lease first", "something in between", "one in the other"],
)
def test_other_builders_may_lay_ids_and_leases_otherwise(lay, in_one_step):
    connection = begun()
    calls = [lay(number, bytes([number + 1]) * 16, bytes([number + 100]) * 16) for number in range(7)]
    for call in calls[:2]:
        for event in connection.receive_data(call):
            asked(event)

    (event,) = connection.receive_data(b"".join(calls[2:]))

    assert [asked(each) for each in event.each()] == [
        asked(each) for call in calls[2:] for each in begun().receive_data(call)
    ]
    assert (event.requests is not None) == in_one_step
    if in_one_step:
        assert event.requests == [asked(each) for each in event.each()]


def test_what_a_shape_is_known_by_is_compared_to_its_end():
    """Whatever a builder does, contents that lie in it are not taken for what may differ."""
    (event,) = taught().receive_data(adds(1)[0])

    stride = len(adds(1)[0]) // WORD
    assert _known(event.params, stride, event.params.frame.start * WORD + KEY_TO - 1, "8s") is None
    assert _known(event.params, stride, event.params.frame.start * WORD + KEY_TO, "8s") is not None


def test_a_row_ends_with_what_is_not_like_it():
    connection = taught()
    other = add(b"contents", delay=5)

    data = b"".join([*adds(1, 2, 3, 4, 5), our_call(6, *other), *adds(7, 8)])
    first, second = connection.receive_data(data)

    assert first.answers == [1, 2, 3, 4, 5]
    assert second.answers == [6, 7, 8]
    assert second.requests is None


def test_what_was_called_before_is_told_before():
    connection = taught()

    data = b"".join([*adds(1, contents=b"other length of contents"), *adds(2, 3, 4, 5)])
    events = list(connection.receive_data(data))

    assert [each.answer for event in events for each in one_by_one([event])] == [1, 2, 3, 4, 5]


def test_finishes_in_a_row_let_go_of_all():
    connection = taught()
    list(connection.receive_data(b"".join(adds(*range(6)))))
    for number in range(5):
        connection.return_results(number, bytes(WORD))

    assert list(connection.receive_data(b"".join(finishes(*range(5))))) == []
    assert set(connection._callee.answers._states) == {BOOTSTRAP, 5}

    # One that is unknown, and one that is not returned, are for the long way.
    assert [each.answer for each in connection.receive_data(b"".join(finishes(9, 9, 9, 5, 9)))] == [5]


def test_a_finish_of_another_version_is_none_of_a_row():
    connection = taught()
    list(connection.receive_data(b"".join(adds(*range(5)))))
    longer = [
        framed(layout("Message").build(finish={"questionId": number, "releaseResultCaps": False}) + bytes(WORD))
        for number in range(5)
    ]
    connection.return_each(range(5), [bytes(WORD)] * 5)

    assert list(connection.receive_data(b"".join(longer))) == []
    assert set(connection._callee.answers._states) == {BOOTSTRAP}


@pytest.mark.parametrize("call", [our_call, standard_call])
def test_a_call_behind_each_finish_is_of_a_row_too(call):
    connection = taught(call=call)
    list(connection.receive_data(b"".join(adds(*range(6), call=call))))
    connection.return_each(range(6), [bytes(WORD)] * 6)

    pairs = zip(finishes(*range(6)), adds(*range(6), call=call), strict=True)
    event, last = connection.receive_data(b"".join(piece for pair in pairs for piece in pair))

    assert event.answers == list(range(5))
    assert last.answer == 5, "behind the last call there is not as much as behind the others"
    assert event.requests == [(b"contents", 0)] * 5
    assert [read(ADD, each.params) for each in event.each()] == [[(b"contents", 0)]] * 5
    assert event.bytes_at_least(1) == 5 * (len(adds(1, call=call)[0]) - WORD)
    connection.check()


@pytest.mark.parametrize("other", [encoder.finish(4, release_result_caps=True), encoder.release(9, 1)])
def test_pairs_end_with_the_first_that_is_not_like_them(other):
    together, alone = taught(), taught()
    before = [*finishes(*range(4)), other, *finishes(5, 6, 7)]
    pieces = [piece for pair in zip(before, adds(*range(10, 18)), strict=True) for piece in pair]
    for connection in (together, alone):
        list(connection.receive_data(b"".join(adds(*range(8)))))
        connection.return_each(range(8), [bytes(WORD)] * 8)

    assert heard(together, [b"".join(pieces)], "wait", []) == heard(alone, pieces, "wait", [])
    assert together.dump() == alone.dump()


def test_a_number_that_is_used_before_its_finish_ends_the_connection():
    connection = taught()
    list(connection.receive_data(b"".join(adds(*range(5)))))
    connection.return_each(range(5), [bytes(WORD)] * 5)

    pairs = zip(finishes(*range(5)), adds(0, 2, 1, 3, 4), strict=True)
    with pytest.raises(RemoteProtocolError, match="question 2 is used again while it is open"):
        list(connection.receive_data(b"".join(piece for pair in pairs for piece in pair)))


def test_pairs_of_which_a_call_cannot_be_admitted_are_taken_one_by_one():
    connection = taught()
    list(connection.receive_data(b"".join(adds(*range(6)))))
    connection.return_each(range(5), [bytes(WORD)] * 5)

    pairs = zip(finishes(*range(5)), adds(7, 8, 9, 5, 6), strict=True)
    told = []
    with pytest.raises(RemoteProtocolError, match="question 5 is used again while it is open"):
        told += one_by_one(connection.receive_data(b"".join(piece for pair in pairs for piece in pair)))


def test_what_results_hold_is_let_go_of_one_by_one():
    connection = begun()
    list(connection.receive_data(b"".join(encoder.bootstrap(number) for number in range(5))))
    assert connection.stats().answers == 6

    list(connection.receive_data(b"".join(encoder.finish(number, release_result_caps=True) for number in range(5))))

    assert connection.stats().answers == 1
    connection.check()


def test_errors_kept_for_later_calls_are_let_go_of_one_by_one():
    connection = taught()
    list(connection.receive_data(b"".join(adds(*range(5)))))
    for number in range(5):
        connection.return_exception(number, QueueberError.kind, "because")

    list(connection.receive_data(b"".join(finishes(*range(5)))))

    assert set(connection._callee.answers._states) == {BOOTSTRAP}
    connection.check()


@pytest.mark.parametrize(
    ("limits", "ended"),
    [(Limits(outstanding_calls=3), False), (Limits(open_answers=6), True)],
)
def test_bounds_are_held_to_the_call(limits, ended):
    connection = taught(limits)
    told = []
    try:
        told += one_by_one(connection.receive_data(b"".join(adds(*range(8)))))
    except RemoteProtocolError as why:
        assert ended, str(why)
    assert connection.closed == ended
    assert [each.answer for each in told] == list(range(3 if not ended else 5))


def test_a_number_used_twice_ends_the_connection():
    for numbers in ((1, 2, 3, 4, 2), (1, 2, 3, 3, 4)):
        connection = taught()
        with pytest.raises(RemoteProtocolError, match="is used again while it is open"):
            list(connection.receive_data(b"".join(adds(*numbers))))

    connection = taught()
    list(connection.receive_data(b"".join(adds(3))))
    with pytest.raises(RemoteProtocolError, match="question 3 is used again"):
        list(connection.receive_data(b"".join(adds(1, 2, 3, 4, 5))))


def test_polls_in_a_row_are_read_one_by_one():
    """Each has a state of its own for as long as it waits."""
    connection = taught()
    list(connection.receive_data(our_call(7, *poll(3))))

    events = list(connection.receive_data(b"".join(our_call(number, *poll(3)) for number in range(5))))

    assert [event.answer for event in events] == list(range(5))


def counted(limits, pieces):
    """How many of the calls are refused where each is answered at once."""
    connection = begun(limits)
    for piece in [our_call(98, *remove(ID, LEASE)), *pieces]:
        for event in one_by_one(connection.receive_data(piece)):
            read(event.method_id, event.params)
            connection.return_results(event.answer, bytes(WORD))
    return connection.data_to_send().count(b"outstanding_calls")


@pytest.mark.parametrize("count", [3, 8])
def test_calls_that_are_answered_at_once_are_not_counted_as_waiting(count):
    pieces = [our_call(number, *remove(ID, LEASE)) for number in range(count)]

    assert counted(Limits(outstanding_calls=2), [b"".join(pieces)]) == 0
    assert counted(Limits(outstanding_calls=2), pieces) == 0


def test_who_ends_a_connection_at_a_call_in_hand_is_told_of_no_other():
    connection = taught(Limits(outstanding_calls=2))

    events = connection.receive_data(b"".join(adds(1, 2, 3)))
    assert next(events).answers == [1, 2]
    connection.abort("enough")

    assert list(events) == []


def test_a_finish_that_comes_twice_makes_no_room_too_early():
    together, alone = taught(Limits(open_answers=6)), taught(Limits(open_answers=6))
    pairs = zip(finishes(0, 0, 0, 1, 9), adds(*range(10, 15)), strict=True)
    pieces = [piece for pair in pairs for piece in pair]
    for connection in (together, alone):
        list(connection.receive_data(b"".join(adds(*range(4)))))
        connection.return_each(range(4), [bytes(WORD)] * 4)

    assert heard(together, [b"".join(pieces)], "wait", []) == heard(alone, pieces, "wait", [])


def test_a_row_to_what_is_not_held_any_more_ends_as_one_by_one():
    together, alone = taught(), taught()
    for connection in (together, alone):
        list(connection.receive_data(adds(7)[0]))
        connection._callee.exports.get = lambda _: None

    pieces = adds(7, 8, 9, 10)
    assert heard(together, [b"".join(pieces)], "wait", []) == heard(alone, pieces, "wait", [])


def test_what_was_read_is_let_go_of():
    """The Params of a call hold all that came with it."""
    connection = taught()
    for _ in connection.receive_data(adds(1)[0]):
        pass

    assert connection._alike_params == []


def test_a_template_is_not_as_long_as_a_peer_likes():
    """Each connection may have several, and nobody counts them."""
    connection = begun()
    method, content = add(b"")
    for number in (1, 2):
        words = list(unpack(f"<{len(our_call(number, method, content)) // WORD}Q", our_call(number, method, content)))
        words[14] |= 1_000 << 2  # the pointer to the items leads over a gap
        words[15:15] = [0] * 1_000
        words[0] = len(words) - 1 << 32
        for event in connection.receive_data(pack(f"<{len(words)}Q", *words)):
            assert read_add_request(event.params, LIMITS).items == [(b"", 0)]

    (shape,) = connection._shapes._known.values()
    assert shape.template is None

    gap = 1_000
    for number in (3, 4):
        for event in connection.receive_data(laid(number, 1 + gap, 2 + gap, bytes(gap * WORD), ID, LEASE)):
            assert asked(event) == (ID, LEASE)
    for number in (5, 6):
        words = list(unpack(f"<{len(laid(number, 1, 2, ID, LEASE)) // WORD}Q", laid(number, 1, 2, ID, LEASE)))
        at = len(words) - 7  # the pointer to the request, behind the one to the parameters
        words[at] |= gap << 2
        words[at + 1 : at + 1] = [0] * gap
        words[0] = len(words) - 1 << 32
        for event in connection.receive_data(pack(f"<{len(words)}Q", *words)):
            assert asked(event) == (ID, LEASE)
    assert all(len(each.template.fixed) <= 512 for each in connection._shapes._known.values() if each.template)


def test_returns_together_are_as_one_by_one():
    together, alone = taught(), taught()
    for connection in (together, alone):
        list(connection.receive_data(b"".join([*adds(*range(6)), *finishes(3)])))
    contents = [bytes(WORD * (number + 1)) for number in range(5)]

    together.return_each(range(5), contents)
    for answer, content in enumerate(contents):
        alone.return_results(answer, content)

    assert together.data_to_send() == alone.data_to_send()
    assert together.dump() == alone.dump()
    with pytest.raises(LocalProtocolError, match="answer 5 owes no return"):
        together.return_each([5, 5], contents[:2])
    with pytest.raises(LocalProtocolError, match="answer 4 owes no return"):
        together.return_each([4], contents[:1])


def test_messages_of_several_segments_are_no_row():
    data = (1 | 1 << 32).to_bytes(8, "little") + (1).to_bytes(8, "little") + bytes(2 * WORD)
    first, *_ = Framer(Limits()).feed(data * 4)

    assert row_of(first).count == 1
    assert rows_of(first) is None


# Against one by one.


@st.composite
def blocks(draw):
    """Some messages that are alike, one of which may be spoilt."""
    kind = draw(st.sampled_from(["add", "add", "remove", "finish", "poll", "bootstrap"]))
    count = draw(st.integers(1, 12))
    first = draw(st.integers(0, 30))
    step = draw(st.sampled_from([1, 1, 1, 0, 2]))
    numbers = [first + step * index for index in range(count)]
    call = draw(st.sampled_from([our_call, standard_call]))
    if kind == "add":
        size = draw(st.integers(0, 70))
        made = [call(number, *add(bytes([number % 256]) * size)) for number in numbers]
    elif kind == "remove":
        made = [call(number, *remove(bytes([number % 256]) * 16, LEASE)) for number in numbers]
    elif kind == "finish":
        made = finishes(*numbers)
    elif kind == "poll":
        made = [call(number, *poll(3)) for number in numbers]
    else:
        made = [encoder.bootstrap(number) for number in numbers]
    if draw(st.integers(0, 3)) == 0:
        which = draw(st.integers(0, count - 1))
        spoilt = bytearray(made[which])
        # Not the table: the stream would be beyond repair.
        at = draw(st.integers(WORD, len(spoilt) - 1))
        spoilt[at] ^= 1 << draw(st.integers(0, 7))
        made[which] = bytes(spoilt)
    if kind in {"add", "remove"} and draw(st.booleans()):
        before = draw(st.integers(0, 30))
        pairs = zip(finishes(*[before + step * index for index in range(count)]), made, strict=True)
        made = [piece for pair in pairs for piece in pair]
    return made, draw(st.sampled_from(["answer", "wait", "fail"]))


def heard(connection, pieces, then, open_calls):
    """What a connection makes of *pieces*, its calls answered at once, in the end or not at all."""
    told = []
    try:
        for piece in pieces:
            for event in one_by_one(connection.receive_data(piece)):
                if isinstance(event, Called):
                    try:
                        asked = read(event.method_id, event.params)
                    except QueueberError as why:
                        asked = str(why)
                    told.append((event.answer, event.target, event.interface_id, event.method_id, asked))
                    open_calls.append(event.answer)
                else:
                    told.append(event)
    except RemoteProtocolError as why:
        told.append(str(why))
    if then != "wait":
        for answer in open_calls:
            if then == "answer":
                connection.return_results(answer, bytes(WORD))
            else:
                connection.return_exception(answer, QueueberError.kind, "because")
        open_calls.clear()
    return told, connection.data_to_send()


@settings(max_examples=300, deadline=None)
@given(st.lists(blocks(), min_size=1, max_size=8))
def test_rows_are_taken_in_as_one_by_one(script):
    limits = Limits(contents_bytes=64, add_bytes=100, outstanding_calls=25, open_answers=40)
    together, alone = taught(limits), taught(limits)
    open_together, open_alone = [], []
    for made, then in script:
        in_one = heard(together, [b"".join(made)], then, open_together)
        assert in_one == heard(alone, made, then, open_alone)
        assert together.dump() == alone.dump()
        assert together.closed == alone.closed
    if not together.closed:
        together.check()


def test_a_row_of_that_many_is_worth_it():
    (event,) = taught().receive_data(b"".join(adds(*range(LEAST))))
    assert event.requests is not None
    event = next(iter(taught().receive_data(b"".join(adds(*range(LEAST - 1))))))
    assert isinstance(event, CalledAlike)
    assert event.requests is None

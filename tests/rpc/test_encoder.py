"""RPC messages that we encode, and pycapnp and we decode."""

import pytest

from queueber.capnp.builder import CAPABILITY, Body, data_body, segment, struct_body
from queueber.capnp.layout import layout
from queueber.capnp.reader import bytes_at, capability_at, slot_at, struct_at
from queueber.errors import Kind
from queueber.rpc import encoder
from queueber.rpc.decoder import decode
from queueber.rpc.messages import PromisedAnswer, UnimplementedMessage

CONTENT = layout("Queue.remove$Params").build(req={"id": b"some id", "lease": b"some lease"})
BIG = 0xFFFFFFFF


@pytest.fixture
def seen(pycapnp, frame_of):
    """Decode a message with pycapnp."""

    def seen(stream):
        frame = frame_of(stream)
        return pycapnp.read("Message", [frame.data[frame.start * 8 : frame.end * 8]])

    return seen


RETURN = {"releaseParamCaps": True, "noFinishNeeded": False}
CALL = {"allowThirdPartyTailCall": False, "noPromisePipelining": False, "onlyPromisePipeline": False}
TO_CALLER = {"sendResultsTo": {"caller": None}}
EXCEPTION = {"obsoleteIsCallersFault": False, "obsoleteDurability": 0, "trace": ""}


@pytest.mark.parametrize("number", [0, 7, BIG])
def test_every_message_is_encoded_as_pycapnp_reads_it(seen, number):
    assert seen(b"".join(encoder.results([number], [CONTENT]))) == {
        "return": {"answerId": number, **RETURN, "results": {"capTable": []}}
    }
    assert seen(encoder.exception(number, Kind.OVERLOADED, "too much")) == {
        "return": {"answerId": number, **RETURN, "exception": {"reason": "too much", "type": 1, **EXCEPTION}}
    }
    assert seen(encoder.canceled(number)) == {"return": {"answerId": number, **RETURN, "canceled": None}}
    assert seen(encoder.bootstrap(number)) == {"bootstrap": {"questionId": number}}
    assert seen(encoder.release(number, 3)) == {"release": {"id": number, "referenceCount": 3}}
    for flag in (True, False):
        assert seen(encoder.finish(number, release_result_caps=flag)) == {
            "finish": {
                "questionId": number,
                "releaseResultCaps": flag,
                "requireEarlyCancellationWorkaround": False,
            }
        }
    assert seen(encoder.call(number, BIG - number, 1 << 63, 65_535, CONTENT) + CONTENT) == {
        "call": {
            "questionId": number,
            "target": {"importedCap": BIG - number},
            "interfaceId": 1 << 63,
            "methodId": 65_535,
            "params": {"capTable": []},
            **CALL,
            **TO_CALLER,
        }
    }
    assert seen(encoder.receiver_loopback(number, 4)) == {
        "disembargo": {"target": {"importedCap": number}, "context": {"receiverLoopback": 4}}
    }


def test_a_promised_answer_has_a_question_and_a_path(seen):
    promised = PromisedAnswer(9, (2, 0))
    way = {"promisedAnswer": {"questionId": 9, "transform": [{"getPointerField": 2}, {"getPointerField": 0}]}}
    assert seen(encoder.pipelined_call(1, promised, 2, 3, CONTENT))["call"]["target"] == way
    assert seen(encoder.receiver_loopback(promised, 4))["disembargo"]["target"] == way
    nowhere = seen(encoder.receiver_loopback(PromisedAnswer(9, None), 4))
    assert nowhere["disembargo"]["target"] == {"promisedAnswer": {"questionId": 9, "transform": []}}


def test_an_abort_has_a_reason(seen):
    assert seen(encoder.abort("enough"))["abort"]["reason"] == "enough"


def contents_of(params):
    """Read the value of `CONTENT` at its place in the message."""
    struct = slot_at(params.frame, struct_at(params.frame, params.at, params.start, params.end), 0)
    spans = [bytes_at(params.frame, struct[1] + slot, *struct[3:]) for slot in range(2)]
    return [params.frame.data[first:last] for first, last in spans]


def test_content_is_encoded_unchanged(frame_of):
    call = decode(frame_of(encoder.call(1, 2, 3, 4, CONTENT) + CONTENT))
    pipelined = decode(frame_of(encoder.pipelined_call(1, PromisedAnswer(2), 3, 4, CONTENT)))
    returned = decode(frame_of(b"".join(encoder.results([1], [CONTENT]))))
    with_capabilities = decode(frame_of(encoder.results_with_capabilities(1, CONTENT, [5])))
    for params in (call.params, pipelined.params, returned.outcome.content, with_capabilities.outcome.content):
        assert contents_of(params) == [b"some id", b"some lease"]


@pytest.mark.parametrize(
    ("content", "path"),
    [(Body(CAPABILITY | 1 << 32, [], 0), ()), (struct_body([], [Body(CAPABILITY | 1 << 32, [], 0)]), (0,))],
)
def test_capabilities_are_indices_into_their_table(seen, frame_of, content, path):
    stream = encoder.results_with_capabilities(3, segment(content), [7, 8])
    table = [{"senderHosted": number, "attachedFd": 255} for number in (7, 8)]
    assert seen(stream)["return"]["results"] == {"capTable": table}
    outcome = decode(frame_of(stream)).outcome
    assert outcome.capabilities == (7, 8)
    at, start, end = outcome.content.at, outcome.content.start, outcome.content.end
    if path:
        _, at, _, start, end = struct_at(outcome.content.frame, at, start, end)
    assert capability_at(outcome.content.frame, at, start, end) == 1


def test_content_that_is_null_stays_null(frame_of):
    params = decode(frame_of(encoder.results_with_capabilities(3, bytes(8), [7]))).outcome.content
    assert params.frame.words[params.at] == 0


def echoed(frame_of, stream):
    frame = frame_of(stream)
    return encoder.unimplemented(frame, decode(frame).which)


def test_a_short_message_is_echoed_whole(seen, frame_of, stream_of):
    join = {"questionId": 7, "target": {"importedCap": 3}}
    echo = echoed(frame_of, stream_of([layout("Message").build(join=join)]))
    assert seen(echo)["unimplemented"]["join"] == {"questionId": 7, "target": {"importedCap": 3}}
    assert decode(frame_of(echo)) == UnimplementedMessage("join")


def test_a_message_whose_root_lies_elsewhere_is_echoed_whole(seen, frame_of, stream_of):
    built = layout("Message").build(join={"questionId": 7})
    moved = (int.from_bytes(built[:8], "little") + (3 << 2)).to_bytes(8, "little") + bytes(24) + built[8:]
    assert seen(echoed(frame_of, stream_of([moved])))["unimplemented"]["join"]["questionId"] == 7


def test_a_root_that_points_to_itself_is_echoed_as_it_is(frame_of, stream_of):
    """The offset is -1; that of the echo is one larger, and the sum must not carry into other bits."""
    itself = (0xFFFFFFFC | 1 << 32).to_bytes(8, "little")
    echo = frame_of(echoed(frame_of, stream_of([itself])))
    assert list(echo.words)[3:] == [1 << 32, 0xFFFFFFFC | 1 << 32]


@pytest.mark.parametrize("long", [True, False])
def test_a_message_that_is_long_or_in_pieces_is_echoed_by_its_kind(seen, frame_of, stream_of, pycapnp, long):
    if long:
        segments = [segment(struct_body([12], [struct_body([1], [None, data_body(bytes(5_000))])]))]
    else:
        segments = pycapnp.build("Message", {"join": {"questionId": 7}}, segment_words=1)
    echo = echoed(frame_of, stream_of(segments))
    assert len(echo) < 64
    assert seen(echo) == {"unimplemented": {"join": None}}

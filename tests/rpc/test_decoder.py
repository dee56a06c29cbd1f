"""RPC messages that pycapnp encodes, in one segment and in many, and we decode."""

import pytest

from queueber.capnp.builder import Body, segment, struct_body
from queueber.capnp.layout import layout
from queueber.errors import RemoteProtocolError
from queueber.fixed_limits import TRANSFORM_OPS_MAX
from queueber.rpc.decoder import REASON_BYTES_MAX, decode
from queueber.rpc.messages import (
    Abort,
    Bootstrap,
    Canceled,
    Disembargo,
    Finish,
    PromisedAnswer,
    Release,
    RemoteException,
    Resolve,
    Return,
    UnimplementedMessage,
    Unknown,
)

MESSAGES = [
    ({"unimplemented": {"release": {"id": 1}}}, UnimplementedMessage("release")),
    ({"unimplemented": None}, UnimplementedMessage(None)),
    ({"abort": {"reason": "bye", "type": 2}}, Abort("bye")),
    ({"bootstrap": {"questionId": 7}}, Bootstrap(7, names_object=False)),
    ({"finish": {"questionId": 7}}, Finish(7, release_result_caps=True)),
    ({"finish": {"questionId": 0xFFFFFFFF, "releaseResultCaps": False}}, Finish(0xFFFFFFFF, release_result_caps=False)),
    ({"release": {"id": 3, "referenceCount": 4}}, Release(3, 4)),
    ({"resolve": {"promiseId": 5, "cap": {"senderHosted": 6}}}, Resolve(5, 6)),
    ({"resolve": {"promiseId": 5, "cap": {"senderPromise": 6}}}, Resolve(5, 6)),
    ({"resolve": {"promiseId": 5, "cap": {"thirdPartyHosted": {"vineId": 6}}}}, Resolve(5, 6)),
    ({"resolve": {"promiseId": 5, "cap": {"receiverHosted": 6}}}, Resolve(5, None)),
    ({"resolve": {"promiseId": 5, "cap": {"none": None}}}, Resolve(5, None)),
    ({"resolve": {"promiseId": 5, "exception": {"reason": "gone"}}}, Resolve(5, None)),
    ({"disembargo": {"target": {"importedCap": 3}, "context": {"senderLoopback": 9}}}, Disembargo(3, 9)),
    (
        {"disembargo": {"target": {"promisedAnswer": {"questionId": 3}}, "context": {"senderLoopback": 9}}},
        Disembargo(PromisedAnswer(3, ()), 9),
    ),
    ({"disembargo": {"context": {"receiverLoopback": 9}}}, Unknown(13)),
    ({"provide": {"questionId": 1}}, Unknown(10)),
    ({"join": {"questionId": 1}}, Unknown(12)),
    ({"return": {"answerId": 7, "canceled": None}}, Return(7, Canceled(), finish_needed=True)),
    ({"return": {"answerId": 7, "noFinishNeeded": True, "canceled": None}}, Return(7, Canceled(), finish_needed=False)),
    (
        {"return": {"answerId": 7, "exception": {"reason": "no \N{SNOWMAN}", "type": 1}}},
        Return(7, RemoteException("no \N{SNOWMAN}", 1), finish_needed=True),
    ),
    ({"return": {"answerId": 7, "resultsSentElsewhere": None}}, Return(7, None, finish_needed=True)),
    ({"return": {"answerId": 7, "takeFromOtherQuestion": 3}}, Return(7, None, finish_needed=True)),
]

NULL = Body(0, [], 0)

BARE_MESSAGES = [
    ({"abort": NULL}, Abort("")),
    ({"bootstrap": NULL}, Bootstrap(0, names_object=False)),
    ({"finish": NULL}, Finish(0, release_result_caps=True)),
    ({"resolve": {"promiseId": 5, "cap": {"thirdPartyHosted": NULL}}}, Resolve(5, 0)),
    ({"resolve": NULL}, Resolve(0, None)),
    ({"disembargo": NULL}, Disembargo(0, 0)),
    ({"disembargo": {"context": {"accept": NULL}}}, Unknown(13)),
    ({"accept": NULL}, Unknown(11)),
    ({"return": {"answerId": 7, "exception": NULL}}, Return(7, RemoteException("", 0), finish_needed=True)),
]


@pytest.mark.parametrize("words", [1, 4, 1 << 16])
@pytest.mark.parametrize(("value", "message"), MESSAGES, ids=str)
def test_every_kind_of_message_is_decoded(pycapnp, stream_of, frame_of, value, message, words):
    assert decode(frame_of(stream_of(pycapnp.build("Message", value, segment_words=words)))) == message


@pytest.mark.parametrize(("value", "message"), BARE_MESSAGES)
def test_a_message_whose_body_is_null_is_all_defaults(frame_of, stream_of, value, message):
    assert decoded(frame_of, stream_of, **value) == message


def test_a_target_whose_body_is_null_is_all_defaults(frame_of, stream_of):
    call = decoded(frame_of, stream_of, call={"target": {"promisedAnswer": NULL}})
    assert call.target == PromisedAnswer(0, ())


def decoded(frame_of, stream_of, **fields):
    return decode(frame_of(stream_of([layout("Message").build(**fields)])))


@pytest.mark.parametrize("words", [1, 4, 1 << 16])
@pytest.mark.parametrize(
    ("target", "found"),
    [
        ({"importedCap": 5}, 5),
        (None, 0),
        ({"promisedAnswer": {"questionId": 9, "transform": []}}, PromisedAnswer(9, ())),
        ({"promisedAnswer": {"questionId": 9}}, PromisedAnswer(9, ())),
        (
            {
                "promisedAnswer": {
                    "questionId": 9,
                    "transform": [{"getPointerField": 2}, {"noop": None}, {"getPointerField": 0xFFFF}],
                }
            },
            PromisedAnswer(9, (2, 0xFFFF)),
        ),
        ({"promisedAnswer": {"transform": [{"noop": None}] * TRANSFORM_OPS_MAX}}, PromisedAnswer(0, ())),
        ({"promisedAnswer": {"transform": [{"noop": None}] * (TRANSFORM_OPS_MAX + 1)}}, PromisedAnswer(0, None)),
    ],
)
def test_a_call_has_a_target_and_a_method(pycapnp, stream_of, frame_of, target, found, words):
    call = {"questionId": 8, "interfaceId": 1 << 63, "methodId": 65_535, "target": target, "params": {}}
    message = decode(frame_of(stream_of(pycapnp.build("Message", {"call": call}, segment_words=words))))
    assert (message.question, message.interface_id, message.method_id) == (8, 1 << 63, 65_535)
    assert message.target == found
    assert message.to_caller is True


def test_an_empty_call_is_all_defaults(frame_of, stream_of):
    message = decoded(frame_of, stream_of, call=NULL)
    assert (message.question, message.target, message.interface_id, message.method_id) == (0, 0, 0, 0)
    assert message.params.frame.words[message.params.at] == 0


def test_params_without_a_pointer_are_empty(frame_of, stream_of):
    message = decoded(frame_of, stream_of, call={"params": struct_body([1], [])})
    assert message.params.frame.words[message.params.at] == 0


@pytest.mark.parametrize(("elsewhere", "to_caller"), [("caller", True), ("yourself", False), ("thirdParty", False)])
def test_a_call_may_redirect_its_results(frame_of, stream_of, elsewhere, to_caller):
    value = NULL if elsewhere == "thirdParty" else None
    message = decoded(frame_of, stream_of, call={"sendResultsTo": {elsewhere: value}})
    assert message.to_caller is to_caller


def test_a_target_of_an_unknown_kind_is_none(frame_of, stream_of):
    message = decoded(frame_of, stream_of, call={"target": struct_body([7 << 32], [None])})
    assert message.target is None


def test_a_transform_of_an_unknown_kind_is_none(frame_of, stream_of):
    op = {"transform": [{"getPointerField": 1}]}
    built = layout("Message").build(call={"target": {"promisedAnswer": op}})
    (at,) = [at for at in range(0, len(built), 8) if built[at : at + 8] == b"\1\0\1\0\0\0\0\0"][-1:]
    message = decode(frame_of(stream_of([built[:at] + b"\2" + built[at + 1 :]])))
    assert message.target == PromisedAnswer(0, None)


def test_params_have_the_length_of_their_message(pycapnp, stream_of, frame_of):
    call = {"call": {"questionId": 1, "params": {}}}
    for words in (1, 1 << 16):
        segments = pycapnp.build("Message", call, segment_words=words)
        message = decode(frame_of(stream_of(segments)))
        assert message.params.frame_bytes == sum(len(each) for each in segments)


def test_results_come_with_their_capabilities(pycapnp, stream_of, frame_of):
    table = [
        {"senderHosted": 4},
        {"none": None},
        {"receiverHosted": 3},
        {"senderPromise": 5},
        {"thirdPartyHosted": {"vineId": 6}},
        {"receiverAnswer": {"questionId": 1}},
    ]
    value = {"return": {"answerId": 7, "results": {"capTable": table}}}
    for words in (1, 1 << 16):
        message = decode(frame_of(stream_of(pycapnp.build("Message", value, segment_words=words))))
        assert message.answer == 7
        assert message.outcome.capabilities == (4, None, None, 5, 6, None)


@pytest.mark.parametrize("payload", [NULL, struct_body([7], []), {}])
def test_results_may_be_empty(frame_of, stream_of, payload):
    outcome = decoded(frame_of, stream_of, **{"return": {"results": payload}}).outcome
    assert outcome.capabilities == ()
    assert outcome.content.frame.words[outcome.content.at] == 0


def test_a_huge_table_of_empty_descriptors_is_refused(frame_of, stream_of):
    table = Body(1 | 7 << 32, [(400_000_000 << 2).to_bytes(8, "little")], 1)
    with pytest.raises(RemoteProtocolError, match="more is read"):
        decoded(frame_of, stream_of, **{"return": {"results": {"capTable": table}}})


def test_bootstrap_may_name_an_object(frame_of, stream_of):
    named = Body(3, [], 0)
    message = decoded(frame_of, stream_of, bootstrap={"questionId": 1, "deprecatedObjectId": named})
    assert message == Bootstrap(1, names_object=True)


def test_a_bootstrap_without_pointers_is_decoded(frame_of, stream_of):
    assert decoded(frame_of, stream_of, bootstrap=struct_body([4], [])) == Bootstrap(4, names_object=False)


def test_a_long_reason_is_cut(frame_of, stream_of):
    message = decoded(frame_of, stream_of, abort={"reason": "\N{SNOWMAN}" * 1_000_000})
    assert len(message.reason.encode()) <= REASON_BYTES_MAX + 3
    assert message.reason.startswith("\N{SNOWMAN}" * 300)


def test_invalid_utf_8_in_a_reason_is_replaced(frame_of, stream_of):
    reason = Body(1 | 2 << 32 | 2 << 35, [b"\xff\0\0\0\0\0\0\0"], 1)
    assert decoded(frame_of, stream_of, abort={"reason": reason}).reason == "\N{REPLACEMENT CHARACTER}"


def test_an_exception_without_pointers_has_no_reason(frame_of, stream_of):
    assert decoded(frame_of, stream_of, abort=struct_body([0], [])) == Abort("")


def test_a_null_root_is_an_empty_unimplemented(frame_of, stream_of):
    assert decode(frame_of(stream_of([bytes(8)]))) == UnimplementedMessage(None)


@pytest.mark.parametrize("which", [7, 9, 14, 65_535])
def test_a_message_of_an_unknown_kind_is_unknown(frame_of, stream_of, which):
    """The target of its pointer may be of any kind."""
    message = segment(struct_body([which], [Body(1 | 2 << 32 | 9 << 35, [], 0)]))
    assert decode(frame_of(stream_of([message]))) == Unknown(which)


@pytest.mark.parametrize(
    "root", [b"", (1 | 2 << 32).to_bytes(8, "little"), (3).to_bytes(8, "little"), (2 | 8 << 3).to_bytes(8, "little")]
)
def test_a_root_that_is_no_struct_is_refused(frame_of, stream_of, root):
    with pytest.raises(RemoteProtocolError):
        decode(frame_of(stream_of([root, bytes(8)])))


def test_an_outcome_without_fields_is_true():
    assert Canceled()

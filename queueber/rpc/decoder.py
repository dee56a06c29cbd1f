"""
Decoding RPC messages: frames in, messages out.

Call and Finish are read by hand, because they are the most frequent; all other
messages through their layouts.  Either way the places of fields come from the
schema, and an absent field has its default.
"""

from collections.abc import Callable

from queueber.capnp.layout import layout
from queueber.capnp.reader import EMPTY, Frame, StructAt, follow, slot_at, struct_at, struct_list_at, text_at
from queueber.errors import RemoteProtocolError
from queueber.fixed_limits import TRANSFORM_OPS_MAX
from queueber.rpc.messages import (
    NO_CONTENT,
    Abort,
    AnswerId,
    Bootstrap,
    Call,
    CallOutcome,
    Canceled,
    Disembargo,
    ExportId,
    Finish,
    ImportId,
    Message,
    Params,
    PromisedAnswer,
    QuestionId,
    Release,
    RemoteException,
    Resolve,
    Results,
    Return,
    UnimplementedMessage,
    Unknown,
)

REASON_BYTES_MAX = 1_000
"""Longest reason of a peer; a longer one is cut, because it is logged or raised."""

_MESSAGE = layout("Message")
_CALL = layout("Call")
_TARGET = layout("MessageTarget")
_PROMISED_ANSWER = layout("PromisedAnswer")
_OP = layout("PromisedAnswer.Op")
_PAYLOAD = layout("Payload")
_CAPABILITY = layout("CapDescriptor")
_RETURN = layout("Return")
_FINISH = layout("Finish")
_EXCEPTION = layout("Exception")
_BOOTSTRAP = layout("Bootstrap")
_RELEASE = layout("Release")
_RESOLVE = layout("Resolve")
_DISEMBARGO = layout("Disembargo")
_DISEMBARGO_CONTEXT = layout("Disembargo.context")
_THIRD_PARTY = layout("ThirdPartyCapDescriptor")

_WHICH = _MESSAGE.discriminant
_CALL_QUESTION = _CALL.numbers["questionId"]
_CALL_INTERFACE = _CALL.numbers["interfaceId"]
_CALL_METHOD = _CALL.numbers["methodId"]
_CALL_RESULTS_TO = layout("Call.sendResultsTo").discriminant
_CALL_TARGET = _CALL.slots["target"]
_CALL_PARAMS = _CALL.slots["params"]
_TARGET_WHICH = _TARGET.discriminant
_TARGET_IMPORT = _TARGET.numbers["importedCap"]

assert _WHICH
assert _CALL_RESULTS_TO
assert _TARGET_WHICH

# `_call` reads the first two words of a Call once each, and extracts these fields from them.
assert _CALL_QUESTION.word == _CALL_METHOD.word == _CALL_RESULTS_TO.word == 0
assert _CALL_INTERFACE.word == 1
assert _TARGET_WHICH.word == _TARGET_IMPORT.word == _WHICH.word == _WHICH.shift == 0

_QUESTION_SHIFT, _QUESTION_MASK = _CALL_QUESTION.shift, _CALL_QUESTION.mask
_METHOD_SHIFT, _METHOD_MASK = _CALL_METHOD.shift, _CALL_METHOD.mask
_RESULTS_TO_SHIFT, _RESULTS_TO_MASK = _CALL_RESULTS_TO.shift, _CALL_RESULTS_TO.mask
_TARGET_SHIFT, _TARGET_MASK = _TARGET_WHICH.shift, _TARGET_WHICH.mask
_IMPORT_SHIFT, _IMPORT_MASK = _TARGET_IMPORT.shift, _TARGET_IMPORT.mask
_WHICH_MASK = _WHICH.mask
_CALL_MEMBER, _FINISH_MEMBER = _MESSAGE.members["call"], _MESSAGE.members["finish"]
_CALL_POINTER, _FINISH_POINTER = _CALL.pointer, _FINISH.pointer
_CALL_DATA_WORDS, _CALL_WORDS = _CALL.data_words, _CALL.data_words + _CALL.pointers
assert (_FINISH.data_words, _FINISH.pointers) == (1, 0)

# Nearly all messages begin so: a root pointer to the next word, the kind, and a pointer to the word after that.
_USUAL_ROOT = _MESSAGE.pointer
_USUAL_BODY = 3
assert (_MESSAGE.data_words, _MESSAGE.pointers) == (1, 1)

# `_finish` reads the only word of a Finish once, too.
_QUESTION = _FINISH.numbers["questionId"]
_RELEASE_CAPS = _FINISH.numbers["releaseResultCaps"]
assert _QUESTION.word == _QUESTION.shift == _RELEASE_CAPS.word == 0
assert _RELEASE_CAPS.mask == 1
_QUESTION_OF_FINISH, _RELEASE_SHIFT, _RELEASE_FLIP = _QUESTION.mask, _RELEASE_CAPS.shift, _RELEASE_CAPS.default


def decode(frame: Frame) -> Message:
    """
    Return the message in *frame*.

    Raises:
        RemoteProtocolError: the message is malformed.  The parameters of a call
            are checked only when they are read.
    """
    if frame.start == frame.end:
        raise RemoteProtocolError("a message without a root pointer")
    usual = _decode_usual(frame)
    if usual is not None:
        return usual
    data, pointers, stop, start, end = struct_at(frame, frame.start, frame.start, frame.end)
    which = frame.words[data] & _WHICH_MASK if data < pointers else 0
    read = _READERS.get(which)
    if read is None:
        return Unknown(which)
    return read(frame, struct_at(frame, pointers, start, end) if pointers < stop else EMPTY)


def _decode_usual(frame: Frame) -> Call | Finish | None:
    """Return the message without following a pointer, if it is a Call or a Finish in the usual layout."""
    start, end, words = frame.start, frame.end, frame.words
    body = start + _USUAL_BODY
    if body >= end or words[start] != _USUAL_ROOT:
        return None
    which, pointer = words[start + 1], words[start + 2]
    if which == _FINISH_MEMBER and pointer == _FINISH_POINTER:
        first = words[body]
        return Finish(AnswerId(first & _QUESTION_OF_FINISH), first >> _RELEASE_SHIFT & 1 != _RELEASE_FLIP)
    if which == _CALL_MEMBER and pointer == _CALL_POINTER and body + _CALL_WORDS <= end:
        pointers = body + _CALL_DATA_WORDS
        return _call(frame, (body, pointers, body + _CALL_WORDS, start, end))
    return None


def _call(frame: Frame, call: StructAt) -> Call:
    data, pointers, stop, start, end = call
    words = frame.words
    first = words[data] if data < pointers else 0
    target: ExportId | PromisedAnswer | None = ExportId(0)
    if pointers + _CALL_TARGET < stop:
        found = struct_at(frame, pointers + _CALL_TARGET, start, end)
        word = words[found[0]] if found[0] < found[1] else 0
        if word >> _TARGET_SHIFT & _TARGET_MASK:
            target = _target(frame, found)
        else:
            target = ExportId(word >> _IMPORT_SHIFT & _IMPORT_MASK)
    params = NO_CONTENT
    if pointers + _CALL_PARAMS < stop:
        _, content, last, start, end = struct_at(frame, pointers + _CALL_PARAMS, start, end)
        if content < last:
            params = Params(frame, content, start, end)
    return Call(
        AnswerId(first >> _QUESTION_SHIFT & _QUESTION_MASK),
        target,
        words[data + 1] if data + 1 < pointers else 0,
        first >> _METHOD_SHIFT & _METHOD_MASK,
        params,
        not first >> _RESULTS_TO_SHIFT & _RESULTS_TO_MASK,
    )


def _target(frame: Frame, target: StructAt) -> ExportId | PromisedAnswer | None:
    """Return the target; None for a kind that is unknown here."""
    which = _TARGET.which(frame, target)
    if which == "importedCap":
        return ExportId(_TARGET_IMPORT.of(frame, target))
    if which != "promisedAnswer":
        return None
    promised = slot_at(frame, target, _TARGET.slots["promisedAnswer"])
    question = _PROMISED_ANSWER.numbers["questionId"].of(frame, promised)
    at = promised[1] + _PROMISED_ANSWER.slots["transform"]
    if at >= promised[2]:
        return PromisedAnswer(question, ())
    ops = struct_list_at(frame, at, promised[3], promised[4], TRANSFORM_OPS_MAX)
    if ops.count > TRANSFORM_OPS_MAX:
        return PromisedAnswer(question, None)
    path = []
    for index in range(ops.count):
        op = ops.element(index)
        which = _OP.which(ops.frame, op)
        if which == "getPointerField":
            path.append(_OP.numbers["getPointerField"].of(ops.frame, op))
        elif which != "noop":
            return PromisedAnswer(question, None)
    return PromisedAnswer(question, tuple(path))


def _return(frame: Frame, body: StructAt) -> Return:
    which = _RETURN.which(frame, body)
    outcome: CallOutcome | None = None
    if which == "results":
        outcome = _results(frame, slot_at(frame, body, _RETURN.slots["results"]))
    elif which == "exception":
        outcome = _exception(frame, slot_at(frame, body, _RETURN.slots["exception"]))
    elif which == "canceled":
        outcome = Canceled()
    return Return(
        QuestionId(_RETURN.numbers["answerId"].of(frame, body)),
        outcome,
        finish_needed=not _RETURN.numbers["noFinishNeeded"].of(frame, body),
    )


def _results(frame: Frame, payload: StructAt) -> Results:
    _, pointers, stop, start, end = payload
    capabilities: tuple[ImportId | None, ...] = ()
    if pointers + _PAYLOAD.slots["capTable"] < stop:
        table = struct_list_at(frame, pointers + _PAYLOAD.slots["capTable"], start, end)
        frame.spend(table.count)
        capabilities = tuple(_capability(table.frame, table.element(index)) for index in range(table.count))
    content = pointers + _PAYLOAD.slots["content"]
    return Results(Params(frame, content, start, end) if content < stop else NO_CONTENT, capabilities)


def _capability(frame: Frame, descriptor: StructAt) -> ImportId | None:
    """Return the import that a CapDescriptor describes; None for none, and for kinds that we cannot use."""
    which = _CAPABILITY.which(frame, descriptor)
    if which in {"senderHosted", "senderPromise"}:
        return ImportId(_CAPABILITY.numbers[which].of(frame, descriptor))
    if which == "thirdPartyHosted":
        # The vine is the capability for peers without three-party support.
        third = slot_at(frame, descriptor, _CAPABILITY.slots[which])
        return ImportId(_THIRD_PARTY.numbers["vineId"].of(frame, third))
    return None


def _exception(frame: Frame, exception: StructAt) -> RemoteException:
    at = exception[1] + _EXCEPTION.slots["reason"]
    reason = text_at(frame, at, exception[3], exception[4]) if at < exception[2] else b""
    kind = _EXCEPTION.numbers["type"].of(frame, exception)
    return RemoteException(reason[:REASON_BYTES_MAX].decode("utf-8", "replace"), kind)


def _abort(frame: Frame, body: StructAt) -> Abort:
    return Abort(_exception(frame, body).reason)


def _bootstrap(frame: Frame, body: StructAt) -> Bootstrap:
    at = body[1] + _BOOTSTRAP.slots["deprecatedObjectId"]
    names_object = at < body[2] and follow(frame, at, body[3], body[4])[0] != 0
    return Bootstrap(AnswerId(_BOOTSTRAP.numbers["questionId"].of(frame, body)), names_object)


def _finish(frame: Frame, body: StructAt) -> Finish:
    first = frame.words[body[0]] if body[0] < body[1] else 0
    return Finish(AnswerId(first & _QUESTION_OF_FINISH), first >> _RELEASE_SHIFT & 1 != _RELEASE_FLIP)


def _release(frame: Frame, body: StructAt) -> Release:
    return Release(ExportId(_RELEASE.numbers["id"].of(frame, body)), _RELEASE.numbers["referenceCount"].of(frame, body))


def _resolve(frame: Frame, body: StructAt) -> Resolve:
    promise = ImportId(_RESOLVE.numbers["promiseId"].of(frame, body))
    if _RESOLVE.which(frame, body) != "cap":
        return Resolve(promise, None)
    return Resolve(promise, _capability(frame, slot_at(frame, body, _RESOLVE.slots["cap"])))


def _disembargo(frame: Frame, body: StructAt) -> Disembargo | Unknown:
    if _DISEMBARGO_CONTEXT.which(frame, body) != "senderLoopback":
        return Unknown(_MESSAGE.members["disembargo"])
    target = _target(frame, slot_at(frame, body, _DISEMBARGO.slots["target"]))
    return Disembargo(target, _DISEMBARGO_CONTEXT.numbers["senderLoopback"].of(frame, body))


def _unimplemented(frame: Frame, body: StructAt) -> UnimplementedMessage:
    return UnimplementedMessage(_MESSAGE.which(frame, body) if body != EMPTY else None)


_READERS: dict[int, Callable[[Frame, StructAt], Message]] = {
    _MESSAGE.members["unimplemented"]: _unimplemented,
    _MESSAGE.members["abort"]: _abort,
    _MESSAGE.members["bootstrap"]: _bootstrap,
    _MESSAGE.members["call"]: _call,
    _MESSAGE.members["return"]: _return,
    _MESSAGE.members["finish"]: _finish,
    _MESSAGE.members["resolve"]: _resolve,
    _MESSAGE.members["release"]: _release,
    _MESSAGE.members["disembargo"]: _disembargo,
}

"""
Encoding RPC messages: each function returns one message, framed for the stream.

The messages of every call (Call, Return, Finish) are packed from a template
that is made once; all other messages are built through their layouts.

A Payload without capabilities is written with one pointer, as if its schema
had no table of them.  The content, whose first word is its root pointer,
follows unchanged and is not copied.
"""

from collections.abc import Sequence
from struct import Struct

from queueber.capnp.builder import Body, pointer_to, struct_body, struct_pointer
from queueber.capnp.framing import framed
from queueber.capnp.layout import Layout, Value, layout
from queueber.capnp.reader import WORD, Frame
from queueber.errors import Kind
from queueber.rpc.messages import AnswerId, ExportId, ImportId, PromisedAnswer, QuestionId

ECHO_BYTES_MAX = 4_096
"""Longest message that Unimplemented echoes with its content."""

_MESSAGE = layout("Message")
_ROOT_WORDS = 1
_BODY_WORDS = _ROOT_WORDS + _MESSAGE.data_words + _MESSAGE.pointers
"""The first word of the Message's member in all messages that we write."""

_CONTENT_FOLLOWS = Body(struct_pointer(0, 1), [], 0)
"""A Payload whose content is written right after it."""


def _message(member: str, fields: Value) -> bytes:
    return _MESSAGE.build(**{member: fields})


def _offset_of(member: Layout, number: str, bits: int) -> int:
    """Return the byte offset of a number of *bits* in a message whose body is a *member*."""
    place = member.numbers[number]
    assert place.mask == (1 << bits) - 1
    return (_BODY_WORDS + place.word) * WORD + place.shift // 8


class _MessageForm:
    """A message in which only a few numbers change from one use to the next."""

    def __init__(self, message: bytes, *numbers: tuple[int, str]) -> None:
        """Keep *message*; each of *numbers* is a byte offset, in ascending order, and a format character."""
        formats, fixed, last = ["<II"], [], 0
        for place, code in numbers:
            formats.append(f"{place - last}s{code}")
            fixed.append(message[last:place])
            last = place + Struct("<" + code).size
        formats.append(f"{len(message) - last}s")
        self.fixed = (*fixed, message[last:])
        self.words = len(message) // WORD
        self.pack = Struct("".join(formats)).pack


_RESULTS = _MessageForm(
    _message("return", {"results": _CONTENT_FOLLOWS}),
    (_offset_of(layout("Return"), "answerId", 32), "I"),
)
_CALL = _MessageForm(
    _message("call", {"target": {"importedCap": 0}, "params": _CONTENT_FOLLOWS}),
    (_offset_of(layout("Call"), "questionId", 32), "I"),
    (_offset_of(layout("Call"), "methodId", 16), "H"),
    (_offset_of(layout("Call"), "interfaceId", 64), "Q"),
    # The target follows the Call.
    ((_BODY_WORDS + layout("Call").data_words + layout("Call").pointers) * WORD, "I"),
)
_FINISH = {
    release: _MessageForm(
        _message("finish", {"releaseResultCaps": release, "requireEarlyCancellationWorkaround": False}),
        (_offset_of(layout("Finish"), "questionId", 32), "I"),
    )
    for release in (True, False)
}
assert layout("MessageTarget").numbers["importedCap"].word == layout("MessageTarget").numbers["importedCap"].shift == 0


def results(answers: Sequence[AnswerId], contents: Sequence[bytes]) -> list[bytes]:
    """Encode a Return for each of *answers*, with one of *contents*, a segment of its own; the result is in pieces."""
    before, after = _RESULTS.fixed
    pack, words = _RESULTS.pack, _RESULTS.words
    pieces: list[bytes] = []
    for answer, content in zip(answers, contents, strict=True):
        pieces += pack(0, words + len(content) // WORD, before, answer, after), content
    return pieces


def results_with_capabilities(answer: AnswerId, content: bytes, exports: Sequence[ExportId]) -> bytes:
    """Encode a Return with *content*, a segment of its own, whose capability pointers are indices into *exports*."""
    payload = {
        "content": Body(int.from_bytes(content[:WORD], "little"), [content[WORD:]], len(content) // WORD - 1),
        "capTable": [{"senderHosted": export} for export in exports],
    }
    return framed(_message("return", {"answerId": answer, "results": payload}))


def exception(answer: AnswerId, kind: Kind, reason: str) -> bytes:
    """Encode a Return with an exception."""
    return framed(_message("return", {"answerId": answer, "exception": {"type": kind, "reason": reason}}))


def canceled(answer: AnswerId) -> bytes:
    """Encode a Return for a call that was finished and then canceled."""
    return framed(_message("return", {"answerId": answer, "canceled": None}))


def bootstrap(question: QuestionId) -> bytes:
    """Encode a Bootstrap."""
    return framed(_message("bootstrap", {"questionId": question}))


def call(question: QuestionId, target: ImportId, interface_id: int, method_id: int, content: bytes) -> bytes:
    """Encode a Call to an import without its *content*, a segment of its own that must be written next."""
    first, second, third, fourth, last = _CALL.fixed
    words = _CALL.words + len(content) // WORD
    return _CALL.pack(0, words, first, question, second, method_id, third, interface_id, fourth, target, last)


def pipelined_call(
    question: QuestionId, target: PromisedAnswer, interface_id: int, method_id: int, content: bytes
) -> bytes:
    """Encode a Call to a capability in the results of another call of ours."""
    fields = {
        "questionId": question,
        "target": {"promisedAnswer": _promised(target)},
        "interfaceId": interface_id,
        "methodId": method_id,
        "params": Body(struct_pointer(0, 1), [content], len(content) // WORD),
    }
    return framed(_message("call", fields))


def finish(question: QuestionId, *, release_result_caps: bool) -> bytes:
    """Encode a Finish.  A call that is still under way may be canceled at once."""
    template = _FINISH[release_result_caps]
    before, after = template.fixed
    return template.pack(0, template.words, before, question, after)


def release(import_id: ImportId, count: int) -> bytes:
    """Encode a Release."""
    return framed(_message("release", {"id": import_id, "referenceCount": count}))


def receiver_loopback(target: ExportId | PromisedAnswer, embargo: int) -> bytes:
    """Encode the reply to a Disembargo with a loopback; the peer finds it by *embargo* alone."""
    named = {"promisedAnswer": _promised(target)} if isinstance(target, PromisedAnswer) else {"importedCap": target}
    return framed(_message("disembargo", {"target": named, "context": {"receiverLoopback": embargo}}))


def abort(reason: str) -> bytes:
    """Encode an Abort."""
    return framed(_message("abort", {"type": Kind.FAILED, "reason": reason}))


def unimplemented(frame: Frame, which: int) -> bytes:
    """
    Encode an Unimplemented that echoes the message in *frame*; *which* is its discriminant.

    A message that is long, or in several segments, is echoed as its kind alone,
    because that is all that readers of an echo use.
    """
    size = frame.end - frame.start
    root = frame.words[frame.start]
    if frame.segments is None and root & 3 == 0 and size * WORD <= ECHO_BYTES_MAX:
        # The segment is embedded unchanged; the pointer to its root is one word further from it than the original.
        segment = [frame.data[frame.start * WORD : frame.end * WORD]]
        body = Body(pointer_to(Body(root, segment, size), 1), segment, size)
        return framed(_message("unimplemented", body))
    return framed(_message("unimplemented", struct_body([which], [None])))


def _promised(target: PromisedAnswer) -> Value:
    path = target.path or ()
    return {"questionId": target.question, "transform": [{"getPointerField": field} for field in path]}

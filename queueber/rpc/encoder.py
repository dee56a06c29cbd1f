"""
RPC messages out: each function gives one message, framed for the stream.

What every call needs (call, return, finish) is cut from a template that is made
once; all other messages are built through their layouts.

A Payload without capabilities is written with one pointer, as if its schema
had no table of them: then the content, whose first word is the pointer to the
rest, follows as it is and need not be copied or changed.
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
"""A longer message that is not implemented is echoed without its content."""

_MESSAGE = layout("Message")
_ROOT_WORDS = 1
_BODY_WORDS = _ROOT_WORDS + _MESSAGE.data_words + _MESSAGE.pointers
"""Where the member of the Message begins in all that we write."""

_CONTENT_FOLLOWS = Body(struct_pointer(0, 1), [], 0)
"""A Payload whose content is written right behind."""


def _of(member: str, fields: Value) -> bytes:
    return _MESSAGE.build(**{member: fields})


def _place(member: Layout, number: str, bits: int) -> int:
    """The byte at which a number of *bits* lies in a message whose body is a *member*."""
    place = member.numbers[number]
    assert place.mask == (1 << bits) - 1
    return (_BODY_WORDS + place.word) * WORD + place.shift // 8


class _Template:
    """A message in which a few numbers differ from one use to the next."""

    def __init__(self, message: bytes, *numbers: tuple[int, str]) -> None:
        """Each of *numbers* is a place, in ascending order, and a format character."""
        formats, fixed, last = ["<II"], [], 0
        for place, code in numbers:
            formats.append(f"{place - last}s{code}")
            fixed.append(message[last:place])
            last = place + Struct("<" + code).size
        formats.append(f"{len(message) - last}s")
        self.fixed = (*fixed, message[last:])
        self.words = len(message) // WORD
        self.pack = Struct("".join(formats)).pack


_RESULTS = _Template(
    _of("return", {"results": _CONTENT_FOLLOWS}),
    (_place(layout("Return"), "answerId", 32), "I"),
)
_CALL = _Template(
    _of("call", {"target": {"importedCap": 0}, "params": _CONTENT_FOLLOWS}),
    (_place(layout("Call"), "questionId", 32), "I"),
    (_place(layout("Call"), "methodId", 16), "H"),
    (_place(layout("Call"), "interfaceId", 64), "Q"),
    # The target is the first thing behind the Call.
    ((_BODY_WORDS + layout("Call").data_words + layout("Call").pointers) * WORD, "I"),
)
_FINISH = {
    release: _Template(
        _of("finish", {"releaseResultCaps": release, "requireEarlyCancellationWorkaround": False}),
        (_place(layout("Finish"), "questionId", 32), "I"),
    )
    for release in (True, False)
}
assert layout("MessageTarget").numbers["importedCap"].word == layout("MessageTarget").numbers["importedCap"].shift == 0


def results(answers: Sequence[AnswerId], contents: Sequence[bytes]) -> list[bytes]:
    """Returns, each with one of *contents*, a segment of its own; in pieces."""
    before, after = _RESULTS.fixed
    pack, words = _RESULTS.pack, _RESULTS.words
    pieces: list[bytes] = []
    for answer, content in zip(answers, contents, strict=True):
        pieces += pack(0, words + len(content) // WORD, before, answer, after), content
    return pieces


def results_with_capabilities(answer: AnswerId, content: bytes, exports: Sequence[ExportId]) -> bytes:
    """A Return whose *content*, a segment of its own, holds capabilities: indices into *exports*."""
    payload = {
        "content": Body(int.from_bytes(content[:WORD], "little"), [content[WORD:]], len(content) // WORD - 1),
        "capTable": [{"senderHosted": export} for export in exports],
    }
    return framed(_of("return", {"answerId": answer, "results": payload}))


def exception(answer: AnswerId, kind: Kind, reason: str) -> bytes:
    """A Return that says why there are no results."""
    return framed(_of("return", {"answerId": answer, "exception": {"type": kind, "reason": reason}}))


def canceled(answer: AnswerId) -> bytes:
    """A Return for a call that was finished before it was answered."""
    return framed(_of("return", {"answerId": answer, "canceled": None}))


def bootstrap(question: QuestionId) -> bytes:
    """A Bootstrap."""
    return framed(_of("bootstrap", {"questionId": question}))


def call(question: QuestionId, target: ImportId, interface_id: int, method_id: int, content: bytes) -> bytes:
    """All of a Call to an import but its *content*, a segment of its own that must be written next."""
    first, second, third, fourth, last = _CALL.fixed
    words = _CALL.words + len(content) // WORD
    return _CALL.pack(0, words, first, question, second, method_id, third, interface_id, fourth, target, last)


def pipelined_call(
    question: QuestionId, target: PromisedAnswer, interface_id: int, method_id: int, content: bytes
) -> bytes:
    """A Call to what another call of ours will return."""
    fields = {
        "questionId": question,
        "target": {"promisedAnswer": _promised(target)},
        "interfaceId": interface_id,
        "methodId": method_id,
        "params": Body(struct_pointer(0, 1), [content], len(content) // WORD),
    }
    return framed(_of("call", fields))


def finish(question: QuestionId, *, release_result_caps: bool) -> bytes:
    """A Finish.  If the call is still at work it may be cancelled at once."""
    template = _FINISH[release_result_caps]
    before, after = template.fixed
    return template.pack(0, template.words, before, question, after)


def release(import_id: ImportId, count: int) -> bytes:
    """A Release."""
    return framed(_of("release", {"id": import_id, "referenceCount": count}))


def receiver_loopback(target: ExportId | PromisedAnswer, embargo: int) -> bytes:
    """The answer to a Disembargo with a loopback, which the peer knows by its *embargo* alone."""
    named = {"promisedAnswer": _promised(target)} if isinstance(target, PromisedAnswer) else {"importedCap": target}
    return framed(_of("disembargo", {"target": named, "context": {"receiverLoopback": embargo}}))


def abort(reason: str) -> bytes:
    """An Abort."""
    return framed(_of("abort", {"type": Kind.FAILED, "reason": reason}))


def unimplemented(frame: Frame, which: int) -> bytes:
    """
    The message in *frame*, sent back because nobody here knows it; *which* is its discriminant.

    A message that is long, or in several segments, is sent back as its kind
    alone: nothing that reads an echo looks further.
    """
    size = frame.end - frame.start
    root = frame.words[frame.start]
    if frame.segments is None and root & 3 == 0 and size * WORD <= ECHO_BYTES_MAX:
        # The segment is embedded as it is; the pointer to its root lies one word further from it than its own did.
        segment = [frame.data[frame.start * WORD : frame.end * WORD]]
        body = Body(pointer_to(Body(root, segment, size), 1), segment, size)
        return framed(_of("unimplemented", body))
    return framed(_of("unimplemented", struct_body([which], [None])))


def _promised(target: PromisedAnswer) -> Value:
    path = target.path or ()
    return {"questionId": target.question, "transform": [{"getPointerField": field} for field in path]}

"""
Patterns: what calls that repeat one another have in common.

`make_pattern` describes a call that was read in full, so that `fastpath` can
read the next ones like it without following a pointer.  The parameters are
described by a `Template`, whose reader is injected per (interface, method):
this module knows no method.  The rest of the frame (the Message, the Call, its
target and its Payload) is checked here.

Builders differ in where they put the target: before the parameters, or after
them, as those of C++ and Rust do.  In the second case the pointer to the
target leads over the contents, and its offset grows with them.
"""

from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from typing import Any, Final, NamedTuple, TypeAlias

from queueber.capnp.builder import LIST_COUNT_SHIFT, STRUCT_LIST
from queueber.capnp.layout import layout
from queueber.capnp.reader import WORD, Frame
from queueber.errors import QueueberError
from queueber.rpc.answers import HeldResults
from queueber.rpc.callee import Callee
from queueber.rpc.exports import Export
from queueber.rpc.messages import AnswerId, Call, ExportId, Params, PromisedAnswer

FIXED_BYTES_MAX: Final = 512
"""Longest fixed part of a call's parameters, and of the end of its frame; an honest client's is a tenth of it."""

_NO_FIELDS: Final = Struct("")
_NO_ANSWER: Final = AnswerId(-1)


class Template(NamedTuple):
    """
    Reads the parameters of calls that differ only in a few fields from one that was read in full.

    The fields are Data of a fixed length at fixed places, or one Data of any
    length, the tail.  Positions are words, counted from the pointer to the
    parameters.
    """

    fixed: int
    """Words from that pointer on that must be equal."""

    begin: int
    """The first word of the fields or the tail."""

    end: int
    """The end of the fields, or of an empty tail."""

    requests: Callable[[list[Any]], list[Any]]
    """Makes a list of requests of what was extracted from each call: the tuple of fields, or the bytes of the tail."""

    fields: Struct = _NO_FIELDS
    """The format of the fields."""

    tail: int | None = None
    """The most bytes that the tail may have; None without one.  The pointer to it is the word `fixed`."""

    tail_pointer: int = 0
    """The pointer to the tail, for an empty tail."""


TemplateReader: TypeAlias = Callable[[Params], Template | None]
"""Makes a template of sound parameters; None for parameters that cannot be one."""

TemplateReaders: TypeAlias = Mapping[tuple[int, int], TemplateReader]
"""Readers by interface id and method id."""


class FrameLayout(NamedTuple):
    """
    The bytes that the frames of a pattern have in common, and where their fields or their tail are.

    Frames of one pattern are equal but for the question id, the fields or the
    tail, and the offsets of pointers that lead over the tail.
    """

    words: int
    """Length of the frame with its header and an empty tail."""

    unpack: Callable[[bytes, int], tuple[Any, ...]]
    """Unpacks a frame, from the root pointer on: `CALL_HEAD`, the question id, and what must equal `expected`."""

    expected: bytes | list[Any]
    """The bytes from the question id up to `fixed`; if pointers among them move, a list of these and of the rest."""

    moving: Sequence[int]
    """The indices in that list of pointers that lead over the tail.  They are given for an empty one."""

    after: bytes
    """The end of the frame, if the target lies there; empty otherwise."""

    begin: int
    """Bytes from the frame header to the fields or the tail."""

    fields: Callable[[bytes, int], tuple[Any, ...]]
    """Unpacks the fields."""

    tail_max: int | None
    """The most bytes that the tail may have; None without one."""

    tail: int
    """Words from the frame header to the pointer to the tail."""

    tail_pointer: int
    """The pointer to the tail, for an empty tail."""


class Pattern(NamedTuple):
    """A template together with the rest of the frame."""

    layout: FrameLayout
    requests: Callable[[list[Any]], list[Any]]
    """Makes the requests, as in `Template`."""

    interface_id: int
    method_id: int
    export: Export
    """The object that is called."""

    export_id: ExportId | None
    """The id by which the calls name it; None if they name a capability in results."""

    question: AnswerId
    """The answer that returned those results, or `_NO_ANSWER`."""

    held: HeldResults | None
    """The results that `question` returned: another answer may have the number later."""


# A frame begins with its header, the root pointer, the Message's only data word, and the pointer to its member.
# A Call and a Finish follow right after, and the question id is the first half of their first word.
_MESSAGE = layout("Message")
_CALL = layout("Call")
_FINISH = layout("Finish")
_MESSAGE_TARGET = layout("MessageTarget")
_PROMISED_ANSWER = layout("PromisedAnswer")
assert (_MESSAGE.data_words, _MESSAGE.pointers) == (1, 1)
assert (_FINISH.data_words, _FINISH.pointers) == (1, 0)
for _each in (_CALL, _FINISH):
    assert (_each.numbers["questionId"].word, _each.numbers["questionId"].shift) == (0, 0)
    assert _each.numbers["questionId"].mask == (1 << 32) - 1

BODY: Final = 4
"""Words from the frame header to the Call or Finish."""

_HEAD: Final = Struct("<3Q")
CALL_HEAD: Final = _HEAD.pack(_MESSAGE.pointer, _MESSAGE.members["call"], _CALL.pointer)
FINISH_HEAD: Final = _HEAD.pack(_MESSAGE.pointer, _MESSAGE.members["finish"], _FINISH.pointer)
FINISH_WORDS: Final = BODY + _FINISH.data_words

_QUESTION_END: Final = BODY * WORD + 4
"""Bytes from the frame header to the end of the question id."""

_TARGET: Final = BODY + _CALL.data_words + _CALL.slots["target"]
_PARAMS: Final = BODY + _CALL.data_words + _CALL.slots["params"]
_CALL_END: Final = BODY + _CALL.data_words + _CALL.pointers
"""Words from the frame header to the pointers to target and Payload, and to the end of the Call."""

_CAPABILITIES: Final = layout("Payload").slots["capTable"] - layout("Payload").slots["content"]
"""Words from the pointer to the parameters to the one to their capabilities, if the Payload has that."""

_BITS_32: Final = (1 << 32) - 1
_NOT_NEAR_STRUCT: Final = 3 | 1 << 31
"""The bits of a pointer that are 0 if it leads forward, within its segment, to a struct."""

_NOT_NEAR: Final = 2 | 1 << 31
"""The bits of a pointer that are 0 if it leads forward, within its segment, to a struct or a list."""


def pattern_key(words: Sequence[int], at: int, end: int) -> tuple[int, ...]:
    """
    Return numbers by which to look up the pattern of the call in the frame *at* to *end*: its method and its target.

    Whether the frame fits the pattern is not known before it has been compared.
    """
    target = at + _TARGET + 1 + ((words[at + _TARGET] & _BITS_32) >> 2) if at + _TARGET < end else end
    if target >= end:
        return ()
    # The question of a promised answer is two words after the target, as all builders lay it out.
    question = words[target + 2] if words[target] > _BITS_32 and target + 2 < end else 0
    return words[at + BODY] >> 32, words[at + BODY + 1], words[target], question


def make_pattern(read: TemplateReader, frame: Frame, call: Call, callee: Callee) -> Pattern | None:
    """
    Make a pattern of *call*, which was read in full from *frame*.

    Returns:
        None unless all words that were looked at lie before the fields or the
        tail or, if they belong to the target, after them, and are reached by
        near pointers that lead forward.
    """
    data, words, params, at = frame.data, frame.words, call.params, frame.start - 1
    if frame.segments is not None or params.frame is not frame or not call.to_caller:
        return None
    if data[frame.start * WORD : frame.start * WORD + _HEAD.size] != CALL_HEAD:
        return None
    template, target, payload = _template(read, params), _target_words(frame, call), _struct_words(words, at + _PARAMS)
    called = _called(call, callee)
    if template is None or target is None or payload is None or called is None:
        return None
    fixed, begin, end = params.at + template.fixed, params.at + template.begin, params.at + template.end
    extra = 0 if template.tail is None else (words[fixed] >> LIST_COUNT_SHIFT) + WORD - 1 >> 3
    end += extra
    # The words of the target are compared with the fixed ones, or with the end of the frame.
    is_after = target[1] > fixed
    after = data[end * WORD : frame.end * WORD] if is_after else b""
    if max(payload[1], at + _CALL_END) > fixed or (is_after and target[0] < end):
        return None
    if max(template.fixed * WORD, len(after)) > FIXED_BYTES_MAX:
        return None
    places = [at + _TARGET, params.at + _CAPABILITIES] if template.tail is not None else []
    moving_at = [place for place in places if place < fixed and _leads_beyond(words, place, end)]
    unpack, expected, moving = _comparison(frame, moving_at, fixed, extra)
    frame_layout = FrameLayout(
        frame.end - at - extra,
        unpack,
        expected,
        moving,
        after,
        (begin - at) * WORD,
        template.fields.unpack_from,
        template.tail,
        fixed - at,
        template.tail_pointer,
    )
    return Pattern(frame_layout, template.requests, call.interface_id, call.method_id, *called)


def _comparison(
    frame: Frame, moving: Sequence[int], fixed: int, extra: int
) -> tuple[Callable[[bytes, int], tuple[Any, ...]], bytes | list[Any], Sequence[int]]:
    """Return `unpack`, `expected` and `moving` of a `FrameLayout`; pointers that lead over the tail are at *moving*."""
    form, last = [f"<{_HEAD.size}sI"], (frame.start - 1) * WORD + _QUESTION_END
    for place in moving:
        form.append(f"{place * WORD - last}sQ")
        last = (place + 1) * WORD
    unpack = Struct("".join([*form, f"{fixed * WORD - last}s"])).unpack_from
    _, _, *expected = unpack(frame.data, frame.start * WORD)
    indices = tuple(range(1, 2 * len(moving), 2))
    for index in indices:
        expected[index] -= extra << 2
    return unpack, expected if moving else expected[0], indices


def _template(read: TemplateReader, params: Params) -> Template | None:
    """Return what *read* makes of *params*, and leave their budget as it was: the call has still to be carried out."""
    frame = params.frame
    budget = frame.budget
    try:
        return read(params)
    except QueueberError:
        return None
    finally:
        frame.budget = budget


def _called(call: Call, callee: Callee) -> tuple[Export, ExportId | None, AnswerId, HeldResults | None] | None:
    """Return the object that is called and how the call names it, as `Pattern` has them."""
    if isinstance(call.target, PromisedAnswer):
        question = AnswerId(call.target.question)
        held = callee.answers.held.get(question)
        export = None if held is None or call.target.path is None else held.find(call.target.path)
        return None if export is None else (export, None, question, held)
    export = None if call.target is None else callee.exports.get(call.target)
    return None if export is None else (export, call.target, _NO_ANSWER, None)


def _struct_words(words: Sequence[int], at: int) -> tuple[int, int, int] | None:
    """
    Follow the pointer at *at* to a struct: its first word, its end, and its first pointer.

    Returns:
        None unless it leads forward, within the segment.
    """
    word = words[at]
    if word & _NOT_NEAR_STRUCT or not word:
        return None
    body = at + 1 + ((word & _BITS_32) >> 2)
    pointers = body + (word >> 32 & 0xFFFF)
    return body, pointers + (word >> 48), pointers


def _target_words(frame: Frame, call: Call) -> tuple[int, int] | None:
    """Return the first word and the end of what names the target of *call*; None unless all pointers lead forward."""
    words = frame.words
    target = _struct_words(words, frame.start - 1 + _TARGET)
    if target is None or not isinstance(call.target, PromisedAnswer):
        return None if target is None else target[:2]
    slot = target[2] + _MESSAGE_TARGET.slots["promisedAnswer"]
    promised = _struct_words(words, slot) if slot < target[1] else None
    if promised is None:
        return None
    end = max(target[1], promised[1])
    transform = promised[2] + _PROMISED_ANSWER.slots["transform"]
    if transform < promised[1] and words[transform]:
        word = words[transform]
        if word & _NOT_NEAR or word & STRUCT_LIST != STRUCT_LIST:
            return None
        # The list has a word more than its pointer says, the tag.
        end = max(end, transform + 2 + ((word & _BITS_32) >> 2) + (word >> LIST_COUNT_SHIFT))
    return target[0], end


def _leads_beyond(words: Sequence[int], at: int, end: int) -> bool:
    """Return whether the pointer at *at* leads forward to *end* or beyond."""
    word = words[at]
    return bool(word) and not word & _NOT_NEAR and at + 1 + ((word & _BITS_32) >> 2) >= end

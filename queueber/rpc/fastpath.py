"""
Reading calls that repeat an earlier one, without following a pointer.

A client sends nearly the same message again and again: from one call to the
next the question id changes, and a few fields of the parameters.  All other
bytes, those that name the object and the method and those that say where the
fields lie, are equal.  Equal bytes read equal, so they are compared with a
template in one step, and only the fields are taken out.

`FastPath.take` walks the messages of one read in a single loop.  Two kinds of
message stay on the fast path: a Finish of an answer that was returned and
holds nothing, and a call that fits a template.  The first message of any other
kind ends the batch and is read in full.  After such a miss the fast path backs
off for 1, 2, 4, … 64 messages, so that traffic it cannot help costs nothing
measurable.

A template is made of a call that was read in full.  `Template` describes the
parameters and comes from a reader that is injected per (interface, method):
this module knows no method.  What comes before the parameters (the Message,
the Call, its target and its Payload) is checked here.
"""

from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from typing import Any, Final, TypeAlias

from attrs import define

from queueber.capnp.builder import LIST_COUNT_SHIFT
from queueber.capnp.framing import Framer
from queueber.capnp.layout import layout
from queueber.capnp.reader import WORD, Frame, struct_at
from queueber.errors import QueueberError
from queueber.limits import Limits
from queueber.rpc.answers import State
from queueber.rpc.callee import Callee
from queueber.rpc.events import Calls
from queueber.rpc.messages import AnswerId, Call, ExportId, Params

TEMPLATE_BYTES_MAX: Final = 512
"""Longest parameters of a template; those of honest clients are a tenth of it."""

TEMPLATES_MAX: Final = 16
"""Templates per connection: a client has one for each method of each object it calls."""

BACKOFF_MAX: Final = 64
"""Messages that are read in full after a miss, at most."""


@define(eq=False)
class Template:
    """
    How to read the parameters of calls that differ from one that was read in full in their fields only.

    Positions count from the pointer to the parameters.
    """

    fixed: int
    """Words from that pointer on that must be equal."""

    words: int
    """Words that the parameters must have, at least."""

    requests: Callable[[list[Any]], list[Any]]
    """Makes a list of requests out of what was taken from each call."""

    fields: tuple[int, Struct] | None = None
    """Where fields of a fixed length lie, in bytes, and the format that takes them; a call gives the tuple of them."""

    tail: int | None = None
    """The largest Data, in bytes, that the pointer in word `fixed` may lead to; a call gives its bytes."""

    tail_pointer: int = 0
    """All of that pointer but the length of the Data."""


TemplateReader: TypeAlias = Callable[[Params], Template | None]
"""Makes a template of sound parameters; None for parameters that cannot be one."""

TemplateReaders: TypeAlias = Mapping[tuple[int, int], TemplateReader]
"""Readers by interface id and method id."""


@define(eq=False)
class _Known:
    """A template with the beginning of its calls."""

    target: ExportId
    interface_id: int
    method_id: int
    fixed: bytes
    """The bytes of the message from behind the question id on that must be equal."""

    template: Template
    words: int
    """Words that a message must have with its frame header, at least."""

    fields: int
    """Where the template's fields begin: bytes from the frame header on."""

    tail: int
    """The word with the pointer to the tail, from the frame header on."""

    tail_begin: int
    """Where the tail begins: bytes from the frame header on."""


# A message begins with its frame header, the root pointer, the Message's only data word, and the pointer to its
# member.  A Call and a Finish follow right after, and the question id is the first half of their first word.
_MESSAGE = layout("Message")
_CALL = layout("Call")
_FINISH = layout("Finish")
assert (_MESSAGE.data_words, _MESSAGE.pointers) == (1, 1)
assert (_FINISH.data_words, _FINISH.pointers) == (1, 0)
for _each in (_CALL, _FINISH):
    assert (_each.numbers["questionId"].word, _each.numbers["questionId"].shift) == (0, 0)
    assert _each.numbers["questionId"].mask == (1 << 32) - 1

_BODY: Final = 4
"""The first word of a Call or Finish, from the frame header on."""

_QUESTION_END: Final = _BODY * WORD + 4
_HEAD: Final = Struct("<3Q")
_CALL_HEAD: Final = _HEAD.pack(_MESSAGE.pointer, _MESSAGE.members["call"], _CALL.pointer)
_FINISH_HEAD: Final = _HEAD.pack(_MESSAGE.pointer, _MESSAGE.members["finish"], _FINISH.pointer)
_FINISH_WORDS: Final = _BODY + 1

_AFTER_CALL: Final = _BODY + _CALL.data_words + _CALL.pointers
_KEY_END: Final = (_AFTER_CALL + 4) * WORD
"""A Call, its MessageTarget of two words and its Payload of one or two: these bytes name the object and the method."""

_BITS_32: Final = (1 << 32) - 1
_NO_TEMPLATE: Final = Template(0, 0, list)
_TAIL_POINTER: Final = (1 << LIST_COUNT_SHIFT) - 1


_RUNNING, _RETURNED = State.RUNNING, State.RETURNED


class FastPath:
    """The templates of one connection; the module says how they are used."""

    def __init__(self, readers: TemplateReaders, framer: Framer, callee: Callee, limits: Limits) -> None:
        self._readers = readers
        self._framer = framer
        self._answers = callee.answers
        self._exports = callee.exports
        self._calls_max = limits.outstanding_calls
        self._open_max = limits.open_answers
        self._words_max = limits.frame_bytes // WORD
        self._known: dict[bytes, _Known] = {}
        self._skip = 0
        """Messages that are still to be read in full."""

        self._backoff = 1
        self._missed = False
        """The message that comes next was tried and did not fit."""

    def take(self) -> Calls | None:
        """
        Take in the messages that come next, as long as they fit.

        Returns:
            The calls among them, which are of one template; None if there are none.
        """
        if self._skip:
            self._skip -= 1
            self._missed = False
            return None
        framer = self._framer
        begin = framer.at
        calls = self._walk(framer.data, framer.words)
        self._missed = False
        if framer.at != begin:
            self._backoff = 1
        elif framer.has_next:
            self._missed = True
            self._skip = self._backoff
            self._backoff = min(2 * self._backoff, BACKOFF_MAX)
        return calls

    def _walk(self, data: bytes, words: Sequence[int]) -> Calls | None:  # noqa: C901, PLR0912, PLR0915
        """One loop without a call of Python's, because whatever is in here is paid for with every message."""
        answers = self._answers
        states, held, failures, unanswered = answers.states, answers.held, answers.failures, answers.unanswered
        at, count = self._framer.at, len(words)
        known, target, template = None, None, _NO_TEMPLATE
        numbers: list[AnswerId] = []
        taken: list[Any] = []
        sizes: list[int] = []
        while at < count:
            header, first = words[at], at * WORD
            length = (header >> 32) + 1
            end = at + length
            if header & _BITS_32 or end > count or length > self._words_max:
                break
            if length == _FINISH_WORDS and data.startswith(_FINISH_HEAD, first + WORD):
                answer = AnswerId(words[at + _BODY] & _BITS_32)
                if states.get(answer) is not _RETURNED or answer in held or answer in failures:
                    break
                del states[answer]
                at = end
                continue
            if known is None:
                known = self._known.get(data[first + _QUESTION_END : first + _KEY_END])
                export = None if known is None else self._exports.get(known.target)
                if known is None or export is None:
                    break
                target, template = export.object, known.template
            if (
                length < known.words
                or not data.startswith(known.fixed, first + _QUESTION_END)
                or not data.startswith(_CALL_HEAD, first + WORD)
            ):
                break
            answer = AnswerId(words[at + _BODY] & _BITS_32)
            if answer in states or unanswered >= self._calls_max or len(states) >= self._open_max:
                break
            if template.tail is not None:
                pointer = words[at + known.tail]
                size = pointer >> LIST_COUNT_SHIFT
                begin = first + known.tail_begin
                if pointer & _TAIL_POINTER != template.tail_pointer or size > template.tail:
                    break
                if begin + size > end * WORD:
                    break
                taken.append(data[begin : begin + size])
            elif template.fields is not None:
                taken.append(template.fields[1].unpack_from(data, first + known.fields))
            states[answer] = _RUNNING
            unanswered += 1
            numbers.append(answer)
            sizes.append((length - 1) * WORD)
            at = end
        self._framer.at = at
        answers.unanswered = unanswered
        if known is None or not numbers:
            return None
        requests = template.requests(taken) if taken else template.requests([()] * len(numbers))
        return Calls(numbers, target, known.interface_id, known.method_id, requests, sizes)

    def learn(self, frame: Frame, call: Call) -> None:
        """Make a template of *call*, which was read from *frame* after a miss, if it can be one."""
        read = self._readers.get((call.interface_id, call.method_id))
        if not self._missed or read is None or not isinstance(call.target, int) or not _is_usual(frame, call):
            return
        first = (frame.start - 1) * WORD
        key = frame.data[first + _QUESTION_END : first + _KEY_END]
        if len(self._known) >= TEMPLATES_MAX and key not in self._known:
            return
        template = _template(read, call.params)
        begin = call.params.at - (frame.start - 1)
        if template is None or template.fixed * WORD > TEMPLATE_BYTES_MAX or (begin + template.fixed) * WORD < _KEY_END:
            return
        if key not in self._known:
            # What comes next may be like it.  One that replaces another promises less.
            self._skip = 0
        tail = begin + template.fixed
        self._known[key] = _Known(
            call.target,
            call.interface_id,
            call.method_id,
            frame.data[first + _QUESTION_END : first + tail * WORD],
            template,
            max(begin + template.words, tail, _KEY_END // WORD),
            begin * WORD + (template.fields[0] if template.fields is not None else 0),
            tail,
            (tail + 1 + ((template.tail_pointer & _BITS_32) >> 2)) * WORD,
        )


def _template(read: TemplateReader, params: Params) -> Template | None:
    """What *read* makes of *params*, which are read once more by whoever carries out the call."""
    frame = params.frame
    budget = frame.budget
    try:
        return read(params)
    except QueueberError:
        return None
    finally:
        frame.budget = budget


def _is_usual(frame: Frame, call: Call) -> bool:
    """Whether all that was read of *call* up to its parameters lies in `_KEY_END`, reached by near pointers."""
    words, start = frame.words, frame.start
    if frame.segments is not None or frame.end - start + 1 < _KEY_END // WORD:
        return False
    if frame.data[start * WORD : start * WORD + _HEAD.size] != _CALL_HEAD:
        return False
    if not call.to_caller or call.params.frame is not frame:
        return False
    header = start - 1
    for slot in ("target", "params"):
        pointer = header + _BODY + _CALL.data_words + _CALL.slots[slot]
        body, _, stop, _, _ = struct_at(frame, pointer, start, frame.end)
        if words[pointer] & 3 or body < header + _AFTER_CALL or stop > header + _KEY_END // WORD:
            return False
    return True

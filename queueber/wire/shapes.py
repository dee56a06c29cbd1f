"""
Calls that begin as an earlier one did.

A client says nearly the same again and again: from one call to the next the
question's number changes, and what the parameters end with.  Everything that
says which method of which object is called, and where the parameters lie, are
the same bytes.  Bytes that are the same are read the same, so they are looked
up, with two steps of C, in place of being taken apart.

A shape is learned only from a message of one segment in which all that was
read lies within those bytes, reached by near pointers, and none of it in the
word that changes.  So it can never say anything that reading would not say.
"""

from attrs import define, field

from queueber.wire.layout import layout
from queueber.wire.messages import AnswerId, Call, Shape
from queueber.wire.reader import WORD, Frame, struct_at

_MESSAGE = layout("Message")
_CALL = layout("Call")
_QUESTION = _CALL.numbers["questionId"]

_ROOT, _MEMBER, _POINTER = _MESSAGE.pointer, _MESSAGE.members["call"], _CALL.pointer
_BODY = 1 + _MESSAGE.data_words + _MESSAGE.pointers
"""Where the Call begins: behind the root pointer and the Message, which must be as every builder lays them."""

_TARGET = _BODY + _CALL.data_words + _CALL.slots["target"]
_PARAMS = _BODY + _CALL.data_words + _CALL.slots["params"]
_FIRST_FREE = _BODY + _CALL.data_words + _CALL.pointers

_KEY_WORDS = _FIRST_FREE + 4
"""A Call, its MessageTarget of two words, and its Payload of one or two: with these everything is said."""

# The question's number is the first half of the Call's first word.  What is before it is compared word by word.
assert (_QUESTION.word, _QUESTION.shift, _QUESTION.mask) == (0, 0, (1 << 32) - 1)
assert (_MESSAGE.data_words, _MESSAGE.pointers) == (1, 1)
QUESTION_AT, QUESTION_BYTES = _BODY * WORD, 4
"""Where in a Call the question's number is, behind the message's first word, and how long."""

_KEY_FROM = QUESTION_AT + QUESTION_BYTES
KEY_TO = _KEY_WORDS * WORD
"""Up to where the bytes of a shape reach, behind the message's first word."""

_BITS_32 = (1 << 32) - 1

_SHAPES_MAX = 16
"""A client has one for each method and object it calls; who varies more than that is read word by word."""


@define(eq=False)
class Shapes:
    """The shapes of one peer's calls."""

    _known: dict[bytes, Shape] = field(factory=dict, init=False)

    def find(self, frame: Frame) -> Shape | None:
        """The shape of the call in *frame*; None for one that is new, and for other messages."""
        words, start = frame.words, frame.start
        if frame.end - start < _KEY_WORDS or words[start + 1] != _MEMBER or frame.segments is not None:
            return None
        if words[start] != _ROOT or words[start + 2] != _POINTER:
            return None
        first = start * WORD
        return self._known.get(frame.data[first + _KEY_FROM : first + KEY_TO])

    def learn(self, frame: Frame, call: Call) -> None:
        """Take note of *call*, which was read from *frame*, if others can be known by it."""
        words, start = frame.words, frame.start
        if len(self._known) >= _SHAPES_MAX or frame.segments is not None or frame.end - start < _KEY_WORDS:
            return
        if (words[start], words[start + 1], words[start + 2]) != (_ROOT, _MEMBER, _POINTER):
            return
        if not isinstance(call.target, int) or not call.to_caller or call.params.frame is not frame:
            return
        for pointer in (start + _TARGET, start + _PARAMS):
            body, _, stop, _, _ = struct_at(frame, pointer, start, frame.end)
            if words[pointer] & 3 or body < start + _FIRST_FREE or stop > start + _KEY_WORDS:
                return
        first = start * WORD
        shape = Shape(call.target, call.interface_id, call.method_id, call.params.at - start)
        self._known[frame.data[first + _KEY_FROM : first + KEY_TO]] = shape


def question_of(frame: Frame) -> AnswerId:
    """The number of the call in *frame*, which has a shape."""
    return AnswerId(frame.words[frame.start + _BODY] & _BITS_32)

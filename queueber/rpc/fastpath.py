"""
The fast path for calls that repeat an earlier one.

A client sends nearly the same message again and again: from one call to the
next the question id changes, and a few fields of the parameters.  All other
bytes, which name the object and the method and lay out the parameters, are
equal, and equal bytes read equal.  They are compared with those of an earlier
call in one step, and only the fields are extracted.

`FastPath.take` walks the messages of one read in a single loop.  Two kinds of
message stay on the fast path: a Finish of an answer that was returned and
holds nothing, and a call that fits a pattern.  Calls of one pattern in a row
are one batch.  The first message of any other kind ends the walk and is read
in full.  After such a miss the fast path backs off for 1, 2, 4, … 64 messages,
so that traffic it cannot help costs nothing measurable.

Two other modules hold what runs once for each pattern, not once for each
message.  `patterns` makes a pattern of a call that was read in full, and knows
the frame but no method.  `api.templates` describes the parameters of the
queue's methods, and is injected, because this layer knows no method.
"""

from typing import Any, Final

from queueber.capnp.builder import LIST_COUNT_SHIFT
from queueber.capnp.framing import Framer
from queueber.capnp.reader import WORD, Frame
from queueber.rpc.answers import AnswerState
from queueber.rpc.callee import Callee
from queueber.rpc.events import Calls
from queueber.rpc.messages import AnswerId, Call, Message
from queueber.rpc.patterns import (
    BODY,
    CALL_HEAD,
    FINISH_HEAD,
    FINISH_WORDS,
    Pattern,
    TemplateReaders,
    make_pattern,
    pattern_key,
)

PATTERNS_MAX: Final = 16
"""Patterns per connection: a client has one for each method of each object it calls.  A new one evicts the oldest."""

BACKOFF_MAX: Final = 64
"""The most messages that are read in full after a miss."""

_BITS_32: Final = (1 << 32) - 1
_POINTER_OF_TAIL: Final = (1 << LIST_COUNT_SHIFT) - 1
"""All of a pointer to Data but its length."""

_new: Final = tuple.__new__
"""Makes a named tuple of a plain one, in a third of the time that its class takes."""

_RETURNED: Final = AnswerState.RETURNED
_RUNNING: Final = AnswerState.RUNNING


class FastPath:
    """
    The patterns of one connection; the module's docstring explains their use.

    Each message pays for what is in the loop of `take`, so that calls no
    function but those written in C.
    """

    def __init__(self, readers: TemplateReaders, framer: Framer, callee: Callee) -> None:
        self._readers = readers
        self._framer = framer
        self._callee = callee
        self._answers = callee.answers
        self._patterns: dict[tuple[int, ...], Pattern] = {}
        self._skip = 0
        """Messages that are still to be read in full."""

        self._backoff = 1
        """Messages that are read in full after the next miss."""

    def take(self) -> Calls | None:  # noqa: C901, PLR0912, PLR0915
        """Take messages from the framer as long as they fit; return the calls among them, all of one pattern."""
        if self._skip:
            return None
        framer, answers = self._framer, self._answers
        data, words, at, words_max = framer.data, framer.words, framer.at, framer.words_max
        states, held, failures, count = answers.states, answers.held, answers.failures, len(words)
        room = min(answers.unanswered_max - answers.unanswered, answers.open_max - len(states))
        batch: tuple[Pattern | None, dict[AnswerId, AnswerState], list[Any], list[int]] = (None, {}, [], [])
        pattern, begun, taken, sizes = batch
        while at < count:
            header, first = words[at], at * WORD
            end = at + (length := (header >> 32) + 1)
            if header & _BITS_32 or end > count or length > words_max:
                break
            if length == FINISH_WORDS and data.startswith(FINISH_HEAD, first + WORD):
                finished: Any = words[at + BODY] & _BITS_32  # without `AnswerId`, which would be a Python call
                if states.get(finished) is not _RETURNED or finished in held or finished in failures:
                    break
                del states[finished]
                at = end
                continue
            if pattern is None:
                pattern = self._patterns.get(pattern_key(words, at, end))
                if pattern is None or held.get(pattern.question) is not pattern.held:
                    break
                if pattern.held is None and pattern.export.id != pattern.export_id:
                    break
                least, unpack, expected, moving, after, begin, fields, tail_max, tail, tail_pointer = pattern.layout
            if length < least or not room:
                break
            size = extra = 0  # bytes and words of the tail
            if tail_max is not None:
                pointer = words[at + tail]
                size = pointer >> LIST_COUNT_SHIFT
                extra = size + 7 >> 3
                if size > tail_max or pointer & _POINTER_OF_TAIL != tail_pointer:
                    break
            if moving:
                head, answer, *parts = unpack(data, first + WORD)
                for index in moving:
                    parts[index] -= extra << 2
            else:
                head, answer, parts = unpack(data, first + WORD)
            if parts != expected or length != least + extra or head != CALL_HEAD or answer in states or answer in begun:
                break
            if after and not data.startswith(after, end * WORD - len(after)):
                break
            first += begin
            taken.append(fields(data, first) if tail_max is None else data[first : first + size])
            begun[answer] = _RUNNING
            sizes.append((length - 1) * WORD)
            at, room = end, room - 1
        framer.skip_to(at)
        if pattern is None or not begun:
            return None
        states.update(begun)
        numbers, answers.unanswered = list(begun), answers.unanswered + len(begun)
        self._backoff, requests = 1, pattern.requests(taken)
        return _new(Calls, (numbers, pattern.export.object, pattern.interface_id, pattern.method_id, requests, sizes))

    def learn(self, frame: Frame, message: Message) -> None:
        """Take note of *message*, which was read in full: back off, or make a pattern of it if it did not fit one."""
        if self._skip:
            self._skip -= 1
            return
        self._skip = self._backoff
        self._backoff = min(2 * self._backoff, BACKOFF_MAX)
        if type(message) is not Call or frame.segments is not None:
            return
        read = self._readers.get((message.interface_id, message.method_id))
        key = pattern_key(frame.words, frame.start - 1, frame.end)
        pattern = None if read is None else make_pattern(read, frame, message, self._callee)
        if pattern is None:
            return
        if key not in self._patterns and len(self._patterns) < PATTERNS_MAX:
            # The next calls may be like it.  A pattern that replaces another promises less.
            self._skip = 0
        elif key not in self._patterns:
            del self._patterns[next(iter(self._patterns))]
        self._patterns[key] = pattern

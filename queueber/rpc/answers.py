"""
Answers: the calls that the peer has made.

State model
-----------

1. RUNNING    the call is under way; the peer still wants its results.
2. ABANDONED  the peer sent Finish first.  The Return is still owed, but
              without capabilities.
3. RETURNED   the Return was sent.  The peer may still make calls to the
              capabilities in its results.
4. (absent)   both were sent.  The peer may use the number again.

Every path from RUNNING to absent has one Return and one Finish; only their
order differs.  Losing the connection is no transition: the whole table is
dropped.

An answer without capabilities is a state and nothing else, because peers that
collect garbage late keep thousands of returned answers open.
"""

from collections.abc import Iterator, Sequence
from enum import IntEnum, auto
from typing import NamedTuple

from queueber.capnp.reader import capability_at, follow, single_segment
from queueber.errors import Kind, LocalProtocolError, Overloaded, RemoteProtocolError
from queueber.rpc.exports import Export
from queueber.rpc.messages import AnswerId
from queueber.units import counted

FAILURES_MAX = 1_000
"""Most errors kept for calls to their answers; calls to further failed answers fail with a general error."""


class AnswerState(IntEnum):
    """The state of an answer; see the state model above."""

    RUNNING = auto()
    ABANDONED = auto()
    RETURNED = auto()


class AnswerInput(IntEnum):
    """The inputs of the state model."""

    SEND_RETURN = auto()
    RECEIVE_FINISH = auto()


ANSWER_TRANSITIONS: dict[tuple[AnswerState, AnswerInput], AnswerState | None] = {
    (AnswerState.RUNNING, AnswerInput.SEND_RETURN): AnswerState.RETURNED,
    (AnswerState.RUNNING, AnswerInput.RECEIVE_FINISH): AnswerState.ABANDONED,
    (AnswerState.ABANDONED, AnswerInput.SEND_RETURN): None,
    (AnswerState.RETURNED, AnswerInput.RECEIVE_FINISH): None,
}
"""The next state for each input; None removes the answer.  Any other pair is an error of the sender."""

# The same by the number of the state, because hashing pairs of enum members dominates the cost of a transition.
_AFTER_RETURN = [None, *[ANSWER_TRANSITIONS.get((state, AnswerInput.SEND_RETURN)) for state in AnswerState]]
_AFTER_FINISH = [None, *[ANSWER_TRANSITIONS.get((state, AnswerInput.RECEIVE_FINISH)) for state in AnswerState]]


class HeldResults(NamedTuple):
    """Results with capabilities, kept while the peer may call them."""

    content: bytes
    exports: Sequence[Export]
    """The exports to which the capability pointers in `content` are indices.  This answer pins each."""

    def find(self, path: Sequence[int]) -> Export | None:
        """Follow the pointer fields of *path*, and return the capability there; None if there is none."""
        frame = single_segment(self.content)
        at, start, end = 0, 0, frame.end
        try:
            for field in path:
                word, body, start, end = follow(frame, at, start, end)
                if word & 3 or field >= word >> 48:
                    return None
                at = body + (word >> 32 & 0xFFFF) + field
            index = capability_at(frame, at, start, end)
        except RemoteProtocolError:
            return None  # the pointer leads to something else
        return None if index is None or index >= len(self.exports) else self.exports[index]


class Answers:
    """All open calls of one peer."""

    def __init__(self, open_max: int, unanswered_max: int) -> None:
        """
        Create an empty table for at most *open_max* calls.  At most *unanswered_max* of them may wait for their Return.

        `FastPath` reads the tables and the limits, adds the calls that it takes, and
        removes the answers whose Finish it takes.
        """
        self.open_max = open_max
        self.unanswered_max = unanswered_max
        self.states: dict[AnswerId, AnswerState] = {}
        self.held: dict[AnswerId, HeldResults] = {}
        self.failures: dict[AnswerId, tuple[Kind, str]] = {}
        self.unanswered = 0
        """Calls that wait for their Return."""

    def __len__(self) -> int:
        return len(self.states)

    def items(self) -> Iterator[tuple[AnswerId, AnswerState]]:
        """Return all answers with their states, the oldest first."""
        return iter(self.states.items())

    def begin(self, answer: AnswerId) -> None:
        """
        Add the call *answer*.

        Raises:
            RemoteProtocolError: a call with that number is open, or too many are.
        """
        if answer in self.states:
            raise RemoteProtocolError(f"question {answer} is used again while it is open")
        if len(self.states) >= self.open_max:
            raise RemoteProtocolError(
                f"{counted(len(self.states), 'answer is', 'answers are')} open and not finished;"
                f" the limit is {self.open_max:,} (open_answers)",
                limit="open_answers",
            )
        self.states[answer] = AnswerState.RUNNING
        self.unanswered += 1

    def why_busy(self) -> Overloaded | None:
        """Return why the latest call is refused: too many calls wait for their Return.  None if it is not."""
        if self.unanswered <= self.unanswered_max:
            return None
        return Overloaded(
            f"unanswered calls of this connection are {self.unanswered - 1:,} already;"
            f" the limit is {self.unanswered_max:,} (outstanding_calls)",
            limit="outstanding_calls",
        )

    def send_returns(self, answers: Sequence[AnswerId]) -> int:
        """
        Record that the Returns for *answers* are about to be sent.

        Returns:
            How many of the answers are still open, because the peer wants results.

        Raises:
            LocalProtocolError: a Return was sent before, or there is no such call.
        """
        states, still_open = self.states, 0
        for answer in answers:
            state = states.get(answer)
            if state is None or state is AnswerState.RETURNED:
                raise LocalProtocolError(f"answer {answer} owes no return")
            self.unanswered -= 1
            following = _AFTER_RETURN[state]
            if following is None:
                del states[answer]
            else:
                states[answer] = following
                still_open += 1
        return still_open

    def hold(self, answer: AnswerId, held: HeldResults) -> None:
        """
        Keep *held*, the results of the returned *answer*, until its Finish.

        The peer may call the capabilities in them.
        """
        self.held[answer] = held

    def fail(self, answer: AnswerId, kind: Kind, reason: str) -> None:
        """Keep the error of the returned *answer*: calls to its results fail with it too."""
        if len(self.failures) < FAILURES_MAX:
            self.failures[answer] = (kind, reason)

    def failure(self, answer: AnswerId) -> tuple[Kind, str] | None:
        """Return the error of *answer*, if it was returned with one and that was kept."""
        return self.failures.get(answer)

    def receive_finish(self, answer: AnswerId) -> tuple[AnswerState | None, HeldResults | None]:
        """Record that the peer finished *answer*, and return its state before, if any, and the results held for it."""
        state = self.states.get(answer)
        if state is None or state is AnswerState.ABANDONED:
            return None, None
        following = _AFTER_FINISH[state]
        if following is None:
            del self.states[answer]
        else:
            self.states[answer] = following
        if self.failures:
            self.failures.pop(answer, None)
        return state, self.held.pop(answer, None) if self.held else None

    def find(self, answer: AnswerId, path: Sequence[int]) -> Export | None:
        """Return the capability at *path* in the results of *answer*; None if there is none, or not yet."""
        held = self.held.get(answer)
        return held.find(path) if held else None

    def check(self) -> None:
        """Raise AssertionError if the tables disagree."""
        states = list(self.states.values())
        assert self.unanswered == len(states) - states.count(AnswerState.RETURNED)
        assert all(self.states[answer] is AnswerState.RETURNED for answer in [*self.held, *self.failures])

    def pinned(self) -> Iterator[Export]:
        """Yield every export that an answer holds, once for each pin."""
        for held in self.held.values():
            yield from held.exports

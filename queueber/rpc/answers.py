"""
The calls a peer has made.

State model
-----------

1. RUNNING    the call is being worked on; the peer still wants its results.
2. ABANDONED  the peer sent Finish first.  It is still owed one Return, but not
              the results: capabilities are not sent any more.
3. RETURNED   the Return was sent.  The peer may still make calls to what its
              results hold.
4. (absent)   both have been sent.  The number is the peer's to use again.

Every path from RUNNING to absent has one Return and one Finish; only their
order differs.  Losing the connection is no transition: the whole table goes
at once.

Only answers that hold capabilities have more than a state; peers that collect
garbage late keep returned answers open by the thousand.
"""

from collections.abc import Iterator, Sequence
from enum import IntEnum, auto

from attrs import frozen

from queueber.capnp.reader import capability_at, follow, single_segment
from queueber.errors import Kind, LocalProtocolError, RemoteProtocolError
from queueber.rpc.exports import Export
from queueber.rpc.messages import AnswerId
from queueber.units import counted

FAILURES_MAX = 1_000
"""Errors kept for the calls that are made to their answers; a peer that leaves more open gets a general one."""


class State(IntEnum):
    """Where a call of the peer's stands; the state model is above."""

    RUNNING = auto()
    ABANDONED = auto()
    RETURNED = auto()


class Input(IntEnum):
    """What happens to an answer."""

    SEND_RETURN = auto()
    RECEIVE_FINISH = auto()


TRANSITIONS: dict[tuple[State, Input], State | None] = {
    (State.RUNNING, Input.SEND_RETURN): State.RETURNED,
    (State.RUNNING, Input.RECEIVE_FINISH): State.ABANDONED,
    (State.ABANDONED, Input.SEND_RETURN): None,
    (State.RETURNED, Input.RECEIVE_FINISH): None,
}
"""Where each input leads; None ends the answer.  A pair that is not here is somebody's error."""

# The same by the number of the state, because hashing pairs of an enumeration's members is most of what a call costs.
_AFTER_RETURN = [None, *[TRANSITIONS.get((state, Input.SEND_RETURN)) for state in State]]
_AFTER_FINISH = [None, *[TRANSITIONS.get((state, Input.RECEIVE_FINISH)) for state in State]]


@frozen(eq=False)
class HeldResults:
    """Results that hold capabilities, kept while the peer may make calls to them."""

    content: bytes
    exports: Sequence[Export]
    """What the capability pointers in *content* are, by their indices.  Each is pinned by this answer."""

    def find(self, path: Sequence[int]) -> Export | None:
        """The capability behind the pointer fields of *path*, one after the other; None when there is none."""
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
            return None  # the pointer there is no capability
        return None if index is None or index >= len(self.exports) else self.exports[index]


class Answers:
    """All calls of one peer that are not yet over."""

    def __init__(self, open_max: int) -> None:
        """
        No calls; at most *open_max* of them may be open.

        `states`, `held` and `failures` are also read and `states` and
        `unanswered` kept up by `FastPath`, for calls and Finishes of one kind.
        """
        self._open_max = open_max
        self.states: dict[AnswerId, State] = {}
        self.held: dict[AnswerId, HeldResults] = {}
        self.failures: dict[AnswerId, tuple[Kind, str]] = {}
        self.unanswered = 0
        """Calls that wait for their Return."""

    def __len__(self) -> int:
        return len(self.states)

    def items(self) -> Iterator[tuple[AnswerId, State]]:
        """All answers with their states, the oldest first."""
        return iter(self.states.items())

    def begin(self, answer: AnswerId) -> None:
        """
        The peer has made the call *answer*.

        Raises:
            RemoteProtocolError: it has another one under that number.
        """
        if answer in self.states:
            raise RemoteProtocolError(f"question {answer} is used again while it is open")
        if len(self.states) >= self._open_max:
            raise RemoteProtocolError(
                f"{counted(len(self.states), 'answer is', 'answers are')} open and not finished;"
                f" the limit is {self._open_max:,} (open_answers)",
                limit="open_answers",
            )
        self.states[answer] = State.RUNNING
        self.unanswered += 1

    def send_return(self, answer: AnswerId) -> bool:
        """
        The Return for *answer* is about to be sent; whether the peer still wants results.

        Raises:
            LocalProtocolError: it was sent before, or there is no such call.
        """
        state = self.states.get(answer)
        if state is None or state is State.RETURNED:
            raise LocalProtocolError(f"answer {answer} owes no return")
        self.unanswered -= 1
        return self._step(answer, _AFTER_RETURN[state])

    def send_returns(self, answers: Sequence[AnswerId]) -> None:
        """
        As `send_return` for each of *answers*, without a call for those whose results the peer still wants.

        Raises:
            LocalProtocolError: one was sent before, or there is no such call.
        """
        states = self.states
        for answer in answers:
            if states.get(answer) is State.RUNNING:
                states[answer] = State.RETURNED
                self.unanswered -= 1
            else:
                self.send_return(answer)

    def hold(self, answer: AnswerId, held: HeldResults) -> None:
        """Keep the results of *answer*, which has been returned, for the calls to them."""
        self.held[answer] = held

    def fail(self, answer: AnswerId, kind: Kind, reason: str) -> None:
        """Keep the error of *answer*, which has been returned: calls to what it would have held end with it too."""
        if len(self.failures) < FAILURES_MAX:
            self.failures[answer] = (kind, reason)

    def failure(self, answer: AnswerId) -> tuple[Kind, str] | None:
        """The error of *answer*, if it was returned with one and that is still known."""
        return self.failures.get(answer)

    def receive_finish(self, answer: AnswerId) -> tuple[State | None, HeldResults | None]:
        """The peer has finished *answer*: where it stood, if anywhere, and what was held for it."""
        state = self.states.get(answer)
        if state is None or state is State.ABANDONED:
            return None, None
        self._step(answer, _AFTER_FINISH[state])
        if self.failures:
            self.failures.pop(answer, None)
        return state, self.held.pop(answer, None) if self.held else None

    def _step(self, answer: AnswerId, following: State | None) -> bool:
        """Make the transition; whether the answer is still open."""
        if following is None:
            del self.states[answer]
            return False
        self.states[answer] = following
        return True

    def find(self, answer: AnswerId, path: Sequence[int]) -> Export | None:
        """The capability at *path* in the results of *answer*; None when it has none there, or not yet."""
        held = self.held.get(answer)
        return held.find(path) if held else None

    def check(self) -> None:
        """Raise AssertionError if the tables disagree."""
        states = list(self.states.values())
        assert self.unanswered == len(states) - states.count(State.RETURNED)
        assert all(self.states[answer] is State.RETURNED for answer in [*self.held, *self.failures])

    def pinned(self) -> Iterator[Export]:
        """Every export that an answer holds, once for each time it does."""
        for held in self.held.values():
            yield from held.exports

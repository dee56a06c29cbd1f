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

from queueber.errors import Kind, LocalProtocolError, RemoteProtocolError
from queueber.wire.exports import Export
from queueber.wire.messages import AnswerId
from queueber.wire.reader import capability_at, follow, single_segment

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
        self._open_max = open_max
        self._states: dict[AnswerId, State] = {}
        self._held: dict[AnswerId, HeldResults] = {}
        self._failures: dict[AnswerId, tuple[Kind, str]] = {}
        self.unanswered = 0
        """Calls that wait for their Return."""

    def __len__(self) -> int:
        return len(self._states)

    def items(self) -> Iterator[tuple[AnswerId, State]]:
        """All answers with their states, the oldest first."""
        return iter(self._states.items())

    def owes(self, answer: AnswerId) -> bool:
        """Whether *answer* waits for its Return."""
        return self._states.get(answer, State.RETURNED) is not State.RETURNED

    def begin(self, answer: AnswerId) -> None:
        """
        The peer has made the call *answer*.

        Raises:
            RemoteProtocolError: it has another one under that number.
        """
        if answer in self._states:
            raise RemoteProtocolError(f"question {answer} is used again while it is open")
        if len(self._states) >= self._open_max:
            raise RemoteProtocolError(
                f"{len(self._states):,} answers are open and not finished; the limit is {self._open_max:,}"
                " (open_answers)",
                limit="open_answers",
            )
        self._states[answer] = State.RUNNING
        self.unanswered += 1

    def begin_each(self, answers: Sequence[AnswerId]) -> bool:
        """The peer has made all of *answers*: whether they may be made.  If not, nothing was changed."""
        states = self._states
        if len(states) + len(answers) > self._open_max or not states.keys().isdisjoint(answers):
            return False
        if len(set(answers)) < len(answers):
            return False
        states.update(dict.fromkeys(answers, State.RUNNING))
        self.unanswered += len(answers)
        return True

    def send_return(self, answer: AnswerId) -> bool:
        """
        The Return for *answer* is about to be sent; whether the peer still wants results.

        Raises:
            LocalProtocolError: it was sent before, or there is no such call.
        """
        state = self._states.get(answer)
        if state is None or state is State.RETURNED:
            raise LocalProtocolError(f"answer {answer} owes no return")
        self.unanswered -= 1
        return self._step(answer, _AFTER_RETURN[state])

    def return_each(self, answers: Sequence[AnswerId]) -> bool:
        """The Returns for all of *answers* are about to be sent, if each is wanted: if not, nothing was changed."""
        states = self._states
        if len(set(answers)) < len(answers):
            return False
        for answer in answers:
            if states.get(answer) is not State.RUNNING:
                return False
        states.update(dict.fromkeys(answers, State.RETURNED))
        self.unanswered -= len(answers)
        return True

    def hold(self, answer: AnswerId, held: HeldResults) -> None:
        """Keep the results of *answer*, which has been returned, for the calls to them."""
        self._held[answer] = held

    def fail(self, answer: AnswerId, kind: Kind, reason: str) -> None:
        """Keep the error of *answer*, which has been returned: calls to what it would have held end with it too."""
        if len(self._failures) < FAILURES_MAX:
            self._failures[answer] = (kind, reason)

    def failure(self, answer: AnswerId) -> tuple[Kind, str] | None:
        """The error of *answer*, if it was returned with one and that is still known."""
        return self._failures.get(answer)

    def receive_finish(self, answer: AnswerId) -> tuple[State | None, HeldResults | None]:
        """The peer has finished *answer*: where it stood, if anywhere, and what was held for it."""
        state = self._states.get(answer)
        if state is None or state is State.ABANDONED:
            return None, None
        self._step(answer, _AFTER_FINISH[state])
        if self._failures:
            self._failures.pop(answer, None)
        return state, self._held.pop(answer, None) if self._held else None

    def finish_each(self, answers: Sequence[AnswerId]) -> bool:
        """
        The peer has finished all of *answers*: whether each was returned, and nothing is kept for any of them.

        If not, nothing was changed.
        """
        for kept in (self._held, self._failures):
            if not kept.keys().isdisjoint(answers):
                return False
        states = self._states
        for answer in answers:
            if states.get(answer) is not State.RETURNED:
                return False
        for answer in answers:
            # One that is finished twice is unknown the second time.
            states.pop(answer, None)
        return True

    def _step(self, answer: AnswerId, following: State | None) -> bool:
        """Make the transition; whether the answer is still open."""
        if following is None:
            del self._states[answer]
            return False
        self._states[answer] = following
        return True

    def find(self, answer: AnswerId, path: Sequence[int]) -> Export | None:
        """The capability at *path* in the results of *answer*; None when it has none there, or not yet."""
        held = self._held.get(answer)
        return held.find(path) if held else None

    def check(self) -> None:
        """Raise AssertionError if the tables disagree."""
        states = list(self._states.values())
        assert self.unanswered == len(states) - states.count(State.RETURNED)
        assert all(self._states[answer] is State.RETURNED for answer in [*self._held, *self._failures])

    def pinned(self) -> Iterator[Export]:
        """Every export that an answer holds, once for each time it does."""
        for held in self._held.values():
            yield from held.exports

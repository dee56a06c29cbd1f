"""
The calls we have made.

State model
-----------

1. WAITING    the call was sent, and neither Return nor Finish.
2. FINISHED   we sent Finish first.  The Return will still come; its number
              cannot be used again before.
3. RETURNED   the Return came.  Calls may still be made to what it holds, and
              the peer keeps that until we send Finish.
4. (absent)   both have been sent.  The number can be used again.

Every path from WAITING to absent has one Return and one Finish, unless the
peer said in the Return that it needs no Finish: then none is sent.
"""

from collections.abc import Iterator, Sequence
from enum import IntEnum, auto

from attrs import define

from queueber.errors import LocalProtocolError, RemoteProtocolError
from queueber.rpc.messages import ImportId, QuestionId
from queueber.rpc.tables import OwnedTable


class State(IntEnum):
    """Where a call of ours stands; the state model is above."""

    WAITING = auto()
    FINISHED = auto()
    RETURNED = auto()


class Input(IntEnum):
    """What happens to a question."""

    RECEIVE_RETURN = auto()
    SEND_FINISH = auto()


TRANSITIONS: dict[tuple[State, Input], State | None] = {
    (State.WAITING, Input.RECEIVE_RETURN): State.RETURNED,
    (State.WAITING, Input.SEND_FINISH): State.FINISHED,
    (State.FINISHED, Input.RECEIVE_RETURN): None,
    (State.RETURNED, Input.SEND_FINISH): None,
}
"""Where each input leads; None ends the question.  A pair that is not here is somebody's error."""


@define(eq=False)
class Question:
    """One call of ours."""

    state: State | None = State.WAITING
    """None once it is over."""

    report: bool = False
    """Its Return is an event even after Finish."""

    capabilities: Sequence[ImportId] = ()
    """The references that came with its results."""

    finish_needed: bool = True
    """The peer keeps the results until we send Finish."""


class Questions:
    """All calls to one peer that are not yet over."""

    def __init__(self) -> None:
        self._table: OwnedTable[Question] = OwnedTable()

    def __len__(self) -> int:
        return len(self._table)

    def open(self, number: int) -> bool:
        """Whether calls may be made to what *number* returns: it was asked, and not finished."""
        question = self._table.find(number)
        return question is not None and question.state is not State.FINISHED

    def items(self) -> Iterator[tuple[int, Question]]:
        """All questions with their numbers, the oldest first."""
        return self._table.items()

    def ask(self) -> QuestionId:
        """The number of a new call."""
        return QuestionId(self._table.add(Question()))

    def receive_return(self, number: QuestionId) -> Question:
        """
        The Return for *number* has come; the question, whose state is None when that ended it.

        Raises:
            RemoteProtocolError: it had come before, or nothing was asked under that number.
        """
        question = self._table.find(number)
        if question is None or question.state is State.RETURNED:
            raise RemoteProtocolError(f"question {number} waits for no return")
        return self._step(number, question, Input.RECEIVE_RETURN)

    def send_finish(self, number: QuestionId) -> Question:
        """
        Finish is about to be sent for *number*; the question, whose state is None when that ended it.

        Raises:
            LocalProtocolError: it was sent before, or nothing was asked under that number.
        """
        question = self._table.find(number)
        if question is None or question.state is State.FINISHED:
            raise LocalProtocolError(f"question {number} cannot be finished")
        return self._step(number, question, Input.SEND_FINISH)

    def _step(self, number: QuestionId, question: Question, happened: Input) -> Question:
        assert question.state is not None
        question.state = TRANSITIONS[question.state, happened]
        if question.state is None:
            self._table.drop(number)
        return question

    def check(self) -> None:
        """Raise AssertionError if the table contradicts itself."""
        self._table.check()
        assert all(question.state is not None for _, question in self._table.items())

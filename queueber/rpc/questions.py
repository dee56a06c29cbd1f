"""
Questions: the calls that we have made.

State model
-----------

1. WAITING    the call was sent; no Return came, and no Finish was sent.
2. FINISHED   we sent Finish first.  The number cannot be used again before the
              Return has come.
3. RETURNED   the Return came.  Calls may still be made to the capabilities in
              its results, which the peer keeps until we send Finish.
4. (absent)   Return and Finish are over.  The number can be used again.

Every path from WAITING to absent has one Return and one Finish, unless the
Return says that no Finish is needed: then none is sent.
"""

from collections.abc import Iterator, Sequence
from enum import IntEnum, auto

from queueber.errors import LocalProtocolError, RemoteProtocolError
from queueber.rpc.id_table import IdTable
from queueber.rpc.messages import ImportId, QuestionId


class QuestionState(IntEnum):
    """The state of a question; see the state model above."""

    WAITING = auto()
    FINISHED = auto()
    RETURNED = auto()


class QuestionInput(IntEnum):
    """The inputs of the state model."""

    RECEIVE_RETURN = auto()
    SEND_FINISH = auto()


QUESTION_TRANSITIONS: dict[tuple[QuestionState, QuestionInput], QuestionState | None] = {
    (QuestionState.WAITING, QuestionInput.RECEIVE_RETURN): QuestionState.RETURNED,
    (QuestionState.WAITING, QuestionInput.SEND_FINISH): QuestionState.FINISHED,
    (QuestionState.FINISHED, QuestionInput.RECEIVE_RETURN): None,
    (QuestionState.RETURNED, QuestionInput.SEND_FINISH): None,
}
"""The next state for each input; None removes the question.  Any other pair is an error of the sender."""


class Question:
    """One call of ours."""

    __slots__ = ("capabilities", "finish_needed", "report", "state")

    def __init__(self) -> None:
        self.state: QuestionState | None = QuestionState.WAITING
        """None once the question is removed."""

        self.report = False
        """Whether its Return is an event even after Finish."""

        self.capabilities: Sequence[ImportId] = ()
        """The imports that came with its results."""

        self.finish_needed = True
        """Whether the peer keeps the results until we send Finish."""


class Questions:
    """All open calls to one peer."""

    def __init__(self) -> None:
        self._table: IdTable[Question] = IdTable()

    def __len__(self) -> int:
        return len(self._table)

    def open(self, number: int) -> bool:
        """Whether calls may be made to the results of *number*: it was asked, and not finished."""
        question = self._table.find(number)
        return question is not None and question.state is not QuestionState.FINISHED

    def items(self) -> Iterator[tuple[int, Question]]:
        """Return all questions with their numbers, the oldest first."""
        return self._table.items()

    def ask(self) -> QuestionId:
        """Add a question, and return its number."""
        return QuestionId(self._table.add(Question()))

    def receive_return(self, number: QuestionId) -> Question:
        """
        Record the Return for *number*, and return the question; its state is None if that removed it.

        Raises:
            RemoteProtocolError: the Return came before, or there is no such question.
        """
        question = self._table.find(number)
        if question is None or question.state is QuestionState.RETURNED:
            raise RemoteProtocolError(f"question {number} waits for no return")
        return self._step(number, question, QuestionInput.RECEIVE_RETURN)

    def send_finish(self, number: QuestionId) -> Question:
        """
        Record that Finish is sent for *number*, and return the question; its state is None if that removed it.

        Raises:
            LocalProtocolError: Finish was sent before, or there is no such question.
        """
        question = self._table.find(number)
        if question is None or question.state is QuestionState.FINISHED:
            raise LocalProtocolError(f"question {number} cannot be finished")
        return self._step(number, question, QuestionInput.SEND_FINISH)

    def _step(self, number: QuestionId, question: Question, happened: QuestionInput) -> Question:
        assert question.state is not None
        question.state = QUESTION_TRANSITIONS[question.state, happened]
        if question.state is None:
            self._table.drop(number)
        return question

    def check(self) -> None:
        """Raise AssertionError if the table contradicts itself."""
        self._table.check()
        assert all(question.state is not None for _, question in self._table.items())

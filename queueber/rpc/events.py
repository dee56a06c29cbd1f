"""The events that `Connection.receive_data` returns."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from queueber.rpc.messages import AnswerId, CallOutcome, Params, QuestionId


class Calls(NamedTuple):
    """
    One or several calls in a row that the peer makes to a method of one of our objects.

    Each call is owed one `return_…`, whatever happens, until the connection closes.
    """

    answers: list[AnswerId]
    target: object
    interface_id: int
    method_id: int
    requests: Params | list[Any]
    """
    The request of each call, as the method's `Template` reads it; or the parameters of the only call, still encoded.

    Read encoded parameters before the next event is taken.
    """

    sizes: list[int]
    """The length in bytes of the message that each call came in."""

    @property
    def answer(self) -> AnswerId:
        """The answer id of the only call."""
        (answer,) = self.answers
        return answer

    @property
    def encoded(self) -> bool:
        """Whether this is one call whose parameters are still encoded."""
        return isinstance(self.requests, Params)

    @property
    def params(self) -> Params:
        """The parameters of the only call, still encoded."""
        assert isinstance(self.requests, Params)
        return self.requests

    def select(self, places: Sequence[int]) -> "Calls":
        """Return the calls at *places*, in order."""
        answers, sizes = [self.answers[place] for place in places], [self.sizes[place] for place in places]
        requests: Params | list[Any] = self.requests if places else []
        if isinstance(requests, list):
            requests = [requests[place] for place in places]
        return self._replace(answers=answers, requests=requests, sizes=sizes)


class Finished(NamedTuple):
    """
    The peer wants no results of a call that has not been returned yet.

    A call that waits may be canceled; it is still owed its one `return_…`.
    """

    answer: AnswerId


class Released(NamedTuple):
    """The peer can no longer call *object*."""

    object: object


class Returned(NamedTuple):
    """A call of ours was returned.  Finish it in the end."""

    question: QuestionId
    outcome: CallOutcome


class Aborted(NamedTuple):
    """The peer closed the connection.  This is the last event."""

    reason: str


Event: TypeAlias = Calls | Finished | Released | Returned | Aborted

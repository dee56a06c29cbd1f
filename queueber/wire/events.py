"""What `Connection.receive_data` tells whoever drives it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from attrs import define

from queueber.wire.messages import AnswerId, Outcome, Params, QuestionId


@define(eq=False)
class Called:
    """
    The peer calls a method of one of our objects.

    It is owed one `return_…`, whatever happens, until the connection closes.
    """

    answer: AnswerId
    target: object
    interface_id: int
    method_id: int
    params: Params
    """Read them before the next event is taken."""


@define(eq=False)
class CalledAlike:
    """
    The peer calls the same method of the same object several times in a row.

    Each is a call of its own, as if there were a `Called` for each, in this order.
    """

    answers: list[AnswerId]
    target: object
    interface_id: int
    method_id: int
    params: Sequence[Params]
    """Those of each.  Read them before the next event is taken."""

    requests: list[Any] | None = None
    """What reading each of *params* would give, if that was done already."""

    def part(self, first: int, last: int) -> "CalledAlike":
        """The calls from *first* on and before *last*."""
        answers, params = self.answers[first:last], self.params[first:last]
        return CalledAlike(answers, self.target, self.interface_id, self.method_id, params)

    def bytes_at_least(self, least: int) -> int:
        """The length of all the messages they came in, none of which counts for less than *least*."""
        if self.requests is not None:
            # They are of one length.
            return len(self.params) * max(least, self.params[0].frame_bytes)
        return sum([max(least, params.frame_bytes) for params in self.params])

    def each(self) -> Iterator[Called]:
        """The calls, one by one."""
        for answer, params in zip(self.answers, self.params, strict=True):
            yield Called(answer, self.target, self.interface_id, self.method_id, params)


@define
class Finished:
    """
    The peer wants no results of a call that has not been returned yet.

    What is waiting for something may be given up; the call is still owed its one `return_…`.
    """

    answer: AnswerId


@define(eq=False)
class Released:
    """The peer can call *object* no longer."""

    object: object


@define(eq=False)
class Returned:
    """A call of ours has been answered.  It must be finished in the end."""

    question: QuestionId
    outcome: Outcome


@define
class Aborted:
    """The peer has ended the connection.  This is the last event."""

    reason: str


Event: TypeAlias = Called | CalledAlike | Finished | Released | Returned | Aborted


def one_by_one(events: Iterable[Event]) -> Iterator[Event]:
    """*events*, with a `Called` for each of those that came together: for who has nothing to gain from that."""
    for event in events:
        if isinstance(event, CalledAlike):
            yield from event.each()
        else:
            yield event

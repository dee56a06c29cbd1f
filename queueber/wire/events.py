"""What `Connection.receive_data` tells whoever drives it."""

from typing import TypeAlias

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


Event: TypeAlias = Called | Finished | Released | Returned | Aborted

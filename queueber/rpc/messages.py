"""
The RPC messages that a peer sends, as values.

Each has the name of its struct in ``rpc.capnp``, whose comments explain it, and
lacks the fields that Queueber does not use.  The types of ids are named from our
side: the peer's question is our answer, its import is our export.

Named tuples are equal to any other with the same fields, so tell messages apart
by their type.
"""

from typing import NamedTuple, NewType, TypeAlias

from queueber.capnp.reader import WORD, Frame, single_segment

QuestionId = NewType("QuestionId", int)
"""A call that we made."""

AnswerId = NewType("AnswerId", int)
"""A call that the peer made."""

ExportId = NewType("ExportId", int)
"""A capability that we host."""

ImportId = NewType("ImportId", int)
"""A capability that the peer hosts."""


class Params:
    """
    The parameters or results of a call, still encoded: pass them to one of the `read_…` functions.

    They keep the bytes of their whole read in memory, so do not keep them.
    """

    __slots__ = ("at", "end", "frame", "start")

    def __init__(self, frame: Frame, at: int, start: int, end: int) -> None:
        """Describe what the pointer at the word *at* of *frame* leads to."""
        self.frame = frame
        self.at = at
        """The word with the pointer to the content."""

        self.start = start
        self.end = end
        """The bounds of the segment of that word."""

    @property
    def frame_bytes(self) -> int:
        """The length of their message in bytes."""
        last = self.frame.segments[-1][1] if self.frame.segments else self.frame.end
        return (last - self.frame.start) * WORD


NO_CONTENT = Params(single_segment(bytes(WORD)), 0, 0, 1)
"""Params whose content is a null pointer."""


class ImportedCap(NamedTuple):
    """A capability that the peer hosts, as the target of a call of ours."""

    id: ImportId


class PromisedAnswer(NamedTuple):
    """A capability in the results of a call, which may not have been returned yet."""

    question: int
    """The question id of that call, which has the same caller."""

    path: tuple[int, ...] | None = ()
    """The pointer fields to follow, one after the other; None for an unknown transform."""


Target: TypeAlias = ImportedCap | PromisedAnswer
"""The possible targets of a call of ours."""


class UnimplementedMessage(NamedTuple):
    """The peer does not implement a message of ours."""

    message: str | None
    """The kind of that message; None for a kind that is unknown here too, or if the message has none."""


class Abort(NamedTuple):
    """The peer closes the connection."""

    reason: str


class Bootstrap(NamedTuple):
    """The peer asks for the bootstrap object."""

    question: AnswerId
    names_object: bool
    """Whether the deprecated field with an object's name is set."""


class Call(NamedTuple):
    """The peer calls a method."""

    question: AnswerId
    target: ExportId | PromisedAnswer | None
    """None for a kind of target that is unknown here."""

    interface_id: int
    method_id: int
    params: Params
    to_caller: bool
    """Whether the results are to be sent in the Return, as usual."""


class Results(NamedTuple):
    """The results of a call of ours."""

    content: Params
    capabilities: tuple[ImportId | None, ...]
    """The imports to which the capability pointers in the content are indices; None for one that we cannot use."""


class RemoteException(NamedTuple):
    """The outcome of a call of ours that failed."""

    reason: str
    kind: int
    """A `queueber.errors.Kind`, or a number that is unknown here."""


class Canceled(NamedTuple):
    """The outcome of a call of ours that ended early because we finished it."""

    def __bool__(self) -> bool:
        """Return True, which other empty tuples do not."""
        return True


CallOutcome: TypeAlias = Results | RemoteException | Canceled


class Return(NamedTuple):
    """The peer returns a call of ours."""

    answer: QuestionId
    outcome: CallOutcome | None
    """None for a kind that we never ask for."""

    finish_needed: bool


class Finish(NamedTuple):
    """The peer no longer needs an answer."""

    question: AnswerId
    release_result_caps: bool


class Release(NamedTuple):
    """The peer drops references to an export."""

    id: ExportId
    references: int


class Resolve(NamedTuple):
    """A promise that the peer hosts was resolved."""

    promise: ImportId
    capability: ImportId | None
    """The capability it resolved to, with a reference, if the peer hosts that."""


class Disembargo(NamedTuple):
    """The peer asks for an echo once earlier calls have reached their object."""

    target: ExportId | PromisedAnswer | None
    embargo: int


class Unknown(NamedTuple):
    """A message to which Unimplemented is the reply."""

    which: int
    """The discriminant of the Message."""


Message: TypeAlias = (
    UnimplementedMessage | Abort | Bootstrap | Call | Return | Finish | Release | Resolve | Disembargo | Unknown
)

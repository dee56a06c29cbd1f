"""
The RPC messages a peer sends, as values.

Each is named after its struct in ``rpc.capnp``, whose comments say what it
means, and lacks what Queueber never looks at.  Ids are named from the side of
the sender: a peer's question is our answer, what it imports is our export.

They are not frozen because one or two are made per call, and freezing would
triple what that costs; nobody changes one all the same.
"""

from typing import NewType, TypeAlias

from attrs import define

from queueber.capnp.reader import WORD, Frame, single_segment

QuestionId = NewType("QuestionId", int)
"""A call that we made."""

AnswerId = NewType("AnswerId", int)
"""A call that the peer made."""

ExportId = NewType("ExportId", int)
"""A capability that we host."""

ImportId = NewType("ImportId", int)
"""A capability that the peer hosts."""


@define(eq=False)
class Params:
    """
    The parameters or results of a call, still encoded: hand them to one of the `read_…` functions.

    They keep the bytes they came with in memory; read them and let go.
    """

    frame: Frame
    at: int
    """The word with the pointer to the content."""

    start: int
    end: int
    """The segment of that word."""

    @property
    def frame_bytes(self) -> int:
        """The length of the message they came in."""
        last = self.frame.segments[-1][1] if self.frame.segments else self.frame.end
        return (last - self.frame.start) * WORD


NO_CONTENT = Params(single_segment(bytes(WORD)), 0, 0, 1)
"""A null pointer in place of the content."""


@define
class ImportedCap:
    """A capability that the receiver of a message hosts, as the target of a call of ours."""

    id: ImportId


@define
class PromisedAnswer:
    """A capability in the results of a call, which need not have been returned yet."""

    question: int
    """The call's number; its sender is who sends this."""

    path: tuple[int, ...] | None = ()
    """The pointer fields to take, one after the other; None for a way that we cannot go."""


Target: TypeAlias = ImportedCap | PromisedAnswer
"""What a call of ours may be made to."""


@define
class Unimplemented:
    """The peer did not know a message of ours."""

    message: str | None
    """The kind of that message; None for a kind that is unknown here too, or none."""


@define
class Abort:
    """The peer ends the connection."""

    reason: str


@define
class Bootstrap:
    """The peer asks for the object that leads to all others."""

    question: AnswerId
    names_object: bool
    """It uses the field from before there was one such object."""


@define(eq=False)
class Call:
    """The peer calls a method."""

    question: AnswerId
    target: ExportId | PromisedAnswer | None
    """None for a kind of target that is unknown here."""

    interface_id: int
    method_id: int
    params: Params
    to_caller: bool
    """The results are to come back in the Return, as usual."""


@define(eq=False)
class Results:
    """The results of a call of ours."""

    content: Params
    capabilities: tuple[ImportId | None, ...]
    """What the capability pointers in the content are; None for one that we cannot use."""


@define
class RemoteException:
    """The call of ours that ended so."""

    reason: str
    kind: int
    """A `queueber.errors.Kind`, or one that is unknown here."""


@define
class Canceled:
    """The call of ours ended early, because we finished it."""


Outcome: TypeAlias = Results | RemoteException | Canceled


@define
class Return:
    """The peer has answered a call of ours."""

    answer: QuestionId
    outcome: Outcome | None
    """None for a kind of outcome that we never ask for."""

    finish_needed: bool


@define
class Finish:
    """The peer needs an answer no longer."""

    question: AnswerId
    release_result_caps: bool


@define
class Release:
    """The peer has dropped references to an export."""

    id: ExportId
    count: int


@define
class Resolve:
    """A promise that the peer hosts has become something."""

    promise: ImportId
    capability: ImportId | None
    """What it has become, if that is hosted by the peer: it comes with a reference."""


@define
class Disembargo:
    """The peer wants to know when the calls before have reached their object."""

    target: ExportId | PromisedAnswer | None
    embargo: int


@define
class Unknown:
    """A message that is to be answered with Unimplemented."""

    which: int
    """The discriminant that says what it is."""


Message: TypeAlias = (
    Unimplemented | Abort | Bootstrap | Call | Return | Finish | Release | Resolve | Disembargo | Unknown
)

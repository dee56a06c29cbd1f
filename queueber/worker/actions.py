"""
Records that the rules of a worker and their surroundings exchange: items, leases, and the actions that the
rules ask for.

They hold no rule: `rules`, `leases` and `settling` have those.
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import Any, NamedTuple, TypeAlias

from attrs import define, field, frozen

from queueber.units import SpanMs
from queueber.values import AddTo, Settlement
from queueber.worker.verdicts import DEFER, Verdict


class TakenState(Enum):
    """The state of a taken item, as in the table of `rules`."""

    WAITING = auto()
    RUNNING = auto()
    ENDING = auto()
    ABANDONED = auto()
    OVER = auto()


@define(eq=False)
class KeptLease:
    """One lease, with the items that need it."""

    id: bytes
    place: Any
    """Where its queue is.  The rules read nothing of it."""

    session: bool
    """Whether it lasts as long as the worker's session."""

    safe_until: float
    """Monotonic seconds until which the server holds it for certain.  For a session lease the session's replaces it."""

    extend_at: float = 0.0
    extending: bool = False
    """Whether an extension is under way."""

    held: "set[TakenItem]" = field(factory=set)
    """The items in upkeep: those waiting, running or ending."""

    lost: bool = False


@define(eq=False)
class TakenItem:
    """One item that was delivered to this worker, until it is settled or lost."""

    item: Any
    """The item that the handler gets.  The rules read nothing of it."""

    id: bytes
    lease: KeptLease
    state: TakenState = TakenState.WAITING
    started: float = 0.0
    """When it was given to the runner."""

    begun: float | None = None
    """When its handler began; None before.  A loop that is blocked begins none."""

    ending_until: float = 0.0
    """When a handler that was asked to end is given up."""

    on_end: Verdict = DEFER
    """The verdict of a handler that was asked to end, if it does not succeed."""

    def begin(self, now: float) -> None:
        """Note that the handler begins, in monotonic seconds.  Called by the runner, in the thread of the handler."""
        self.begun = now


class PollAnswer(NamedTuple):
    """The answer of a poll."""

    lease: bytes
    place: Any
    session: bool
    items: Sequence[tuple[bytes, Any]]
    """Id and item of each, in the order in which they became due."""

    sent: float
    """Monotonic seconds at which the poll, or its last repetition, was sent."""


@frozen
class Poll:
    """Poll for up to *n* items; the answer has the same *number*."""

    number: int
    n: int


@frozen
class CancelPoll:
    """End a poll's wait."""

    number: int


@frozen
class Settle:
    """Settle *entries* in one call; the answer has the same *number*.  With *adds*, all or nothing."""

    number: int
    entries: Sequence[Settlement]
    items: Sequence[TakenItem]
    """The items of the entries, in the same order."""

    adds: Sequence[AddTo] = ()


@frozen
class Extend:
    """Let a lease on items of the queue at *place* end *span* from now."""

    lease: bytes
    place: Any
    span: SpanMs


@frozen
class GiveBack:
    """
    Give the items of a lease that was given up to other workers, if the session has it still.

    Those with which the worker has begun count as a loss, because they may have stopped it, unless it was without a
    connection.
    """

    lease: bytes
    place: Any
    waiting: Sequence[bytes]
    """Items that no handler has begun with."""


@frozen
class Start:
    """Start the handler on each of *items*."""

    items: Sequence[TakenItem]


@frozen
class Cancel:
    """Ask the handler of an item to end.  *lost*: its result is not wanted any more."""

    taken: TakenItem
    why: str
    lost: bool


@frozen
class Log:
    """Write a line to the log at a *level* of `logging`."""

    level: int
    text: str


@frozen
class Beat:
    """Ask the event loop of the handlers to call back once."""


@frozen
class ReportStall:
    """Log where the event loop has been blocked for *seconds*."""

    seconds: float


@frozen
class End:
    """The worker has ended: close the connection.  *error*: why it could not go on."""

    error: Exception | None = None


AnyAction: TypeAlias = Poll | CancelPoll | Settle | Extend | GiveBack | Start | Cancel | Log | Beat | ReportStall | End

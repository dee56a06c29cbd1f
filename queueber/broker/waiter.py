"""
Polls, parked until there is something for them.

State model for polls
---------------------

1. WAITING   in its queue's line, or set aside while its peer takes no replies.
2. CLAIMED   items are leased for it, or it is to be answered with none; the reply waits for the disk.
3. GONE      its peer lost interest; whatever was claimed is given back when the disk has caught up.
4. DONE      answered, or gone before anything was claimed.

    state    | claimed | cancelled | settled
    ---------+---------+-----------+--------
    WAITING  | CLAIMED | DONE      | -
    CLAIMED  | -       | GONE      | DONE
    GONE     | -       | GONE      | DONE
    DONE     | -       | DONE      | -

Every poll is claimed at most once, so it is answered at most once.
"""

from enum import Enum, auto
from typing import TYPE_CHECKING, NewType

from attrs import define

from queueber.units import SpanMs, WallMs

if TYPE_CHECKING:
    from queueber.broker.queue import Queue


Peer = NewType("Peer", int)
"""The number of whoever polls, which nobody else ever has."""


class PollState(Enum):
    """Where a poll is in its life."""

    WAITING = auto()
    CLAIMED = auto()
    ABANDONED = auto()
    DONE = auto()


class PollInput(Enum):
    """What happens to a poll."""

    CLAIMED = auto()
    CANCELLED = auto()
    CONFIRMED = auto()


TRANSITIONS = {
    (PollState.WAITING, PollInput.CLAIMED): PollState.CLAIMED,
    (PollState.WAITING, PollInput.CANCELLED): PollState.DONE,
    (PollState.CLAIMED, PollInput.CANCELLED): PollState.ABANDONED,
    (PollState.CLAIMED, PollInput.CONFIRMED): PollState.DONE,
    (PollState.ABANDONED, PollInput.CANCELLED): PollState.ABANDONED,
    (PollState.ABANDONED, PollInput.CONFIRMED): PollState.DONE,
    (PollState.DONE, PollInput.CANCELLED): PollState.DONE,
}
"""Every move a poll can make; anything else is a bug of the broker's."""


@define(eq=False)
class Waiter:
    """One poll, from the call to its answer."""

    queue: "Queue"
    wanted: int
    """Items, at least 1 and at most what one reply may hold."""

    lease_duration: SpanMs
    """Of the lease."""

    wait_until: WallMs | None
    """When to answer with nothing; None waits for ever."""

    peer: Peer
    """Whose poll it is, to pause it."""

    state: PollState = PollState.WAITING

    arrived_at: float = 0.0
    """When it was asked for, by a clock of whoever serves it; the broker does not look at it."""

    @property
    def done(self) -> bool:
        """Nothing will come of it any more."""
        return self.state is PollState.DONE

    def advance(self, happened: PollInput) -> PollState:
        """Make the move the table allows; KeyError, and no change, for any other."""
        self.state = TRANSITIONS[self.state, happened]
        return self.state

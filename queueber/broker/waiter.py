"""
One poll, from the call to its reply.

State model for polls
---------------------

1. WAITING    in its queue's `waiters`, or suspended while its peer reads no replies.
2. CLAIMED    items are leased for it, or it will be answered with none.  The reply waits for the disk.
3. ABANDONED  its peer cancelled it after the claim.  Its items are given back once the claim is durable.
4. DONE       answered, or cancelled before a claim.

    state      | claimed | cancelled | confirmed
    -----------+---------+-----------+----------
    WAITING    | CLAIMED | DONE      | -
    CLAIMED    | -       | ABANDONED | DONE
    ABANDONED  | -       | ABANDONED | DONE
    DONE       | -       | DONE      | -

Every poll is claimed at most once, so it is answered at most once.
"""

from collections.abc import Sequence
from enum import IntEnum, auto
from typing import TYPE_CHECKING, NewType

from attrs import define

from queueber.units import SpanMs, WallMs

if TYPE_CHECKING:
    from queueber.broker.queue import Queue
    from queueber.broker.session_table import Session


Peer = NewType("Peer", int)
"""The number of a peer, never reused."""


class PollState(IntEnum):
    """States of a poll.  Integers, because the hash of other enums is a Python call."""

    WAITING = auto()
    CLAIMED = auto()
    ABANDONED = auto()
    DONE = auto()


class PollInput(IntEnum):
    """Inputs of a poll's state machine."""

    CLAIMED = auto()
    CANCELLED = auto()
    CONFIRMED = auto()
    """The claim is durable."""


POLL_TRANSITIONS = {
    (PollState.WAITING, PollInput.CLAIMED): PollState.CLAIMED,
    (PollState.WAITING, PollInput.CANCELLED): PollState.DONE,
    (PollState.CLAIMED, PollInput.CANCELLED): PollState.ABANDONED,
    (PollState.CLAIMED, PollInput.CONFIRMED): PollState.DONE,
    (PollState.ABANDONED, PollInput.CANCELLED): PollState.ABANDONED,
    (PollState.ABANDONED, PollInput.CONFIRMED): PollState.DONE,
    (PollState.DONE, PollInput.CANCELLED): PollState.DONE,
}
"""Every transition of a poll.  Any other input is a bug of the broker."""


@define(eq=False)
class QueueChoice:
    """The queues in which one poll waits, and how it chooses among those that have an item."""

    queues: "tuple[Queue, ...]"
    """All different."""

    weights: tuple[int, ...] = ()
    """The share of each among those that have an item; none to choose the first of these always."""

    chosen: "Queue | None" = None
    """The one that was chosen by weight, while it has an item."""

    passed_over: "Sequence[tuple[Queue, int]]" = ()
    """The others that had an item then, and their weights."""


@define(eq=False)
class Waiter:
    """One poll, from the call to its reply."""

    queue: "Queue"
    """The poll's queue; for a poll of several queues, the one that it chose last."""

    wanted: int
    """Items, at least 1 and at most what one reply may hold."""

    lease_duration: SpanMs
    wait_until: WallMs | None
    """When to answer with no items.  None waits for ever."""

    peer: Peer
    """The peer that called, by which its polls are paused."""

    state: PollState = PollState.WAITING
    session: "Session | None" = None
    """The session that its lease is to last as long as; None for a lease of `lease_duration`."""

    choice: QueueChoice | None = None
    """The queues of a poll of several; None for a poll of one."""

    @property
    def queues(self) -> "Sequence[Queue]":
        """All queues in which it waits."""
        return (self.queue,) if self.choice is None else self.choice.queues

    @property
    def done(self) -> bool:
        """Whether nothing more will happen to the poll."""
        return self.state is PollState.DONE

    def advance(self, happened: PollInput) -> PollState:
        """Make the transition of the table.  Raises KeyError, and changes nothing, if there is none."""
        self.state = state = POLL_TRANSITIONS[self.state, happened]
        return state

"""
The states of the committer.

1. IDLE       nothing waits for a commit, and none is in flight.
2. READING    also idle; a connection's input is processed, and at its end a commit may be cut.
3. DUE        a commit is cut at the end of that read.
4. SCHEDULED  a commit is cut in a later reactor turn.
5. WRITING    a commit is in flight.
6. STALLED    the store has to catch up before it takes the commit in flight, which is tried again.

    state     | read begun | read ended | cut wanted | something cut | nothing cut | store stalled | durable
    ----------+------------+------------+------------+---------------+-------------+---------------+--------
    IDLE      | READING    | -          | SCHEDULED  | -             | -           | -             | -
    READING   | -          | IDLE       | DUE        | -             | -           | -             | -
    DUE       | -          | -          | -          | WRITING       | IDLE        | -             | -
    SCHEDULED | -          | -          | -          | WRITING       | IDLE        | -             | -
    WRITING   | -          | -          | -          | -             | -           | STALLED       | IDLE
    STALLED   | -          | -          | -          | -             | -           | STALLED       | IDLE
"""

from enum import IntEnum, auto
from typing import Final


class CommitState(IntEnum):
    """States of the committer.  Integers, because the hash of other enums is a Python call."""

    IDLE = auto()
    READING = auto()
    DUE = auto()
    SCHEDULED = auto()
    WRITING = auto()
    STALLED = auto()


class CommitInput(IntEnum):
    """Inputs of the committer's state machine."""

    READ_BEGUN = auto()
    READ_ENDED = auto()
    CUT_WANTED = auto()
    SOMETHING_CUT = auto()
    NOTHING_CUT = auto()
    STORE_STALLED = auto()
    DURABLE = auto()


COMMIT_TRANSITIONS: Final = {
    (CommitState.IDLE, CommitInput.READ_BEGUN): CommitState.READING,
    (CommitState.IDLE, CommitInput.CUT_WANTED): CommitState.SCHEDULED,
    (CommitState.READING, CommitInput.READ_ENDED): CommitState.IDLE,
    (CommitState.READING, CommitInput.CUT_WANTED): CommitState.DUE,
    (CommitState.DUE, CommitInput.SOMETHING_CUT): CommitState.WRITING,
    (CommitState.DUE, CommitInput.NOTHING_CUT): CommitState.IDLE,
    (CommitState.SCHEDULED, CommitInput.SOMETHING_CUT): CommitState.WRITING,
    (CommitState.SCHEDULED, CommitInput.NOTHING_CUT): CommitState.IDLE,
    (CommitState.WRITING, CommitInput.STORE_STALLED): CommitState.STALLED,
    (CommitState.WRITING, CommitInput.DURABLE): CommitState.IDLE,
    (CommitState.STALLED, CommitInput.STORE_STALLED): CommitState.STALLED,
    (CommitState.STALLED, CommitInput.DURABLE): CommitState.IDLE,
}
"""Every transition of the committer.  Any other input is a bug of the server, and a KeyError."""

WITHOUT_CUT: Final = frozenset({CommitState.IDLE, CommitState.READING})
"""No cut is to come, and no commit is in flight after which there would be one."""

IN_FLIGHT: Final = frozenset({CommitState.WRITING, CommitState.STALLED})

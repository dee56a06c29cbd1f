"""
The life of a connection as a table of states and inputs.

`RpcProtocol` keeps a `State` and changes it only by `next_state`.  The table is
drawn in docs/architecture.md; a test compares the two.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final


class State(Enum):
    """A state of a connection; the value describes it."""

    CONNECTED = "No byte has arrived. Over TLS the handshake is not finished."
    FIRST_MESSAGE = "Part of the first message has arrived."
    OPEN = "Messages are processed."
    PAUSED = "The peer does not read its replies. Until it does, the server reads nothing more and suspends its polls."
    CLOSING = "Input is dropped. The replies so far are sent, then the connection closes."
    ABORTED = "The connection closes without waiting for the peer."
    LOST = "The connection is closed. Replies to calls under way are dropped."


class Input(Enum):
    """A cause of a change; the value describes it."""

    DATA = "the first byte arrives"
    MESSAGE = "the first message is complete"
    BACKLOG = "more than `unsent_bytes` of replies wait"
    DRAINED = "half of `unsent_bytes` or less wait"
    CLOSE = "a protocol error, a timeout, the peer's Abort, or the server's stop"
    ABORT = "eviction, replies that are not read in time, or the end of the server's `drain-seconds`"
    LOSS = "the transport reports that the connection is closed"


_ENDS: Final = {Input.CLOSE: State.CLOSING, Input.ABORT: State.ABORTED, Input.LOSS: State.LOST}

TRANSITIONS: Final[Mapping[State, Mapping[Input, State]]] = {
    State.CONNECTED: {Input.DATA: State.FIRST_MESSAGE, **_ENDS},
    State.FIRST_MESSAGE: {Input.MESSAGE: State.OPEN, **_ENDS},
    State.OPEN: {Input.BACKLOG: State.PAUSED, **_ENDS},
    State.PAUSED: {Input.DRAINED: State.OPEN, **_ENDS},
    State.CLOSING: {Input.ABORT: State.ABORTED, Input.LOSS: State.LOST},
    State.ABORTED: {Input.LOSS: State.LOST},
    State.LOST: {},
}
"""The next state for each input.  An input that a state does not list changes nothing."""

READING: Final = frozenset({State.FIRST_MESSAGE, State.OPEN})
"""The states in which the peer is expected to complete a message that has begun."""

ENDED: Final = frozenset({State.CLOSING, State.ABORTED, State.LOST})
"""The states in which input is dropped."""


def next_state(state: State, cause: Input) -> State:
    """Return the state after *cause* in *state*."""
    return TRANSITIONS[state].get(cause, state)

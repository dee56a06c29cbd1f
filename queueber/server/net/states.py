"""
The life of a connection as a table of states and inputs, and that of its TLS handshake before it.

`RpcProtocol` keeps a `ConnectionState` and changes it only by `next_state`.
`PendingConnection` keeps a `HandshakeState` and changes it only by
`next_handshake_state`; without TLS there is none.  Both tables are drawn in
docs/architecture.md; a test compares them.

The buffers of a connection know no state, because they are called by the
transport and the scheduler between two inputs.  Each remembers the last
instruction that a change of the state gave it: `InboundBuffer` to hold (paused,
throttled) or to drop (closing, aborted, lost), `SendBuffer` to close the transport once
everything is taken (closing).  Nothing else reads or sets these.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final


class ConnectionState(Enum):
    """A state of a connection; the value describes it."""

    CONNECTED = "No byte has arrived. Over TLS the handshake is not finished."
    FIRST_MESSAGE = "Part of the first message has arrived."
    OPEN = "Messages are processed."
    PAUSED = "The peer does not read its replies. Until it does, the server reads nothing more and suspends its polls."
    THROTTLED = "The peer's calls that wait for the disk exceed its share of the request window. Nothing more is read."
    CLOSING = "Input is dropped. The replies so far are sent, then the connection closes."
    ABORTED = "The connection closes without waiting for the peer."
    LOST = "The connection is closed. Replies to calls under way are dropped."


class ConnectionInput(Enum):
    """A cause of a change; the value describes it."""

    DATA = "the first byte arrives"
    MESSAGE = "the first message is complete"
    BACKLOG = "more than `unsent_bytes` of replies wait"
    DRAINED = "half of `unsent_bytes` or less wait"
    FULL = "the calls that wait for the disk exceed the connection's share of the request window"
    ROOM = "they are half of that share or less"
    CLOSE = "a protocol error, a timeout, the peer's Abort, or the server's stop"
    ABORT = "eviction, replies that are not read in time, or the end of the server's `drain-seconds`"
    LOSS = "the transport reports that the connection is closed"


_ENDS: Final = {
    ConnectionInput.CLOSE: ConnectionState.CLOSING,
    ConnectionInput.ABORT: ConnectionState.ABORTED,
    ConnectionInput.LOSS: ConnectionState.LOST,
}

CONNECTION_TRANSITIONS: Final[Mapping[ConnectionState, Mapping[ConnectionInput, ConnectionState]]] = {
    ConnectionState.CONNECTED: {ConnectionInput.DATA: ConnectionState.FIRST_MESSAGE, **_ENDS},
    ConnectionState.FIRST_MESSAGE: {ConnectionInput.MESSAGE: ConnectionState.OPEN, **_ENDS},
    ConnectionState.OPEN: {
        ConnectionInput.BACKLOG: ConnectionState.PAUSED,
        ConnectionInput.FULL: ConnectionState.THROTTLED,
        **_ENDS,
    },
    ConnectionState.PAUSED: {ConnectionInput.DRAINED: ConnectionState.OPEN, **_ENDS},
    ConnectionState.THROTTLED: {
        ConnectionInput.BACKLOG: ConnectionState.PAUSED,
        ConnectionInput.ROOM: ConnectionState.OPEN,
        **_ENDS,
    },
    ConnectionState.CLOSING: {
        ConnectionInput.ABORT: ConnectionState.ABORTED,
        ConnectionInput.LOSS: ConnectionState.LOST,
    },
    ConnectionState.ABORTED: {ConnectionInput.LOSS: ConnectionState.LOST},
    ConnectionState.LOST: {},
}
"""The next state for each input.  An input that a state does not list changes nothing."""

READING: Final = frozenset({ConnectionState.FIRST_MESSAGE, ConnectionState.OPEN})
"""The states in which the peer is expected to complete a message that has begun."""

HELD: Final = frozenset({ConnectionState.PAUSED, ConnectionState.THROTTLED})
"""The states in which the server does not read, so that the peer cannot show that it lives."""

TAKING_CALLS: Final = frozenset({ConnectionState.OPEN, ConnectionState.THROTTLED})
"""The states in which replies that the peer does not take pause the connection."""

ENDED: Final = frozenset({ConnectionState.CLOSING, ConnectionState.ABORTED, ConnectionState.LOST})
"""The states in which input is dropped."""


def next_state(state: ConnectionState, cause: ConnectionInput) -> ConnectionState:
    """Return the state after *cause* in *state*."""
    return CONNECTION_TRANSITIONS[state].get(cause, state)


class HandshakeState(Enum):
    """A state of a connection before its TLS handshake is finished; the value describes it."""

    SILENT = "No byte has arrived. OpenSSL's state is not made yet."
    QUEUED = "Bytes have arrived. They wait for their share of a reactor turn."
    HANDSHAKING = "The bytes so far are processed. The peer has to continue."
    FINISHED = "The TLS transport has taken over, and the connection is in the table above."
    REFUSED = "The connection closes: it uses another protocol, or there are too many."
    LOST = "The connection is closed."


class HandshakeInput(Enum):
    """A cause of a change before the end of the handshake; the value describes it."""

    DATA = "bytes arrive"
    TURN = "the bytes are processed, in this reactor turn or a later one"
    FINISH = "the handshake is finished"
    REFUSE = "the first bytes are not TLS, or the limit of connections is reached"
    LOSS = "the transport reports that the connection is closed"


_HANDSHAKE_LOSS: Final = {HandshakeInput.LOSS: HandshakeState.LOST}

HANDSHAKE_TRANSITIONS: Final[Mapping[HandshakeState, Mapping[HandshakeInput, HandshakeState]]] = {
    HandshakeState.SILENT: {
        HandshakeInput.DATA: HandshakeState.QUEUED,
        HandshakeInput.REFUSE: HandshakeState.REFUSED,
        **_HANDSHAKE_LOSS,
    },
    HandshakeState.QUEUED: {HandshakeInput.TURN: HandshakeState.HANDSHAKING, **_HANDSHAKE_LOSS},
    HandshakeState.HANDSHAKING: {
        HandshakeInput.DATA: HandshakeState.QUEUED,
        HandshakeInput.FINISH: HandshakeState.FINISHED,
        HandshakeInput.REFUSE: HandshakeState.REFUSED,
        **_HANDSHAKE_LOSS,
    },
    HandshakeState.FINISHED: {},
    HandshakeState.REFUSED: _HANDSHAKE_LOSS,
    HandshakeState.LOST: {},
}
"""The next state for each input.  An input that a state does not list changes nothing."""


def next_handshake_state(state: HandshakeState, cause: HandshakeInput) -> HandshakeState:
    """Return the state after *cause* in *state*."""
    return HANDSHAKE_TRANSITIONS[state].get(cause, state)

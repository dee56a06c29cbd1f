"""The values of session leases, and of polls of several queues."""

from collections.abc import Sequence
from typing import NamedTuple

from queueber.api.queue_types import PollRequest, PollResponse
from queueber.units import SpanMs


class AttachRequest(NamedTuple):
    """Bind a session to this connection."""

    session: bytes
    """16 bytes."""

    grace: SpanMs = SpanMs(0)
    """How long the session's leases outlive its connection; 0: the server's default."""


class SessionLease(NamedTuple):
    """A lease that a session still has."""

    lease: bytes
    queue: str
    ids: Sequence[bytes]


class AttachResponse(NamedTuple):
    """The leases of an attached session, and how it is kept."""

    leases: Sequence[SessionLease]
    grace: SpanMs
    silence: SpanMs
    """The silence after which the server takes the peer for lost."""


class QueueWeight(NamedTuple):
    """A queue in a poll of several."""

    queue: str
    weight: int = 1
    """1 to 1,000."""


class PollAnyRequest(NamedTuple):
    """Take items of one of several queues."""

    queues: Sequence[QueueWeight]
    """1 to 64 queues."""

    strict: bool
    """Whether the first queue with an item is served; otherwise the queues take turns by weight."""

    poll: PollRequest


class PollAnyResponse(NamedTuple):
    """The items of one queue."""

    queue: str
    """Empty without items."""

    poll: PollResponse

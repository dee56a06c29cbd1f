"""
The requests and responses of ``queueber.capnp`` as values, and the numbers of its methods.

They say what the caller means: spans in milliseconds whichever field they came
in, and the defaults that the schema's comments promise.  Limits of the queue
itself (a lease's length, an id's length) are not theirs to judge.

Not frozen, because one is made per call and item, and freezing would triple
what that costs; nobody changes one all the same.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from attrs import define, frozen

from queueber.capnp.schema import schema
from queueber.units import SpanMs, WallMs

_QUEUE = schema().interfaces["Queue"]
_BROKER = schema().interfaces["Broker"]

QUEUE_INTERFACE_ID: Final = _QUEUE.id
BROKER_INTERFACE_ID: Final = _BROKER.id

ADD: Final = _QUEUE.methods.index("add")
REMOVE: Final = _QUEUE.methods.index("remove")
POLL: Final = _QUEUE.methods.index("poll")
EXTEND: Final = _QUEUE.methods.index("extend")
"""The methods of `QUEUE_INTERFACE_ID`."""

QUEUE: Final = _BROKER.methods.index("queue")
LIMITS: Final = _BROKER.methods.index("limits")
"""The methods of `BROKER_INTERFACE_ID`."""


class NewItem(NamedTuple):
    """One item to add."""

    contents: bytes
    delay: SpanMs
    """How long after the add it becomes due."""


@define
class AddRequest:
    """Store all of these, or none."""

    items: Sequence[NewItem]


@define
class AddResponse:
    """They are stored."""

    ids: Sequence[bytes]
    """One id for each item, in the order of the items; 16 bytes each."""


class RemoveRequest(NamedTuple):
    """Remove an item for ever."""

    id: bytes
    lease: bytes


class PollRequest(NamedTuple):
    """Take items under a new lease."""

    lease: SpanMs
    """How long they are to be held."""

    num_items: int
    """The most that are wanted; at least 1."""

    wait: SpanMs | None
    """How long to wait for the first; None as long as it takes."""

    no_wait: bool
    """Do not wait at all; `wait` means nothing then."""


class PolledItem(NamedTuple):
    """One item handed out."""

    contents: bytes
    id: bytes
    attempt: int
    """1 the first time."""

    added_at: WallMs


@define
class PollResponse:
    """What there was."""

    items: Sequence[PolledItem]
    lease: bytes
    """The right to remove and extend; empty without items."""

    deadline: WallMs
    """When the lease ends; 0 without items."""


class ExtendRequest(NamedTuple):
    """Hold a lease for *span* from now."""

    lease: bytes
    span: SpanMs


@frozen(kw_only=True)
class ServerLimits:
    """
    The limits of a server that a client can keep to.

    Each has the name and the unit that it has in `queueber.limits.Limits`; 0
    from a server that is older than the field.
    """

    frame_bytes: int = 0
    items_per_add: int = 0
    contents_bytes: int = 0
    add_bytes: int = 0
    poll_items: int = 0
    poll_bytes: int = 0
    lease_ms: int = 0
    delay_ms: int = 0
    wait_ms: int = 0

"""
The requests and responses of ``queueber.capnp`` as values, and the numbers of its methods.

Spans are in milliseconds, whichever field they came in, and absent fields have
the defaults that the schema's comments promise.  Limits of the queue itself
(lengths of leases and ids) are not checked here.

The classes are not frozen, because each call and item makes an instance and
freezing would triple that cost.  Treat them as immutable.
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
    """The time from the add until the item becomes due."""


@define
class AddRequest:
    """Store all of these items, or none."""

    items: Sequence[NewItem]


@define
class AddResponse:
    """The ids of the stored items."""

    ids: Sequence[bytes]
    """One id of 16 bytes for each item, in the order of the items."""


class RemoveRequest(NamedTuple):
    """Remove an item permanently."""

    id: bytes
    lease: bytes


class PollRequest(NamedTuple):
    """Take items under a new lease."""

    lease: SpanMs
    """The span of the lease."""

    num_items: int
    """The most items wanted; at least 1."""

    wait: SpanMs | None
    """The longest wait for the first item; None without a bound."""

    no_wait: bool
    """Whether not to wait at all; `wait` is ignored then."""


class PolledItem(NamedTuple):
    """One delivered item."""

    contents: bytes
    id: bytes
    attempt: int
    """The number of the delivery; 1 for the first."""

    added_at: WallMs


class PollResponse(NamedTuple):
    """The delivered items and their lease."""

    items: Sequence[PolledItem]
    lease: bytes
    """The lease id, which is the right to remove and extend; empty without items."""

    deadline: WallMs
    """The end of the lease; 0 without items."""


class ExtendRequest(NamedTuple):
    """Extend a lease to *span* from now."""

    lease: bytes
    span: SpanMs


@frozen(kw_only=True)
class ServerLimits:
    """
    The limits of a server that concern clients.

    Each has the name and unit of its field in `queueber.limits.Limits`; 0 from a
    server that is older than the field.
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

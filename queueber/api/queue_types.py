"""
The requests and responses of ``queueber.capnp`` as values, and the numbers of its methods.

Spans are in milliseconds, whichever field they came in, and absent fields have
the defaults that the schema's comments promise.  Limits of the queue itself
(lengths of leases and ids) are not checked here.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from queueber.capnp.schema import schema
from queueber.units import SpanMs, WallMs
from queueber.values import AddTo, Death, Header, NewItem, Settled, Settlement

_QUEUE = schema().interfaces["Queue"]
_BROKER = schema().interfaces["Broker"]

QUEUE_INTERFACE_ID: Final = _QUEUE.id
BROKER_INTERFACE_ID: Final = _BROKER.id

ADD: Final = _QUEUE.methods.index("add")
REMOVE: Final = _QUEUE.methods.index("remove")
POLL: Final = _QUEUE.methods.index("poll")
EXTEND: Final = _QUEUE.methods.index("extend")
SETTLE: Final = _QUEUE.methods.index("settle")
DEAD_LETTERS: Final = _QUEUE.methods.index("deadLetters")
"""The methods of `QUEUE_INTERFACE_ID`."""

QUEUE: Final = _BROKER.methods.index("queue")
LIMITS: Final = _BROKER.methods.index("limits")
ATTACH: Final = _BROKER.methods.index("attach")
PING: Final = _BROKER.methods.index("ping")
QUEUES: Final = _BROKER.methods.index("queues")
CONTROL: Final = _BROKER.methods.index("control")
POLL_ANY: Final = _BROKER.methods.index("pollAny")
"""The methods of `BROKER_INTERFACE_ID`."""


class AddRequest(NamedTuple):
    """Store all of these items, or none."""

    items: Sequence[NewItem]

    request_id: bytes = b""
    """16 bytes that stand for the call; empty: none."""


class AddResponse(NamedTuple):
    """The ids of the stored items."""

    ids: Sequence[bytes]
    """One id of 16 bytes for each item, in the order of the items."""

    duplicates: Sequence[int] = ()
    """The places of items that were not added, because their deduplication key was taken."""


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

    session: bytes = b""
    """The 16 bytes of the session that keeps the lease; empty for a lease with a deadline."""


class PolledItem(NamedTuple):
    """One delivered item."""

    contents: bytes
    id: bytes
    attempt: int
    """The number of the delivery; 1 for the first."""

    added_at: WallMs


class DeliveryFacts(NamedTuple):
    """The history of an item before this delivery, and its headers."""

    failures: int = 0
    """Settlements of the item as failed."""

    losses: int = 0
    """Leases on the item that ended by themselves."""

    first_leased_at: WallMs = WallMs(0)
    """0 if it was never leased before."""

    last_error: str = ""
    """The error of the last failure."""

    headers: tuple[Header, ...] = ()
    death: Death | None = None
    """The death of a dead item, or of one that was moved back from the dead items."""


class PollResponse(NamedTuple):
    """The delivered items and their lease."""

    items: Sequence[PolledItem]
    lease: bytes
    """The lease id, which is the right to remove and extend; empty without items."""

    deadline: WallMs
    """The end of the lease; 0 without items, and for a session lease."""

    session: bool = False
    """Whether the lease is a session lease."""

    facts: Sequence[DeliveryFacts] = ()
    """The facts of each item, in the order of `items`; empty if no item has any."""


class ExtendRequest(NamedTuple):
    """Extend a lease to *span* from now."""

    lease: bytes
    span: SpanMs


class SettleRequest(NamedTuple):
    """Settle these entries in order, and add items in the same commit."""

    entries: Sequence[Settlement]
    adds: Sequence[AddTo] = ()
    all_or_nothing: bool = False
    """Whether one entry that is not done refuses the whole call; implied by adds."""


class SettleResponse(NamedTuple):
    """The outcome of each entry, and the ids of the items that were added."""

    settled: Sequence[Settled]
    added: Sequence[AddResponse] = ()
    """One for each of the request's adds; empty if the call was refused."""

    changed: bool = True
    """False if the call was all or nothing and was refused, or had nothing to change."""


class ServerLimits(NamedTuple):
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

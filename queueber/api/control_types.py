# ruff: noqa: RUF009  (units are types, and cost no call)
"""
The methods and values of `QueueControl`, and of the list of queues.

Each class has the fields of the struct of ``queueber.capnp`` with the same
name, which explains them.  Points and spans are in milliseconds.
"""

from collections.abc import Sequence
from typing import Final, Generic, TypeVar

from attrs import frozen

from queueber.api.queue_types import DeliveryFacts
from queueber.capnp.schema import schema
from queueber.units import SpanMs, WallMs
from queueber.values import DeathReason, ItemState

_CONTROL = schema().interfaces["QueueControl"]

CONTROL_INTERFACE_ID: Final = _CONTROL.id

STATS: Final = _CONTROL.methods.index("stats")
SETTINGS: Final = _CONTROL.methods.index("settings")
CONFIGURE: Final = _CONTROL.methods.index("configure")
PEEK: Final = _CONTROL.methods.index("peek")
GET: Final = _CONTROL.methods.index("get")
CANCEL: Final = _CONTROL.methods.index("cancel")
KICK: Final = _CONTROL.methods.index("kick")
RESCHEDULE: Final = _CONTROL.methods.index("reschedule")
PURGE: Final = _CONTROL.methods.index("purge")
PAUSE: Final = _CONTROL.methods.index("pause")
RESUME: Final = _CONTROL.methods.index("resume")
REDRIVE: Final = _CONTROL.methods.index("redrive")
LEASES: Final = _CONTROL.methods.index("leases")
END_LEASE: Final = _CONTROL.methods.index("endLease")
DELETE: Final = _CONTROL.methods.index("delete")
"""
The methods of `CONTROL_INTERFACE_ID`.

| method | request | response |
|---|---|---|
| `STATS` | bool: exact | `QueueCounts` |
| `SETTINGS` | None | `SettingsInForce` |
| `CONFIGURE` | `ConfigureRequest` | `QueueSettings` |
| `PEEK` | `PeekRequest` | `Listed[ItemView]` |
| `GET` | bytes: the item's id | `ItemView`, or None |
| `CANCEL`, `KICK` | bytes: the item's id | `ControlOutcome` |
| `RESCHEDULE` | `RescheduleRequest` | `ControlOutcome` |
| `PURGE` | bool: the dead ones | int: items removed |
| `PAUSE`, `RESUME` | `PauseRequest` | None |
| `REDRIVE` | `RedriveRequest` | `Redriven` |
| `LEASES` | `LeasesRequest` | `Listed[LeaseView]` |
| `END_LEASE` | bytes: its handle or its id | bool: ended |
| `DELETE` | bool: force | `ControlOutcome` |
"""

Shown = TypeVar("Shown")


@frozen(kw_only=True)
class QueueSettings:
    """The settings of a queue."""

    lease_ms: SpanMs = SpanMs(0)
    max_lease_ms: SpanMs = SpanMs(0)
    max_attempts: int = 0
    backoff_base_ms: SpanMs = SpanMs(1_000)
    backoff_cap_ms: SpanMs = SpanMs(3_600_000)
    backoff_on_loss: bool = False
    max_items: int = 0
    max_bytes: int = 0
    max_item_bytes: int = 0
    ttl_ms: SpanMs = SpanMs(0)
    drop_expired: bool = False
    dead_ttl_ms: SpanMs = SpanMs(0)
    dedup_window_ms: SpanMs = SpanMs(300_000)
    idle_ttl_ms: SpanMs = SpanMs(0)
    labels: tuple[tuple[str, str], ...] = ()
    """Names and values."""

    adds_paused: bool = False
    polls_paused: bool = False


@frozen(kw_only=True)
class QueueCounts:
    """The counts of a queue."""

    items: int = 0
    bytes: int = 0
    ready: int = 0
    ready_max: int = 0
    delayed: int = 0
    delayed_max: int = 0
    leased: int = 0
    dead: int = 0
    dead_bytes: int = 0
    waiting_polls: int = 0
    oldest_due_ms: WallMs = WallMs(0)
    added: int = 0
    removed: int = 0
    adds_paused: bool = False
    polls_paused: bool = False
    counting: int = 0


@frozen(kw_only=True)
class QueueSummary:
    """A queue in the list of queues."""

    name: str
    stats: QueueCounts
    labels: tuple[tuple[str, str], ...] = ()


@frozen(kw_only=True)
class QueuesRequest:
    """Which queues to list."""

    prefix: str = ""
    label: tuple[str, str] | None = None
    """The name and value that a queue must have; None: any."""

    after: str = ""
    limit: int = 1_000
    """1 to 1,000."""


@frozen
class Listed(Generic[Shown]):
    """Some elements of a longer list, in its order."""

    found: Sequence[Shown]
    more: bool
    """Whether there are more after these."""


@frozen(kw_only=True)
class SettingsInForce:
    """The settings of a queue."""

    settings: QueueSettings
    defaults: Sequence[str]
    """The names of the fields that were never configured for this queue."""


@frozen(kw_only=True)
class ConfigureRequest:
    """Settings to change."""

    names: Sequence[str]
    """The names of the fields of `settings` that count."""

    settings: QueueSettings
    reset: Sequence[str] = ()
    """The names of the fields that go back to the server's default."""


@frozen(kw_only=True)
class PeekRequest:
    """Which items to show."""

    state: ItemState | None = None
    """`READY`, `DELAYED` or `DEAD`; None: ready and delayed items."""

    after: bytes = b""
    """The `place` of the last item that was seen; empty: none."""

    limit: int = 10
    """1 to 1,000."""

    contents_bytes: int | None = None
    """The most bytes of each item's contents; None: all."""


@frozen(kw_only=True)
class LeaseView:
    """A lease, without the right to its items."""

    handle: bytes
    items: int
    since_ms: WallMs = WallMs(0)
    deadline_ms: WallMs = WallMs(0)
    peer: str = ""
    session: bool = False
    ids: Sequence[bytes] = ()


@frozen(kw_only=True)
class Waits:
    """The reason why an item waits, or the worker that holds it."""

    lease: LeaseView | None = None
    ahead: int = 0
    queue_paused: bool = False
    leases_full: bool = False
    waiting_polls: int = 0


@frozen(kw_only=True)
class ItemView:
    """An item as an operator sees it."""

    id: bytes
    state: ItemState
    contents: bytes
    contents_bytes: int
    added_at_ms: WallMs
    due_ms: WallMs
    attempts: int = 0
    facts: DeliveryFacts = DeliveryFacts()
    expires_at_ms: WallMs = WallMs(0)
    place: bytes = b""
    waits: Waits | None = None


@frozen(kw_only=True)
class RedriveRequest:
    """Which dead items to move, and to which queue."""

    ids: Sequence[bytes] = ()
    """Only these; empty: all."""

    reason: DeathReason = DeathReason.NONE
    """Only items that died of this; `NONE`: of any."""

    limit: int = 1_000
    """1 to 1,000."""

    to: str = ""
    """The queue's name; empty: back to their own."""


@frozen(kw_only=True)
class Redriven:
    """The number of moved items, and whether more could be moved."""

    moved: int
    more: bool


@frozen(kw_only=True)
class RescheduleRequest:
    """An item, and the moment to which it moves."""

    id: bytes
    due_ms: WallMs


@frozen(kw_only=True)
class PauseRequest:
    """A pause or a resumption: of adds, of polls, or of both."""

    adds: bool
    polls: bool


@frozen(kw_only=True)
class LeasesRequest:
    """Which leases to list."""

    after: bytes = b""
    """The handle of the last lease that was seen; empty: none."""

    limit: int = 1_000
    """1 to 1,000."""

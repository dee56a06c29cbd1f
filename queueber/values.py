"""
The values that the interface and the broker share: options of items, settlements, and enumerations.

Numbers of enumerators are those of ``queueber.capnp``.  They stand here, below
both packages, so that neither translates and a client does not import the
broker.  In replies of a newer server there may be others: see `DeathReason`.

The classes are named tuples, because each call and item makes an instance.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

from queueber.units import SpanMs, WallMs

DEFAULT_QUEUE: Final = "default"
"""The name of the queue that a connection bootstraps."""

ID_BYTES: Final = 16

Header: TypeAlias = tuple[str, bytes]
"""The name and value of a header of an item."""


class Action(IntEnum):
    """The actions on a leased item."""

    REMOVE = 0
    """The item is done, and is removed."""

    FAIL = 1
    """The item is retried, and a failure is counted.  If that was its last attempt, it dies."""

    DEFER = 2
    """The item is redelivered, and no attempt is counted."""

    REJECT = 3
    """The item dies now, and a failure is counted."""

    EXTEND = 4
    """The whole lease ends a span from now."""


class Outcome(IntEnum):
    """The outcome of a settlement.  One that is newer than the client has a placeholder, as for `DeathReason`."""

    DONE = 0

    LEASE_LOST = 1
    """The lease is unknown or over."""

    NOT_FOUND = 2
    """The lease has not ended, but does not hold that item."""


class DeathReason(IntEnum):
    """
    Why an item died.

    A reason that a newer server gives and this client does not know is a placeholder with its number, such as 7, and
    the name ``UNKNOWN_7``.  It is equal to no enumerator.
    """

    NONE = 0

    ATTEMPTS = 1
    """The last attempt on it failed."""

    LOST = 2
    """The lease of its last attempt expired."""

    REJECTED = 3
    """A worker rejected it."""

    EXPIRED = 4
    """The item's time to live was over before it was delivered."""


class ItemState(IntEnum):
    """The state of an item.  One that is newer than the client has a placeholder, as for `DeathReason`."""

    READY = 0
    DELAYED = 1
    LEASED = 2
    DEAD = 3


class ControlOutcome(IntEnum):
    """The outcome of an operator's call.  One that is newer than the client has a placeholder, as for `DeathReason`."""

    DONE = 0
    NOT_FOUND = 1

    LEASED = 2
    """The item is leased by a worker, and was not changed."""

    NOT_EMPTY = 3
    """The queue has items or waiting polls."""


class ItemOptions(NamedTuple):
    """The options of an item to add, beyond its contents and its delay."""

    headers: tuple[Header, ...] = ()
    """At most 64 headers, with at most 4 KiB of names and values together."""

    dedup_key: bytes = b""
    """1 to 255 bytes; empty: none."""

    until_removed: bool = False
    """Whether the key is remembered until the item is removed, instead of for the queue's window."""

    expires_at: WallMs = WallMs(0)
    """When it expires, in queue time; 0: never."""

    due: WallMs = WallMs(0)
    """When it becomes due, in queue time; 0: as its delay says."""


class NewItem(NamedTuple):
    """One item to add."""

    contents: bytes
    delay: SpanMs
    """The time from the add until the item becomes due."""

    options: ItemOptions | None = None


class Death(NamedTuple):
    """An item's end."""

    reason: DeathReason
    died_at: WallMs
    queue: str
    """The name of the queue in which it died."""


class Settlement(NamedTuple):
    """One entry of a settle: the action on one item of a lease, or on all of them."""

    lease: bytes
    """16 bytes."""

    id: bytes
    """The item's id; empty: all items of the lease."""

    action: Action
    delay: SpanMs | None = None
    """The time until the item becomes due again, or the new span of the lease; None: the action's own default."""

    error: str = ""
    """Why it failed: at most 4 KiB of UTF-8."""


class Settled(NamedTuple):
    """The outcome of one entry of a settle."""

    outcome: Outcome
    died: bool = False
    """Whether the item, or one of them, is among the dead items now."""

    due: WallMs = WallMs(0)
    """When the item becomes due again, or the extended lease ends; 0 for other outcomes."""


class AddTo(NamedTuple):
    """Items to add in the same commit as settlements."""

    queue: str
    """The queue's name; empty: the queue on which `settle` was called."""

    items: Sequence[NewItem]


def id_text(identity: bytes) -> str:
    """Return an item's or a lease's id as a UUID.  Ids of other lengths, from foreign servers, are hexadecimal."""
    if len(identity) != ID_BYTES:
        return identity.hex()
    # Imported here, because few programs show ids, and it imports more than itself.
    from uuid import UUID  # noqa: PLC0415

    return str(UUID(bytes=identity))

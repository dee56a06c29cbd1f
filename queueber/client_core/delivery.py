"""
Items that a poll has delivered, and how leaving the context of one settles it.

Each client adds the methods that settle an item, in its own way of waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from queueber.api import Action, DeliveryFacts, PolledItem, PollResponse
from queueber.client_core.errors import LeaseLost
from queueber.client_core.process import HERE
from queueber.errors import InvalidRequest
from queueber.fixed_limits import ERROR_BYTES_MAX
from queueber.units import WallMs
from queueber.values import Death, id_text

EXIT_MS: Final = 10_000
"""The time limit for settling an item at the end of its context."""

_NO_FACTS: Final = DeliveryFacts()
_NO_DEADLINE: Final = WallMs(0)


class Delivered:
    """One item under a lease."""

    __slots__ = ("__weakref__", "_process", "facts", "lease", "polled", "settled")

    def __init__(self, polled: PolledItem, lease: bytes, facts: DeliveryFacts = _NO_FACTS) -> None:
        self.polled = polled
        self.lease = lease
        """The id of the lease, 16 bytes, the right to settle the item.  Keep it secret."""

        self.facts = facts
        self.settled = False
        """Whether one of the item's own methods has ended its lease, or was called to."""

        self._process = HERE.id
        """The process that polled the item."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.polled.id.hex()}, attempt {self.polled.attempt}>"

    def _why_not_here(self) -> InvalidRequest | None:
        """Return the error of settling the item in a process that was forked from its own; None in its own."""
        here = HERE.id
        if here == self._process:
            return None
        return InvalidRequest(
            f"item {id_text(self.id)} belongs to process {self._process}, which polled it, and this is process {here}: "
            "settle it there"
        )

    @property
    def id(self) -> bytes:
        """The item's id, 16 bytes, the same at every delivery."""
        return self.polled.id

    @property
    def contents(self) -> bytes:
        """The bytes that were added."""
        return self.polled.contents

    @property
    def attempt(self) -> int:
        """The number of the delivery; 1 for the first."""
        return self.polled.attempt

    @property
    def added_at(self) -> WallMs:
        """When the item was added, in milliseconds since the Unix epoch by the server's clock."""
        return self.polled.added_at

    @property
    def first_leased_at(self) -> WallMs:
        """When the item was first leased, likewise; 0 if it was never leased before."""
        return self.facts.first_leased_at

    @property
    def failures(self) -> int:
        """Earlier settlements of the item as failed."""
        return self.facts.failures

    @property
    def losses(self) -> int:
        """Earlier leases on the item that expired."""
        return self.facts.losses

    @property
    def last_error(self) -> str:
        """The error of the last failure; empty without one."""
        return self.facts.last_error

    @property
    def headers(self) -> Mapping[str, bytes]:
        """The headers that were given when the item was added."""
        return dict(self.facts.headers)

    @property
    def death(self) -> Death | None:
        """The death of a dead item, or of one that was moved back from the dead items; None for all others."""
        return self.facts.death


I = TypeVar("I", bound=Delivered)  # noqa: E741  (an item)


class DeliveredBatch(Generic[I]):
    """The result of one poll: items under one lease, or none."""

    __slots__ = ("__weakref__", "deadline", "facts", "items", "lease", "session")

    def __init__(
        self,
        items: Sequence[I],
        lease: bytes = b"",
        deadline: WallMs = _NO_DEADLINE,
        session: bool = False,
        facts: Sequence[DeliveryFacts] = (),
    ) -> None:
        self.items = items
        """Items in the order in which they became due; empty if the wait ended first."""

        self.lease = lease
        """The lease's id, 16 bytes, the right to remove and extend; empty without items.  Keep it secret."""

        self.deadline = deadline
        """
        When the lease ends, by the server's clock.

        0 without items, for a session lease, or if an old server does not send it.
        """

        self.session = session
        """Whether the lease lasts as long as the session of the poll.  False from an old server without sessions."""

        self.facts = facts
        """Facts of the items, in the same order.  Trailing facts that are all defaults are left out; use `facts_of`."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(items={self.items!r}, deadline={self.deadline}, session={self.session})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        mine = self.items, self.lease, self.deadline, self.session, self.facts
        return mine == (other.items, other.lease, other.deadline, other.session, other.facts)

    def __hash__(self) -> int:
        return hash(self.lease)

    def facts_of(self, place: int) -> DeliveryFacts:
        """Return the facts of the item at *place*: failures, losses, last error, headers and the like."""
        return self.facts[place] if place < len(self.facts) else _NO_FACTS

    def __iter__(self) -> Iterator[I]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def only(self) -> I | None:
        """
        Return the only item, or None without one.

        Raises:
            InvalidRequest: there are several.
        """
        if len(self.items) > 1:
            raise InvalidRequest(f"the batch has {len(self.items)} items; enter each of them, or poll for one")
        return self.items[0] if self.items else None


class Exit(NamedTuple):
    """The settlement of an item at the end of its context."""

    action: Action
    error: str = ""


def exit_for(error: BaseException | None, cancelled: tuple[type[BaseException], ...]) -> Exit:
    """
    Return how a context that ends with *error*, or without one, settles its item.

    Success removes.  An exception fails, with its text.  Exceptions of the types *cancelled*, and those that end a
    program, defer, because the work did not fail.
    """
    if error is None:
        return Exit(Action.REMOVE)
    if isinstance(error, cancelled) or not isinstance(error, Exception):
        return Exit(Action.DEFER)
    return Exit(Action.FAIL, text_of(error))


def text_of(error: BaseException) -> str:
    """Return the class and the text of *error*, cut to what a settlement can carry."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  (the program's own `__str__`)
        text = ""
    found = f"{type(error).__name__}: {text}" if text else type(error).__name__
    encoded = found.encode(errors="replace")
    return encoded[:ERROR_BYTES_MAX].decode(errors="ignore")


def items_of(response: PollResponse, make: Callable[[PolledItem, bytes, DeliveryFacts], I]) -> tuple[I, ...]:
    """Return the items of a poll's *response*, each made by *make* from itself, its lease and its facts."""
    lease, facts = response.lease, response.facts
    if not facts:
        return tuple(make(each, lease, _NO_FACTS) for each in response.items)
    return tuple(
        make(each, lease, facts[at] if at < len(facts) else _NO_FACTS) for at, each in enumerate(response.items)
    )


def lease_lost(item: Delivered) -> LeaseLost:
    """Return the error of a context that ended without an exception after the lease on *item* had ended."""
    return LeaseLost(
        f"the lease on item {id_text(item.id)} ended before it was removed: another worker may get it, or has it"
    )


def note(error: BaseException, why: BaseException) -> None:
    """Add to *error*, with which a context ends, that its item was not settled because of *why*."""
    error.add_note(f"The item was not settled, and is redelivered when its lease ends: {why or type(why).__name__}")

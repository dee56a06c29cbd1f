"""The queues that a worker polls, one or several by weight or in strict order, and the calls on them."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from attrs import field, frozen

from queueber import api
from queueber.client_core.broker_calls import BrokerCalls
from queueber.client_core.calls import Call
from queueber.client_core.held_leases import HeldLeases
from queueber.client_core.queue_calls import QueueCalls, SessionRef
from queueber.client_core.reconnect import Link
from queueber.client_core.routes import DeadLettersOf, Place
from queueber.errors import InvalidRequest, QueueberError
from queueber.units import SpanMs
from queueber.values import DEFAULT_QUEUE, Action, AddTo, Outcome, Settled, Settlement
from queueber.worker.actions import Settle

Answer: TypeAlias = tuple[str, api.PollResponse]
"""The name of a queue, and its answer."""


def _as_it_is(response: api.PollResponse) -> api.PollResponse:
    return response


@frozen(eq=False)
class QueueSource:
    """One queue at a *place*, or several by name with their weights."""

    place: Place = None
    """The queue, and the object on which leases are settled; None: the default queue, which settles those of all."""

    several: Mapping[str, int] = field(factory=dict)
    """The names of several queues, with their weights; empty for one queue."""

    strict: bool = False
    """Whether the first queue that has an item is served, instead of all by weight."""

    held: HeldLeases = field(factory=HeldLeases)

    @property
    def name(self) -> str:
        """The name of the only queue; for dead items, that of their queue."""
        place = self.place.queue if isinstance(self.place, DeadLettersOf) else self.place
        return place if isinstance(place, str) else DEFAULT_QUEUE

    @property
    def names(self) -> list[str]:
        """The names of all queues; none for dead items."""
        if isinstance(self.place, DeadLettersOf):
            return []
        return list(self.several) or [self.name]

    def __str__(self) -> str:
        if self.several:
            return ", ".join(self.several)
        return f"the dead items of {self.name}" if isinstance(self.place, DeadLettersOf) else self.name

    def _queue(self, place: Place) -> QueueCalls[api.PollResponse]:
        return QueueCalls(place, _as_it_is, held=self.held)

    def poll(self, n: int, lease: SpanMs, wait: SpanMs, session: SessionRef | bytes) -> Call[Answer]:
        """Return a poll for up to *n* items."""
        if self.several:
            return BrokerCalls(lambda _, response: response).poll_any(
                self.several, n, lease_ms=lease, wait_ms=wait, strict=self.strict, session=session
            )
        call: Call[Any] = self._queue(self.place).poll(n, lease_ms=lease, wait_ms=wait, session=session)
        read, name = call.read, self.name
        return call._replace(read=lambda results: (name, read(results)))

    def place_of(self, queue: str) -> Place:
        """Return the place of the queue that a poll has named."""
        return queue if self.several else self.place

    def limits(self) -> Call[api.ServerLimits]:
        """Return a call that any server answers or refuses at once."""
        return BrokerCalls(lambda _, response: response).limits()

    def settle(self, entries: list[Settlement], adds: list[AddTo]) -> Call[api.SettleResponse]:
        """Return a call that settles *entries*."""
        return self._queue(self.place).settle(*entries, adds=adds)

    def extend(self, place: Place, lease: bytes, span: SpanMs) -> Call[bool]:
        """Return a call that lets a *lease* on items of the queue at *place* end *span* from now."""
        return self._queue(place).extend(lease, span)

    def remove(self, place: Place, item_id: bytes, lease: bytes) -> Call[bool]:
        """Return a call that removes an item, for a server without `settle`."""
        return self._queue(place).remove(item_id, lease)


def settle_without_settle(
    link: Link, source: QueueSource, action: Settle, on_done: Callable[[list[Settled] | QueueberError], None]
) -> None:
    """
    Do *action* on a server that is older than `settle`, and call *on_done* once with the outcomes, or with an error.

    Each lease holds one item there.  `remove` removes it, and every other verdict ends the lease after its delay, so
    that the item is redelivered as after a loss.  A hand-off is refused, because nothing is removed and added in one
    commit there.
    """
    if action.adds:
        on_done(InvalidRequest("the server is too old for a hand-off, which needs its method `settle`"))
        return
    answers: dict[int, Settled] = {}
    errors: list[QueueberError] = []

    def answered(at: int, outcome: bool | QueueberError) -> None:
        if isinstance(outcome, QueueberError):
            errors.append(outcome)
        answers[at] = Settled(Outcome.DONE if outcome is True else Outcome.LEASE_LOST)
        if len(answers) == len(action.entries):
            on_done(errors[0] if errors else [answers[each] for each in sorted(answers)])

    for at, (entry, taken) in enumerate(zip(action.entries, action.items, strict=True)):
        if entry.action is Action.REMOVE:
            call = source.remove(taken.lease.place, entry.id, entry.lease)
        else:
            call = source.extend(taken.lease.place, entry.lease, SpanMs(max(1, entry.delay or 1)))
        link.call(call, lambda outcome, at=at: answered(at, outcome))  # type: ignore[misc]

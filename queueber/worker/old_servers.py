"""
Settling on a server that is older than `settle`.

Each lease holds one item there.  `remove` removes it, and every other verdict
ends the lease after its delay, so that the item is redelivered as after a loss.
A hand-off is refused, because nothing is removed and added in one commit there.
"""

from collections.abc import Callable

from queueber.client_core.reconnect import Link
from queueber.errors import InvalidRequest, QueueberError
from queueber.units import SpanMs
from queueber.values import Action, Outcome, Settled
from queueber.worker.actions import Settle
from queueber.worker.source import Source

Answers = list[Settled] | QueueberError


def settle_without_settle(link: Link, source: Source, action: Settle, on_done: Callable[[Answers], None]) -> None:
    """Do *action* by other calls, and call *on_done* once with the outcomes, or with one of the errors."""
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

    for at, (entry, delivery) in enumerate(zip(action.entries, action.deliveries, strict=True)):
        if entry.action is Action.REMOVE:
            call = source.remove(delivery.lease.place, entry.id, entry.lease)
        else:
            call = source.extend(delivery.lease.place, entry.lease, SpanMs(max(1, entry.delay or 1)))
        link.call(call, lambda outcome, at=at: answered(at, outcome))  # type: ignore[misc]

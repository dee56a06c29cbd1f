"""Many clients of one server in one process, and the receiver of a load's progress."""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, FirstError, gatherResults

from queueber.client import Client, Queue
from queueber.errors import QueueberError
from queueber.limits import DEFAULTS

T = TypeVar("T")

CALLS_MAX = DEFAULTS.outstanding_calls // 4
"""Most calls in flight on one connection, a quarter of the server's default limit."""

PROGRESS_SECONDS = 0.25
"""Interval between updates of the progress."""

BUSY_SECONDS = 0.5
"""Pause after an overloaded answer."""

LINE_SECONDS = 5.0
"""Interval between lines of figures."""


class ProgressReporter(Protocol):
    """The receiver of a load's progress."""

    def begin(self, what: str, total: float, *, items: bool = False) -> None:
        """Begin the phase *what*, of about *total* seconds, or of *total* items if *items*."""

    def at(self, done: float, total: float | None = None) -> None:
        """Show that *done* seconds or items are complete; *total* is a new estimate."""

    def line(self, text: str) -> None:
        """Show a line of text."""

    def end(self) -> None:
        """End the phase."""


class NotEmpty(QueueberError):
    """The queue for a load holds other items.  They are unchanged except for one more attempt."""


@frozen
class Fleet:
    """A reactor and the connections made on it."""

    reactor: Any
    """Only its clock is used, so a `task.Clock` will do."""

    connect: Callable[[], Client]
    queue: str | None
    """The name of the queue that all connections use; None for the default queue."""

    clients: list[Client]

    def more(self, count: int) -> list[Queue]:
        """Open *count* connections and return the queue through each."""
        made = [self.connect() for _ in range(count)]
        self.clients.extend(made)
        return [client.default if self.queue is None else client.queue(self.queue) for client in made]

    def sleep(self, seconds: float) -> Deferred[None]:
        """Return a Deferred that fires after *seconds*."""
        waiting: Deferred[None] = Deferred(lambda _: later.cancel())
        later = self.reactor.callLater(max(0.0, seconds), waiting.callback, None)
        return waiting

    async def close(self) -> None:
        """Close all connections."""
        await together(client.close() for client in self.clients)


def started(work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    """Start *work* and return a Deferred that can be cancelled."""
    return Deferred.fromCoroutine(work)


async def together(jobs: Iterable[Deferred[T]]) -> list[T]:
    """Return the results of all *jobs*, or raise the first error."""
    try:
        return await gatherResults(list(jobs), consumeErrors=True)
    except FirstError as why:
        why.subFailure.raiseException()

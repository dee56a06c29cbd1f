"""Many clients of one server, in one process."""

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Protocol, TypeVar
from uuid import uuid4

from attrs import frozen
from twisted.internet.defer import Deferred, FirstError, gatherResults

from queueber.cli.session import Session
from queueber.client import Client, Queue, Tls, connect
from queueber.limits import DEFAULTS

T = TypeVar("T")

ATTEMPTS = 20
"""So many failed attempts to connect end a load."""

CALLS_MAX = DEFAULTS.outstanding_calls // 4
"""Calls that are put on one connection at most: far fewer than a server takes."""


class Target(Protocol):
    """The server that the command was told of."""

    address: str
    queue: str | None
    tls: Tls | None


@frozen
class Fleet:
    """A reactor, and connections made on it."""

    reactor: Any
    """`task.Clock` is enough."""

    connect: Callable[[], Client]
    queue: str | None
    """Where all of them work; None for the default queue."""

    clients: list[Client]

    def more(self, count: int) -> list[Queue]:
        """The queue through *count* new connections."""
        made = [self.connect() for _ in range(count)]
        self.clients.extend(made)
        return [client.default if self.queue is None else client.queue(self.queue) for client in made]

    def sleep(self, seconds: float) -> Deferred[None]:
        """Fires after that time."""
        waiting: Deferred[None] = Deferred(lambda _: later.cancel())
        later = self.reactor.callLater(max(0.0, seconds), waiting.callback, None)
        return waiting

    async def close(self) -> None:
        """Close all connections."""
        await together(client.close() for client in self.clients)


def with_fleet(target: Target, queue: str | None, work: Callable[[Fleet], Awaitable[T]]) -> T:
    """
    The result of *work* with connections to *target*.

    Raises:
        Interrupted: a signal came first.
        QueueberError: the server cannot be reached, or refused something.
    """

    async def run(reactor: Any) -> T:  # noqa: ANN401
        def another() -> Client:
            return connect(reactor, target.address, tls=target.tls, attempts=ATTEMPTS)

        fleet = Fleet(reactor, another, queue, [])
        try:
            # If there is no server, that is better known from one connection than from a thousand.
            (first,) = fleet.more(1)
            await first.extend(bytes(16), 1)
            return await work(fleet)
        finally:
            await fleet.close()

    return Session(run).run()


def started(work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    """*work*, begun, in such a way that it can be cancelled."""
    return Deferred.fromCoroutine(work)


async def together(jobs: Iterable[Deferred[T]]) -> list[T]:
    """The results of all *jobs*; the first error of any, as it was."""
    try:
        return await gatherResults(list(jobs), consumeErrors=True)
    except FirstError as why:
        why.subFailure.raiseException()


def queue_for(target: Target, what: str) -> str:
    """The queue to work in: the one that was asked for, or else one that nobody has."""
    return target.queue or f"{what}-{uuid4().hex[:8]}"

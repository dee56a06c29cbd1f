"""Many clients of one server, in one process."""

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Protocol, TypeVar
from uuid import uuid4

from attrs import frozen
from twisted.internet.defer import Deferred, FirstError, TimeoutError, gatherResults  # noqa: A004

from queueber.cli.session import Session
from queueber.client import GIVE_BACK_MS, Client, Queue, Tls, connect
from queueber.client.blocking import NoAnswer
from queueber.errors import QueueberError
from queueber.limits import DEFAULTS

T = TypeVar("T")

PROBE_SECONDS = 5.0
"""How long the first question may take."""

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
        NoAnswer: the server did not answer the first question within `PROBE_SECONDS`.
        QueueberError: the server cannot be reached, or refused something.
    """

    async def run(reactor: Any) -> T:  # noqa: ANN401
        await _probe(reactor, target)

        def another() -> Client:
            return connect(reactor, target.address, tls=target.tls, attempts=ATTEMPTS)

        fleet = Fleet(reactor, another, queue, [])
        try:
            result = await work(fleet)
        except Exception:
            await fleet.close()
            raise
        # In no `finally`: work that a signal ends is left as it is, and closed as garbage in the middle of anything.
        await fleet.close()
        return result

    return Session(run).run()


async def _probe(reactor: Any, target: Target) -> None:  # noqa: ANN401
    """
    Ask *target* for something, once and for a short time: a load is patient with a server, and prints nothing before.

    Raises:
        NoAnswer: there was no answer in that time.
        QueueberError: the server cannot be reached, or its answer was an error.
    """
    client = connect(reactor, target.address, tls=target.tls, attempts=1)
    asking = client.default.extend(bytes(16), 1)
    try:
        await asking.addTimeout(PROBE_SECONDS, reactor)
    except TimeoutError:
        # A peer that says nothing may not let the connection end either, so that is not waited for.
        client.close().addErrback(lambda _: None)
        raise NoAnswer(f"no answer from {target.address} within {PROBE_SECONDS:g} s") from None
    except Exception:
        await client.close()
        raise
    await client.close()


class NotEmpty(QueueberError):
    """A queue that a load was to work in holds items of somebody else's; they are as they were, but for one attempt."""


async def refuse_unless_empty(fleet: Fleet, target: Target, *names: str) -> None:
    """
    See to it that nothing is ready in the queues with *names*, if the name is one that was asked for.

    Raises:
        NotEmpty: something is; its lease ends at once.
    """
    if target.queue is None:
        return
    client = fleet.connect()
    fleet.clients.append(client)
    for name in names:
        if (await client.queue(name).poll(1, lease_ms=GIVE_BACK_MS, wait_ms=0)).items:
            raise NotEmpty(f"the queue {name} is not empty, and its items are left alone: --queue takes one that is")


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

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
"""Time limit of the first call."""

ATTEMPTS = 20
"""Failed attempts to connect after which a load ends."""

CALLS_MAX = DEFAULTS.outstanding_calls // 4
"""Most calls in flight on one connection, a quarter of the server's default limit."""


class Target(Protocol):
    """The server selected by the command's options."""

    address: str
    queue: str | None
    tls: Tls | None


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


def with_fleet(target: Target, queue: str | None, work: Callable[[Fleet], Awaitable[T]]) -> T:
    """
    Run *work* with connections to *target* and return its result.

    Raises:
        Interrupted: a signal arrived first.
        NoAnswer: the server did not answer the first call within `PROBE_SECONDS`.
        QueueberError: the server cannot be reached, or refused a call.
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
        # Not in a `finally`: work that a signal ends is abandoned, and its clean-up may run at any time.
        await fleet.close()
        return result

    return Session(run).run()


async def _probe(reactor: Any, target: Target) -> None:  # noqa: ANN401
    """
    Call *target* once with a short time limit, because the load itself would wait long and print nothing.

    Raises:
        NoAnswer: there was no answer within `PROBE_SECONDS`.
        QueueberError: the server cannot be reached, or answered with an error.
    """
    client = connect(reactor, target.address, tls=target.tls, attempts=1)
    asking = client.default.extend(bytes(16), 1)
    try:
        await asking.addTimeout(PROBE_SECONDS, reactor)
    except TimeoutError:
        # Not awaited, because a silent peer may delay the close.
        client.close().addErrback(lambda _: None)
        raise NoAnswer(f"no answer from {target.address} within {PROBE_SECONDS:g} s") from None
    except Exception:
        await client.close()
        raise
    await client.close()


class NotEmpty(QueueberError):
    """The queue for a load holds other items.  They are unchanged except for one more attempt."""


async def refuse_unless_empty(fleet: Fleet, target: Target, *names: str) -> None:
    """
    Check that no item is ready in the queues *names*, if the user selected the queue.

    Raises:
        NotEmpty: an item is ready.  Its lease ends at once.
    """
    if target.queue is None:
        return
    client = fleet.connect()
    fleet.clients.append(client)
    for name in names:
        if (await client.queue(name).poll(1, lease_ms=GIVE_BACK_MS, wait_ms=0)).items:
            raise NotEmpty(
                f"the queue {name} is not empty, and its items are left alone: --queue needs an empty one.  They may be"
                " the rest of a run that was cut short: without --queue a run takes a new queue, and `queueber --queue"
                " NAME poll` and `remove` empty this one"
            )


def started(work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    """Start *work* and return a Deferred that can be cancelled."""
    return Deferred.fromCoroutine(work)


async def together(jobs: Iterable[Deferred[T]]) -> list[T]:
    """Return the results of all *jobs*, or raise the first error."""
    try:
        return await gatherResults(list(jobs), consumeErrors=True)
    except FirstError as why:
        why.subFailure.raiseException()


def queue_for(target: Target, what: str) -> str:
    """Return the name of the selected queue, or a new name."""
    return target.queue or f"{what}-{uuid4().hex[:8]}"

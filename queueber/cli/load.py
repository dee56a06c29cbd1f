"""Connections for a load tool: the first call, the check for an empty queue, and the end by a signal."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar
from uuid import uuid4

from twisted.internet.defer import TimeoutError  # noqa: A004

from queueber.cli.server_options import ServerSelection
from queueber.cli.session import Interrupted, Session
from queueber.cli.terminal import LoadDisplay
from queueber.client import GIVE_BACK_MS, Client, connect
from queueber.client.blocking import NoAnswer
from queueber.errors import QueueberError
from queueber.loadgen.clients import Fleet, NotEmpty

T = TypeVar("T")
R = TypeVar("R", bound="Load")

PROBE_SECONDS = 5.0
"""Time limit of the first call."""

CONNECT_ATTEMPTS = 20
"""Failed attempts to connect after which a load ends."""


class Load(Protocol):
    """A run of a load tool."""

    async def run(self) -> object:
        """Load the server, and remove the items that were added."""

    def stop(self) -> None:
        """End the run, and remove the items that it has added."""


def run_load(
    server: ServerSelection,
    queue: str,
    make: Callable[[Fleet, LoadDisplay], R],
    show_unfinished: Callable[[R], object],
    *,
    names: Sequence[str] = (),
) -> R:
    """
    Run the load that *make* returns, and return it.  Before a signal or an error ends it, *show_unfinished* is called.

    The queues *names*, or else *queue*, must be empty.  Raises what `refuse_unless_empty` and `with_fleet` raise.
    """
    display = LoadDisplay(quiet=server.as_json)
    runs: list[R] = []

    async def work(fleet: Fleet) -> None:
        await refuse_unless_empty(fleet, server, *(names or (queue,)))
        runs.append(make(fleet, display))
        await runs[0].run()

    def stop() -> bool:
        for run in runs:
            run.stop()
        return bool(runs)

    try:
        with_fleet(server, queue, work, stop)
    except (Interrupted, QueueberError):
        display.end()
        for run in runs:
            show_unfinished(run)
        raise
    return runs[0]


def with_fleet(
    server: ServerSelection,
    queue: str | None,
    work: Callable[[Fleet], Awaitable[T]],
    stop: Callable[[], bool] | None = None,
) -> T:
    """
    Run *work* with connections to *server* and return its result.

    *stop* is called at a signal, as for `queueber.cli.session.Session`.

    Raises:
        Interrupted: a signal arrived first.
        NoAnswer: the server did not answer the first call within `PROBE_SECONDS`.
        QueueberError: the server cannot be reached, or refused a call.
    """

    async def run(reactor: Any) -> T:  # noqa: ANN401
        await probe(reactor, server)

        def another() -> Client:
            return connect(reactor, server.address, tls=server.tls, attempts=CONNECT_ATTEMPTS)

        fleet = Fleet(reactor, another, queue, [])
        try:
            result = await work(fleet)
        except Exception:
            await fleet.close()
            raise
        # Not in a `finally`: work that a signal ends is abandoned, and its clean-up may run at any time.
        await fleet.close()
        return result

    return Session(run, stop=stop).run()


async def probe(reactor: Any, server: ServerSelection) -> None:  # noqa: ANN401
    """
    Call *server* once with a short time limit, because the load itself would wait long and print nothing.

    Raises:
        NoAnswer: there was no answer within `PROBE_SECONDS`.
        QueueberError: the server cannot be reached, or answered with an error.
    """
    client = connect(reactor, server.address, tls=server.tls, attempts=1)
    answer = client.default.extend(bytes(16), 1)
    try:
        await answer.addTimeout(PROBE_SECONDS, reactor)
    except TimeoutError:
        # Not awaited, because a silent peer may delay the close.
        client.close().addErrback(lambda _: None)
        raise NoAnswer(f"no answer from {server.address} within {PROBE_SECONDS:g} s") from None
    except Exception:
        await client.close()
        raise
    await client.close()


async def refuse_unless_empty(fleet: Fleet, server: ServerSelection, *names: str) -> None:
    """
    Check that no item is ready in the queues *names*, if the user selected the queue.

    Raises:
        NotEmpty: an item is ready.  Its lease ends at once.
    """
    if server.queue is None:
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


def queue_for(server: ServerSelection, prefix: str) -> str:
    """Return the name of the selected queue, or a new name that begins with *prefix*."""
    return server.queue or f"{prefix}-{uuid4().hex[:8]}"

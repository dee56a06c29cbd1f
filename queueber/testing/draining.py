"""
Running handlers and tasks in the thread of a test, without a worker.

Items are taken over a real connection, one at a time, and settled by the rules
of a worker.  The handler runs where the test runs: plain functions are called,
and what a handler returns is awaited by the test's own event loop, or by one
that is made for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from inspect import isawaitable, iscoroutine, iscoroutinefunction
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import CancelledError

from queueber import sync
from queueber.errors import InvalidRequest
from queueber.fixed_limits import POLL_ANY_QUEUES_MAX
from queueber.units import HOUR
from queueber.values import Outcome, Settlement
from queueber.worker.items import WorkItem
from queueber.worker.verdicts import DEFER, Decision, Verdict, refused, verdict_of, verdict_of_error

TIMEOUT_MS: Final = 20_000
"""For each call: a test whose server hangs should fail, not hang."""

ATTEMPTS: Final = 3
RETRY_SECONDS: Final = 0.01
"""A connection that a fault has cut is made again at once; a server that is down is reported."""

CANCELLED: Final = (asyncio.CancelledError, CancelledError, GeneratorExit)


@frozen
class Run:
    """One run of a handler."""

    item: WorkItem
    verdict: Verdict
    """The decision about the item: `verdict.action` is `REMOVE` after a success."""

    error: BaseException | None = None
    """
    The exception of the handler or task, unless it was a decision of its own such as `Reject`.

    An `InvalidRequest` may be the server's, which has refused the verdict: the item has failed instead.
    """

    lost: bool = False
    """Whether the lease had ended, so that the verdict had no effect."""


@frozen
class Work:
    """A handler, and the queues whose items it takes, the first first."""

    handler: Callable[[WorkItem], Any]
    queues: list[str]
    close: Callable[[], Any] | None = None
    """Closes what the handler has left open in its event loop."""

    @property
    def needs_loop(self) -> bool:
        """Whether the handler is a coroutine function."""
        return iscoroutinefunction(self.handler) or iscoroutinefunction(getattr(self.handler, "__call__", None))  # noqa: B004


def work_of(work: Any, queues: Iterable[str]) -> Work:  # noqa: ANN401
    """
    Return the handler and the queues of *work*: a `Tasks` or a `Worker`, which have both, or a handler.

    Raises:
        TypeError: it is neither, or a handler without queues.
    """
    names, close = list(queues), getattr(work, "aclose", None)
    handler = getattr(work, "handler", work)
    if not callable(handler):
        raise TypeError(f"{work!r} is neither a Tasks, a Worker nor a handler")
    names = names or list(getattr(work, "queue_names", getattr(work, "queues", ())))
    if not names:
        raise TypeError("drain needs the name of a queue, for a handler as for dead items: drain(handler, 'queue')")
    if len(names) > POLL_ANY_QUEUES_MAX:
        raise TypeError(f"there are {len(names)} queues; drain takes up to {POLL_ANY_QUEUES_MAX} at a time")
    return Work(handler, names, close)


class Taken:
    """The ready items of some queues, one after the other."""

    def __init__(self, client: sync.Client, queues: list[str], runs_max: int) -> None:
        self._client = client
        self._queues = queues
        self._runs_max = runs_max
        self.runs: list[Run] = []

    def __iter__(self) -> Iterator[WorkItem]:
        while True:
            queue, batch = self._client.poll_any(self._queues, lease_ms=HOUR, wait_ms=0, strict=True)
            if not batch.items:
                return
            (item,) = batch.items
            if len(self.runs) >= self._runs_max:
                item.defer()
                ran = f"the handler ran {self._runs_max:,} times"
                raise AssertionError(f"{ran}, and {queue!r} still has items: does it add what it takes?")
            yield WorkItem(queue, item.lease, item.polled, item.facts)

    def settle(
        self, item: WorkItem, verdict: Verdict, raised: BaseException | None = None, *, raise_errors: bool
    ) -> None:
        """
        Settle *item* as a worker does, and note the run.

        Then raise its error, that of the handler or the server's refusal, if the test wants it or has to stop.
        """
        error = raised.error if isinstance(raised, Decision) else raised
        try:
            outcome = self._outcome(item, verdict)
        except InvalidRequest as why:
            error = error or why
            _, verdict = refused(verdict, why)
            outcome = self._outcome(item, verdict)
        self.runs.append(Run(item, verdict, error, lost=outcome is not Outcome.DONE))
        if error is not None and (raise_errors or not isinstance(error, Exception)):
            raise error

    def _outcome(self, item: WorkItem, verdict: Verdict) -> Outcome:
        entry = Settlement(item.lease, item.id, verdict.action, verdict.delay, verdict.error)
        return self._client.queue(item.queue).settle(entry, adds=verdict.adds).settled[0].outcome

    def settle_error(self, item: WorkItem, why: BaseException, *, raise_errors: bool) -> None:
        """Settle *item*, whose handler has raised *why*."""
        self.settle(item, verdict_on(why), why, raise_errors=raise_errors)


def verdict_on(why: BaseException) -> Verdict:
    """Return a worker's verdict on the item of a handler that has raised *why*."""
    return DEFER if isinstance(why, CANCELLED) else verdict_of_error(why)


@contextmanager
def _taking(url: str, work: Work, runs_max: int) -> Iterator[Taken]:
    with sync.connect(url, attempts=ATTEMPTS, retry_policy=lambda _: RETRY_SECONDS, timeout_ms=TIMEOUT_MS) as client:
        yield Taken(client, work.queues, runs_max)


def drain(url: str, work: Work, runs_max: int, *, raise_errors: bool) -> list[Run]:
    """Run the handler in this thread for all ready items, also for those that it adds."""
    with _taking(url, work, runs_max) as taken, _own_loop(work) as finish:
        for item in taken:
            try:
                returned = work.handler(item)
                verdict = verdict_of(finish(returned) if isawaitable(returned) else returned)
            except BaseException as why:  # noqa: BLE001  (as a worker does)
                taken.settle_error(item, why, raise_errors=raise_errors)
            else:
                taken.settle(item, verdict, raise_errors=raise_errors)
        return taken.runs


@contextmanager
def _own_loop(work: Work) -> Iterator[Callable[[Any], Any]]:
    """Return a function that runs an awaitable in an event loop, which is made for the first one."""
    if work.needs_loop and is_loop_running():
        raise RuntimeError(
            "an event loop runs in this thread, and the handler is a coroutine function: await drain_async()"
        )
    used = False
    # The loop is made for the first awaitable, and the thread's own, which the test may have set, stays.
    with closing(asyncio.Runner(loop_factory=asyncio.new_event_loop)) as runner:

        def finish(returned: Any) -> Any:  # noqa: ANN401
            nonlocal used
            if is_loop_running():
                if iscoroutine(returned):
                    returned.close()
                raise RuntimeError(
                    "an event loop runs in this thread, and the handler returned an awaitable: await drain_async()"
                )
            used = True
            return runner.run(_awaited(returned))

        yield finish
        if used and work.close is not None:
            runner.run(work.close())


async def _awaited(returned: Any) -> Any:  # noqa: ANN401
    return await returned


def is_loop_running() -> bool:
    """Return whether an event loop of asyncio runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def drain_async(url: str, work: Work, runs_max: int, *, raise_errors: bool) -> list[Run]:
    """Run the handler for all ready items, also for those that it adds, in the loop that runs this coroutine."""
    with _taking(url, work, runs_max) as taken:
        for item in taken:
            try:
                returned = work.handler(item)
                verdict = verdict_of(await returned if isawaitable(returned) else returned)
            except BaseException as why:  # noqa: BLE001  (as a worker does)
                taken.settle_error(item, why, raise_errors=raise_errors)
            else:
                taken.settle(item, verdict, raise_errors=raise_errors)
        return taken.runs

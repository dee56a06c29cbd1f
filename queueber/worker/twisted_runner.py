"""Handlers in a Twisted reactor: coroutine functions, or functions that return Deferreds."""

import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from queueber.client_core.process import HERE
from queueber.worker.actions import TakenItem
from queueber.worker.handling import Handling, exit_child
from queueber.worker.runners import Reports
from queueber.worker.verdicts import Verdict

CANCELLED = CancelledError


def end_in(
    reactor: Any,  # noqa: ANN401
    stop: Callable[[], None],
) -> tuple[Deferred[None], Callable[[Exception | None], None]]:
    """
    Return a Deferred for the end of a worker, and the function that reports the end from another thread.

    When *reactor* stops before that, *stop* is called, and the reactor waits for the worker.
    """
    ended: Deferred[None] = Deferred(lambda _: stop())
    waiting: list[Deferred[None]] = []
    trigger: list[Any] = []

    def before_shutdown() -> Deferred[None]:
        trigger.clear()
        waiting.append(Deferred())
        stop()
        return waiting[0]

    def finish(error: Exception | None) -> None:
        if trigger:
            reactor.removeSystemEventTrigger(trigger.pop())
        for each in waiting:
            each.callback(None)
        if ended.called:
            # Cancelled by the program.
            return
        if error is None:
            ended.callback(None)
        else:
            ended.errback(error)

    trigger.append(reactor.addSystemEventTrigger("before", "shutdown", before_shutdown))
    return ended, lambda error: reactor.callFromThread(finish, error)


class TwistedRunner:
    """Handlers as Deferreds."""

    def __init__(self, handling: Handling, reports: Reports, reactor: Any) -> None:  # noqa: ANN401
        """Run *handling* in *reactor*, which runs, or will, in this thread."""
        self.loop_thread: int | None = threading.get_ident()
        self._handling = handling
        self._reports = reports
        self._reactor = reactor
        self._pid = HERE.id
        self._running: dict[TakenItem, Deferred[Verdict | None]] = {}

    def start(self, items: Sequence[TakenItem]) -> None:
        """Start the handler on each of *items*."""
        self._reactor.callFromThread(self._start, items)

    def _start(self, items: Sequence[TakenItem]) -> None:
        for taken in items:
            taken.begin(monotonic())
            running = Deferred.fromCoroutine(self._handling.run_async(taken.item))
            self._running[taken] = running
            running.addBoth(self._ended, taken)

    def _ended(self, result: Verdict | Failure | None, taken: TakenItem) -> None:
        if HERE.id != self._pid:
            exit_child()
        del self._running[taken]
        if isinstance(result, Failure):
            # Cancelled before its first step.
            result = None
        self._reports.done(taken, result)

    def cancel(self, taken: TakenItem, why: str, *, lost: bool) -> None:
        """Cancel the Deferred for which the handler waits."""
        taken.item.end(why, lost=lost)
        self._reactor.callFromThread(self._cancel, taken)

    def _cancel(self, taken: TakenItem) -> None:
        if running := self._running.get(taken):
            running.cancel()

    def beat(self) -> None:
        """Let the reactor report that it runs."""
        self._reactor.callFromThread(self._reports.loop_turned)

    def close(self) -> None:
        """Do nothing: the reactor is its owner's."""

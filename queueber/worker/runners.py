"""
Runners: where handlers run.

A runner starts handlers and asks them to end, on behalf of the keeper's thread,
and reports their ends to it.  `ThreadRunner` is for plain functions, `AioRunner`
for coroutines on asyncio; `twisted_runner` has the one for Twisted.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from time import monotonic
from typing import Protocol

from queueber.worker.actions import Delivery
from queueber.worker.handling import LOG, Handling, exit_child
from queueber.worker.verdicts import Verdict


class Reports(Protocol):
    """The receiver of a runner's news.  Thread-safe."""

    def done(self, delivery: Delivery, verdict: Verdict | None) -> None:
        """Note that a handler has ended, with its verdict, or None if it was cancelled."""

    def loop_turned(self) -> None:
        """Note that the event loop has turned."""


class Runner(Protocol):
    """A place where handlers run.  Its methods return at once, and are called from the keeper's thread."""

    def start(self, deliveries: Sequence[Delivery]) -> None:
        """Start the handler on each of *deliveries*."""

    def cancel(self, delivery: Delivery, why: str, *, lost: bool) -> None:
        """Ask the handler of *delivery* to end."""

    def beat(self) -> None:
        """Let the event loop give a sign."""

    def close(self) -> None:
        """End: no handler is waited for."""

    @property
    def loop_thread(self) -> int | None:
        """The thread of the event loop, to look where it stands; None without one."""


class ThreadRunner:
    """
    Handlers in threads.

    They are daemon threads: one that never returns keeps no process from its end.
    """

    loop_thread = None

    def __init__(self, handling: Handling, reports: Reports, concurrency: int) -> None:
        """Run *handling* in up to *concurrency* threads, which the engine does not exceed."""
        self._handling = handling
        self._reports = reports
        self._concurrency = concurrency
        self._threads = 0
        self._started: SimpleQueue[Delivery | None] = SimpleQueue()

    def start(self, deliveries: Sequence[Delivery]) -> None:
        """Start the handler on each of *deliveries*."""
        for delivery in deliveries:
            if self._threads < self._concurrency:
                self._add_thread()
            self._started.put(delivery)

    def _add_thread(self) -> None:
        """
        Start another thread.

        Raises:
            RuntimeError: the system has no more threads, and there is none that could do the work.
        """
        try:
            threading.Thread(target=self._work, name=f"queueber handler {self._threads + 1}", daemon=True).start()
        except RuntimeError as why:
            if not self._threads:
                raise
            LOG.warning("handlers wait for %d threads: %s", self._threads, why)
        else:
            self._threads += 1

    def _work(self) -> None:
        run, done, get = self._handling.run, self._reports.done, self._started.get
        while (delivery := get()) is not None:
            delivery.begun = monotonic()
            done(delivery, run(delivery.item))

    def cancel(self, delivery: Delivery, why: str, *, lost: bool) -> None:
        """Set the item's `stopping`."""
        delivery.item.end(why, lost=lost)

    def beat(self) -> None:
        """Do nothing: there is no loop."""

    def close(self) -> None:
        """Let the threads end that run no handler."""
        for _ in range(self._threads):
            self._started.put(None)


class AioRunner:
    """Handlers as tasks of an asyncio loop."""

    def __init__(self, handling: Handling, reports: Reports, loop: asyncio.AbstractEventLoop) -> None:
        """Run *handling* in *loop*, which runs in this thread."""
        self.loop_thread: int | None = threading.get_ident()
        self._handling = handling
        self._reports = reports
        self._loop = loop
        self._pid = os.getpid()
        self._tasks: dict[Delivery, asyncio.Task[Verdict | None]] = {}

    def start(self, deliveries: Sequence[Delivery]) -> None:
        """Start a task for each of *deliveries*."""
        self._in_loop(self._start, deliveries)

    def _start(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            task = self._loop.create_task(self._run(delivery))
            self._tasks[delivery] = task
            task.add_done_callback(lambda task, delivery=delivery: self._ended(delivery, task))  # type: ignore[misc]

    async def _run(self, delivery: Delivery) -> Verdict | None:
        # In the task's first step, which a handler that blocks the loop may hold up.
        delivery.begun = monotonic()
        return await self._handling.run_async(delivery.item)

    def _ended(self, delivery: Delivery, task: asyncio.Task[Verdict | None]) -> None:
        if os.getpid() != self._pid:
            exit_child()
        del self._tasks[delivery]
        # Cancelled before its first step, it has no result.
        self._reports.done(delivery, None if task.cancelled() else task.result())

    def cancel(self, delivery: Delivery, why: str, *, lost: bool) -> None:
        """Cancel the task."""
        delivery.item.end(why, lost=lost)
        self._in_loop(self._cancel, delivery, why)

    def _cancel(self, delivery: Delivery, why: str) -> None:
        if task := self._tasks.get(delivery):
            task.cancel(why)

    def beat(self) -> None:
        """Let the loop report that it turns."""
        self._in_loop(self._reports.loop_turned)

    def close(self) -> None:
        """Do nothing: the loop is its owner's."""

    def _in_loop(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            # The loop was closed under the worker: its handlers are gone, and the watch of the loop finds out.
            LOG.debug("the event loop is closed")

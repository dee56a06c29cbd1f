"""
Runners: where handlers run.

A runner starts handlers and asks them to end, on behalf of the keeper's thread,
and reports their ends to it.  `ThreadRunner` is for plain functions; `aio_runner`
and `twisted_runner` have those for event loops.
"""

import threading
from collections.abc import Sequence
from queue import SimpleQueue
from time import monotonic
from typing import Protocol

from queueber.worker.actions import TakenItem
from queueber.worker.handling import LOG, Handling
from queueber.worker.verdicts import Verdict


class Reports(Protocol):
    """The receiver of a runner's events.  Thread-safe."""

    def done(self, taken: TakenItem, verdict: Verdict | None) -> None:
        """Note that a handler has ended, with its verdict, or None if it was cancelled."""

    def loop_turned(self) -> None:
        """Note that the event loop has run."""


class Runner(Protocol):
    """A place where handlers run.  Its methods return at once, and are called from the keeper's thread."""

    def start(self, items: Sequence[TakenItem]) -> None:
        """Start the handler on each of *items*."""

    def cancel(self, taken: TakenItem, why: str, *, lost: bool) -> None:
        """Ask the handler of *taken* to end."""

    def beat(self) -> None:
        """Ask the event loop to call `Reports.loop_turned`."""

    def close(self) -> None:
        """Stop, without waiting for handlers."""

    @property
    def loop_thread(self) -> int | None:
        """The thread of the event loop, to show where it is blocked; None without one."""


class ThreadRunner:
    """
    Handlers in threads.

    They are daemon threads, so that a handler that never returns does not keep the process alive.
    """

    loop_thread = None

    def __init__(self, handling: Handling, reports: Reports, concurrency: int) -> None:
        """Run *handling* in up to *concurrency* threads."""
        self._handling = handling
        self._reports = reports
        self._concurrency = concurrency
        self._threads = 0
        self._started: SimpleQueue[TakenItem | None] = SimpleQueue()

    def start(self, items: Sequence[TakenItem]) -> None:
        """Start the handler on each of *items*."""
        for taken in items:
            if self._threads < self._concurrency:
                self._add_thread()
            self._started.put(taken)

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
            LOG.warning("no more threads can be started, handlers share %d: %s", self._threads, why)
        else:
            self._threads += 1

    def _work(self) -> None:
        run, done, get = self._handling.run, self._reports.done, self._started.get
        while (taken := get()) is not None:
            taken.begin(monotonic())
            done(taken, run(taken.item))

    def cancel(self, taken: TakenItem, why: str, *, lost: bool) -> None:
        """Set the item's `stopping`."""
        taken.item.end(why, lost=lost)

    def beat(self) -> None:
        """Do nothing: there is no loop."""

    def close(self) -> None:
        """Let the threads end that run no handler."""
        for _ in range(self._threads):
            self._started.put(None)

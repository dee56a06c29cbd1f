"""
The exit of a process in which a handler, a thread or an exit handler does not end.

Python waits for all threads that are not daemons, runs the exit handlers of `atexit`, and flushes standard output.  Any
of these may last for ever.  An `ExitGuard` ends the process in time, and runs and flushes what Python did not.

| State | `arm` | `cancel` | the main thread gets to the exit handlers | time for threads is over | all time is over |
|---|---|---|---|---|---|
| IDLE | ARMED | CANCELLED | | | |
| ARMED | | CANCELLED | MAIN | OWN: runs the exit handlers, flushes, exits | |
| MAIN, OWN | | | | | flushes, exits |

`exit_now` flushes and exits in each state but IDLE and CANCELLED.

Nothing cancels an exit handler: one that never ends holds up those that were registered before it.
"""

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from queueber.worker.handling import LOG

HANDLERS_SECONDS: Final = 4.0
"""The time that exit handlers have."""

FLUSH_SECONDS: Final = 1.0
"""The time for standard output, whose reader may have stopped reading."""


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()


# Python flushes them after the exit handlers, when no thread can end the process any more.  This exit handler is called
# after all that are registered later, as those of a program are that imports the worker first.
atexit.register(_flush)


class ExitGuard:
    """The watch over the exit of this process, once it is armed."""

    def __init__(self, why: str) -> None:
        """Log *why*, unless it is empty, when the process is ended under a thread that goes on."""
        self._why = why
        self._status = 0
        self._timers: list[threading.Timer] = []
        self._armed = threading.Lock()
        """Held, once and for all, from `arm` on, which several threads may call."""

        self._cancelled = self._leaving = False
        self._turn = threading.Lock()
        """Held, once and for all, by the thread that runs the exit handlers, and for a moment by `cancel`."""

    def arm(self, status: int, *, threads: float, handlers: float = HANDLERS_SECONDS) -> None:
        """
        Exit with *status* unless the interpreter ends by itself.

        Its threads have *threads* seconds to end, and then exit handlers *handlers* seconds.  Has no effect when it is
        called again, or after `cancel`.  If no thread can be started, that is logged, and nothing bounds these times.
        """
        if self._cancelled or not self._armed.acquire(blocking=False):
            return
        self._status = status
        # The last to be registered is the first to be called.
        atexit.register(self._main_exits)
        try:
            # All are started now, because an interpreter that is ending starts no threads.  The last resort is first.
            self._after(threads + handlers + FLUSH_SECONDS, self._exit)
            self._after(threads + handlers, self._give_up)
            self._after(threads, self._run_handlers)
        except RuntimeError as why:
            LOG.warning("the end of the process is not watched: %s", why)

    def exit_now(self) -> None:
        """
        Flush standard output, and exit: threads and exit handlers have no more time.

        When it is called again meanwhile, it does not wait for the flush.  Has no effect before `arm` or after
        `cancel`.  Safe in a signal handler.
        """
        if self._cancelled or not self._armed.locked():
            return
        if self._leaving:
            self._exit()
        self._leaving = True
        self._flush_and_exit()

    def cancel(self) -> None:
        """Undo `arm`.  Has no effect once the exit handlers have begun: the process ends after them."""
        if not self._turn.acquire(blocking=False):
            return
        try:
            self._cancelled = True
            for each in self._timers:
                each.cancel()
            atexit.unregister(self._main_exits)
        finally:
            self._turn.release()

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        # A timer may go off, or be made, while `cancel` runs.
        timer = threading.Timer(seconds, lambda: None if self._cancelled else act())
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def _main_exits(self) -> None:
        """Leave the exit handlers to the thread that has begun with them.  The first of them."""
        if threading.current_thread() is threading.main_thread() and not self._turn.acquire(blocking=False):
            threading.Event().wait()

    def _run_handlers(self) -> None:
        if self._turn.acquire(blocking=False):
            if self._cancelled:
                # While this timer went off.
                self._turn.release()
                return
            atexit._run_exitfuncs()  # noqa: SLF001  (as `multiprocessing` does)
            self._flush_and_exit(self._why)

    def _give_up(self) -> None:
        self._flush_and_exit("an exit handler does not end, so the process is ended")

    def _flush_and_exit(self, why: str = "") -> None:
        _flush()
        # Last, because standard error may be a pipe that is not read.
        if why:
            LOG.error("%s", why)
        logging.shutdown()
        self._exit()

    def _exit(self) -> None:
        os._exit(self._status)

"""
Signals that stop a worker, and the end of its process afterwards.

Their handlers are those of this process: a forked child does not keep them.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, Final

from queueber.worker.exit_guard import ExitGuard
from queueber.worker.handling import LOG

LEFT_SECONDS: Final = 3.0
"""The time that `run` has to return after the end, before the process is ended under a handler that never returns."""

AGAIN_SECONDS: Final = 0.5
"""The time after a signal in which another one does not end the process at once: some programs signal twice."""


def take(number: int, act: Callable[[int], None]) -> Any:  # noqa: ANN401  (what `signal.signal` takes)
    """
    Have *act* process a signal, and return the handler before it.  For the main thread.

    In a process that is forked later that handler counts again: `multiprocessing` ends the children of a worker's
    handler with SIGTERM.  A handler that the program around the interpreter has set, in C, cannot be set again from
    Python: `signal.SIG_DFL`, the default action, takes its place.
    """
    # Not `HERE`, which a child learns after its fork, when the signal may have come.
    pid = os.getpid()
    known = signal.getsignal(number)
    before = signal.SIG_DFL if known is None else known

    def process(number: int, _: object) -> None:
        if os.getpid() == pid:
            act(number)
        else:
            signal.signal(number, before)
            signal.raise_signal(number)

    signal.signal(number, process)
    return before


class StopSignals:
    """
    SIGTERM and SIGINT while a worker runs.

    Each stops it.  When it has ended after one, the process ends in any case: all its items are settled by then.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        """Call *stop* for each signal."""
        self._stop = stop
        self._last: float | None = None
        """When the last signal came, while they are taken."""

        self._exit = ExitGuard("a handler blocks the event loop, so the process is ended")

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Process the signals meanwhile, if this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: take(each, self._process) for each in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            self._last = None
            self._exit.cancel()
            for each, handler in before.items():
                signal.signal(each, handler)

    def worker_ended(self) -> None:
        """End the process in time after a signal, if `taken` does not end before that.  For any thread."""
        if self._last is not None:
            self._exit.arm(0, threads=LEFT_SECONDS)

    def _process(self, number: int) -> None:
        before, self._last = self._last, monotonic()
        if before is not None and self._last - before >= AGAIN_SECONDS:
            # If the worker has ended under a handler that goes on.
            self._exit.exit_now()
        self._stop()
        # The signal may have interrupted a write to the same stream, which raises then.
        with suppress(Exception):
            LOG.info("%s: the worker stops", signal.Signals(number).name)

"""
The end of a worker of ``queueber work``: signals in, stops of the worker out.

| | the first signal | a second one | after that |
|---|---|---|---|
| without a supervisor | no new items; running ones have their grace | ends at once | the process ends in any case |
| with a supervisor | the same | nothing: the supervisor decides, and uses `Stopper.force` | the supervisor kills |

The end of the supervisor is a first signal, and from then on there is none.

When the worker has ended, exit handlers have their time: the first signal leaves it to them, and a second one, or
`Stopper.force`, ends the process.

Signals are SIGTERM, SIGINT and, without a supervisor, SIGHUP.  Signals in quick succession are one: systemd signals
each process of a service, in addition to the supervisor's signal, and ``timeout`` signals its child and then the whole
group.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Final, Protocol

from queueber.worker.signals import take

LOG = logging.getLogger("queueber.work")

SAME_SECONDS: Final = 0.5
"""Signals that follow each other within this time are one."""

END_SECONDS: Final = 15.0
"""Time that a worker needs beyond the grace of its handlers: it cancels them, and sends results."""

FORCED_SECONDS: Final = 5.0
"""This time after `Stopper.force`."""

Later = Callable[[float, Callable[[], None]], object]


class Stoppable(Protocol):
    """A `queueber.worker.Worker`."""

    def stop(self, grace: float | None = None) -> None:
        """Stop; again: end at once."""


def later(seconds: float, act: Callable[[], None]) -> None:
    """Call *act* in a thread after some seconds, unless the process has ended."""
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    # An interpreter that is ending starts no threads, and its end is watched.
    with suppress(RuntimeError):
        timer.start()


def _log(text: str, *arguments: object) -> None:
    """Log *text*, in a signal handler: that may have interrupted a write to the same stream, which raises then."""
    with suppress(Exception):
        LOG.info(text, *arguments)


class Stopper:
    """Stop a worker by signals."""

    def __init__(
        self,
        worker: Stoppable,
        grace: float,
        *,
        supervised: bool,
        leave: Callable[[], None],
        exit_now: Callable[[], None],
        later: Later = later,
        seconds: Callable[[], float] = monotonic,
    ) -> None:
        """
        Give handlers *grace* seconds.

        *leave* ends the process under a handler that goes on, and *exit_now* one whose end has begun, without more time
        for exit handlers.  *later* calls a function after some seconds, and *seconds* is a monotonic clock.
        """
        self._worker = worker
        self._grace = grace
        self._supervised = supervised
        self._later = later
        self._seconds = seconds
        self._leave = leave
        self._exit_now = exit_now
        self._signalled: float | None = None
        """When the last signal came."""

        self._draining = self._ended = False
        self.forced = False
        """Whether the worker was ended at once."""

    def drain(self, seconds: float) -> None:
        """Take no more items, and give running ones *seconds*, because the process will be replaced."""
        self._draining = True
        self._worker.stop(seconds)

    def signal(self, name: str) -> None:
        """Process a signal."""
        now = self._seconds()
        before, self._signalled = self._signalled, now
        if before is None and not self._ended:
            if self._draining:
                # A second stop would end them at once.
                self._later(self._grace, self.force)
            else:
                self._worker.stop(self._grace)
                self._end_after(self._grace + END_SECONDS)
            _log("%s: no new items; running ones have %g s to end", name, self._grace)
        elif before is not None and now - before >= SAME_SECONDS and not self._supervised:
            ended = self._ended
            self.force()
            if not ended:
                _log("%s again: running items return to their queues now", name)

    def force(self) -> None:
        """End the worker at once: its items return, and no attempt is counted.  If it has ended, end the process."""
        # Has no effect before that.
        self._exit_now()
        if not self.forced:
            self.forced = True
            self._worker.stop(0)
            self._end_after(FORCED_SECONDS)

    def supervisor_gone(self) -> None:
        """Stop, unless a signal came before, and end the process in any case: no supervisor does.  For any thread."""
        self._supervised = False
        # Handlers may have begun their grace just now.
        self._end_after(self._grace + END_SECONDS)
        if self._signalled is None:
            # In the main thread, like other signals; one that came meanwhile and this one are one.
            os.kill(os.getpid(), signal.SIGTERM)

    def worker_ended(self) -> None:
        """Note that the worker has ended, and that threads and exit handlers have their time."""
        self._ended = True

    def _end_after(self, seconds: float) -> None:
        # A handler that never returns would keep the process, whose items are elsewhere by then.
        if not self._supervised:
            self._later(seconds, self._leave)

    def take_charge(self) -> None:
        """Process the signals from now on, until the process ends: its exit handlers have their time, too."""

        def act(number: int) -> None:
            if number != signal.SIGHUP or not self._supervised:
                self.signal(signal.Signals(number).name)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # A shell or nohup that has SIGHUP ignored means that; a shell has SIGINT ignored in the background.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                take(number, act)

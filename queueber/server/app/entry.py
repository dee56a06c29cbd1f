"""
The entry point for twistd and twist, which handles signals before it imports the server.

Process number 1 of a container ignores signals without a handler.  A stop
signal during the imports would be lost, and the container killed after its
grace period.  If signals are blocked at first (``env --block-signal``, as in the
image), none is lost.

| State | SIGTERM and SIGINT | SIGHUP |
|---|---|---|
| importing, parsing options (`begin`) | end the process: no file is open | default action |
| the service exists (`hold`) | are held | is held |
| the reactor runs (`release`) | go to the reactor, held ones first | goes to the server |

twistd may fork between `hold` and `release`.  Signals end its foreground process,
which waits for the outcome, as usual.
"""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from queueber.process import fill_standard_streams

STOPS: Final = (signal.SIGTERM, signal.SIGINT)

_SHELL_OFFSET = 128
"""The exit status of a process that a signal ended is the signal's number plus this, in a shell."""


class Signals:
    """The signal handlers of this process until its reactor runs."""

    def __init__(self) -> None:
        self._held: list[int] = []
        self._begun = False
        self._holds = False

    def begin(self) -> None:
        """Handle the stop signals that have the default action, and unblock them."""
        if self._begun:
            return
        self._begun = True
        os.register_at_fork(after_in_parent=self._forked)
        for number in STOPS:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(number, self._handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)

    def hold(self) -> None:
        """Hold signals for the reactor from now on.  Has no effect before `begin`."""
        if not self._begun:
            return
        self._holds = True
        if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
            signal.signal(signal.SIGHUP, self._handle)

    def release(self, handle_int: Callable[[int, FrameType | None], Any] | None) -> None:
        """
        Send the held signals to this process again.

        *handle_int* handles SIGINT from now on: the reactor replaces only Python's own handler.
        """
        self._holds = False
        if signal.getsignal(signal.SIGINT) == self._handle and handle_int is not None:
            signal.signal(signal.SIGINT, handle_int)
        held, self._held = self._held, []
        for number in held:
            os.kill(os.getpid(), number)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._holds:
            self._held.append(number)
            return
        sys.stderr.write(f"queueber: stopped by {signal.Signals(number).name} before it began; nothing was opened\n")
        sys.stderr.flush()
        self._end_by(number)

    @staticmethod
    def _end_by(number: int) -> None:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        # Process number 1 of a container survives the default action.
        os._exit(_SHELL_OFFSET + number)

    def _forked(self) -> None:
        if self._holds:
            self._holds = False
            for handled in (*STOPS, signal.SIGHUP):
                if signal.getsignal(handled) == self._handle:
                    signal.signal(handled, signal.SIG_DFL)
            for number in self._held:
                self._end_by(number)


SIGNALS: Final = Signals()
"""The signal handlers of this process."""


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Return `Options` or `makeService`, whose imports take most of a second."""
    if name not in ("Options", "makeService"):
        raise AttributeError(name)
    fill_standard_streams()
    SIGNALS.begin()
    from queueber.server.app import plugin  # noqa: PLC0415

    return getattr(plugin, name)

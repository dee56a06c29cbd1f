"""
Signals from the first moment: imported before anything that takes time.

A process that is number 1 in a container ignores a signal that it has no
handler for, so a stop that comes while Python still imports would be lost, and
the container be killed after its grace.  Where signals are blocked until then
(``env --block-signal``, as the image does), none is.

| State | SIGTERM and SIGINT | SIGHUP |
|---|---|---|
| imports, options are read (`begin`) | end the process: nothing is open yet | as before |
| the service is made (`hold`) | are kept | is kept |
| the reactor runs (`release`) | go to the reactor, those that were kept as well | goes to the server |

In between twistd may fork to go into the background: what waits in the
foreground for the outcome is ended by signals as usual.
"""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from queueber.streams import fill_standard_streams

STOPS: Final = (signal.SIGTERM, signal.SIGINT)

_SHELL_OFFSET = 128
"""What a shell adds to the number of a signal that ended a process."""


class Signals:
    """The signals of this process until its reactor handles them."""

    def __init__(self) -> None:
        self._held: list[int] = []
        self._begun = False
        self._holds = False

    def begin(self) -> None:
        """Handle what stops, where that is still left to the system, and unblock it."""
        if self._begun:
            return
        self._begun = True
        os.register_at_fork(after_in_parent=self._forked)
        for number in STOPS:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(number, self._handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)

    def hold(self) -> None:
        """From now on keep signals: there will be a reactor to give them to.  Nothing, unless they were handled."""
        if not self._begun:
            return
        self._holds = True
        if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
            signal.signal(signal.SIGHUP, self._handle)

    def release(self, handle_int: Callable[[int, FrameType | None], Any] | None) -> None:
        """
        Send this process again what was kept.

        SIGINT is *handle_int*'s from now on: the reactor takes it only from Python's own handler.
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
        # Process number 1 of a container is still there.
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
"""Those of this process."""


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """`Options` or `makeService`, whose imports take most of a second."""
    if name not in ("Options", "makeService"):
        raise AttributeError(name)
    fill_standard_streams()
    SIGNALS.begin()
    from queueber.server.app import plugin  # noqa: PLC0415

    return getattr(plugin, name)

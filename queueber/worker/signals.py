"""Signal handlers of this process that a forked child does not keep."""

import os
import signal
from collections.abc import Callable
from typing import Any


def take(number: int, act: Callable[[int], None]) -> Any:  # noqa: ANN401  (what `signal.signal` takes)
    """
    Have *act* process a signal, and return the handler before it.  For the main thread.

    In a process that is forked later that handler counts again: `multiprocessing` ends the children of a worker's
    handler with SIGTERM.  A handler that the program around the interpreter has set, in C, cannot be set again from
    Python: `signal.SIG_DFL`, the default action, takes its place.
    """
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

"""
A reactor of its own in a thread of its own.

The reactor is made and run, but never installed: `twisted.internet.reactor` stays
free for the program under test, which may use another one, asyncio or none.  It
handles no signals and does not declare its thread to be Twisted's I/O thread.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

T = TypeVar("T")

NAME = "queueber-testing"

ANSWER_SECONDS = 60.0
"""A call that takes longer has met a bug of the server."""


class ReactorThread:
    """Runs a reactor from `start` to `stop`, and functions on its thread."""

    def __init__(self) -> None:
        self.reactor: Any = EPollReactor()
        # Another reactor of the process may believe that there is one I/O thread, its own.
        self.reactor._registerAsIOThread = False  # noqa: SLF001
        self._thread = threading.Thread(target=self._run, name=NAME, daemon=True)

    def start(self) -> None:
        """Start the thread.  Returns when the reactor runs."""
        running = threading.Event()
        self.reactor.callWhenRunning(running.set)
        self._thread.start()
        running.wait()

    def _run(self) -> None:
        self.reactor.run(installSignalHandlers=False)

    def call(self, function: Callable[[], Deferred[T]]) -> T:
        """
        Call *function* on the reactor's thread and return the result of its Deferred.

        Raises:
            RuntimeError: the thread does not answer.
            Exception: the exception of *function*, or of its Deferred.
        """
        result: Future[T] = Future()

        def begin() -> None:
            try:
                outcome = function()
            except Exception as why:  # noqa: BLE001  (the caller gets it)
                result.set_exception(why)
            else:
                outcome.addCallbacks(result.set_result, lambda failure: result.set_exception(failure.value))

        self.reactor.callFromThread(begin)
        try:
            return result.result(ANSWER_SECONDS)
        except TimeoutError:
            if result.done():
                raise
            raise RuntimeError(f"the test server has not answered within {ANSWER_SECONDS:g} s") from None

    def stop(self) -> None:
        """Stop the reactor, wait for the thread to end, and close the reactor's descriptors."""
        reactor = self.reactor
        reactor.callFromThread(reactor.stop)
        self._thread.join()
        # A reactor that is never installed is expected to live as long as its process: it closes nothing itself.
        reactor.removeAll()
        reactor.waker.connectionLost(Failure(ConnectionDone()))
        reactor._poller.close()  # noqa: SLF001

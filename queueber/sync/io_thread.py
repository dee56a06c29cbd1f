"""
The thread that moves the bytes of one client, in one process.

All of `client_core` runs in this thread alone, so that a signal, which may
interrupt the main thread anywhere, never finds it halfway.  Other threads leave
functions with `post`, and wait for a `Pending`.

`wire` has the connection itself.  The thread's states:

| State | `close` | the last messages are sent, or their time is over | a fault | the last turn is over |
|---|---|---|---|---|
| RUNNING | CLOSING | | ENDED | |
| CLOSING | | STOPPING | ENDED | |
| STOPPING | | | ENDED | ENDED |

In the child of a fork the thread is STOPPING for good.
"""

from __future__ import annotations

import selectors
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from threading import Thread, get_ident
from typing import Any, TypeVar

from queueber.client_core.calls import Call
from queueber.client_core.delivery import EXIT_MS
from queueber.client_core.endpoint import Endpoint
from queueber.client_core.errors import NotConnected, OutcomeUnknown
from queueber.client_core.held_leases import HeldLeases
from queueber.client_core.queue_calls import undelivered
from queueber.client_core.reconnect import Link, timed_out
from queueber.errors import InvalidRequest
from queueber.sync.pending import Pending, Result
from queueber.sync.timers import Timers
from queueber.sync.wire import Wire
from queueber.units import MS_PER_SECOND

T = TypeVar("T")

CLOSE_SECONDS = 5.0
"""Time limit for the answers to what returns items, and then for the last messages, of a client that is closed."""

WAKE_BYTES = 4_096

# A kernel's object for many sockets, such as that of epoll, would be shared with forked processes.
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


class ThreadState(Enum):
    """The state of the thread, as in the table of this module."""

    RUNNING = auto()
    CLOSING = auto()
    """Answers to calls that return items are awaited, then the last messages are sent, and the server's end awaited."""

    STOPPING = auto()
    """The thread takes no further turn."""

    ENDED = auto()
    """A function that is posted is run by the thread that posts it."""


_TURNING = (ThreadState.RUNNING, ThreadState.CLOSING)
"""The states with further turns."""


class IoThread:
    """The thread, the link and the connection of a client."""

    def __init__(self, endpoint: Endpoint, link: Link, held: HeldLeases, *, fails_calls: bool = False) -> None:
        """
        Connect *link* to *endpoint* once the thread is started.

        *held* are the client's session leases.  *fails_calls*: calls fail if the server is away; otherwise that is
        logged.
        """
        self.link = link
        self.timers = Timers()
        """For the thread itself: functions that it calls later."""

        self.waiting: set[Result[Any]] = set()
        """The calls without an outcome, and other results to come."""

        self._held = held
        self._commands: deque[Callable[[], object]] = deque()
        self._woken, self._waking = socket.socketpair()
        self._woken.setblocking(False)
        self._waking.setblocking(False)
        self._selector: selectors.BaseSelector = _Selector()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._wire = Wire(endpoint, link, self.timers, self._selector, self.post, fails_calls=fails_calls)
        self._state = ThreadState.RUNNING
        self._fault: BaseException | None = None

        self._thread = Thread(target=self._run, name="queueber", daemon=True)

    # For other threads

    def start(self) -> None:
        """
        Start the thread.

        Raises:
            RuntimeError: the interpreter is ending, or the system has no more threads.
        """
        self._thread.start()

    def post(self, function: Callable[[], object]) -> None:
        """Have the thread call *function* soon.  Safe in any thread, and in a signal handler."""
        self._commands.append(function)
        with suppress(OSError):
            # Without room in the pipe a wake-up is there already; without a pipe the thread has ended.
            self._waking.send(b"\0")
        if self._state is ThreadState.ENDED:
            self._run_commands()

    def ask(self, function: Callable[[], T]) -> T:
        """Have the thread call *function*, and return its result or raise its error.  Not for the thread itself."""

        def answer(result: Result[T]) -> None:
            try:
                result.set(function())
            except Exception as why:  # noqa: BLE001  (raised where it is waited for)
                result.set(why)

        return self.wait_for(answer)

    def wait_for(self, function: Callable[[Result[T]], object]) -> T:
        """Have the thread call *function* with a result that it sets sooner or later; wait for that and return it."""
        self.check_may_wait()
        result: Result[T] = Result()
        self.waiting.add(result)
        try:
            self.post(partial(function, result))
            return result.result()
        finally:
            self.waiting.discard(result)

    def check_may_wait(self) -> None:
        """
        Check that this is another thread.

        Raises:
            InvalidRequest: it is the thread itself, which would wait for ever.
        """
        if get_ident() == self._thread.ident:
            raise InvalidRequest("a call that blocks in the client's own thread would wait for ever")

    def make(self, pending: Pending[Any]) -> None:
        """Have the thread make the call of *pending*."""
        self.waiting.add(pending)
        self.post(partial(self._make, pending))

    def abandon(self, pending: Pending[Any]) -> None:
        """Have the thread cancel the call of *pending*.  A poll leaves nothing leased, even if its answer is there."""
        self.post(partial(self._abandon, pending))

    def close(self) -> None:
        """Have the thread close the connection and end.  Calls in flight fail with `OutcomeUnknown`."""
        self.post(self._close)

    def join(self) -> None:
        """Wait for the end of the thread, which `close` has begun."""
        self._thread.join()

    def leave_to_parent(self) -> None:
        """Release what a fork has copied, in the child: its descriptors, and threads that wait for an outcome."""
        self._state = ThreadState.STOPPING
        self._wire.leave_to_parent()
        self._woken.close()
        self._waking.close()
        why = "the process was forked during the call: the parent process gets the answer"
        for pending in list(self.waiting):
            pending.set(OutcomeUnknown(why))

    # The thread

    def _run(self) -> None:
        try:
            self._wire.connect()
            while self._state in _TURNING:
                self._turn()
        except BaseException as why:
            # A fault of this code.  No caller is to wait for ever.
            self._fault = why
            raise
        finally:
            self.link.close()
            self._wire.drop("the client was closed")
            self._run_commands()
            for each in (self._selector, self._woken, self._waking):
                each.close()
            self._state = ThreadState.ENDED
            # What was posted before that line was seen.  What is posted after it is run by its own thread.
            self._run_commands()
            for waiting in list(self.waiting):
                waiting.set(self._fault or NotConnected("the call was not sent: the client is closed"))

    def _turn(self) -> None:
        """Send, wait for something to do, and do it."""
        self._wire.flush()
        self._advance_close()
        if self._state is ThreadState.STOPPING:
            return
        for key, events in self._selector.select(0 if self._commands else self.timers.seconds_left()):
            if key.data is not None:
                self._wire.on_events(key.data, events)
            else:
                with suppress(BlockingIOError):
                    self._woken.recv(WAKE_BYTES)
        self._run_commands()
        self.timers.run()

    def _run_commands(self) -> None:
        with suppress(IndexError):
            while True:
                self._commands.popleft()()

    # Calls

    def _make(self, pending: Pending[Any]) -> None:
        if self._fault is not None:
            self._done(pending, self._fault)
            return
        pending.handle = self.link.call(pending.call, partial(self._done, pending))
        if pending.limit_ms is not None and not pending.is_set:
            seconds = pending.limit_ms / MS_PER_SECOND
            pending.timer = self.timers.call_later(seconds, partial(self._timed_out, pending, pending.limit_ms))

    def _done(self, pending: Pending[Any], outcome: Any) -> None:  # noqa: ANN401  (the result of any call, or an error)
        """Hand over the outcome of a call."""
        self.waiting.discard(pending)
        if pending.timer is not None:
            pending.timer.cancel()
        pending.set(outcome)

    def _timed_out(self, pending: Pending[Any], limit: int) -> None:
        if pending.handle is not None and not pending.is_set:
            self._done(pending, timed_out(limit, self.link.cancel(pending.handle)))

    def _abandon(self, pending: Pending[Any]) -> None:
        if pending.is_set:
            if (returning := undelivered(pending.call, pending.outcome, self._held)) is not None:
                self._make_in_background(returning)
        elif pending.handle is not None:
            self.link.cancel(pending.handle)
            self._done(pending, NotConnected("the call was cancelled"))

    def _make_in_background(self, call: Call[Any]) -> None:
        pending = Pending(call, EXIT_MS, background=True)
        self.waiting.add(pending)
        self._make(pending)

    # The end

    def _close(self) -> None:
        if self._state is ThreadState.RUNNING:
            self._state = ThreadState.CLOSING
            self.timers.call_later(CLOSE_SECONDS, self.link.close)
            self.timers.call_later(2 * CLOSE_SECONDS, self._stop)

    def _stop(self) -> None:
        self._state = ThreadState.STOPPING

    def _advance_close(self) -> None:
        """Go on with the close, once nothing has to be waited for any more."""
        if self._state is not ThreadState.CLOSING:
            return
        if not self._is_settling():
            self.link.close()
        if self.link.closed and self._wire.finish():
            self._stop()

    def _is_settling(self) -> bool:
        """Return whether answers to what returns items are on their way."""
        settling = self._wire.settling
        if settling is None:
            return False
        # A copy, which is made in one step, because other threads add to the set.
        return settling or any(isinstance(each, Pending) and each.background for each in list(self.waiting))

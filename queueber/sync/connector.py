"""
Calls from any thread over the connection of one client, in this process or in one that was forked from it.

The I/O thread starts with the first call, so that a process that connects, and
then forks its workers, has no thread when it forks.  A child of a process with a
thread makes a thread and a connection of its own; those of the parent go on
undisturbed.
"""

from __future__ import annotations

import atexit
import os
import time
from functools import partial
from threading import Lock
from typing import Any, TypeVar
from weakref import WeakSet

from queueber.client_core.arguments import timeout
from queueber.client_core.calls import Call
from queueber.client_core.endpoint import endpoint_of
from queueber.client_core.errors import NotConnected
from queueber.client_core.held_leases import HeldLeases
from queueber.client_core.reconnect import link_of
from queueber.client_core.url import Target
from queueber.fixed_limits import ID_BYTES
from queueber.sync.io_thread import IoThread
from queueber.sync.pending import Pending

T = TypeVar("T")


class Connector:
    """The I/O thread of a client in this process, made when it is needed."""

    def __init__(self, target: Target) -> None:
        """
        Connect to *target* from the first call on.

        Raises:
            InvalidRequest: it has no endpoint for a plain socket, or a file of its TLS options cannot be used.
        """
        # Before anything that may raise, because `__del__` looks at it.
        self._io: IoThread | None = None
        self.target = target
        """Where the client connects, and how."""

        options = target.options
        self.held = HeldLeases()
        """The leases of the client's sessions."""

        self.request_ids = partial(os.urandom, ID_BYTES) if options.resend_adds else None
        """A source of request ids for adds, or None."""

        self._endpoint = endpoint_of(target)
        self._options = options
        self._lock = Lock()
        self._closed = False
        self._pid = os.getpid()
        _connectors.add(self)

    def call(self, call: Call[T], timeout_ms: int | None = None) -> T:
        """
        Make *call*, block until its end, and return its result.

        An exception that interrupts the wait, such as `KeyboardInterrupt`, cancels the call.  A poll then leaves
        nothing leased.

        Raises:
            InvalidRequest: *timeout_ms* is out of range.
            CallTimedOut: the call exceeded its time limit.
            QueueberError: an error of the call.
        """
        io = self.io()
        io.check_may_wait()
        pending = self._pending(call, timeout_ms)
        try:
            io.make(pending)
            return pending.result()
        except BaseException as why:
            if why is not pending.error:
                io.abandon(pending)
            raise

    def start(self, call: Call[T], timeout_ms: int | None = None, *, background: bool = False) -> Pending[T]:
        """Make *call*, and return it without waiting for its end.  *background*: `close` waits for it."""
        io = self.io()
        pending = self._pending(call, timeout_ms, background=background)
        io.make(pending)
        return pending

    def abandon(self, pending: Pending[Any]) -> None:
        """Cancel a call of this process.  A poll leaves nothing leased, even if its answer is there."""
        if (io := self._io) is not None and self._pid == os.getpid():
            io.abandon(pending)

    def _pending(self, call: Call[T], timeout_ms: int | None, *, background: bool = False) -> Pending[T]:
        return Pending(call, call.limit_ms(timeout(timeout_ms), self._options.timeout_ms), background=background)

    def io(self) -> IoThread:
        """
        Return the I/O thread of this process, started.

        Raises:
            NotConnected: the client is closed, or no thread can be started.
        """
        if self._pid != os.getpid():
            self.leave_to_parent()
        if self._io is None:
            with self._lock:
                if self._io is None:
                    self._start()
        if self._closed or self._io is None:
            raise NotConnected("the call was not sent: the client is closed")
        return self._io

    def is_in_use(self, io: IoThread) -> bool:
        """Return whether *io* is the thread of this process, and the client is open."""
        return io is self._io and not self._closed and self._pid == os.getpid()

    def _start(self) -> None:
        if self._closed:
            return
        link = link_of(self._options, self._endpoint.name, time.monotonic)
        io = IoThread(self._endpoint, link, self.held, fails_calls=self._options.attempts is not None)
        try:
            io.start()
        except RuntimeError as why:
            io.leave_to_parent()  # closes what it has opened
            raise NotConnected(f"the call was not sent: {why}") from None
        self._io = io

    def close(self) -> None:
        """
        Send pending calls, close the connection and do not reconnect.  Further calls have no effect.

        Waits for the answers to what returns items, and then for the end of the connection, up to 5 s each.
        """
        if self._pid != os.getpid():
            self.leave_to_parent()
        self._closed = True
        if (io := self._io) is not None:
            io.close()
            io.join()

    def leave_to_parent(self) -> None:
        """Forget the connection of the process from which this one was forked."""
        io, self._io, self._lock, self._pid = self._io, None, Lock(), os.getpid()
        if io is not None:
            io.leave_to_parent()

    def __del__(self) -> None:
        # Nothing refers to the client any more: let its thread end, without waiting for that.
        if (io := self._io) is not None and self._pid == os.getpid():
            io.close()


_connectors: WeakSet[Connector] = WeakSet()
"""The clients of this process."""


def _close_all() -> None:
    """Close the clients that the program has left open when the interpreter ends."""
    for each in list(_connectors):
        each.close()


def _leave_to_parent() -> None:
    for each in list(_connectors):
        each.leave_to_parent()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)

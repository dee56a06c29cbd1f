"""
The connection of one client to its server, on one event loop.

`Connector` connects and moves bytes; `Link` of `client_core` decides.  Nothing is
connected before the first call.  No task lives longer than an attempt to connect,
so that the end of a loop, which cancels all tasks, leaves the connection to the
tasks that settle their items meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from queueber.aio.transport import CLOSE_SECONDS, Transport
from queueber.client_core.address import UnixAddress
from queueber.client_core.arguments import timeout
from queueber.client_core.calls import Call, PendingCall
from queueber.client_core.connection import ClientConnection
from queueber.client_core.delivery import EXIT_MS
from queueber.client_core.endpoint import attempt_problem, endpoint_of
from queueber.client_core.held_leases import HeldLeases
from queueber.client_core.queue_calls import undelivered
from queueber.client_core.reconnect import Link, link_of, timed_out
from queueber.client_core.url import Target
from queueber.errors import InvalidRequest, QueueberError
from queueber.fixed_limits import ID_BYTES
from queueber.units import MS_PER_SECOND

T = TypeVar("T")

CONNECT_SECONDS = 30.0
"""Time limit of an attempt to connect, TLS handshake included."""

_log = logging.getLogger("queueber.aio")


class Connector:
    """The connection of one client, re-established whenever it is lost."""

    def __init__(self, target: Target) -> None:
        """
        Connect to *target* from the first call on.

        Raises:
            InvalidRequest: it has no endpoint for a plain socket, or a file of its TLS options cannot be used.
        """
        self.target = target
        """Where the client connects, and how."""

        options = target.options
        self.held = HeldLeases()
        """The leases of the client's sessions."""

        self.request_ids = partial(os.urandom, ID_BYTES) if options.resend_adds else None
        """A source of request ids for adds, or None."""

        self._endpoint = endpoint_of(target)
        self._options = options
        self.link = self._new_link()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = os.getpid()
        """The process of the loop."""

        self._transport: Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._retry_timer: asyncio.TimerHandle | None = None
        self._flushing = False
        self._is_away = False
        """Whether the last attempt to connect has failed, which is logged once if nothing else says so."""

        self._background: set[asyncio.Future[Any]] = set()
        """Calls that return items, and for which nothing but `close` waits."""

        self._quiet: asyncio.Future[None] | None = None
        """Set when `close` need not wait for anything any more."""

    async def call(self, call: Call[T], timeout_ms: int | None = None) -> T:
        """
        Make *call* and return its result.  Cancelling the task cancels the call; a poll then leaves nothing leased.

        Raises:
            InvalidRequest: *timeout_ms* is out of range, or this is another event loop or another process than that of
                the first call.
            CallTimedOut: the call exceeded its time limit.
            QueueberError: an error of the call.
        """
        future = self.start(call, timeout_ms)
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancelled() and future.exception() is None:
                # The answer and the cancellation came in the same turn of the loop.
                self._give_back(call, future.result())
            raise

    def start(self, call: Call[T], timeout_ms: int | None = None, *, background: bool = False) -> asyncio.Future[T]:
        """Make *call* and return its future; cancelling it cancels the call.  *background*: `close` waits for it."""
        limit = call.limit_ms(timeout(timeout_ms), self._options.timeout_ms)
        loop = self._bind()
        future: asyncio.Future[T] = loop.create_future()
        pending = self.link.call(call, partial(self._done, call, future))
        timer = None
        if limit is not None and not future.done():
            timer = loop.call_later(limit / MS_PER_SECOND, self._timed_out, future, pending, limit)
        future.add_done_callback(partial(self._ended, pending, timer))
        if background:
            self.watch(future)
        self.flush_soon()
        return future

    def watch(self, future: asyncio.Future[Any]) -> None:
        """Have `close` wait for *future*, by which items are returned."""
        self._background.add(future)
        future.add_done_callback(self._background.discard)

    def _bind(self) -> asyncio.AbstractEventLoop:
        """Return the running loop, and connect if this is the first call in it."""
        if self.is_inherited:
            raise InvalidRequest(
                f"the client belongs to process {self._process}, from which this one was forked: connect in this one"
            )
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None and not self._loop.is_closed():
                raise InvalidRequest("the client belongs to another event loop: connect once in each loop")
            if self._loop is not None:
                # Connection, calls and sessions ended with their loop, which did not say so.
                self.link = self._new_link()
                self._transport, self._background, self._flushing = None, set(), False
            self._loop, self._process = loop, os.getpid()
            self._connect()
        return loop

    def _new_link(self) -> Link:
        return link_of(self._options, self._endpoint.name, time.monotonic)

    @property
    def is_inherited(self) -> bool:
        """Whether the connection is that of the process from which this one was forked: it is left alone."""
        return self._process != os.getpid() and self._loop is not None and not self._loop.is_closed()

    def _done(self, call: Call[T], future: asyncio.Future[T], outcome: T | QueueberError) -> None:
        """Hand over the outcome of a call."""
        if future.cancelled():
            self._give_back(call, outcome)
        elif isinstance(outcome, QueueberError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def _give_back(self, call: Call[Any], outcome: object) -> None:
        """Return the items of a poll that was cancelled to their queue."""
        if (returning := undelivered(call, outcome, self.held)) is not None:
            self.start(returning, EXIT_MS, background=True)

    def _timed_out(self, future: asyncio.Future[Any], pending: PendingCall, limit: int) -> None:
        if not future.done():
            future.set_exception(timed_out(limit, self.link.cancel(pending)))
            self._flush()

    def _ended(self, pending: PendingCall, timer: asyncio.TimerHandle | None, future: asyncio.Future[Any]) -> None:
        """Stop the time limit of a call, and withdraw one that was cancelled."""
        if timer is not None:
            timer.cancel()
        if future.cancelled():
            self.link.cancel(pending)
            self._flush()
        else:
            future.exception()  # retrieved, although its caller may have gone

    def call_from_any_thread(self, function: Callable[[], object]) -> None:
        """Call *function* on the loop, if it still runs."""
        if self._loop is not None and not self.is_inherited:
            # The loop is closed.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(function)

    # The connection

    def _connect(self) -> None:
        self._retry_timer = None
        if self._loop is not None and not self.link.closed:
            self._connecting = self._loop.create_task(self._attempt(self._loop))

    async def _attempt(self, loop: asyncio.AbstractEventLoop) -> None:
        """Try to connect; after a failure, try again later."""
        why, refused = "the attempt was cancelled", False
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._open(loop)
        except TimeoutError:
            why = f"no answer within {CONNECT_SECONDS:g} s"
        except (OSError, UnicodeError) as error:
            why, refused = attempt_problem(error, self._endpoint)
        finally:
            self._connecting = None
            if self._transport is None:
                if not (self._is_away or refused or self._options.attempts or self.link.closed):
                    _log.warning("cannot connect to %s: %s; trying again", self._endpoint.name, why)
                self._is_away = True
                self.link.attempt_failed(why, refused=refused)
                self._retry(loop)

    async def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        endpoint = self._endpoint
        make, address = partial(Transport, self, endpoint), endpoint.address
        tls: dict[str, Any] = {"ssl": endpoint.context, "server_hostname": endpoint.server_name}
        if isinstance(address, UnixAddress):
            await loop.create_unix_connection(make, address.path, **tls)
        else:
            await loop.create_connection(make, address.host, address.port, **tls)

    def _retry(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self.link.closed and not loop.is_closed():
            self._retry_timer = loop.call_later(self.link.retry_delay(), self._connect)

    def connected(self, transport: Transport) -> ClientConnection | None:
        """Use *transport*; return its connection, or None if the client was closed meanwhile."""
        if self.link.closed:
            return None
        self._transport, self._is_away = transport, False
        connection = self.link.connected()
        self.link.dispatch()
        self.flush_soon()
        return connection

    def received(self) -> None:
        """Send what follows from data that was received."""
        self._flush()
        self._check_quiet()

    def lost(self, transport: Transport) -> None:
        """Connect again after *transport* was lost."""
        if transport is self._transport:
            self._transport = None
            self._check_quiet()
            self._retry(asyncio.get_running_loop())

    def flush_soon(self) -> None:
        """Send the calls of this turn of the loop in one write."""
        if not self._flushing and self._transport is not None and self._loop is not None:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._transport is not None and not self.is_inherited:
            self._transport.flush()

    # The end

    async def close(self) -> None:
        """
        Send pending calls, close the connection and do not reconnect.  Further calls have no effect.

        Waits for the answers to what returns items, and then for the end of the connection, up to `CLOSE_SECONDS` each.
        In a forked process it has no effect on the parent's connection.
        """
        if self.is_inherited:
            return
        loop = self._loop
        try:
            if loop is not None and not self.link.closed and loop is asyncio.get_running_loop():
                await self._until_quiet(loop)
        finally:
            self._end()
        if self._transport is not None and loop is asyncio.get_running_loop():
            await asyncio.wait((self._transport.lost,))

    async def _until_quiet(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until no items are being returned, or for `CLOSE_SECONDS`."""
        self._flush()
        self._quiet = loop.create_future()
        self._check_quiet()
        await asyncio.wait((self._quiet,), timeout=CLOSE_SECONDS)

    def _check_quiet(self) -> None:
        """Let `close` go on if no items are being returned, or there is no connection."""
        if self._quiet is not None and not self._quiet.done():
            connection = self.link.connection
            if connection is None or not (connection.settling or any(not each.done() for each in self._background)):
                self._quiet.set_result(None)

    def _end(self) -> None:
        """Accept no further calls, and begin to close the transport."""
        self.link.close()
        if self._loop is None or self._loop.is_closed():
            return
        if self._retry_timer is not None:
            self._retry_timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._transport is not None:
            self._transport.flush()
            self._transport.close()

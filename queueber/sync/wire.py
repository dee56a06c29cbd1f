"""
The connection of one client, as its I/O thread makes and uses it.

The names of hosts are looked up by calls that block, so a thread of its own makes
each connection and hands it over.  After its loss the next attempt waits for the
back-off of `Link`.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable
from functools import partial
from threading import Thread

from queueber.client_core.connection import ClientConnection
from queueber.client_core.endpoint import Endpoint, attempt_problem, loss_problem, refusal_of
from queueber.client_core.errors import NotConnected, OutcomeUnknown
from queueber.client_core.reconnect import Link
from queueber.errors import QueueberError, reason
from queueber.sync.stream import Stream, connect
from queueber.sync.timers import Timers

CONNECT_SECONDS = 30.0
"""Time limit of an attempt to connect to one address, and of its TLS handshake."""


class Wire:
    """One connection after the other.  All methods are for the I/O thread."""

    def __init__(
        self,
        endpoint: Endpoint,
        link: Link,
        timers: Timers,
        selector: selectors.BaseSelector,
        post: Callable[[Callable[[], object]], None],
        *,
        fails_calls: bool,
    ) -> None:
        """
        Connect *link* to *endpoint*.

        The *selector* is watched for the stream, with `on_events` of this object.  *post* is `IoThread.post`.
        *fails_calls*: calls fail if the server is away; otherwise that is logged.
        """
        self._endpoint = endpoint
        self._link = link
        self._timers = timers
        self._selector = selector
        self._post = post
        self._fails_calls = fails_calls
        self._stream: Stream | None = None
        self._connection: ClientConnection | None = None
        self._is_away = False
        """Whether the last attempt to connect has failed, which is logged once if no call fails with it."""

        self._half_closed = False

    def connect(self) -> None:
        """Begin to connect."""
        if not self._link.closed:
            attempt = Thread(target=self._attempt, name="queueber connecting", daemon=True)
            try:
                attempt.start()
            except RuntimeError as why:
                # The interpreter is ending, or the system has no more threads.
                self._failed(str(why), refused=False)

    def _attempt(self) -> None:
        """Connect.  Runs in a thread of its own."""
        try:
            made = connect(self._endpoint, CONNECT_SECONDS)
        except TimeoutError as error:
            why = f"no answer within {CONNECT_SECONDS:g} s" if error.errno is None else reason(error)
            self._post(partial(self._failed, why, refused=False))
        except (OSError, UnicodeError) as error:
            why, refused = attempt_problem(error, self._endpoint)
            self._post(partial(self._failed, why, refused=refused))
        else:
            self._post(partial(self._made, made))

    def _made(self, stream: Stream) -> None:
        if self._link.closed:
            stream.close()
            return
        self._stream, self._is_away = stream, False
        self._selector.register(stream.socket, stream.events, stream)
        self._connection = self._link.connected()
        self._link.dispatch()

    def _failed(self, why: str, *, refused: bool) -> None:
        if not (self._is_away or refused or self._fails_calls or self._link.closed):
            # Imported here, because most programs do without.
            import logging  # noqa: PLC0415

            log = logging.getLogger("queueber.sync")
            log.warning("cannot connect to %s: %s; trying again", self._endpoint.name, why)
        self._is_away = True
        self._link.attempt_failed(why, refused=refused)
        self._retry()

    def _retry(self) -> None:
        if not self._link.closed:
            self._timers.call_later(self._link.retry_delay(), self.connect)

    def on_events(self, stream: Stream, events: int) -> None:
        """Process what the server has sent, and go on sending."""
        if events & ~selectors.EVENT_WRITE or stream.sent:
            self._receive(stream)
        if stream is self._stream and not stream.sent:
            self._send(stream)

    def _receive(self, stream: Stream) -> None:
        assert self._connection is not None
        try:
            for data in stream.receive():
                if not data:
                    self._lost(None)
                    return
                self._connection.receive_data(data)
        except OSError as why:
            self._lost(why)

    def _send(self, stream: Stream, data: bytes = b"") -> None:
        try:
            stream.send(data)
        except OSError as why:
            # The server may have sent why, before it closed the connection.
            self._receive(stream)
            if stream is self._stream:
                self._lost(why)

    def flush(self) -> None:
        """Send the pending messages, and close a connection that has ended."""
        stream, connection = self._stream, self._connection
        if stream is None or connection is None:
            return
        if data := connection.data_to_send():
            self._send(stream, data)
        if stream is self._stream:
            if connection.ended is not None:
                self._lost(None)
            elif self._selector.get_key(stream.socket).events != stream.events:
                self._selector.modify(stream.socket, stream.events, stream)

    def _lost(self, error: OSError | None) -> None:
        """Fail the calls in flight, and connect again later."""
        connection = self._connection
        assert connection is not None
        refusal = None if connection.received else refusal_of(error, self._endpoint, secured=True)
        if refusal is None:
            self.drop(loss_problem(error, closing=self._link.closed))
        else:
            self.drop(refusal[0], NotConnected, refused=refusal[1])
        self._retry()

    def drop(self, why: str, kind: type[QueueberError] = OutcomeUnknown, *, refused: bool = False) -> None:
        """End the connection, if there is one."""
        stream, connection, self._stream, self._connection = self._stream, self._connection, None, None
        if stream is not None and connection is not None:
            self._selector.unregister(stream.socket)
            stream.close()
            connection.end(why, kind, refused=refused)

    @property
    def settling(self) -> bool | None:
        """Whether answers are on their way that return items; None without a connection."""
        return None if self._connection is None else self._connection.settling

    def finish(self) -> bool:
        """Send the end of the stream once all is sent; return whether the connection is gone."""
        if self._stream is not None and self._stream.sent and not self._half_closed:
            self._half_closed = True
            self._stream.end()
        return self._stream is None

    def leave_to_parent(self) -> None:
        """Release this process's copy of the socket, after a fork, in the child."""
        if self._stream is not None:
            self._stream.close()

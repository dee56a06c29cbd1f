"""
Blocking calls without a reactor, one at a time.

For processes that make a call and end, such as the command line.  Importing Twisted would be most of their run time.
"""

import socket
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

from queueber import api, rpc
from queueber.client_core.address import TcpAddress, UnixAddress
from queueber.client_core.arguments import timeout
from queueber.client_core.calls import Call
from queueber.client_core.errors import CallTimedOut, NotConnected, OutcomeUnknown, error_of
from queueber.client_core.held_leases import HeldLeases
from queueber.client_core.message_limits import MessageLimits
from queueber.client_core.routes import Routes
from queueber.errors import Kind, Overloaded, QueueberError, RemoteProtocolError, Unimplemented, reason
from queueber.fixed_limits import FRAME_BYTES_HIGHEST, ConnectionLimits
from queueber.rpc.messages import CallOutcome
from queueber.transport.keepalive import keep_socket_alive
from queueber.transport.protocol_detection import FIRST_BYTES, protocol_of
from queueber.units import MS_PER_SECOND

T = TypeVar("T")

CONNECT_SECONDS = 30.0
"""Time limit of an attempt to connect, equal to that of Twisted's endpoints."""

READ_BYTES = 65_536


class NoAnswer(QueueberError):
    """
    The time limit passed.

    While connecting: then nothing was sent.  Or before the answer: then the call may have taken effect or not.
    """

    kind = Kind.DISCONNECTED


class BlockingConnector:
    """
    A connection to one server, made by the first call and never made again.

    Replaces `queueber.client.service.Connector` under a `Client` or a `Queue`, for work that `run_blocking` runs.
    Their methods then return awaitables that block until they are done.  Not thread-safe.
    """

    def __init__(
        self,
        to: TcpAddress | UnixAddress,
        *,
        name: str,
        seconds: float | None = None,
    ) -> None:
        """Connect to *to*, named *name* in errors.  Connecting and all calls together may take *seconds*."""
        self._to = to
        self._name = name
        self._seconds = seconds
        self._until = None if seconds is None else monotonic() + seconds
        self._socket: socket.socket | None = None
        self.request_ids: Callable[[], bytes] | None = None
        """No source of request ids: no call is sent again."""

        self.held = HeldLeases()
        """No session is kept here."""

        self._first = b""
        """The first bytes from the server, enough to recognise another protocol."""

        self._limits = MessageLimits(None)
        # The length of replies is bounded by the server's own limit, which its operator sets.
        self._connection = rpc.Connection(limits=ConnectionLimits(frame_bytes=FRAME_BYTES_HIGHEST))
        self._routes = Routes(self._connection)

    async def start(self, build: Callable[[], Call[T]], timeout_ms: int | None = None) -> T:
        """
        Make the call that *build* returns, and return its result.

        A call that exceeds *timeout_ms* ends the connection, and thereby its wait at the server.

        Raises:
            CallTimedOut: there was no answer within *timeout_ms*.
            InvalidRequest: an argument is invalid, or the call is longer than the server accepts.
            NotConnected: there is no connection.
            OutcomeUnknown: the connection was lost before the answer came.
            NoAnswer: the time limit of the connector passed.
            QueueberError: the error that the server returned.
        """
        call = build()
        if timeout(timeout_ms) is None or timeout_ms is None:
            return self._call(call)
        of_connector = self._until, self._seconds
        seconds = timeout_ms / MS_PER_SECOND
        if self._until is None or monotonic() + seconds < self._until:
            self._until, self._seconds = monotonic() + seconds, seconds
        try:
            return self._call(call)
        except NoAnswer as why:
            if self._until == of_connector[0]:
                raise
            sent = self._socket is not None
            self.close()
            done = "may have taken effect or not" if sent else "was not sent"
            raise CallTimedOut(f"{why}: the call {done}", sent=sent) from None
        finally:
            self._until, self._seconds = of_connector

    def _call(self, call: Call[T]) -> T:
        if self._socket is not None and self._socket.fileno() < 0:
            raise NotConnected("the call was not sent: the connection is closed")
        length = len(call.content)
        if self._limits.must_ask(length):
            self._request_limits()
        self._limits.check(length)
        if self._socket is None:
            self._socket = self._connect()
        route = self._routes.to(call.place)
        question = self._connection.call(route.target, call.interface, call.method, call.content)
        try:
            outcome = self._receive_answer(self._socket, question)
        except TimeoutError as why:
            if why.errno is not None:
                # From the system: the peer did not answer its probes.
                raise _connection_lost(reason(why)) from None
            raise NoAnswer(f"no answer within {self._seconds:g} s") from None
        except OSError as why:
            raise _connection_lost(reason(why)) from None
        if isinstance(outcome, rpc.Results):
            return _parsed(call.read, outcome)
        raise route.error or error_of(outcome, call.interface, call.method)

    def _request_limits(self) -> None:
        """Ask for the longest message that the server accepts; it may be too old for that, or without room now."""
        content, read = api.write_limits_request(), api.read_limits_response
        try:
            self._limits.answered(self._call(Call(None, api.BROKER_INTERFACE_ID, api.LIMITS, content, read)))
        except (Unimplemented, Overloaded) as why:
            self._limits.answered(why)

    def _connect(self) -> socket.socket:
        try:
            if isinstance(self._to, TcpAddress):
                # As bytes, because the codec that encodes text for the DNS takes long to import.
                host = self._to.host.encode("ascii")
                made = socket.create_connection((host, self._to.port), self._left(CONNECT_SECONDS))  # type: ignore[arg-type]
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                keep_socket_alive(made)
                return made
            made = socket.socket(socket.AF_UNIX)
            made.settimeout(self._left(CONNECT_SECONDS))
            try:
                made.connect(self._to.path)
            except BaseException:
                made.close()
                raise
        except TimeoutError:
            if self._until is not None and monotonic() >= self._until:
                raise NoAnswer(f"no answer within {self._seconds:g} s") from None
            raise NotConnected(f"cannot connect to {self._name}: no answer within {CONNECT_SECONDS:g} s") from None
        except (OSError, UnicodeError) as why:
            reason = (why.strerror if isinstance(why, OSError) else None) or str(why)
            raise NotConnected(f"cannot connect to {self._name}: {reason}") from None
        return made

    def _left(self, most: float | None) -> float | None:
        """
        Return the seconds that a wait may take: *most*, or the rest of the time limit if that is less.

        Raises:
            TimeoutError: the time limit has passed.
        """
        if self._until is None:
            return most
        left = self._until - monotonic()
        if left <= 0:
            raise TimeoutError
        return left if most is None else min(left, most)

    def _receive_answer(self, to: socket.socket, question: rpc.QuestionId) -> CallOutcome:
        lost = self._send(to)
        while True:
            to.settimeout(self._left(None))
            data = to.recv(READ_BYTES)
            if not data:
                raise lost or _connection_lost("the server closed it")
            outcome = self._process(data, question)
            lost = self._send(to) or lost
            if outcome is not None:
                return outcome

    def _process(self, data: bytes, question: rpc.QuestionId) -> CallOutcome | None:
        """Process *data*.  Return the outcome of *question* if *data* completes it."""
        try:
            if len(self._first) < FIRST_BYTES:
                self._first += data[: FIRST_BYTES - len(self._first)]
                if other := protocol_of(self._first):
                    raise NotConnected(f"cannot connect to {self._name}: this port speaks {other}")
            for event in self._connection.receive_data(data):
                if isinstance(event, rpc.Aborted):
                    raise _connection_lost(f"the server ended the connection: {event.reason}")
                if isinstance(event, rpc.Returned) and not self._routes.returned(event):
                    self._connection.finish(event.question)
                    if event.question == question:
                        return event.outcome
        except RemoteProtocolError as why:
            raise _connection_lost(f"the server broke the protocol: {why}") from None
        return None

    def _send(self, to: socket.socket) -> QueueberError | None:
        """
        Send the pending messages.

        Return an error if the connection was lost.  Data that the server sent before may hold a better reason.
        """
        data = self._connection.data_to_send()
        try:
            to.settimeout(self._left(None))
            to.sendall(data)
        except TimeoutError:
            raise
        except OSError as why:
            return _connection_lost(reason(why))
        return None

    def close(self) -> None:
        """Close the connection, which ends its calls."""
        if self._socket is not None:
            self._socket.close()


def _connection_lost(why: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"the connection was lost, the call's outcome is unknown: {why}")


def _parsed(read: Callable[[rpc.Results], T], results: rpc.Results) -> T:
    try:
        return read(results)
    except RemoteProtocolError as why:
        raise _connection_lost(f"the server broke the protocol: {why}") from None


def run_blocking(work: Awaitable[T]) -> T:
    """
    Run *work*, which may await only calls through a `BlockingConnector`, and return its result.

    Raises:
        RuntimeError: *work* awaits something else.
    """

    async def main() -> T:
        return await work

    running = main()
    try:
        running.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    running.close()
    raise RuntimeError("work without a reactor awaits something other than a call")

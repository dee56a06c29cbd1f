"""
Calls without a reactor: each is waited for before the next is made.

For processes that make a call and end, as the command line's do.  Twisted and its reactor would be most of what
those cost.
"""

import socket
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

from attrs import evolve

from queueber import wire
from queueber.client.address import TcpAddress, UnixAddress
from queueber.client.arguments import FRAME_BYTES_HIGHEST
from queueber.client.errors import CallTimedOut, NotConnected, OutcomeUnknown, error_of
from queueber.client.lengths import CALL_OVERHEAD_BYTES, FROM_DEFAULT, FROM_SERVER, SURE_BYTES, too_long
from queueber.client.routes import Route, Routes
from queueber.errors import Kind, Overloaded, QueueberError, RemoteProtocolError, Unimplemented, reason
from queueber.keepalive import keep_socket_alive
from queueber.limits import DEFAULTS, FRAME_BYTES_MAX
from queueber.protocol_detection import FIRST_BYTES, protocol_of
from queueber.units import MS_PER_SECOND

T = TypeVar("T")

CONNECT_SECONDS = 30.0
"""How long an attempt to connect may take, as with Twisted's endpoints."""

READ_BYTES = 65_536


class NoAnswer(QueueberError):
    """The time for the work was over before it was done: it may have taken effect or not."""

    kind = Kind.DISCONNECTED


class BlockingConnector:
    """
    A connection to one server, made by the first call and not made again.

    Takes the place of `queueber.client.service.Connector` under a `Client` or a `Queue`, for work that `completed`
    runs: what those return is then awaitable, and done once it has been awaited.  Not for threads.
    """

    def __init__(
        self,
        to: TcpAddress | UnixAddress,
        *,
        name: str,
        seconds: float | None = None,
    ) -> None:
        """Errors call the server *name*.  All calls together, and connecting, may take *seconds*."""
        self._to = to
        self._name = name
        self._seconds = seconds
        self._until = None if seconds is None else monotonic() + seconds
        self._socket: socket.socket | None = None
        self._first = b""
        """The beginning of what the server has said, as much as tells which protocol it speaks."""

        self._longest: tuple[int, str] | None = None
        """The longest message that the server takes, and where that is from; None before it was asked."""

        # A server sends no longer reply than its own limit, which it was given by its operator.
        self._connection = wire.Connection(limits=evolve(DEFAULTS, frame_bytes=FRAME_BYTES_HIGHEST))
        self._routes = Routes(self._connection)

    async def call(
        self,
        queue: str | None,
        method: int,
        content: bytes,
        read: Callable[[wire.Results], T],
        interface: int = wire.QUEUE_INTERFACE_ID,
        *,
        timeout_ms: int | None = None,
        wait_ms: int | None = 0,  # noqa: ARG002  (for a time limit of all calls, which there is none of here)
    ) -> T:
        """
        What *read* makes of the results of *method* of the queue named *queue*, or of the default one.

        A call whose *timeout_ms* are over ends the connection, and with it what it waits for at the server.

        Raises:
            CallTimedOut: *timeout_ms* were over first.
            InvalidRequest: the call is longer than the server takes.
            NotConnected: there is no connection.
            OutcomeUnknown: the connection was lost before the answer came.
            NoAnswer: the time was over first.
            QueueberError: what the server answered.
        """
        if timeout_ms is None:
            return await self._call(queue, method, content, read, interface)
        of_all = self._until, self._seconds
        seconds = timeout_ms / MS_PER_SECOND
        if self._until is None or monotonic() + seconds < self._until:
            self._until, self._seconds = monotonic() + seconds, seconds
        try:
            return await self._call(queue, method, content, read, interface)
        except NoAnswer as why:
            if self._until == of_all[0]:
                raise
            sent = self._socket is not None
            self.close()
            raise CallTimedOut(str(why), sent=sent) from None
        finally:
            self._until, self._seconds = of_all

    async def _call(
        self, queue: str | None, method: int, content: bytes, read: Callable[[wire.Results], T], interface: int
    ) -> T:
        if len(content) + CALL_OVERHEAD_BYTES > SURE_BYTES:
            longest, by = self._longest = self._longest or await self._ask_for_limit()
            if len(content) + CALL_OVERHEAD_BYTES > longest:
                raise too_long(len(content), longest, by)
        if self._socket is None:
            self._socket = self._connect()
            self._routes.begin()
        route = self._routes.to(queue)
        question = self._connection.call(route.target, interface, method, content)
        try:
            return self._answer(self._socket, question, route, read)
        except TimeoutError as why:
            if why.errno is not None:
                # From the system: the peer did not answer its probes.
                raise _lost(reason(why)) from None
            raise NoAnswer(f"no answer within {self._seconds:g} s") from None
        except OSError as why:
            raise _lost(reason(why)) from None

    async def _ask_for_limit(self) -> tuple[int, str]:
        """The longest message that the server takes, and where that is from."""
        content, read = wire.write_limits_request(), wire.read_limits_response
        try:
            limits = await self.call(None, wire.LIMITS, content, read, wire.BROKER_INTERFACE_ID)
        except (Unimplemented, Overloaded):
            # It does not know the question, or has no room for it now.
            return FRAME_BYTES_MAX, FROM_DEFAULT
        return limits.frame_bytes, FROM_SERVER

    def _connect(self) -> socket.socket:
        try:
            if isinstance(self._to, TcpAddress):
                # As bytes, because a text is prepared for the DNS by tables that take long to import.
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
        The seconds that waiting may take: up to *most*, or what is left of the time.

        Raises:
            TimeoutError: nothing is left.
        """
        if self._until is None:
            return most
        left = self._until - monotonic()
        if left <= 0:
            raise TimeoutError
        return left if most is None else min(left, most)

    def _answer(
        self, to: socket.socket, question: wire.QuestionId, route: Route, read: Callable[[wire.Results], T]
    ) -> T:
        broken = self._send(to)
        while True:
            to.settimeout(self._left(None))
            data = to.recv(READ_BYTES)
            if not data:
                raise broken or _lost("the server closed it")
            outcome = self._receive(data, question)
            broken = self._send(to) or broken
            if isinstance(outcome, wire.Results):
                return _checked(read, outcome)
            if outcome is not None:
                raise route.error or error_of(outcome)

    def _receive(
        self, data: bytes, question: wire.QuestionId
    ) -> wire.Results | wire.RemoteException | wire.Canceled | None:
        """The outcome of *question*, if *data* completes it."""
        try:
            if len(self._first) < FIRST_BYTES:
                self._first += data[: FIRST_BYTES - len(self._first)]
                if other := protocol_of(self._first):
                    raise NotConnected(f"cannot connect to {self._name}: this port speaks {other}")
            for event in self._connection.receive_data(data):
                if isinstance(event, wire.Aborted):
                    raise _lost(f"the server ended the connection: {event.reason}")
                if isinstance(event, wire.Returned) and not self._routes.returned(event):
                    self._connection.finish(event.question)
                    if event.question == question:
                        return event.outcome
        except RemoteProtocolError as why:
            raise _lost(f"the server broke the protocol: {why}") from None
        return None

    def _send(self, to: socket.socket) -> QueueberError | None:
        """
        Send what there is to send.

        Returns what a connection that took nothing more was lost for.  What the server sent before it may say more.
        """
        data = self._connection.data_to_send()
        try:
            to.settimeout(self._left(None))
            to.sendall(data)
        except TimeoutError:
            raise
        except OSError as why:
            return _lost(reason(why))
        return None

    def close(self) -> None:
        """Close the connection, which ends all that was called through it."""
        if self._socket is not None:
            self._socket.close()


def _lost(why: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"the connection was lost, the call's outcome is unknown: {why}")


def _checked(read: Callable[[wire.Results], T], results: wire.Results) -> T:
    try:
        return read(results)
    except RemoteProtocolError as why:
        raise _lost(f"the server broke the protocol: {why}") from None


def completed(work: Awaitable[T]) -> T:
    """
    The result of *work*, which waits for nothing but calls through a `BlockingConnector`.

    Raises:
        RuntimeError: it waits for something else.
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
    raise RuntimeError("work without a reactor waits for something that is no call")

"""`Client`: the queues of one server, and the calls that concern all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self

from queueber import api
from queueber.client.delivery import Batch, batch_of
from queueber.client.queue import Queue
from queueber.client_core.broker_calls import BrokerCalls
from queueber.client_core.queue_calls import GRACE_MS_DEFAULT, LEASE_MS_DEFAULT, SessionRef, checked_name
from queueber.fixed_limits import LISTED_MAX

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from typing_extensions import Buffer

    from queueber.api.control_types import Listed, QueueSummary
    from queueber.client.admin import Admin
    from queueber.client.control import QueueControl
    from queueber.client.service import Connector
    from queueber.client.session import Session


class Client:
    """
    A client of one server, over one connection that is re-established whenever it is lost.

    Calls made without a connection wait for one.  Leaving it as a context manager closes it.
    """

    def __init__(self, connector: Connector, queue: str | None = None) -> None:
        """Created by `connect`; *queue* is the name of the URL's queue."""
        self._connector = connector
        self._queue = queue
        self._start = connector.start
        self._calls = BrokerCalls(lambda name, response: batch_of(Queue(connector, name or None), response))
        self.default = Queue(connector, None)
        """The server's default queue."""

    @cached_property
    def admin(self) -> Admin:
        """The administrative calls, if this is a connection to a control socket."""
        # Imported here, because few programs make them.
        from queueber.client.admin import Admin  # noqa: PLC0415

        return Admin(self._connector)

    def queue(self, name: str | None = None) -> Queue:
        """
        Return the queue named *name*, 1 to 255 bytes of UTF-8.  It costs nothing until an item is added to it.

        Without a name it is the queue of the URL, or the server's default queue.

        Raises:
            InvalidRequest: the name is invalid.
        """
        return Queue(self._connector, self._queue if name is None else checked_name(name))

    def limits(self) -> Deferred[api.ServerLimits]:
        """
        Ask the server for its limits on clients.

        Returns:
            Fires with the limits.  Fails with `Unimplemented` on a server that is older than this method.
        """
        return self._start(self._calls.limits)

    def control(self, queue: str) -> QueueControl:
        """
        Return an object with the methods for operators of the queue named *queue*.

        Raises:
            InvalidRequest: the name is invalid.
        """
        # Imported here, because few programs make these calls.
        from queueber.client.control import QueueControl  # noqa: PLC0415

        return QueueControl(self._connector, checked_name(queue))

    def queues(
        self, prefix: str = "", *, label: tuple[str, str] | None = None, after: str = "", limit: int = LISTED_MAX
    ) -> Deferred[Listed[QueueSummary]]:
        """
        List up to *limit* queues, at most 1,000, by name: those that begin with *prefix* and have the *label*.

        *after* is the name of the last queue that was seen.

        Returns:
            Fires with the queues.  Fails with `Unimplemented` on a server that is older than this method.
        """
        return self._start(lambda: self._calls.queues(prefix, label=label, after=after, limit=limit))

    def poll_any(
        self,
        queues: Mapping[str, int] | Iterable[str],
        n: int = 1,
        *,
        lease_ms: int = LEASE_MS_DEFAULT,
        wait_ms: int | None = None,
        strict: bool = False,
        session: Buffer | SessionRef = b"",
        timeout_ms: int | None = None,
    ) -> Deferred[tuple[str, Batch]]:
        """
        Take up to *n* ready items of one of *queues*, 1 to 64 names, or names with weights of 1 to 1,000.

        With *strict* the first queue that has an item is served.  Otherwise they take turns, by weight.  The other
        arguments are those of `Queue.poll`.

        Returns:
            Fires with the queue's name, empty without items, and the batch.  Fails with `Unimplemented` on a server
            that is older than this method.
        """
        return self._start(
            lambda: self._calls.poll_any(queues, n, lease_ms=lease_ms, wait_ms=wait_ms, strict=strict, session=session),
            timeout_ms,
        )

    def attach(
        self, session: Buffer, *, grace_ms: int = 0, more: bool = False, timeout_ms: int | None = None
    ) -> Deferred[api.AttachResponse]:
        """
        Bind *session*, 16 random bytes, to the present connection.

        Polls with the session then give leases that last as long as it is attached, and end when it has been detached
        for *grace_ms*, 10 s to 7 days; 0 means 30 s.  After a reconnection, attach it again.  Send `ping` at least
        every quarter of the shorter of the grace and the response's `silence`.  A session of `Client.session` does
        all of that by itself.

        Returns:
            Fires with the leases that the session still has, none if it is attached to this connection already.  If
            there are many, the response has the first 256 KiB and its `more` is true: attach again with *more* for the
            next ones.  Fails with `Unimplemented` on a server that does not know sessions.
        """
        return self._start(lambda: self._calls.attach(session, grace_ms=grace_ms, more=more), timeout_ms)

    def ping(self, *, timeout_ms: int | None = None) -> Deferred[list[bytes]]:
        """
        Show the server that this client is alive.

        Returns:
            Fires with the session leases that the server has ended since the last ping.
        """
        return self._start(self._calls.ping, timeout_ms)

    def session(self, grace_ms: int = GRACE_MS_DEFAULT, *, on_lost: Callable[[bytes], object] | None = None) -> Session:
        """
        Return a session that is attached to each connection, and pinged, until it is closed.

        Pass it to polls: their leases last as long as the session, and *grace_ms*, 10 s to 7 days, longer than a lost
        connection.  *on_lost* is called with each lease that ends before its items are settled.

            async with client.session() as session:
                batch = await queue.poll(session=session)

        Raises:
            InvalidRequest: an argument is of the wrong type or out of range.
        """
        # Imported here, because blocking clients do without Twisted.
        from queueber.client.session import Session  # noqa: PLC0415

        return Session(self._connector, grace_ms, on_lost)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        closing = self.close()
        if not isinstance(error, GeneratorExit):
            # A coroutine that is being closed cannot wait.
            await closing

    def close(self) -> Deferred[None]:
        """
        Send pending calls, close the connection and do not reconnect.  Further calls of `close` have no effect.

        Returns:
            Fires when the connection is closed.  Calls in flight fail with `OutcomeUnknown`, waiting ones with
            `NotConnected`.  The client waits up to 5 s until the server has confirmed returned items.
        """
        return self._connector.close()

"""`connect`, and `Client`: the queues of one server, and the calls that concern all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self

from queueber import api
from queueber.client_core.arguments import text
from queueber.client_core.broker_calls import BrokerCalls
from queueber.client_core.options import Tls
from queueber.client_core.queue_calls import GRACE_MS_DEFAULT, LEASE_MS_DEFAULT, SessionRef, checked_name
from queueber.client_core.url import target_of
from queueber.fixed_limits import LISTED_MAX
from queueber.sync.connector import Connector
from queueber.sync.items import Batch
from queueber.sync.queue import Queue

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from queueber.api.control_types import Listed, QueueSummary
    from queueber.limits import Limits
    from queueber.sync.admin import Admin
    from queueber.sync.control import QueueControl
    from queueber.sync.session import Session


def connect(
    url: str,
    *,
    tls: Tls | None = None,
    limits: Limits | None = None,
    attempts: int | None = None,
    retry_policy: Callable[[int], float] | None = None,
    timeout_ms: int | None = None,
    resend_adds: bool | None = None,
) -> Client:
    """
    Return a client of the server at *url*, which connects with its first call.

    The other arguments take precedence over the URL's parameters of the same names.

    Args:
        url: ``queueber://HOST:PORT/QUEUE``, ``queueber+tls://…`` or ``queueber+unix:///PATH?queue=QUEUE``, with options
            as parameters; or an address: ``HOST:PORT``, ``[IPv6]:PORT`` or ``unix:PATH``.
        tls: TLS on top of the address.
        limits: bounds that replace the server's: `frame_bytes` in both directions, `segments`, `traversal_factor` and
            `exports`.  By default a message may be as long as the server accepts; the client asks for that limit
            before it sends the first message longer than 64 KiB.
        attempts: failed attempts to connect after which a waiting call fails; None waits without a limit.
        retry_policy: returns the seconds to wait after a given number of failed attempts, at most a day.  A connection
            that ends within 10 s without an answer counts as one.  If it raises or returns something else, the calls
            that wait fail with `InvalidRequest`, and the default backoff is used.
        timeout_ms: the time limit of every call, from the call to its answer; None for no limit.  The wait of a poll
            is added to it.  Polls without a limit to their wait, backups and checks have no time limit.
        resend_adds: give every add a request id, so that it is sent again after its connection was lost, and still adds
            only once.  It costs the server one more row for each call, for ten minutes.

    Raises:
        InvalidRequest: an argument or a parameter is of the wrong type or out of range, or *tls* cannot be used.
    """
    target = target_of(
        text("url", url),
        tls=tls,
        limits=limits,
        attempts=attempts,
        retry_policy=retry_policy,
        timeout_ms=timeout_ms,
        resend_adds=resend_adds,
    )
    return Client(Connector(target), target.queue)


class Client:
    """
    A client of one server, over one connection that is re-established whenever it is lost.

    Calls made without a connection wait for one.  Leaving it as a context manager closes it.  Threads may share it.  In
    a forked process it opens a connection of its own.
    """

    def __init__(self, connector: Connector, queue: str | None = None) -> None:
        """Created by `connect`; *queue* is the name of the URL's queue."""
        self._connector = connector
        self._queue = queue
        self._calls = BrokerCalls(self._batch)
        self.default = Queue(connector, None)
        """The server's default queue."""

    def _batch(self, queue: str, response: api.PollResponse) -> Batch:
        return (self.queue(queue) if queue else self.default).batch(response)

    @cached_property
    def admin(self) -> Admin:
        """The administrative calls, if this is a connection to a control socket."""
        # Imported here, because few programs make them.
        from queueber.sync.admin import Admin  # noqa: PLC0415

        return Admin(self._connector)

    def queue(self, name: str | None = None) -> Queue:
        """
        Return the queue named *name*, 1 to 255 bytes of UTF-8.  It costs nothing until an item is added to it.

        Without a name it is the queue of the URL, or the server's default queue.

        Raises:
            InvalidRequest: the name is invalid.
        """
        return Queue(self._connector, self._queue if name is None else checked_name(name))

    def limits(self) -> api.ServerLimits:
        """
        Ask the server for its limits on clients.

        Raises:
            Unimplemented: the server is older than this method.
        """
        return self._connector.call(self._calls.limits())

    def control(self, queue: str) -> QueueControl:
        """
        Return an object with the methods for operators of the queue named *queue*.

        Raises:
            InvalidRequest: the name is invalid.
        """
        # Imported here, because few programs make these calls.
        from queueber.sync.control import QueueControl  # noqa: PLC0415

        return QueueControl(self._connector, checked_name(queue))

    def queues(
        self, prefix: str = "", *, label: tuple[str, str] | None = None, after: str = "", limit: int = LISTED_MAX
    ) -> Listed[QueueSummary]:
        """
        List up to *limit* queues, at most 1,000, by name: those that begin with *prefix* and have the *label*.

        *after* is the name of the last queue that was seen.

        Raises:
            Unimplemented: the server is older than this method.
        """
        return self._connector.call(self._calls.queues(prefix, label=label, after=after, limit=limit))

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
    ) -> tuple[str, Batch]:
        """
        Take up to *n* ready items of one of *queues*, 1 to 64 names, or names with weights of 1 to 1,000.

        With *strict* the first queue that has an item is served.  Otherwise they take turns, by weight.  The other
        arguments are those of `Queue.poll`.

        Returns:
            The queue's name, empty without items, and the batch.

        Raises:
            Unimplemented: the server is older than this method.
        """
        call = self._calls.poll_any(queues, n, lease_ms=lease_ms, wait_ms=wait_ms, strict=strict, session=session)
        return self._connector.call(call, timeout_ms)

    def attach(
        self, session: Buffer, *, grace_ms: int = 0, more: bool = False, timeout_ms: int | None = None
    ) -> api.AttachResponse:
        """
        Bind *session*, 16 random bytes, to the present connection.

        Polls with the session then give leases that last as long as it is attached, and end when it has been detached
        for *grace_ms*, 10 s to 7 days; 0 means 30 s.  After a reconnection, attach it again.  Send `ping` at least
        every quarter of the shorter of the grace and the response's `silence`.  A session of `Client.session` does
        all of that by itself.

        Returns:
            The leases that the session still has, none if it is attached to this connection already.  If there are
            many, the response has the first 256 KiB and its `more` is true: attach again with *more* for the next ones.

        Raises:
            Unimplemented: the server does not know sessions.
        """
        return self._connector.call(self._calls.attach(session, grace_ms=grace_ms, more=more), timeout_ms)

    def ping(self, *, timeout_ms: int | None = None) -> list[bytes]:
        """
        Show the server that this client is alive.

        Returns:
            The session leases that the server has ended since the last ping.
        """
        return self._connector.call(self._calls.ping(), timeout_ms)

    def session(self, grace_ms: int = GRACE_MS_DEFAULT, *, on_lost: Callable[[bytes], object] | None = None) -> Session:
        """
        Return a session that is attached to each connection, and pinged, until it is closed.

        Pass it to polls: their leases last as long as the session, and *grace_ms*, 10 s to 7 days, longer than a lost
        connection.  *on_lost* is called with each lease that ends before its items are settled: in the client's own
        thread, so it must not block.

            with client.session() as session:
                batch = queue.poll(session=session)

        Raises:
            InvalidRequest: an argument is of the wrong type or out of range.
        """
        # Imported here, because few programs need it.
        from queueber.sync.session import Session  # noqa: PLC0415

        return Session(self._connector, grace_ms, on_lost)

    def close(self) -> None:
        """
        Send pending calls, close the connection and do not reconnect.  Further calls of `close` have no effect.

        Calls in flight fail with `OutcomeUnknown`, waiting ones with `NotConnected`.  The client waits up to 5 s until
        the server has confirmed returned items.
        """
        self._connector.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

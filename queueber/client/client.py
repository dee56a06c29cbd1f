"""`Client`: the queues of one server, and the calls that concern all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from queueber import api, rpc
from queueber.client.arguments import SPAN_MS_MAX, elements, flag, identifier, integer, timeout
from queueber.client.errors import failed
from queueber.client.queue import LEASE_MS_DEFAULT, Batch, Queue, batch_of, checked_name, poll_request
from queueber.errors import InvalidRequest
from queueber.limits import LISTED_MAX, POLL_ANY_QUEUES_MAX, WEIGHT_MAX
from queueber.units import SpanMs

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from typing_extensions import Buffer

    from queueber.api.control_types import Listed, QueueSummary
    from queueber.client.admin import Admin
    from queueber.client.control import QueueControl
    from queueber.client.service import Connector


class Client:
    """
    A client of one server, over one connection that is re-established whenever it is lost.

    Calls made without a connection wait for the next.  Close the client at the end.
    """

    def __init__(self, connector: Connector) -> None:
        """Created by `connect`."""
        self._connector = connector
        self.default = Queue(connector, None)
        """The server's default queue."""

    @cached_property
    def admin(self) -> Admin:
        """The administrative calls, if this is a connection to a control socket."""
        # Imported here, because few programs make them.
        from queueber.client.admin import Admin  # noqa: PLC0415

        return Admin(self._connector)

    def queue(self, name: str) -> Queue:
        """
        Return the queue named *name*, 1 to 255 bytes of UTF-8.  It costs nothing until an item is added to it.

        Raises:
            InvalidRequest: the name is invalid.
        """
        return Queue(self._connector, checked_name(name))

    def limits(self) -> Deferred[api.ServerLimits]:
        """
        Ask the server for its limits on clients.

        Returns:
            Fires with the limits.  Fails with `Unimplemented` on a server that is older than this method.
        """
        return self._connector.call(
            None, api.LIMITS, api.write_limits_request(), api.read_limits_response, api.BROKER_INTERFACE_ID
        )

    def control(self, queue: str) -> QueueControl:
        """
        Return the control of the queue named *queue*, to look into it and to change it.

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
        # Imported here, because few programs make this call.
        from queueber.client.control import list_queues  # noqa: PLC0415

        return list_queues(self._connector, prefix, label, after, limit)

    def poll_any(
        self,
        queues: Mapping[str, int] | Iterable[str],
        n: int = 1,
        *,
        lease_ms: int = LEASE_MS_DEFAULT,
        wait_ms: int | None = None,
        strict: bool = False,
        session: Buffer = b"",
        timeout_ms: int | None = None,
    ) -> Deferred[tuple[str, Batch]]:
        """
        Take up to *n* ready items of one of *queues*, 1 to 64 names, or names with weights of 1 to 1,000.

        With *strict* the first queue that has an item is served.  Otherwise they take turns, by weight.  The other
        arguments are those of `Queue.poll`.

        Returns:
            Fires with the queue's name, empty without items, and the batch.  Settle its items on that queue, or on the
            default queue.  Fails with `Unimplemented` on a server that is older than this method.
        """
        try:
            poll = poll_request(n, lease_ms, wait_ms, session)
            limit = timeout(timeout_ms)
            content = api.write_poll_any_request(api.PollAnyRequest(_weighted(queues), flag("strict", strict), poll))
        except InvalidRequest as why:
            return failed(why)
        return self._connector.call(
            None,
            api.POLL_ANY,
            content,
            _queue_and_batch,
            api.BROKER_INTERFACE_ID,
            timeout_ms=limit,
            wait_ms=poll.wait,
        )

    def attach(
        self, session: Buffer, *, grace_ms: int = 0, more: bool = False, timeout_ms: int | None = None
    ) -> Deferred[api.AttachResponse]:
        """
        Bind *session*, 16 random bytes, to the present connection.

        Polls with the session then give leases that last as long as it is attached, and end when it has been detached
        for *grace_ms*, 10 s to 7 days; 0 means 30 s.  After a reconnection, attach it again.  Send `ping` at least
        every quarter of the shorter of the grace and the response's `silence`.

        Returns:
            Fires with the leases that the session still has, none if it is attached to this connection already.  If
            there are many, the response has the first 256 KiB and its `more` is true: attach again with *more* for the
            next ones.  Fails with `Unimplemented` on a server that does not know sessions.
        """
        try:
            limit = timeout(timeout_ms)
            grace = SpanMs(integer("grace_ms", grace_ms, 0, SPAN_MS_MAX, "ms"))
            request = api.AttachRequest(identifier("session", session), grace, flag("more", more))
        except InvalidRequest as why:
            return failed(why)
        content = api.write_attach_request(request)
        return self._connector.call(
            None, api.ATTACH, content, api.read_attach_response, api.BROKER_INTERFACE_ID, timeout_ms=limit
        )

    def ping(self, *, timeout_ms: int | None = None) -> Deferred[list[bytes]]:
        """
        Show the server that this client lives.

        Returns:
            Fires with the session leases that have ended otherwise since the last ping.
        """
        try:
            limit = timeout(timeout_ms)
        except InvalidRequest as why:
            return failed(why)
        return self._connector.call(
            None,
            api.PING,
            api.write_ping_request(),
            api.read_ping_response,
            api.BROKER_INTERFACE_ID,
            timeout_ms=limit,
        )

    def close(self) -> Deferred[None]:
        """
        Send pending calls, close the connection and do not reconnect.  Further calls of `close` have no effect.

        Returns:
            Fires when the connection is closed.  Calls in flight fail with `OutcomeUnknown`, waiting ones with
            `NotConnected`.
        """
        return self._connector.close()


def _weighted(queues: Mapping[str, int] | Iterable[str]) -> list[api.QueueWeight]:
    """
    Return *queues* with their weights, 1 unless they are given.

    Raises:
        InvalidRequest: there are none or too many, or a name or a weight is invalid.
    """
    names = elements("queues", queues, f"1 to {POLL_ANY_QUEUES_MAX} names of queues")
    if not 1 <= len(names) <= POLL_ANY_QUEUES_MAX:
        raise InvalidRequest(f"queues is {len(names)} queues; it must be 1 to {POLL_ANY_QUEUES_MAX}")
    weights = queues if isinstance(queues, Mapping) else dict.fromkeys(names, 1)
    return [
        api.QueueWeight(checked_name(each), integer(f"queues[{each!r}]", weights[each], 1, WEIGHT_MAX, "turns"))
        for each in names
    ]


def _queue_and_batch(results: rpc.Results) -> tuple[str, Batch]:
    response = api.read_poll_any_response(results)
    return response.queue, batch_of(response.poll)

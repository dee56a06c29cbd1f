"""
From an address to a `Client`.

Twisted is imported when something is connected with it, here and in the modules
that a `Client` is made of: a process that makes one call does without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from queueber import wire
from queueber.client.address import as_client, host_in, short_address
from queueber.client.admin import Admin
from queueber.client.arguments import FRAME_BYTES_HIGHEST, instance, integer, timeout, wrong
from queueber.client.queue import Queue, checked_name
from queueber.client.tls import Tls
from queueber.errors import InvalidRequest
from queueber.limits import Limits

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IStreamClientEndpoint

    from queueber.client.service import Connector

_ATTEMPTS_MAX = (1 << 63) - 1
_LIMITS = {"frame_bytes": "bytes", "segments": "segments", "traversal_factor": "times", "exports": "capabilities"}


class Client:
    """
    A server, over one connection that is made again whenever it is lost.

    Calls made while there is no connection wait for the next.  Close it in the end.
    """

    def __init__(self, connector: Connector) -> None:
        """`connect` makes them."""
        self._connector = connector
        self.default = Queue(connector, None)
        """The queue that a server has from the beginning."""
        self.admin = Admin(connector)
        """What the local administrator may ask, if this is a connection to a control socket."""

    def queue(self, name: str) -> Queue:
        """
        The queue named *name*, 1 to 255 bytes of UTF-8; it costs nothing until something is added to it.

        Raises:
            InvalidRequest: no queue can have that name.
        """
        return Queue(self._connector, checked_name(name))

    def limits(self) -> Deferred[wire.ServerLimits]:
        """
        Ask the server for the limits that its clients can keep to.

        Returns:
            Fires with them; fails with `Unimplemented` on a server that is older than the question.
        """
        return self._connector.call(
            None, wire.LIMITS, wire.write_limits_request(), wire.read_limits_response, wire.BROKER_INTERFACE_ID
        )

    def close(self) -> Deferred[None]:
        """
        Send what has been said, close the connection and make no other; again does nothing more.

        Returns:
            Fires when it is closed.  Calls in flight fail with `OutcomeUnknown`, those that wait with `NotConnected`.
        """
        return self._connector.close()


def connect(
    reactor: Any,  # noqa: ANN401  (reactors have no common type)
    address: str | IStreamClientEndpoint,
    *,
    tls: Tls | None = None,
    limits: Limits | None = None,
    attempts: int | None = None,
    retry_policy: Callable[[int], float] | None = None,
    timeout_ms: int | None = None,
) -> Client:
    """
    A client of the server at *address*, connecting from now on.

    *address* is ``HOST:PORT``, ``[IPv6]:PORT``, a Twisted endpoint string such
    as ``unix:path=…`` or ``tls:host:port:trustRoots=…``, what a server on this machine was
    told to listen at, or an endpoint; *tls* goes on top of any of them.  A call that has to wait for a
    connection fails once *attempts* have failed meanwhile; with None it waits
    as long as it takes.  A message may be as long as the server takes, which is
    asked for before the first that is longer than 64 KiB; *limits* are bounds of
    the client's own instead, of which it keeps `frame_bytes` in both directions,
    `segments`, `traversal_factor` and `exports`.  *retry_policy* gives the seconds to wait after so many
    failed attempts; a connection that ends before it was of use counts as one.
    *timeout_ms* is the time limit of every call, from when it is made to its answer, with None there is none.
    The wait of a poll comes on top of it. A poll that waits as long as it takes, a backup and a check have none.

    Raises:
        InvalidRequest: an argument is of the wrong kind or out of range, or *tls* cannot be used.
    """
    from twisted.internet.interfaces import IStreamClientEndpoint  # noqa: PLC0415

    from queueber.client.service import Connector  # noqa: PLC0415

    if not callable(getattr(reactor, "callLater", None)):
        raise wrong("reactor", reactor, "a Twisted reactor")
    if not isinstance(address, str) and not IStreamClientEndpoint.providedBy(address):
        raise wrong("address", address, "text or an IStreamClientEndpoint")
    if tls is not None:
        instance("tls", tls, Tls, "a queueber.client.Tls or None")
    _check_limits(limits)
    if attempts is not None:
        integer("attempts", attempts, 1, _ATTEMPTS_MAX, "attempts")
    timeout(timeout_ms)
    if retry_policy is not None and not callable(retry_policy):
        raise wrong("retry_policy", retry_policy, "a function or None")
    endpoint = endpoint_of(reactor, address) if isinstance(address, str) else address
    if tls is not None:
        endpoint = tls.secure(endpoint, host_in(address) if isinstance(address, str) else None)
    connector = Connector(
        reactor,
        endpoint,
        limits=limits,
        attempts=attempts,
        retry_policy=retry_policy,
        address=address if isinstance(address, str) else None,
        timeout_ms=timeout_ms,
    )
    return Client(connector)


def _check_limits(limits: Limits | None) -> None:
    """
    Check the limits that a client works with.

    Raises:
        InvalidRequest: one of them is not a number, or out of any range.
    """
    if limits is None:
        return
    instance("limits", limits, Limits, "a queueber.limits.Limits or None")
    for name, unit in _LIMITS.items():
        integer(f"limits.{name}", getattr(limits, name), 1, FRAME_BYTES_HIGHEST, unit)


def endpoint_of(reactor: Any, address: str) -> IStreamClientEndpoint:  # noqa: ANN401
    """
    The endpoint that *address* means, as for `connect`.

    Raises:
        InvalidRequest: *address* is none.
    """
    from twisted.internet.endpoints import HostnameEndpoint, clientFromString  # noqa: PLC0415

    address = as_client(address)
    short = short_address(address)
    if short:
        endpoint: IStreamClientEndpoint = HostnameEndpoint(reactor, short.host, short.port)
        return endpoint
    try:
        endpoint = clientFromString(reactor, address)
    except (ValueError, TypeError, ImportError) as why:
        raise InvalidRequest(
            f"{address!r} is no address: neither HOST:PORT, [IPv6]:PORT nor a Twisted endpoint ({why})"
        ) from None
    return endpoint

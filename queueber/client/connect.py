"""
`connect`, which creates a client for an address, and its TLS options.

This module and `client` import Twisted only when `connect` is called,
so that a process that makes one blocking call does not import it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import Attribute, field, frozen

from queueber.client.address import Address, TcpAddress, UnixAddress, host_of, no_address, parse
from queueber.client.arguments import (
    FRAME_BYTES_HIGHEST,
    instance,
    integer,
    path,
    text,
    timeout,
    wrong,
)
from queueber.client.client import Client
from queueber.errors import InvalidRequest
from queueber.limits import Limits

if TYPE_CHECKING:
    from twisted.internet.interfaces import IStreamClientEndpoint

AnyPath: TypeAlias = str | os.PathLike[str]

_ATTEMPTS_MAX = (1 << 63) - 1
_LIMITS = {"frame_bytes": "bytes", "segments": "segments", "traversal_factor": "times", "exports": "capabilities"}


def _check_path(_: Tls, argument: Attribute[AnyPath | None], value: AnyPath | None) -> None:
    if value is not None:
        path(argument.name, value)


def _check_text(_: Tls, argument: Attribute[str | None], value: str | None) -> None:
    if value is not None:
        text(argument.name, value)


@frozen(kw_only=True)
class Tls:
    """
    TLS options of a connection.  All files are in PEM format.

    Raises:
        InvalidRequest: an argument is of the wrong type.
    """

    ca: AnyPath | None = field(default=None, validator=_check_path)
    """The authorities to trust; None for those of the operating system."""

    certificate: AnyPath | None = field(default=None, validator=_check_path)
    """The client's certificate, followed by intermediate certificates; None for no certificate."""

    key: AnyPath | None = field(default=None, validator=_check_path)
    """The certificate's private key; None if it is in the same file."""

    server_name: str | None = field(default=None, validator=_check_text)
    """The name that the server's certificate must have; None for the host in the address."""


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
    Return a client of the server at *address* and start connecting.

    Args:
        reactor: the Twisted reactor to use.
        address: ``HOST:PORT``, ``[IPv6]:PORT``, a Twisted endpoint string such as ``unix:path=…`` or
            ``tls:host:port:trustRoots=…``, the value of a local server's ``--listen``, or an endpoint object.
        tls: TLS on top of *address*.
        limits: bounds that replace the server's: `frame_bytes` in both directions, `segments`, `traversal_factor` and
            `exports`.  By default a message may be as long as the server accepts; the client asks for that limit
            before it sends the first message longer than 64 KiB.
        attempts: failed attempts to connect after which a waiting call fails; None waits without a limit.
        retry_policy: returns the seconds to wait after a given number of failed attempts.  A connection that ends
            before it was of use counts as a failed attempt.
        timeout_ms: the time limit of every call, from the call to its answer; None for no limit.  The wait of a poll
            is added to it.  Polls without a limit to their wait, backups and checks have no time limit.

    Raises:
        InvalidRequest: an argument is of the wrong type or out of range, or *tls* cannot be used.
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
    connector = Connector(
        reactor,
        _endpoint(reactor, address, tls),
        limits=limits,
        attempts=attempts,
        retry_policy=retry_policy,
        address=address if isinstance(address, str) else None,
        timeout_ms=timeout_ms,
    )
    return Client(connector)


def _endpoint(reactor: Any, address: str | IStreamClientEndpoint, tls: Tls | None) -> IStreamClientEndpoint:  # noqa: ANN401
    """
    Return the endpoint for *address*, with TLS on top if *tls* is given.

    Raises:
        InvalidRequest: the address is invalid, the extra `tls` is missing, or a file of *tls* cannot be used.
    """
    host = None
    if isinstance(address, str):
        parsed = parse(address)
        endpoint, host = endpoint_of(reactor, parsed), host_of(parsed)
    else:
        endpoint = address
    if tls is None:
        return endpoint
    try:
        from queueber.client.tls import secured  # noqa: PLC0415
    except ImportError as why:
        raise InvalidRequest(f"TLS needs the extra `tls`, pip install 'queueber[tls]': {why}") from None
    return secured(tls, endpoint, host)


def _check_limits(limits: Limits | None) -> None:
    """
    Check the four limits that a client uses, those in `_LIMITS`.  None is valid: the client then uses the server's.

    Raises:
        InvalidRequest: *limits* is not a `Limits`, or one of the four is not a number or out of range.
    """
    if limits is None:
        return
    instance("limits", limits, Limits, "a queueber.limits.Limits or None")
    for name, unit in _LIMITS.items():
        integer(f"limits.{name}", getattr(limits, name), 1, FRAME_BYTES_HIGHEST, unit)


def endpoint_of(reactor: Any, address: Address) -> IStreamClientEndpoint:  # noqa: ANN401
    """
    Return Twisted's endpoint for *address*.

    Raises:
        InvalidRequest: *address* is a string that Twisted does not accept.
    """
    from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, clientFromString  # noqa: PLC0415

    endpoint: IStreamClientEndpoint
    if isinstance(address, TcpAddress):
        endpoint = HostnameEndpoint(reactor, address.host, address.port)
    elif isinstance(address, UnixAddress):
        endpoint = UNIXClientEndpoint(reactor, address.path)
    else:
        try:
            endpoint = clientFromString(reactor, address.text)
        except (ValueError, TypeError, ImportError) as why:
            raise no_address(address.text, why) from None
    return endpoint

"""
`connect`, which creates a client for a URL or an address.

This module and `client` import Twisted only when `connect` is called,
so that a process that makes one blocking call does not import it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from queueber.client.client import Client
from queueber.client_core.address import Address, TcpAddress, UnixAddress, host_of, no_address
from queueber.client_core.arguments import wrong
from queueber.client_core.options import ConnectOptions, Tls
from queueber.client_core.url import target_of
from queueber.errors import InvalidRequest

if TYPE_CHECKING:
    from twisted.internet.interfaces import IStreamClientEndpoint

    from queueber.limits import Limits


def connect(
    reactor: Any,  # noqa: ANN401  (reactors have no common type)
    url: str | IStreamClientEndpoint,
    *,
    tls: Tls | None = None,
    limits: Limits | None = None,
    attempts: int | None = None,
    retry_policy: Callable[[int], float] | None = None,
    timeout_ms: int | None = None,
    resend_adds: bool | None = None,
) -> Client:
    """
    Return a client of the server at *url* and start connecting.

    The other arguments take precedence over the URL's parameters of the same names.

    Args:
        reactor: the Twisted reactor to use.
        url: ``queueber://HOST:PORT/QUEUE``, ``queueber+tls://…`` or ``queueber+unix:///PATH?queue=QUEUE``, with options
            as parameters; or an address: ``HOST:PORT``, ``[IPv6]:PORT``, a Twisted endpoint string such as
            ``unix:path=…`` or ``tls:host:port:trustRoots=…``, or the value of a local server's ``--listen``; or an
            endpoint object.
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
    from twisted.internet.interfaces import IStreamClientEndpoint  # noqa: PLC0415

    from queueber.client.service import Connector  # noqa: PLC0415

    if not callable(getattr(reactor, "callLater", None)):
        raise wrong("reactor", reactor, "a Twisted reactor")
    if not isinstance(url, str) and not IStreamClientEndpoint.providedBy(url):
        raise wrong("url", url, "text or an IStreamClientEndpoint")
    given: dict[str, Any] = {
        "tls": tls,
        "limits": limits,
        "attempts": attempts,
        "retry_policy": retry_policy,
        "timeout_ms": timeout_ms,
        "resend_adds": resend_adds,
    }
    if not isinstance(url, str):
        options = ConnectOptions(**{name: value for name, value in given.items() if value is not None})
        return Client(Connector(reactor, _secured(options.tls, url, None), options))
    target = target_of(url, **given)
    endpoint = _secured(target.options.tls, twisted_endpoint_of(reactor, target.address), host_of(target.address))
    return Client(Connector(reactor, endpoint, target.options, target=target), target.queue)


def _secured(tls: Tls | None, endpoint: IStreamClientEndpoint, host: str | None) -> IStreamClientEndpoint:
    """
    Return *endpoint*, which connects to *host*, with TLS on top if *tls* is given.

    Raises:
        InvalidRequest: the extra `tls` is missing, or a file of *tls* cannot be used.
    """
    if tls is None:
        return endpoint
    try:
        from queueber.client.tls import secured  # noqa: PLC0415
    except ImportError as why:
        raise InvalidRequest(f"TLS needs the extra `tls`, pip install 'queueber[tls]': {why}") from None
    return secured(tls, endpoint, host)


def twisted_endpoint_of(reactor: Any, address: Address) -> IStreamClientEndpoint:  # noqa: ANN401
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

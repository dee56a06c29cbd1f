"""
Where a plain socket connects, for the faces without Twisted, and why it does not.

Imports what TLS needs only for a target with TLS.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from queueber.client_core.address import EndpointString, TcpAddress, UnixAddress, host_of
from queueber.errors import InvalidRequest, reason

if TYPE_CHECKING:
    from queueber.client_core.url import Target

_ERRNO: Final = re.compile(r"\[Errno (\d+)\]")


class Endpoint(NamedTuple):
    """The address of a server, and the TLS on top of it."""

    address: TcpAddress | UnixAddress
    name: str
    """The address in errors."""

    context: Any = None
    """The `ssl.SSLContext`; None without TLS."""

    server_name: str | None = None
    """The name that the server's certificate must have; None without TLS."""


def endpoint_of(target: Target) -> Endpoint:
    """
    Return the endpoint of *target*.

    Raises:
        InvalidRequest: it is an endpoint string that only Twisted knows, a file of its TLS options cannot be used, or
            no name is known for the server's certificate.
    """
    address, tls = target.address, target.options.tls
    if isinstance(address, EndpointString):
        raise InvalidRequest(
            f"{target.name!r} is not an address for this client: it must be a queueber:// URL, HOST:PORT or unix:PATH"
        )
    if tls is None:
        return Endpoint(address, target.name)
    from queueber.transport.client_tls import check_server_name, client_context  # noqa: PLC0415

    server_name = tls.server_name or host_of(address)
    if not server_name:
        raise InvalidRequest("TLS needs a server_name for the server's certificate, because the address has no host")
    context = client_context(tls.ca, tls.certificate, tls.key)
    check_server_name(context, server_name)
    return Endpoint(address, target.name, context, server_name)


def attempt_problem(error: BaseException, endpoint: Endpoint) -> tuple[str, bool]:
    """Return why an attempt to connect failed with *error*, and whether the next one needs another configuration."""
    return refusal_of(error, endpoint, secured=False) or (_system_reason(error), False)


def loss_problem(error: BaseException | None, *, closing: bool) -> str:
    """Return why a transport was lost: the client is *closing*, or by *error*; None: the peer has closed it."""
    if closing:
        return "the client was closed"
    return "the server closed it" if error is None else _system_reason(error)


def refusal_of(error: BaseException | None, endpoint: Endpoint, *, secured: bool) -> tuple[str, bool] | None:
    """
    Return why no server has read a call on a transport that received nothing and was lost with *error*.

    None if one may have.  With the text comes whether a new attempt needs another configuration.  *secured*: the TLS
    handshake was completed at this end.
    """
    if endpoint.context is None or error is None:
        return None
    from queueber.client_core.refusals import interrupted_handshake, tls_refusal  # noqa: PLC0415

    if type(error).__module__ != "ssl":
        is_cut = not secured and isinstance(error, ConnectionError)
        return (interrupted_handshake(_system_reason(error)), False) if is_cut else None
    if hasattr(error, "verify_code"):
        from queueber.transport.client_tls import verification_problem  # noqa: PLC0415

        return verification_problem(cast("Any", error), endpoint.server_name or ""), True
    # OpenSSL's names of reasons, as pyOpenSSL spells them.
    name = str(getattr(error, "reason", None) or error).lower().replace("_", " ")
    if "eof" in name:
        return None if secured else (interrupted_handshake("the server closed the connection"), False)
    refusal = tls_refusal(name, secured=secured)
    return None if refusal is None else (refusal, True)


def _system_reason(error: BaseException) -> str:
    """Return the text of *error*, without addresses and numbers."""
    if isinstance(error, OSError) and type(error).__name__ != "gaierror":
        # asyncio puts the address in place of the system's text, and makes one error of those of several addresses.
        numbers = [error.errno] if error.errno else [int(each) for each in _ERRNO.findall(str(error))]
        if numbers:
            return ", ".join(dict.fromkeys(os.strerror(each) for each in numbers))
    return reason(error)

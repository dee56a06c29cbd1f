"""Reasons for which a Twisted transport was not made, or never carried a call, as text."""

import errno
import os
from collections.abc import Callable
from typing import Any

from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
    ConnectionLost,
    DNSLookupError,
    UnknownHostError,
    errnoMapping,
)
from twisted.internet.error import TimeoutError as Late

from queueber.client_core.refusals import interrupted_handshake, name_mismatch, nameless, tls_refusal, untrusted
from queueber.errors import reason, tls_reason


def failed_attempt(error: BaseException) -> str:
    """Return why an endpoint of Twisted could not connect, in the words that the clients without Twisted use."""
    if isinstance(error, DNSLookupError | UnknownHostError):
        return "Name or service not known"
    if type(error) is Late:
        return "no answer in time"
    if not isinstance(error, ConnectError):
        return reason(error) or type(error).__name__
    numbers = {each: number for number, each in errnoMapping.items()}
    number = error.osError or numbers.get(type(error))
    return os.strerror(number) if number else str(error)


def lost_transport(error: BaseException | None) -> str:
    """Return why a transport of Twisted was lost, in the words that the clients without Twisted use."""
    if isinstance(error, ConnectionDone):
        return "the server closed it"
    if isinstance(error, ConnectionLost):
        # Twisted does not say whether the server or the network has reset it.
        return os.strerror(errno.ECONNRESET)
    return str(error)


def refusal_of(error: BaseException | None, transport: Any, *, secured: bool) -> str | None:  # noqa: ANN401
    """
    Return why *transport*, which received no data, was lost with *error*; None if the server may have read a call.

    *secured*: the transport is plaintext, or its TLS handshake was completed at this end.
    """
    if error is not None and (unverified := _UNVERIFIED.get(type(error).__name__)):
        return unverified(error, transport)
    found = tls_reason(error)
    if found is None:
        return None if secured else interrupted_handshake(lost_transport(error))
    if "certificate verify failed" in found:
        return untrusted(_chain(transport))
    return tls_refusal(found, secured=secured)


def _chain(transport: Any) -> list[Any]:  # noqa: ANN401
    """Return the certificates that the server has sent, its own first."""
    return [each.to_cryptography() for each in transport.getHandle().get_peer_cert_chain() or ()]


def _name_mismatch(error: Any, transport: Any) -> str:  # noqa: ANN401
    wanted = error.errors[0].mismatched_id
    # A DNS name and an IP address have different attributes.
    return name_mismatch(wanted.hostname.decode() if hasattr(wanted, "hostname") else str(wanted.ip), _chain(transport))


def nameless_certificate(transport: Any) -> str | None:  # noqa: ANN401
    """
    Return why the server's certificate is for no host; None if it is for one.

    Twisted's own endpoints, such as ``tls:host:port``, do not refuse such a certificate.
    """
    from queueber.client.tls import name_problem  # noqa: PLC0415  (needs the extra `tls`)

    why = name_problem(transport.getHandle().get_peer_certificate())
    return _nameless(why, transport) if why is not None else None


def _nameless(why: BaseException, transport: Any) -> str:  # noqa: ANN401
    return nameless(why, _chain(transport))


_UNVERIFIED: dict[str, Callable[[BaseException, Any], str]] = {
    "VerificationError": _name_mismatch,
    "CertificateError": _nameless,
}
"""Handlers by the class names of service_identity's errors, because the package needs the extra `tls`."""

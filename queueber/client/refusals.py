"""
Reasons for which a connection never carried a call, as text.

A call is known not to have been carried out if the TLS handshake failed, if the
server refused the client's certificate, or if the peer is not a Queueber
server.  In all other cases the outcome is unknown.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from queueber.errors import tls_reason
from queueber.transport.pem import names_of, replace_unprintable, subject_of, validity_problem

_NAMES_MAX = 5
"""Most names of a certificate that an error shows."""

_ALERTS = {
    "certificate required": "the server asks for a client certificate, and none was sent",
    "bad certificate": "the server refuses this client's certificate",
    "unsupported certificate": "the server refuses this client's certificate as one of an unsupported kind",
    "certificate revoked": "the server refuses this client's certificate as revoked",
    "certificate expired": "the server refuses this client's certificate as expired",
    "certificate unknown": "the server refuses this client's certificate",
    "unknown ca": "the server does not trust the authority that made this client's certificate",
    "decrypt error": "the server does not trust the authority that made this client's certificate",
    "access denied": "the server accepts no client with this certificate",
    "handshake failure": "the server refuses the TLS handshake; it may ask for a client certificate",
    "protocol version": "the server speaks no version of TLS that this client speaks",
    "insufficient security": "the server asks for stronger encryption than this client has",
    # Sent for a valid certificate whose names are not on the server's list: OpenSSL has no better alert for it.
    "internal error": "the server refuses the TLS handshake; it may not accept the names in this client's certificate",
    "unrecognized name": "the server has no certificate for the requested name",
}
"""
Alerts that occur only in a handshake, by their name in OpenSSL.

With TLS 1.3 the handshake is complete for the client before the server has checked the client's certificate.  The alert
arrives after calls were sent.  Such a server has read none of them.
"""


def refusal_of(error: BaseException | None, transport: Any, *, secured: bool) -> str | None:  # noqa: ANN401
    """
    Return why *transport*, which received no data, was lost with *error*; None if the server may have read a call.

    *secured*: the transport is plaintext, or its TLS handshake was completed at this end.
    """
    if error is not None and (unverified := _UNVERIFIED.get(type(error).__name__)):
        return unverified(error, transport)
    reason = tls_reason(error)
    if reason is None:
        return None if secured else f"the connection ended during the TLS handshake: {error}"
    if "certificate verify failed" in reason:
        return _untrusted(transport)
    if "alert" in reason:
        for alert, words in _ALERTS.items():
            if alert in reason:
                return f"{words} ({reason})"
        return None if secured else f"the server refuses the TLS handshake ({reason})"
    return None if secured else f"this port does not speak TLS ({reason})"


def _chain(transport: Any) -> list[Any]:  # noqa: ANN401
    """Return the certificates that the server has sent, its own first."""
    return [each.to_cryptography() for each in transport.getHandle().get_peer_cert_chain() or ()]


def _name_mismatch(error: Any, transport: Any) -> str:  # noqa: ANN401
    wanted = error.errors[0].mismatched_id
    # A DNS name and an IP address have different attributes.
    wanted = wanted.hostname.decode() if hasattr(wanted, "hostname") else str(wanted.ip)
    names = sorted({name for each in _chain(transport)[:1] for name in names_of(each)})
    shown = replace_unprintable(", ".join(names[:_NAMES_MAX])) + (", ..." if len(names) > _NAMES_MAX else "")
    return f"the certificate is for {shown or 'no host'}, not {wanted}"


def nameless_certificate(transport: Any) -> str | None:  # noqa: ANN401
    """
    Return why the server's certificate is for no host; None if it is for one.

    Twisted's own endpoints, such as ``tls:host:port``, do not refuse such a certificate.
    """
    from queueber.client.tls import name_problem  # noqa: PLC0415  (needs the extra `tls`)

    why = name_problem(transport.getHandle().get_peer_certificate())
    return _nameless(why, transport) if why is not None else None


def _nameless(why: BaseException, transport: Any) -> str:  # noqa: ANN401
    holders = [subject_of(each) for each in _chain(transport)[:1]] or ["the server"]
    return (
        f"the certificate of {holders[0]} is for no host: it needs a subjectAltName with the server's name"
        f" ({replace_unprintable(str(why))})"
    )


def _untrusted(transport: Any) -> str:  # noqa: ANN401
    """Return why the server's certificate is refused: it has expired, or its authority is not trusted."""
    chain = _chain(transport)
    late = list(filter(None, (validity_problem(each, datetime.now(UTC)) for each in chain)))
    if late:
        return f"the server's certificate cannot be used: {late[0]}"
    if not chain:
        return "the server's certificate is not trusted"
    issuer = replace_unprintable(chain[-1].issuer.rfc4514_string())
    return f"the certificate of {subject_of(chain[0])} is not trusted: its authority, {issuer}, is not a trusted one"


_UNVERIFIED: dict[str, Callable[[BaseException, Any], str]] = {
    "VerificationError": _name_mismatch,
    "CertificateError": _nameless,
}
"""Handlers by the class names of service_identity's errors, because the package needs the extra `tls`."""

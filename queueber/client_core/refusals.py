"""
The texts of errors of a connection that never carried a call.

A call is known not to have been carried out if the TLS handshake failed, if the
server refused the client's certificate, or if the peer is not a Queueber
server.  In all other cases the outcome is unknown.

Certificates are those of the package cryptography, the server's own first.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

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


def tls_refusal(reason: str, *, secured: bool) -> str | None:
    """
    Return the text for OpenSSL's *reason*; None if the server may have read a call.

    *secured*: the handshake was completed at this end.
    """
    if "alert" in reason:
        for alert, words in _ALERTS.items():
            if alert in reason:
                return f"{words} ({reason})"
        return None if secured else f"the server refuses the TLS handshake ({reason})"
    return None if secured else f"this port does not speak TLS ({reason})"


def interrupted_handshake(error: object) -> str:
    """Return the text for a transport that was lost with *error* during the handshake."""
    return f"the connection ended during the TLS handshake: {error}"


def name_mismatch(wanted: str, chain: Sequence[Any]) -> str:
    """Return the text for a certificate that is not for the host *wanted*."""
    names = sorted({name for each in chain[:1] for name in names_of(each)})
    shown = replace_unprintable(", ".join(names[:_NAMES_MAX])) + (", ..." if len(names) > _NAMES_MAX else "")
    return f"the certificate is for {shown or 'no host'}, not {wanted}"


def nameless(why: object, chain: Sequence[Any]) -> str:
    """Return the text for a certificate that is for no host, because of *why*."""
    holders = [subject_of(each) for each in chain[:1]] or ["the server"]
    return (
        f"the certificate of {holders[0]} is for no host: it needs a subjectAltName with the server's name"
        f" ({replace_unprintable(str(why))})"
    )


def untrusted(chain: Sequence[Any]) -> str:
    """Return the text for a certificate that is refused: it has expired, or its authority is not trusted."""
    late = list(filter(None, (validity_problem(each, datetime.now(UTC)) for each in chain)))
    if late:
        return f"the server's certificate cannot be used: {late[0]}"
    if not chain:
        return "the server's certificate is not trusted"
    issuer = replace_unprintable(chain[-1].issuer.rfc4514_string())
    return f"the certificate of {subject_of(chain[0])} is not trusted: its authority, {issuer}, is not a trusted one"

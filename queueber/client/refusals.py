"""
Why a connection never carried a call, in plain words.

A call is known not to have been carried out when TLS was never agreed on, when
the server refused our certificate, and when what answers is no Queueber
server.  Everything else leaves the outcome unknown.
"""

from datetime import UTC, datetime
from typing import Any

from queueber.errors import tls_reason
from queueber.pem import named, names_of, printable, untimely

_NAMES_MAX = 5
"""So many names of a certificate are shown."""

_ALERTS = {
    "certificate required": "the server asks for a client certificate, and none was shown",
    "bad certificate": "the server refuses this client's certificate",
    "unsupported certificate": "the server refuses this client's certificate as one of a kind it does not take",
    "certificate revoked": "the server refuses this client's certificate as revoked",
    "certificate expired": "the server refuses this client's certificate as expired",
    "certificate unknown": "the server refuses this client's certificate",
    "unknown ca": "the server does not trust the authority that made this client's certificate",
    "decrypt error": "the server does not trust the authority that made this client's certificate",
    "access denied": "the server lets in no client with this certificate",
    "handshake failure": "the server refuses the TLS handshake; it may ask for a client certificate",
    "protocol version": "the server speaks no version of TLS that this client speaks",
    "insufficient security": "the server asks for stronger encryption than this client has",
    # Of a certificate that is sound and whose names are not on the list: OpenSSL knows no better word.
    "internal error": "the server refuses the TLS handshake; it may not let in a client with this certificate's names",
    "unrecognized name": "the server has no certificate for the name that was asked for",
}
"""
Alerts that end a handshake and nothing later, by OpenSSL's words.

With TLS 1.3 the client believes in the connection before the server has looked at the client's certificate: the alert
comes after calls were sent, of which such a server has read none.
"""


def refusal_of(error: BaseException | None, transport: Any, *, agreed: bool) -> str | None:  # noqa: ANN401
    """
    Why *transport*, over which nothing came, was lost with *error*; None if the server may have read what was sent.

    *agreed*: it is plaintext, or its TLS handshake was completed at this end.
    """
    if type(error).__name__ == "VerificationError":
        return _another_name(error, transport)
    reason = tls_reason(error)
    if reason is None:
        return None if agreed else f"the connection ended during the TLS handshake: {error}"
    if "certificate verify failed" in reason:
        return _untrusted(transport)
    if "alert" in reason:
        for alert, words in _ALERTS.items():
            if alert in reason:
                return f"{words} ({reason})"
        return None if agreed else f"the server refuses the TLS handshake ({reason})"
    return None if agreed else f"this port does not speak TLS ({reason})"


def _chain(transport: Any) -> list[Any]:  # noqa: ANN401
    """The certificates that the server has shown, its own first."""
    return [each.to_cryptography() for each in transport.getHandle().get_peer_cert_chain() or ()]


def _another_name(error: Any, transport: Any) -> str:  # noqa: ANN401
    wanted = error.errors[0].mismatched_id
    # It knows a DNS name by one attribute, and an address by another.
    wanted = wanted.hostname.decode() if hasattr(wanted, "hostname") else str(wanted.ip)
    names = sorted({name for each in _chain(transport)[:1] for name in names_of(each)})
    shown = printable(", ".join(names[:_NAMES_MAX])) + (", ..." if len(names) > _NAMES_MAX else "")
    return f"the certificate is for {shown or 'nobody'}, not {wanted}"


def _untrusted(transport: Any) -> str:  # noqa: ANN401
    """Why the server's certificate is not taken: it has expired, or its authority is not one of ours."""
    chain = _chain(transport)
    late = list(filter(None, (untimely(each, datetime.now(UTC)) for each in chain)))
    if late:
        return f"the server's certificate cannot be used: {late[0]}"
    if not chain:
        return "the server's certificate is not trusted"
    issuer = printable(chain[-1].issuer.rfc4514_string())
    return f"the certificate of {named(chain[0])} is not trusted: its authority, {issuer}, is not one of those to trust"

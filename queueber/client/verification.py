"""
Whether a certificate is for the server that was meant.

Twisted's own check compares names.  A certificate that has none, as a worker's own, or one in a form that cannot be
compared, it lets pass for any host, and logs a traceback.  Here such a certificate is refused.
"""

import weakref
from ipaddress import ip_address
from typing import Any

from service_identity import CertificateError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IOpenSSLClientConnectionCreator)
class VerifyingCreator:
    """Makes the connections of another creator, to servers whose certificate is for *name* alone."""

    def __init__(self, inner: Any, name: str) -> None:  # noqa: ANN401  (the interface has no type)
        """*inner* makes the connections, with a trust root; *name* is a host's, or an IP address."""
        self._inner = inner
        self._wanted: DNS_ID | IPAddress_ID
        try:
            self._wanted = IPAddress_ID(str(ip_address(name)))
        except ValueError:
            self._wanted = DNS_ID(name)

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Any:  # noqa: ANN401  (as Twisted calls it)
        """An OpenSSL connection for *tlsProtocol*."""
        from OpenSSL.SSL import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER  # noqa: PLC0415

        connection = self._inner.clientConnectionForTLS(tlsProtocol)
        protocol = weakref.ref(tlsProtocol)

        def verify(_: Any, certificate: Any, __: int, depth: int, ok: int) -> bool:  # noqa: ANN401  (pyOpenSSL's)
            if depth or not ok:
                return bool(ok)
            try:
                verify_service_identity(extract_patterns(certificate), [self._wanted], [])
            except Exception:  # noqa: BLE001  (whatever it is, the name was not verified)
                if (waits := protocol()) is not None:
                    waits.failVerification(Failure())
                return False
            return True

        connection.set_verify(VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT, verify)
        return connection


def name_problem(certificate: Any) -> Exception | None:  # noqa: ANN401  (pyOpenSSL's)
    """Why no name can be found in *certificate*, so that Twisted has compared none; None if there is one."""
    try:
        return None if extract_patterns(certificate) else CertificateError("it has none")
    except Exception as why:  # noqa: BLE001  (of a certificate that anyone may have made)
        return why

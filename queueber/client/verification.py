"""
Check that a server's certificate is for the expected name.

Twisted's own check accepts a certificate without names, such as a worker's, or with names that it cannot compare, for
any host, and logs a traceback.  This module refuses such certificates.
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
    """Create connections through another creator, and accept only certificates for *name*."""

    def __init__(self, inner: Any, name: str) -> None:  # noqa: ANN401  (the interface has no type)
        """Take the creator *inner*, which sets the trust root, and *name*, a host name or an IP address."""
        self._inner = inner
        self._wanted: DNS_ID | IPAddress_ID
        try:
            self._wanted = IPAddress_ID(str(ip_address(name)))
        except ValueError:
            self._wanted = DNS_ID(name)

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Any:  # noqa: ANN401  (Twisted's signature)
        """Return an OpenSSL connection for *tlsProtocol*."""
        from OpenSSL.SSL import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER  # noqa: PLC0415

        connection = self._inner.clientConnectionForTLS(tlsProtocol)
        protocol = weakref.ref(tlsProtocol)

        def verify(_: Any, certificate: Any, __: int, depth: int, ok: int) -> bool:  # noqa: ANN401  (pyOpenSSL's)
            if depth or not ok:
                return bool(ok)
            try:
                verify_service_identity(extract_patterns(certificate), [self._wanted], [])
            except Exception:  # noqa: BLE001  (after any error the name is not verified)
                if (waits := protocol()) is not None:
                    waits.failVerification(Failure())
                return False
            return True

        connection.set_verify(VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT, verify)
        return connection


def name_problem(certificate: Any) -> Exception | None:  # noqa: ANN401  (pyOpenSSL's)
    """Return why *certificate* has no usable name, which Twisted does not check; None if it has one."""
    try:
        return None if extract_patterns(certificate) else CertificateError("it has none")
    except Exception as why:  # noqa: BLE001  (the certificate is untrusted input)
        return why

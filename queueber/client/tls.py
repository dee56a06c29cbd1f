"""
TLS of a connection: trusted authorities, the client's own certificate, and the check of the server's name.

Twisted's own check of the name accepts a certificate without names, such as a worker's, or with names that it cannot
compare, for any host, and logs a traceback.  `VerifyingCreator` refuses such certificates.

Importing this module needs the extra ``tls``.
"""

import os
import weakref
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL.SSL import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER, Error
from service_identity import CertificateError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet import ssl
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from queueber.client_core.options import Tls
from queueber.errors import InvalidRequest, tls_reason
from queueber.transport.pem import authority_problems, certificates_in, chain_problems


def secured(tls: Tls, endpoint: IStreamClientEndpoint, host: str | None) -> IStreamClientEndpoint:
    """
    Wrap *endpoint*, which connects to *host*, with TLS.

    Raises:
        InvalidRequest: a file cannot be used, or neither the option `server_name` nor *host* is known.
    """
    name = tls.server_name or host
    if not name:
        raise InvalidRequest("TLS needs a server_name for the server's certificate, because the address has no host")
    if tls.key is not None and tls.certificate is None:
        raise InvalidRequest(f"{os.fspath(tls.key)}: a key needs the certificate that it belongs to")
    try:
        creator = VerifyingCreator(_options(tls, name), name)
        wrapped: IStreamClientEndpoint = wrapClientTLS(creator, endpoint)
    except UnicodeError as why:
        raise InvalidRequest(f"{name!r} is not a name that a certificate can have: {why}") from None
    return wrapped


def _options(tls: Tls, name: str) -> Any:  # noqa: ANN401  (pyOpenSSL's)
    """Return Twisted's creator of TLS connections to the server *name*."""
    own = None if tls.certificate is None else (Path(tls.certificate), Path(tls.key or tls.certificate))
    # Checked here, because OpenSSL's errors do not name the file.
    now = datetime.now(UTC)
    problems = authority_problems(Path(tls.ca), now) if tls.ca is not None else []
    if own is not None:
        problems += chain_problems(*own, now)
    if problems:
        raise InvalidRequest("; ".join(problems))
    trust = ssl.platformTrust() if tls.ca is None else ssl.trustRootFromCertificates(_loaded(Path(tls.ca)))
    if own is None:
        return ssl.optionsForClientTLS(name, trust)
    certificate, key = own
    pair = ssl.PrivateCertificate.loadPEM(certificate.read_bytes() + b"\n" + key.read_bytes())
    identity = {
        "privateKey": pair.privateKey.original,
        "certificate": pair.original,
        "extraCertChain": [each.original for each in _loaded(certificate)[1:]],
    }
    try:
        # Tried here, because an error while a connection is made would be a traceback.
        ssl.CertificateOptions(**identity).getContext()
    except Error as why:
        raise InvalidRequest(f"{certificate} and {key} cannot be used: {tls_reason(why)}") from None
    return ssl.optionsForClientTLS(name, trust, extraCertificateOptions=identity)


def _loaded(path: Path) -> list[Any]:
    """Return all certificates in *path* as Twisted's objects."""
    return [ssl.Certificate.loadPEM(each.public_bytes(Encoding.PEM)) for each in certificates_in(path)[0]]


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

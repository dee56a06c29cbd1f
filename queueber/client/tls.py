"""TLS at the client's end: whom it trusts, and what it shows."""

from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint

from queueber.errors import InvalidRequest


@frozen(kw_only=True)
class Tls:
    """How to secure a connection; all files are PEM."""

    ca: Path | None = None
    """The authorities to trust; None for those that this machine trusts."""

    certificate: Path | None = None
    """What to show a server that wants to know who connects, followed by those between it and its authority."""

    key: Path | None = None
    """The certificate's private key; None if it is in the same file."""

    server_name: str | None = None
    """The name that the server's certificate must have; None for the host that is connected to."""

    def secure(self, endpoint: IStreamClientEndpoint, host: str | None) -> IStreamClientEndpoint:
        """
        *endpoint*, which leads to *host*, with TLS on top.

        Raises:
            InvalidRequest: a file cannot be used, or there is no name to expect.
        """
        name = self.server_name or host
        if not name:
            raise InvalidRequest("TLS needs the name that the server's certificate is to have")
        try:
            secured: IStreamClientEndpoint = wrapClientTLS(self._options(name), endpoint)
        except ImportError as why:
            raise InvalidRequest(f"TLS needs the extra `tls`, pip install 'queueber[tls]': {why}") from None
        return secured

    def _options(self, name: str) -> Any:  # noqa: ANN401  (pyOpenSSL's)
        from OpenSSL.SSL import Error  # noqa: PLC0415
        from twisted.internet import ssl  # noqa: PLC0415

        trust = ssl.platformTrust()
        shown = None
        if self.ca is not None:
            authorities = [ssl.Certificate.loadPEM(each) for each in _certificates(self.ca)]
            trust = ssl.trustRootFromCertificates(authorities)
        if self.certificate is not None:
            key = self.key or self.certificate
            try:
                shown = ssl.PrivateCertificate.loadPEM(_read(self.certificate) + b"\n" + _read(key))
            except Error as why:
                raise InvalidRequest(f"{self.certificate} and {key} are no certificate and its key in PEM") from why
        return ssl.optionsForClientTLS(name, trust, shown)


_BEGIN = b"-----BEGIN CERTIFICATE-----"


def _certificates(path: Path) -> list[bytes]:
    found = [_BEGIN + rest for rest in _read(path).split(_BEGIN)[1:]]
    if not found:
        raise InvalidRequest(f"{path}: it holds no certificate in PEM")
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as why:
        raise InvalidRequest(f"{path}: {why.strerror}") from why

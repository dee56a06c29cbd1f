"""TLS at the client's end: whom it trusts, and what it shows."""

import os
from pathlib import Path
from typing import Any, TypeAlias

from attrs import Attribute, field, frozen
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint

from queueber.client.arguments import path, text, wrong
from queueber.errors import InvalidRequest

AnyPath: TypeAlias = str | os.PathLike[str]


def _is_path(_: "Tls", argument: "Attribute[AnyPath | None]", value: AnyPath | None) -> None:
    if value is not None:
        path(argument.name, value)


def _is_text(_: "Tls", argument: "Attribute[str | None]", value: str | None) -> None:
    if value is not None:
        text(argument.name, value)


@frozen(kw_only=True)
class Tls:
    """
    How to secure a connection; all files are PEM.

    Raises:
        InvalidRequest: an argument is of the wrong kind.
    """

    ca: AnyPath | None = field(default=None, validator=_is_path)
    """The authorities to trust; None for those that this machine trusts."""

    certificate: AnyPath | None = field(default=None, validator=_is_path)
    """What to show a server that wants to know who connects, followed by those between it and its authority."""

    key: AnyPath | None = field(default=None, validator=_is_path)
    """The certificate's private key; None if it is in the same file."""

    server_name: str | None = field(default=None, validator=_is_text)
    """The name that the server's certificate must have; None for the host that is connected to."""

    def secure(self, endpoint: IStreamClientEndpoint, host: str | None) -> IStreamClientEndpoint:
        """
        *endpoint*, which leads to *host*, with TLS on top.

        Raises:
            InvalidRequest: a file cannot be used, or there is no name to expect.
        """
        if not IStreamClientEndpoint.providedBy(endpoint):
            raise wrong("endpoint", endpoint, "an IStreamClientEndpoint")
        if host is not None:
            text("host", host)
        name = self.server_name or host
        if not name:
            raise InvalidRequest("TLS needs the name that the server's certificate is to have")
        try:
            secured: IStreamClientEndpoint = wrapClientTLS(self._options(name), endpoint)
        except UnicodeError as why:
            raise InvalidRequest(f"server_name is {name!a}; it must be the name of a host: {why}") from None
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


def _certificates(file: AnyPath) -> list[bytes]:
    found = [_BEGIN + rest for rest in _read(file).split(_BEGIN)[1:]]
    if not found:
        raise InvalidRequest(f"{file}: it holds no certificate in PEM")
    return found


def _read(file: AnyPath) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as why:
        raise InvalidRequest(f"{file}: {why.strerror}") from why

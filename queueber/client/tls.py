"""TLS of a client: trusted authorities, and the client's own certificate."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import Attribute, field, frozen

from queueber.client.arguments import path, text, wrong
from queueber.errors import InvalidRequest, tls_reason
from queueber.transport.pem import authority_problems, certificates_in, chain_problems

if TYPE_CHECKING:
    from twisted.internet.interfaces import IStreamClientEndpoint

AnyPath: TypeAlias = str | os.PathLike[str]


def _is_path(_: Tls, argument: Attribute[AnyPath | None], value: AnyPath | None) -> None:
    if value is not None:
        path(argument.name, value)


def _is_text(_: Tls, argument: Attribute[str | None], value: str | None) -> None:
    if value is not None:
        text(argument.name, value)


@frozen(kw_only=True)
class Tls:
    """
    TLS options of a connection.  All files are in PEM format.

    Raises:
        InvalidRequest: an argument is of the wrong type.
    """

    ca: AnyPath | None = field(default=None, validator=_is_path)
    """The authorities to trust; None for those of the operating system."""

    certificate: AnyPath | None = field(default=None, validator=_is_path)
    """The client's certificate, followed by intermediate certificates; None for no certificate."""

    key: AnyPath | None = field(default=None, validator=_is_path)
    """The certificate's private key; None if it is in the same file."""

    server_name: str | None = field(default=None, validator=_is_text)
    """The name that the server's certificate must have; None for the host in the address."""

    def secure(self, endpoint: IStreamClientEndpoint, host: str | None) -> IStreamClientEndpoint:
        """
        Wrap *endpoint*, which connects to *host*, with TLS.

        Raises:
            InvalidRequest: a file cannot be used, or neither `server_name` nor *host* is known.
        """
        from twisted.internet.endpoints import wrapClientTLS  # noqa: PLC0415
        from twisted.internet.interfaces import IStreamClientEndpoint  # noqa: PLC0415

        if not IStreamClientEndpoint.providedBy(endpoint):
            raise wrong("endpoint", endpoint, "an IStreamClientEndpoint")
        if host is not None:
            text("host", host)
        name = self.server_name or host
        if not name:
            raise InvalidRequest(
                "TLS needs a server_name for the server's certificate, because the address has no host"
            )
        if self.key is not None and self.certificate is None:
            raise InvalidRequest(f"{os.fspath(self.key)}: a key needs the certificate that it belongs to")
        try:
            self._check()
            from queueber.client.verification import VerifyingCreator  # noqa: PLC0415

            creator = VerifyingCreator(self._options(name), name)
            secured: IStreamClientEndpoint = wrapClientTLS(creator, endpoint)
        except ImportError as why:
            raise InvalidRequest(f"TLS needs the extra `tls`, pip install 'queueber[tls]': {why}") from None
        except UnicodeError as why:
            raise InvalidRequest(f"{name!r} is not a name that a certificate can have: {why}") from None
        return secured

    @property
    def _shown(self) -> tuple[Path, Path] | None:
        """The files of the client's certificate and its key."""
        if self.certificate is None:
            return None
        return Path(self.certificate), Path(self.key or self.certificate)

    def _check(self) -> None:
        """Refuse unusable files before OpenSSL does, whose errors do not name the file."""
        now = datetime.now(UTC)
        problems = authority_problems(Path(self.ca), now) if self.ca is not None else []
        if self._shown is not None:
            problems += chain_problems(*self._shown, now)
        if problems:
            raise InvalidRequest("; ".join(problems))

    def _options(self, name: str) -> Any:  # noqa: ANN401  (pyOpenSSL's)
        from OpenSSL.SSL import Error  # noqa: PLC0415
        from twisted.internet import ssl  # noqa: PLC0415

        trust = ssl.platformTrust() if self.ca is None else ssl.trustRootFromCertificates(_loaded(Path(self.ca)))
        if self._shown is None:
            return ssl.optionsForClientTLS(name, trust)
        certificate, key = self._shown
        own = ssl.PrivateCertificate.loadPEM(certificate.read_bytes() + b"\n" + key.read_bytes())
        shown = {
            "privateKey": own.privateKey.original,
            "certificate": own.original,
            "extraCertChain": [each.original for each in _loaded(certificate)[1:]],
        }
        try:
            # Tried here, because an error while a connection is made would be a traceback.
            ssl.CertificateOptions(**shown).getContext()
        except Error as why:
            raise InvalidRequest(f"{certificate} and {key} cannot be used: {tls_reason(why)}") from None
        return ssl.optionsForClientTLS(name, trust, extraCertificateOptions=shown)


def _loaded(path: Path) -> list[Any]:
    """Return all certificates in *path* as Twisted's objects."""
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415
    from twisted.internet.ssl import Certificate  # noqa: PLC0415

    return [Certificate.loadPEM(each.public_bytes(Encoding.PEM)) for each in certificates_in(path)[0]]

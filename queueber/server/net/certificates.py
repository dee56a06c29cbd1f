"""
The server's TLS certificate, and the verification of client certificates.

With an authority for clients, only clients with a certificate of that authority
may connect.  With names, their certificate must also have one of the names.  The
files are read at the start and at each reload.  Open connections are not affected.
"""

import stat
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IProtocolFactory
from twisted.logger import Logger
from zope.interface import implementer

from queueber.errors import QueueberError, tls_reason
from queueber.server.net.rpc_factory import RpcFactory
from queueber.transport.pem import authority_problems, certificates_in, chain_problems, names_of, subject_of

WARN_BEFORE = timedelta(days=21)


class CertificateUnusable(QueueberError):
    """A certificate, a key or an authority cannot be used.  The text names the file and the reason."""


@frozen(kw_only=True)
class TlsFiles:
    """Paths of the PEM files."""

    certificate: Path
    """The server's certificate, followed by those between it and its authority."""

    key: Path
    client_ca: Path | None = None
    """The authorities whose clients may connect; None for all clients."""

    client_names: Sequence[str] = ()
    """DNS names, URIs, addresses or common names.  A client's certificate must have one of them."""


@implementer(IOpenSSLServerConnectionCreator)
@define(eq=False)
class Certificates:
    """The TLS configuration of new connections."""

    files: TlsFiles
    expires: datetime = field(init=False)
    """The time at which the server's certificate expires."""

    _context: Any = field(init=False)
    log = Logger()

    def load(self, files: TlsFiles | None = None) -> None:
        """
        Read the files, or *files* from now on.  Warn of certificates that expire soon.

        Raises:
            CertificateUnusable: with all problems.  The previous configuration stays in force.
        """
        files, now = files or self.files, datetime.now(UTC)
        problems, context = _problems(files, now), None
        if not problems:
            try:
                context = _context(files)
            except CertificateUnusable as why:
                problems.append(str(why))
        problems += _exposed(files.key)
        if problems:
            raise CertificateUnusable("; ".join(problems))
        self._context, self.files = context, files
        self.expires = certificates_in(files.certificate)[0][0].not_valid_after_utc
        for path in filter(None, (files.certificate, files.client_ca)):
            for each in certificates_in(path)[0]:
                ends = each.not_valid_after_utc
                if ends - now < WARN_BEFORE:
                    line = "{path}: the certificate of {whose} expires on {ends:%Y-%m-%d %H:%M} UTC"
                    self.log.warn(line, path=str(path), whose=subject_of(each), ends=ends)

    def serverConnectionForTLS(self, protocol: object) -> Any:  # noqa: ANN401
        """Return OpenSSL's state of a new connection."""
        from OpenSSL.SSL import Connection  # noqa: PLC0415

        made = Connection(self._context, None)
        # The verifier finds the connection's factory by it.
        made.set_app_data(protocol)
        return made

    def secure(self, factory: RpcFactory) -> IProtocolFactory:
        """Return a factory that puts TLS in front of *factory*."""
        from queueber.server.net.tls import TlsFactory  # noqa: PLC0415

        return TlsFactory(self, factory)


def _problems(files: TlsFiles, now: datetime) -> list[str]:
    """Return what of *files* cannot be read, or is not valid at *now*."""
    problems = chain_problems(files.certificate, files.key, now)
    if files.client_ca is not None:
        problems += authority_problems(files.client_ca, now)
    return problems


def _exposed(key: Path) -> list[str]:
    """Return a problem if every user of the machine can access *key*."""
    if not key.exists() or not key.stat().st_mode & stat.S_IRWXO:
        return []
    return [f"{key}: every user of this machine can read the key; chmod it to 0600 or 0640"]


def _context(files: TlsFiles) -> Any:  # noqa: ANN401  (no types)
    """Return OpenSSL's context for *files*, each of which is readable and valid."""
    from OpenSSL import SSL  # noqa: PLC0415
    from twisted.internet.ssl import CertificateOptions, TLSVersion  # noqa: PLC0415

    context = CertificateOptions(raiseMinimumTo=TLSVersion.TLSv1_2).getContext()
    steps: list[tuple[Path, str, Callable[[], object]]] = [
        (
            files.certificate,
            "OpenSSL cannot use the certificates",
            lambda: context.use_certificate_chain_file(str(files.certificate)),
        ),
        (
            files.key,
            "OpenSSL cannot use the key",
            lambda: context.use_privatekey_file(str(files.key)),
        ),
    ]
    if files.client_ca is not None:
        authority = files.client_ca
        steps.append(
            (authority, "OpenSSL cannot use the authorities", lambda: context.load_verify_locations(str(authority)))
        )
    for path, complaint, step in steps:
        try:
            step()
        except SSL.Error as why:
            raise CertificateUnusable(f"{path}: {complaint}: {tls_reason(why)}") from why
    if files.client_ca is not None:
        mode = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        context.set_verify(mode, _Verifier(frozenset(files.client_names)))
        # A resumed session is not verified again and would outlive a change of the names.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_options(SSL.OP_NO_TICKET)
    return context


@frozen
class _Verifier:
    """The callback that OpenSSL calls for each certificate of a client's chain."""

    names: frozenset[str]

    def __call__(self, connection: Any, certificate: Any, error: int, depth: int, good: int) -> bool:  # noqa: ANN401, ARG002
        if not good or depth or not self.names:
            return bool(good)
        shown = names_of(certificate.to_cryptography())
        if not self.names.isdisjoint(shown):
            return True
        transport = connection.get_app_data()
        transport.factory.certificate_refused(transport, shown)
        return False

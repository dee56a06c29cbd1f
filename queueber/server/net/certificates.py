"""
TLS at the server's end: the certificate it shows, and which clients it lets in.

With an authority of its own for clients, only those that show a certificate
made by it may connect; with names as well, only those whose certificate has
one of them.  The files are read at start, and again when the server is told
to; connections that are open stay as they are.
"""

import stat
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IProtocolFactory
from twisted.logger import Logger
from zope.interface import implementer

from queueber.errors import QueueberError, tls_reason
from queueber.server.net.connections import Connections
from queueber.transport.pem import authority_problems, certificates_in, chain_problems, named, names_of

WARN_BEFORE = timedelta(days=21)

_NAMES_LETTERS_MAX = 200


class CertificateUnusable(QueueberError):
    """A certificate, a key or an authority cannot be used; the text names the file and says why."""


@frozen(kw_only=True)
class TlsFiles:
    """Where everything lies, all PEM."""

    certificate: Path
    """The server's, followed by those between it and its authority."""

    key: Path
    client_ca: Path | None = None
    """The authorities whose clients may connect; None for anybody."""

    client_names: Sequence[str] = ()
    """The names of which a client's certificate must have one: a DNS name, a URI, an address, or its common name."""


@implementer(IOpenSSLServerConnectionCreator)
@define(eq=False)
class Certificates:
    """What a new connection is secured with."""

    files: TlsFiles
    expires: datetime = field(init=False)
    """When the server's certificate ends."""

    warn: Callable[..., None] = field(init=False)
    """Where it is told that somebody is refused: `Connections.warn`, which bounds that by peer."""

    _context: Any = field(init=False)
    log = Logger()

    def __attrs_post_init__(self) -> None:
        """Until there are connections, to the log."""
        self.warn = lambda _, line, **fields: self.log.warn(line, **fields)

    def load(self, files: TlsFiles | None = None) -> None:
        """
        Read the files, or *files* from now on.  What ends soon, or has as one authority of several, is a warning.

        Raises:
            CertificateUnusable: naming all that is wrong; what was loaded before stays in force.
        """
        files, now = files or self.files, datetime.now(UTC)
        problems, context = _problems(files, now), None
        if not problems:
            try:
                context = _context(files, self._refused)
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
                    self.log.warn(line, path=str(path), whose=named(each), ends=ends)

    def serverConnectionForTLS(self, protocol: object) -> Any:  # noqa: ANN401
        """OpenSSL's side of a new connection."""
        from OpenSSL.SSL import Connection  # noqa: PLC0415

        made = Connection(self._context, None)
        made.set_app_data(protocol)
        return made

    def _refused(self, connection: Any, names: Iterable[str]) -> None:  # noqa: ANN401
        """Tell who was not let in; the names are that peer's own words."""
        peer = connection.get_app_data().transport.getPeer()
        shown = ", ".join(sorted(names))[:_NAMES_LETTERS_MAX] or "nobody"
        line = "Refusing {peer}, whose certificate names {names}"
        self.warn(getattr(peer, "host", None), line, peer=peer, names=shown)

    def secure(self, factory: IProtocolFactory, connections: Connections) -> IProtocolFactory:
        """*factory*, whose connections are counted among *connections*, behind TLS."""
        from queueber.server.net.tls import TlsFactory  # noqa: PLC0415

        return TlsFactory(self, factory, connections)


def _problems(files: TlsFiles, now: datetime) -> list[str]:
    """What of *files* cannot be read, or is not valid at *now*."""
    problems = chain_problems(files.certificate, files.key, now)
    if files.client_ca is not None:
        problems += authority_problems(files.client_ca, now)
    return problems


def _exposed(key: Path) -> list[str]:
    """That everybody can get at *key*, if so."""
    if not key.exists() or not key.stat().st_mode & stat.S_IRWXO:
        return []
    return [f"{key}: everybody on this machine can get at the key; chmod it to 0600 or 0640"]


def _context(files: TlsFiles, refused: Callable[[Any, Iterable[str]], None]) -> Any:  # noqa: ANN401  (no types)
    """What *files* mean to OpenSSL, of which each can be read and is valid."""
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
            (authority, "it holds no certificate in PEM", lambda: context.load_verify_locations(str(authority)))
        )
    for path, complaint, step in steps:
        try:
            step()
        except SSL.Error as why:
            raise CertificateUnusable(f"{path}: {complaint}: {tls_reason(why)}") from why
    if files.client_ca is not None:
        mode = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        context.set_verify(mode, _Verifier(frozenset(files.client_names), refused))
        # Sessions that are resumed are not verified again: they must not outlive a change of the names.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_options(SSL.OP_NO_TICKET)
    return context


@frozen
class _Verifier:
    """Called by OpenSSL for each certificate of a client's chain."""

    names: frozenset[str]
    refused: Callable[[Any, Iterable[str]], None]
    """Told of the connection, and of the names that were not among ours."""

    def __call__(self, connection: object, certificate: Any, error: int, depth: int, good: int) -> bool:  # noqa: ANN401, ARG002
        if not good or depth or not self.names:
            return bool(good)
        shown = names_of(certificate.to_cryptography())
        if not self.names.isdisjoint(shown):
            return True
        self.refused(connection, shown)
        return False

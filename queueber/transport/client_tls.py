"""TLS of a client by the standard library: its context, and why the server's certificate is refused."""

import errno
import os
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from queueber.errors import InvalidRequest, reason

_NAME_MISMATCHES = {62, 63, 64}
"""OpenSSL's codes for a certificate of another host name, e-mail address or IP address."""

_NOT_YET_VALID, _EXPIRED = 9, 10

AnyPath = str | os.PathLike[str]


def client_context(ca: AnyPath | None, certificate: AnyPath | None, key: AnyPath | None) -> ssl.SSLContext:
    """
    Return a context that trusts the authorities in *ca*, or those of the system, and presents *certificate*.

    *key* is that of the certificate, None if it is in the same file.

    Raises:
        InvalidRequest: a file cannot be used; the text names it.
    """
    if key is not None and certificate is None:
        raise InvalidRequest(f"{os.fspath(key)}: a key needs the certificate that it belongs to")
    own = None if certificate is None else (Path(certificate), Path(key or certificate))
    if problems := _problems(None if ca is None else Path(ca), own):
        raise InvalidRequest("; ".join(problems))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # A certificate without names is for no host, whatever its subject.
    context.hostname_checks_common_name = False
    if ca is None:
        context.load_default_certs()
    else:
        _load(f"{os.fspath(ca)} cannot be used", lambda: context.load_verify_locations(ca))
    if own is not None:
        names = f"{own[0]} and {own[1]} cannot be used" if key is not None else f"{own[0]} cannot be used"
        _load(names, lambda: context.load_cert_chain(*own, password=_no_password))
    return context


def check_server_name(context: ssl.SSLContext, name: str) -> None:
    """
    Check that a certificate can have the *name*.

    Raises:
        InvalidRequest: it cannot.
    """
    try:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=name)
    except (ValueError, TypeError, ssl.SSLError) as why:
        raise InvalidRequest(f"{name!r} is not a name that a certificate can have: {why}") from None


def verification_problem(error: ssl.SSLCertVerificationError, name: str) -> str:
    """Return why the certificate of the server *name* was refused with *error*."""
    if error.verify_code in _NAME_MISMATCHES:
        return f"the server's certificate is not for {name}"
    if error.verify_code in (_EXPIRED, _NOT_YET_VALID):
        late = "has expired" if error.verify_code == _EXPIRED else "is not valid yet"
        return f"the server's certificate cannot be used: it {late}"
    return f"the server's certificate is not trusted: {error.verify_message}"


def _problems(ca: Path | None, own: tuple[Path, Path] | None) -> list[str]:
    """Return what is wrong with the files, as far as the extra `tls` is there to see it: OpenSSL names no file."""
    from queueber.transport.pem import authority_problems, chain_problems  # noqa: PLC0415

    now = datetime.now(UTC)
    try:
        return (authority_problems(ca, now) if ca is not None else []) + (chain_problems(*own, now) if own else [])
    except ImportError:
        return []


def _load(what: str, load: Callable[[], None]) -> None:
    try:
        load()
    except OSError as why:
        raise InvalidRequest(f"{what}: {reason(why)}") from None


def _no_password() -> NoReturn:
    """Refuse an encrypted key.  OpenSSL itself would ask for the password on the terminal."""
    raise PermissionError(errno.EACCES, "the key is encrypted, and its password cannot be given")

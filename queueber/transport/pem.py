"""Certificates and keys in PEM files: read, check and describe them.  The functions need the extra `tls`."""

import re
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from queueber.errors import one_line

_CERTIFICATE = re.compile(rb"(X509 )?CERTIFICATE")
_PRIVATE_KEY = re.compile(rb"([A-Z0-9]+ )*PRIVATE KEY")


def certificates_in(path: Path) -> tuple[list[Any], list[str]]:
    """Return all certificates in *path*, or none and a one-line reason that names the file."""
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415

    try:
        content = path.read_bytes()
    except OSError as why:
        return [], [f"{path}: {why.strerror}"]
    try:
        return load_pem_x509_certificates(content), []
    except ValueError:
        return [], [f"{path}: {_pem_problem(content, _CERTIFICATE, 'certificate', load_pem_x509_certificates)}"]


def _pem_problem(content: bytes, label: re.Pattern[bytes], noun: str, load: Callable[[bytes], object]) -> str:
    """Return why *content* has no usable PEM block with *label*: there is none, or one is incomplete or invalid."""
    blocks = list(re.finditer(rb"-----BEGIN ([A-Z0-9 ]*)-----(?:(?!-----BEGIN).)*", content, re.DOTALL))
    found = [block for block in blocks if label.fullmatch(block[1])]
    if not found:
        others = sorted({block[1].decode() for block in blocks})
        return f"it holds no {noun} in PEM" + (f", only {', '.join(others)}" if others else "")
    for number, block in enumerate(found, start=1):
        which = f"{noun} {number} of {len(found)}" if len(found) > 1 else f"the {noun}"
        line = content.count(b"\n", 0, block.start()) + 1
        if b"-----END " + block[1] + b"-----" not in block[0]:
            return f"{which}, at line {line}, is cut off: it has no END line"
        try:
            load(block[0])
        except ValueError as why:
            # cryptography puts the detail after general advice, and debugging output after the detail.
            detail = one_line(str(why)).rpartition("more details. ")[2].rpartition("Details: ")[2]
            detail = detail.partition(": ParseError {")[0]
            return f"{which}, at line {line}, cannot be read: {detail}"
    return f"it holds no usable {noun}"


def key_problem(key: Path, certificate: Any, of: Path) -> str | None:  # noqa: ANN401
    """Return why *key* is not the private key of *certificate*, from the file *of*; None if it is."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        content = key.read_bytes()
    except OSError as why:
        return f"{key}: {why.strerror}"
    try:
        found = load_pem_private_key(content, None)
    except TypeError:
        # OpenSSL itself would prompt for the password on the terminal.
        return f"{key}: the key is encrypted, and its password cannot be given; `openssl pkey` decrypts it"
    except UnsupportedAlgorithm as why:
        return f"{key}: the private key has an unsupported algorithm: {one_line(str(why))}"
    except ValueError:
        load = partial(load_pem_private_key, password=None)
        return f"{key}: {_pem_problem(content, _PRIVATE_KEY, 'private key', load)}"
    if certificate is not None and found.public_key() != certificate.public_key():
        return f"{key}: it is not the key of {of}"
    return None


def authority_problems(path: Path, now: datetime) -> list[str]:
    """Return why the authorities in *path* are unusable at *now*.  It is enough that one of several is valid."""
    authorities, problems = certificates_in(path)
    ended = list(filter(None, (validity_problem(each, now) for each in authorities)))
    return problems or [f"{path}: {each}" for each in ended if len(ended) == len(authorities)]


def chain_problems(certificate: Path, key: Path, now: datetime) -> list[str]:
    """Return why the chain in *certificate* and its *key* cannot be presented at *now*."""
    chain, problems = certificates_in(certificate)
    problems += [f"{certificate}: {late}" for each in chain if (late := validity_problem(each, now))]
    problem = key_problem(key, chain[0] if chain else None, certificate)
    return problems if problem is None or (key == certificate and not chain) else [*problems, problem]


def validity_problem(certificate: Any, now: datetime) -> str:  # noqa: ANN401
    """Return why *certificate* is not valid at *now*; empty if it is."""
    whose = f"the certificate of {subject_of(certificate)}"
    ends, begins = certificate.not_valid_after_utc, certificate.not_valid_before_utc
    if ends < now:
        return f"{whose} expired on {ends:%Y-%m-%d %H:%M} UTC"
    return f"{whose} is not valid before {begins:%Y-%m-%d %H:%M} UTC" if begins > now else ""


def subject_of(certificate: Any) -> str:  # noqa: ANN401
    """Return the subject of *certificate* without control characters."""
    return replace_unprintable(certificate.subject.rfc4514_string()) or "an unnamed subject"


def names_of(certificate: Any) -> set[str]:  # noqa: ANN401
    """Return the subject alternative names of *certificate*, or its common names if it has none."""
    from cryptography import x509  # noqa: PLC0415

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return {str(name.value) for name in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)}
    kinds = (x509.DNSName, x509.UniformResourceIdentifier, x509.RFC822Name, x509.IPAddress)
    return {str(name) for kind in kinds for name in extension.get_values_for_type(kind)}


def replace_unprintable(text: str) -> str:
    """Return *text* with a question mark for each character that is not printable."""
    return "".join(each if each.isprintable() else "?" for each in text)

"""Certificates and keys in PEM files: read, check and describe them.  The functions need the extra `tls`."""

from datetime import datetime
from pathlib import Path
from typing import Any


def certificates_in(path: Path) -> tuple[list[Any], list[str]]:
    """Return all certificates in *path*, or none and a one-line reason that names the file."""
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415

    try:
        return load_pem_x509_certificates(path.read_bytes()), []
    except OSError as why:
        return [], [f"{path}: {why.strerror}"]
    except ValueError:
        return [], [f"{path}: it holds no certificate in PEM"]


def key_problem(key: Path, certificate: Any, of: Path) -> str | None:  # noqa: ANN401
    """Return why *key* is not the private key of *certificate*, from the file *of*; None if it is."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        found = load_pem_private_key(key.read_bytes(), None)
    except OSError as why:
        return f"{key}: {why.strerror}"
    except TypeError:
        # OpenSSL itself would prompt for the password on the terminal.
        return f"{key}: the key is encrypted, and its password cannot be given; `openssl pkey` decrypts it"
    except (ValueError, UnsupportedAlgorithm):
        return f"{key}: it holds no private key in PEM"
    if certificate is not None and found.public_key() != certificate.public_key():
        return f"{key}: it is not the key of {of}"
    return None


def authority_problems(path: Path, now: datetime) -> list[str]:
    """Return why the authorities in *path* are unusable at *now*.  It is enough that one of several is valid."""
    authorities, problems = certificates_in(path)
    ended = list(filter(None, (untimely(each, now) for each in authorities)))
    return problems or [f"{path}: {each}" for each in ended if len(ended) == len(authorities)]


def chain_problems(certificate: Path, key: Path, now: datetime) -> list[str]:
    """Return why the chain in *certificate* and its *key* cannot be presented at *now*."""
    chain, problems = certificates_in(certificate)
    problems += [f"{certificate}: {late}" for each in chain if (late := untimely(each, now))]
    problem = key_problem(key, chain[0] if chain else None, certificate)
    return problems if problem is None or (key == certificate and not chain) else [*problems, problem]


def untimely(certificate: Any, now: datetime) -> str:  # noqa: ANN401
    """Return why *certificate* is not valid at *now*; empty if it is."""
    whose = f"the certificate of {named(certificate)}"
    ends, begins = certificate.not_valid_after_utc, certificate.not_valid_before_utc
    if ends < now:
        return f"{whose} expired on {ends:%Y-%m-%d %H:%M} UTC"
    return f"{whose} is not valid before {begins:%Y-%m-%d %H:%M} UTC" if begins > now else ""


def named(certificate: Any) -> str:  # noqa: ANN401
    """Return the subject of *certificate* without control characters."""
    return printable(certificate.subject.rfc4514_string()) or "an unnamed subject"


def names_of(certificate: Any) -> set[str]:  # noqa: ANN401
    """Return the subject alternative names of *certificate*, or its common names if it has none."""
    from cryptography import x509  # noqa: PLC0415

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return {str(name.value) for name in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)}
    kinds = (x509.DNSName, x509.UniformResourceIdentifier, x509.RFC822Name, x509.IPAddress)
    return {str(name) for kind in kinds for name in extension.get_values_for_type(kind)}


def printable(text: str) -> str:
    """Return *text* with a question mark for each character that is not printable."""
    return "".join(each if each.isprintable() else "?" for each in text)

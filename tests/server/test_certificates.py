"""The certificates that a server accepts, and the reasons for refusing others."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.logger import capturedLogs, formatEvent

from queueber.server.net.certificates import Certificates, CertificateUnusable, TlsFiles

NOW = datetime.now(UTC)
PEM = serialization.Encoding.PEM


def made(name, *, begins=-1, ends=100):
    """Return a self-signed certificate for *name* as PEM, with its key; valid between two days, counted from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(NOW + timedelta(days=begins))
    signed = builder.not_valid_after(NOW + timedelta(days=ends)).sign(key, hashes.SHA256())
    plain = serialization.NoEncryption()
    return signed.public_bytes(PEM), key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, plain)


@pytest.fixture
def load(tmp_path):
    """Load a server's certificate and key, and the authorities of its clients.  Return the warnings."""

    def load(*chain, authorities=(), key=None):
        (tmp_path / "server.pem").write_bytes(b"".join(each[0] for each in chain))
        (tmp_path / "server.key").write_bytes(chain[0][1] if key is None else key)
        (tmp_path / "server.key").chmod(0o600)
        (tmp_path / "ca.pem").write_bytes(b"".join(each[0] for each in authorities))
        files = TlsFiles(
            certificate=tmp_path / "server.pem",
            key=tmp_path / "server.key",
            client_ca=tmp_path / "ca.pem" if authorities else None,
        )
        with capturedLogs() as logs:
            Certificates(files).load()
        return [formatEvent(event).replace(f"{tmp_path}/", "") for event in logs]

    return load


def test_valid_certificates_are_loaded_without_a_warning(load):
    assert load(made("server"), authorities=[made("ca")]) == []


@pytest.mark.parametrize(
    ("chain", "said"),
    [
        ([{"name": "server", "ends": -0.5}], "server.pem: the certificate of CN=server expired on "),
        ([{"name": "server", "begins": 1}], "server.pem: the certificate of CN=server is not valid before "),
        (
            [{"name": "server"}, {"name": "between", "ends": -0.5}],
            "server.pem: the certificate of CN=between expired on ",
        ),
    ],
)
def test_each_certificate_of_the_chain_must_be_valid(load, chain, said):
    with pytest.raises(CertificateUnusable, match=said):
        load(*[made(**each) for each in chain])


def test_authorities_that_have_all_expired_are_refused(load):
    with pytest.raises(CertificateUnusable) as refused:
        load(made("server"), authorities=[made("old", ends=-0.5), made("older", ends=-0.9)])
    assert "ca.pem: the certificate of CN=old expired on" in str(refused.value)
    assert "ca.pem: the certificate of CN=older expired on" in str(refused.value)


def test_one_expired_authority_of_several_and_one_that_expires_soon_are_warnings(load):
    said = load(made("server", ends=3), authorities=[made("old", ends=-0.5), made("new")])
    assert [line.partition(" expires on ")[0] for line in said] == [
        "server.pem: the certificate of CN=server",
        "ca.pem: the certificate of CN=old",
    ]


def test_all_problems_are_reported_together(load, tmp_path):
    with pytest.raises(CertificateUnusable) as refused:
        load(made("server", ends=-0.5), authorities=[(b"no certificate", b"")])
    assert str(refused.value).count("; ") == 1


def test_a_key_of_another_certificate_is_refused(load):
    with pytest.raises(CertificateUnusable, match=r"server.key: it is not the key of .*server.pem$"):
        load(made("server"), key=made("other")[1])


def test_an_encrypted_key_is_refused_without_a_password_prompt(load):
    key = ec.generate_private_key(ec.SECP256R1())
    secret = serialization.BestAvailableEncryption(b"secret")
    encrypted = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, secret)
    with pytest.raises(
        CertificateUnusable, match=r"server.key: the key is encrypted, and its password cannot be given"
    ):
        load(made("server"), key=encrypted)

"""Files that a client can use for TLS, and the errors for others."""

import errno
import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from twisted.internet.testing import MemoryReactorClock

from queueber.cli.commands import queueber
from queueber.client import Tls, connect
from queueber.errors import InvalidRequest
from tests.process.certificates import Authority

pytestmark = pytest.mark.filterwarnings("ignore:Passing pyOpenSSL")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with files of every kind."""
    folder = tmp_path_factory.mktemp("files")
    authority = Authority(folder)
    for name in ("client", "other"):
        authority.sign(name)
    authority.sign("old", until="20210101000000Z")
    authority.sign("between")
    (folder / "both.pem").write_bytes((folder / "client.pem").read_bytes() + (folder / "client.key").read_bytes())
    (folder / "chain.pem").write_bytes((folder / "client.pem").read_bytes() + (folder / "between.pem").read_bytes())
    (folder / "ca-old.pem").write_bytes((folder / "old.pem").read_bytes())
    (folder / "empty").write_bytes(b"")
    (folder / "letter").write_text("Dear Ann")
    (folder / "cut.pem").write_bytes((folder / "client.pem").read_bytes()[:200])
    (folder / "spoilt.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (folder / "second.pem").write_bytes((folder / "client.pem").read_bytes() + (folder / "spoilt.pem").read_bytes())
    (folder / "cut.key").write_bytes((folder / "client.key").read_bytes()[:60])
    (folder / "second.line").write_text(str((folder / "client.pem").read_text().count("\n") + 1))
    (folder / "spoilt.key").write_text("-----BEGIN PRIVATE KEY-----\nA*AA\n-----END PRIVATE KEY-----\n")
    (folder / "directory").mkdir()
    encrypt = ("openssl", "pkey", "-in", "client.key", "-aes256", "-passout", "pass:secret", "-out", "encrypted.key")
    subprocess.run(encrypt, cwd=folder, check=True, capture_output=True)
    return folder


WRONG = [
    ({"ca": "missing"}, "missing: No such file or directory"),
    ({"ca": "directory"}, "directory: Is a directory"),
    ({"ca": "empty"}, "empty: it holds no certificate in PEM"),
    ({"ca": "letter"}, "letter: it holds no certificate in PEM"),
    ({"ca": "spoilt.pem"}, "spoilt.pem: the certificate, at line 1, cannot be read: error parsing asn1 value"),
    (
        {"ca": "second.pem"},
        "second.pem: certificate 2 of 2, at line {second}, cannot be read: error parsing asn1 value",
    ),
    ({"ca": "client.key"}, "client.key: it holds no certificate in PEM, only PRIVATE KEY"),
    ({"ca": "ca-old.pem"}, "ca-old.pem: the certificate of CN=old expired on 2021-01-01 00:00 UTC"),
    ({"certificate": "missing", "key": "client.key"}, "missing: No such file or directory"),
    ({"certificate": "directory"}, "directory: Is a directory"),
    (
        {"certificate": "cut.pem", "key": "client.key"},
        "cut.pem: the certificate, at line 1, is cut off: it has no END line",
    ),
    (
        {"certificate": "old.pem", "key": "old.key"},
        "old.pem: the certificate of CN=old expired on 2021-01-01 00:00 UTC",
    ),
    ({"certificate": "client.pem"}, "client.pem: it holds no private key in PEM, only CERTIFICATE"),
    ({"certificate": "client.pem", "key": "missing"}, "missing: No such file or directory"),
    ({"certificate": "client.pem", "key": "directory"}, "directory: Is a directory"),
    ({"certificate": "client.pem", "key": "letter"}, "letter: it holds no private key in PEM"),
    (
        {"certificate": "client.pem", "key": "cut.key"},
        "cut.key: the private key, at line 1, is cut off: it has no END line",
    ),
    (
        {"certificate": "client.pem", "key": "spoilt.key"},
        "spoilt.key: the private key, at line 1, cannot be read: InvalidData(Invalid symbol 42, offset 1.)",
    ),
    ({"certificate": "client.pem", "key": "other.key"}, "other.key: it is not the key of {}/client.pem"),
    (
        {"certificate": "client.pem", "key": "encrypted.key"},
        "encrypted.key: the key is encrypted, and its password cannot be given; `openssl pkey` decrypts it",
    ),
    ({"key": "client.key"}, "client.key: a key needs the certificate that it belongs to"),
]


def expected(said, made):
    return said.format(made, second=(made / "second.line").read_text())


@pytest.mark.parametrize(("files", "said"), WRONG)
def test_an_unusable_file_is_one_line_that_names_it(made, files, said):
    tls = Tls(**{name: made / file for name, file in files.items()})
    with pytest.raises(InvalidRequest) as refused:
        connect(MemoryReactorClock(), "127.0.0.1:1", tls=tls)
    assert str(refused.value) == f"{made}/{expected(said, made)}"


def run_at_once(address, work, tls=None, *_):
    """Replaces a run on a reactor: only connects to the address."""
    connect(MemoryReactorClock(), address, tls=tls)


@pytest.mark.parametrize(("files", "said"), WRONG)
def test_the_command_prints_the_same_error(made, files, said):
    words = [f"--tls-{name}={made / file}" for name, file in files.items()]
    result = CliRunner().invoke(queueber, [*words, "add", "x"], obj=run_at_once)
    assert (result.exit_code, result.stderr) == (1, f"queueber: {made}/{expected(said, made)}\n")


def test_all_unusable_files_are_named(made):
    tls = Tls(ca=made / "empty", certificate=made / "old.pem", key=made / "other.key")
    with pytest.raises(InvalidRequest) as refused:
        connect(MemoryReactorClock(), "127.0.0.1:1", tls=tls)
    assert [each.split(":")[0] for each in str(refused.value).split("; ")] == [
        f"{made}/{name}" for name in ("empty", "old.pem", "other.key")
    ]


@pytest.mark.parametrize("name", ["ca", "certificate"])
def test_a_file_that_may_not_be_read(made, monkeypatch, name):
    """The refusal is simulated, because root can read everything."""

    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InvalidRequest, match=r"both.pem: Permission denied"):
        connect(MemoryReactorClock(), "127.0.0.1:1", tls=Tls(**{name: made / "both.pem"}))


@pytest.mark.parametrize(
    "files", [{"certificate": "both.pem"}, {"certificate": "chain.pem", "key": "client.key"}, {"ca": "ca.pem"}]
)
def test_usable_files_are_accepted(made, files):
    client = connect(
        MemoryReactorClock(), "127.0.0.1:1", tls=Tls(**{name: made / file for name, file in files.items()})
    )
    client.close()


@pytest.mark.parametrize("name", ["a" * 64, "a..b", "\ud800"])
def test_a_name_that_no_certificate_has(name):
    with pytest.raises(InvalidRequest, match="not a name that a certificate can have"):
        connect(MemoryReactorClock(), "127.0.0.1:1", tls=Tls(server_name=name))


def test_an_empty_path_is_refused_by_the_command():
    """An unset variable of a shell must not stand for the working directory."""
    result = CliRunner().invoke(queueber, ["--tls-ca", "", "add", "x"], obj=run_at_once)
    assert result.exit_code == 1
    assert "the path is empty" in result.stderr

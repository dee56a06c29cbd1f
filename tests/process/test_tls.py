"""TLS between processes, with certificates as operators create them."""

import contextlib
import re
import signal
import socket
import ssl
import time
from urllib.request import urlopen

import pytest

from queueber.cli.commands import EXIT_EMPTY
from tests.process.certificates import Authority
from tests.process.conftest import TIMEOUT_SECONDS
from tests.support.processes import run_command

pytestmark = pytest.mark.slow

HOST = "IP:127.0.0.1,DNS:localhost"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def served(authority):
    return authority.sign("server", alternative=HOST)


@pytest.fixture
def start_tls(start, served, tmp_path):
    """Start a server with TLS on a free port."""

    def start_tls(*options, files=served):
        certificate, key = files
        return start(
            f"--listen=unix:{tmp_path}/plain",
            "--listen-tls=127.0.0.1:0",
            f"--tls-certificate={certificate}",
            f"--tls-key={key}",
            *options,
        )

    return start_tls


def port_of(server):
    return int(server.line(r"Listening on 127.0.0.1:(\d+) with TLS")[1])


def command(port, *arguments, host="127.0.0.1"):
    return run_command(f"--addr={host}:{port}", *arguments)


def test_a_client_that_trusts_the_authority_is_served(start_tls, authority):
    port = port_of(start_tls())
    assert command(port, f"--tls-ca={authority.pem}", "add", "hello").returncode == 0
    done = command(port, f"--tls-ca={authority.pem}", "poll", "--no-wait", host="localhost")
    assert "hello" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tls"], "its authority, CN=ca, is not a trusted one"),
        (["--tls-ca={ca}", "--tls-server-name=other.example"], "is for 127.0.0.1, localhost, not other.example"),
        ([], "this port speaks TLS"),
        (["--tls-ca=/nowhere"], "/nowhere: No such file"),
        (["--tls-ca={key}"], "no certificate in PEM"),
    ],
)
def test_a_client_that_should_not_trust_the_server_does_not(start_tls, authority, served, arguments, said):
    port = port_of(start_tls())
    arguments = [each.format(ca=authority.pem, key=served[1]) for each in arguments]
    done = command(port, *arguments, "poll", "--no-wait")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


def test_only_clients_of_the_authority_with_one_of_the_names_get_in(start_tls, authority, tmp_path):
    good = authority.sign("worker-1", alternative="DNS:worker-1,URI:spiffe://example/worker")
    named = authority.sign("plain-name")
    other = authority.sign("worker-9", alternative="DNS:worker-9")
    foreign = Authority(tmp_path / "foreign").sign("worker-1", alternative="DNS:worker-1")
    server = start_tls(
        "--listen=127.0.0.1:0",
        f"--tls-client-ca={authority.pem}",
        "--tls-client-name=spiffe://example/worker",
        "--tls-client-name=plain-name",
    )
    port = port_of(server)
    server.line(rf"No client certificate is asked for at {tmp_path}/plain, 127\.0\.0\.1:\d+: every peer")

    def poll(files):
        shown = [f"--tls-certificate={files[0]}", f"--tls-key={files[1]}"] if files else []
        return command(port, f"--tls-ca={authority.pem}", *shown, "poll", "--no-wait")

    done = [poll(files) for files in (good, named, other, foreign, None)]
    assert [each.returncode for each in done] == [EXIT_EMPTY, EXIT_EMPTY, 1, 1, 1]
    whys = [each.stderr.removeprefix(f"queueber: cannot connect to 127.0.0.1:{port}: the server ") for each in done[2:]]
    assert [why.split()[0] for why in whys] == ["refuses", "does", "asks"]
    server.line(r"Refusing 127\.0\.0\.1:\d+, whose certificate names worker-9")
    server.line("No TLS with")
    assert not any("Traceback" in line for line in server.lines)


def test_a_name_in_a_certificate_forges_no_line_and_many_tries_are_few_lines(start_tls, authority):
    """An authority confirms a name, but not that it is safe for a terminal."""
    shown, key = authority.sign("evil", subject="/CN=a\n\x1b[31m2026 [-] All is well")
    server = start_tls(f"--tls-client-ca={authority.pem}", "--tls-client-name=good")
    context = ssl.create_default_context(cafile=authority.pem)
    context.load_cert_chain(shown, key)
    for _ in range(20):
        with (
            contextlib.suppress(ssl.SSLError, ConnectionError),
            socket.create_connection(("127.0.0.1", port_of(server))) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as peer,
        ):
            peer.recv(1)
    server.line(r"Refusing 127\.0\.0\.1:\d+, whose certificate names a\?\?\[31m2026 \[-\] All is well$")
    server.line(r"lines of 127\.0\.0\.1 were left out: Refusing \{peer\}, whose certificate names \{names\}")
    assert len([line for line in server.lines if "Refusing 127" in line]) < 10
    assert not [line for line in server.lines if line.startswith("\x1b")]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda made: ("/nowhere.pem", made[1]), "/nowhere.pem: No such file or directory"),
        (lambda made: (made[0], "/nowhere.key"), "/nowhere.key: No such file or directory"),
        (lambda made: (made[1], made[1]), "it holds no certificate in PEM"),
        (lambda made: (made[0], made[0]), "it holds no private key in PEM"),
    ],
)
def test_unusable_files_end_with_one_line_and_78(start_tls, served, spoil, said):
    server = start_tls(files=spoil(served))
    assert server.wait() == 78
    (complaint,) = [line for line in server.lines if "Cannot start" in line]
    assert said in complaint
    assert not any("Traceback" in line for line in server.lines)


def test_all_mistakes_in_certificates_are_reported_in_one_line(start_tls, authority):
    late = authority.sign("late", alternative=HOST, until="20210101000000Z")
    late[1].chmod(0o644)
    server = start_tls("--tls-client-ca=/nowhere.pem", files=late)
    assert server.wait() == 78
    (complaint,) = [line for line in server.lines if "Cannot start" in line]
    for each in ("late.pem: the certificate of CN=late expired", "every user of this machine", "/nowhere.pem: No such"):
        assert each in complaint


def test_a_certificate_that_has_expired_is_one_line_and_78(start_tls, authority):
    server = start_tls(files=authority.sign("late", alternative=HOST, until="20210101000000Z"))
    assert server.wait() == 78
    server.line("Cannot start: .*late.pem: the certificate of CN=late expired on 2021-01-01 00:00 UTC")


def test_a_world_readable_or_foreign_key_is_refused(start_tls, authority, served):
    certificate, key = authority.sign("open", alternative=HOST)
    other = start_tls(files=(certificate, served[1]))
    assert other.wait() == 78
    other.line("it is not the key of")
    key.chmod(0o644)
    server = start_tls(files=(certificate, key))
    assert server.wait() == 78
    server.line("every user of this machine can read the key")


def test_a_new_certificate_is_taken_over_without_a_restart(start_tls, authority, tmp_path):
    new_authority = Authority(tmp_path / "new")
    certificate, key = authority.sign("renewed", alternative=HOST)
    server = start_tls(files=(certificate, key))
    port = port_of(server)
    assert command(port, f"--tls-ca={authority.pem}", "add", "x").returncode == 0

    certificate.write_text("broken")
    server.process.send_signal(signal.SIGHUP)
    server.line("Not reloaded: .*it holds no certificate in PEM")
    assert command(port, f"--tls-ca={authority.pem}", "add", "x").returncode == 0

    fresh = new_authority.sign("renewed", alternative=HOST)
    certificate.write_bytes(fresh[0].read_bytes())
    key.write_bytes(fresh[1].read_bytes())
    server.process.send_signal(signal.SIGHUP)
    server.line("Reloaded: certificates and log level info")
    assert command(port, f"--tls-ca={new_authority.pem}", "add", "x").returncode == 0
    assert server.stop() in (-signal.SIGTERM, 0)


def test_the_expiration_metric_follows_a_renewal(start_tls, authority):
    certificate, key = authority.sign("watched", alternative=HOST, days=3)
    server = start_tls("--http=127.0.0.1:0", files=(certificate, key))
    port_of(server)
    address = server.line(r"Pages on (\S+)")[1]

    def days_left():
        with urlopen(f"http://{address}/metrics", timeout=TIMEOUT_SECONDS) as answer:
            page = answer.read().decode()
        found = re.search(r"^queueber_certificate_expiration_timestamp_seconds (\S+)$", page, re.MULTILINE)
        return (float(found[1]) - time.time()) / 86_400

    server.line("watched.pem: the certificate of CN=watched expires on ")
    assert 2.9 < days_left() <= 3
    for old, new in zip((certificate, key), authority.sign("watching", alternative=HOST, days=30), strict=True):
        old.write_bytes(new.read_bytes())
    assert 2.9 < days_left() <= 3
    server.process.send_signal(signal.SIGHUP)
    server.line("Reloaded: certificates")
    assert 29.9 < days_left() <= 30


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--listen-tls=127.0.0.1:0"], "--listen-tls needs --tls-certificate"),
        (["--tls-client-ca=x"], "--tls-client-ca needs --tls-certificate"),
        (["--tls-certificate=x", "--tls-client-name=y"], "--tls-client-name needs --tls-client-ca"),
    ],
)
def test_options_that_need_each_other(start, options, said):
    server = start(*options)
    assert server.wait() == 64
    assert said in server.lines[-1]


def test_a_silent_handshake_times_out(start_tls):
    port = port_of(start_tls("--limit-first-message-ms=300"))
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as silent:
        with contextlib.suppress(ConnectionResetError):
            while silent.recv(1024):
                pass
        assert time.monotonic() - began >= 0.3

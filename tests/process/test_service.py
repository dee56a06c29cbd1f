"""Start and stop of a server, with options as an operator uses them."""

import resource
import signal
import socket
import stat
import sys
from pathlib import Path

import pytest

from queueber.broker.model import LOWEST, QueueNumber, QueueRecord, TimeMark
from queueber.broker.storage import PutQueue
from queueber.store import open_store
from queueber.units import WallMs
from tests.process.conftest import TIMEOUT_SECONDS, TWISTD, Traffic, foreign
from tests.support.processes import completed

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("runner", ["twistd", "twist"])
def test_the_start_is_logged_in_a_few_lines(start, runner):
    server = start("--workers=3", runner=runner)
    assert server.port

    server.line(r"Queueber \d+\.\d+")
    server.line(r"Data in /.*/data: 0 items in 0 queues, 0 leases; recovered in \d+\.\d\d s")
    server.line("Workers: 3 storage threads; .* up to 64 polls and 512 items, .* waits 0 ms .*; durability: fsync")
    server.line(r"Listening on 127\.0\.0\.1:\d+")


def test_storage_threads_have_names_that_ps_shows(start):
    server = start("--workers=3")
    assert server.port

    tasks = Path(f"/proc/{server.process.pid}/task").iterdir()
    names = {(task / "comm").read_text().strip() for task in tasks}

    assert {"queueber-w0", "queueber-w1", "queueber-w2"} <= names


def test_only_its_owner_can_read_the_data_directory(start):
    server = start()
    assert server.port

    assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o700


def test_all_addresses_are_listened_on(start, tmp_path):
    path = tmp_path / "q.sock"
    server = start("--listen=127.0.0.1:0", f"--listen=unix:{path}", "--listen=[::1]:0")

    server.line(r"Listening on 127\.0\.0\.1:\d+")
    server.line(rf"Listening on {path}")
    server.line(r"Listening on \[::1\]:\d+")
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(path))


def test_a_second_server_on_the_directory_ends_with_one_line(start):
    first = start()
    assert first.port

    second = start()

    assert second.wait() == 74
    line = second.line("Cannot start: .*")[0]
    assert str(first.data_dir) in line
    assert str(first.process.pid) in line
    assert not [line for line in second.lines if "Traceback" in line]
    foreign("calls", first.port)


def test_a_busy_port_is_reported_in_one_line(start, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = start(f"--listen=127.0.0.1:{taken.getsockname()[1]}")

        assert server.wait() == 74
    server.line(r"Cannot start: --listen 127\.0\.0\.1:\d+: Couldn't listen on .*")
    assert not [line for line in server.lines if "Traceback" in line]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--workers=0"], "--workers is '0'; it must be a whole number from 1 to 1,024"),
        (["--durability=maybe"], "--durability is 'maybe'; it must be one of fsync, os, none"),
        (["--storage-encoding=x"], "--storage-encoding is 'x'; it must be one of unpacked, packed"),
        (
            ["--coalesce-batch-window-ms=-1"],
            "--coalesce-batch-window-ms is '-1'; it must be a whole number from 0 to 10,000",
        ),
        (["--lease-sweep-interval=no"], "--lease-sweep-interval is 'no'; it must be a number from 0.001 to 60"),
        (["--listen=0.0.0.0:0"], "--listen 0.0.0.0:0: plaintext beyond this machine needs --insecure-plaintext"),
        (["--listen=tcp:0"], "--listen tcp:0: plaintext beyond this machine needs --insecure-plaintext"),
        (["--listen=nonsense"], "'nonsense' is neither an endpoint string nor HOST:PORT"),
        (["--listen=127.0.0.1:99999"], "the port is 99999; it must be 0 to 65535"),
        (["what"], "unexpected argument 'what'"),
        (["--wokers=3"], "--wokers is not an option; did you mean --workers?"),
        (["--listen=ssl:0:privateKey=/nowhere.pem"], "for TLS use --listen-tls HOST:PORT with --tls-certificate"),
        (["--listen=tls:/nonexistent:0"], "for TLS use --listen-tls HOST:PORT with --tls-certificate"),
        (["--http=ssl:0:privateKey=/nowhere.pem"], "for TLS use --listen-tls HOST:PORT with --tls-certificate"),
        (["--listen=stdio:"], "standard input and output are one connection, not an address to listen on"),
        (["--tls-certificate=/c.pem"], "--tls-certificate needs --listen-tls: no address would use TLS"),
    ],
)
def test_wrong_options_end_with_64_and_one_line(start, options, complaint):
    server = start(*options)

    assert server.wait() == 64
    assert complaint in server.lines[-1]


def test_twist_ends_wrong_options_with_64(start):
    server = start("--workers=0", runner="twist")

    assert server.wait() == 64


def test_without_assertions_it_does_not_start(tmp_path):
    """Assertions notice a bug before its effects are on disk."""
    command = ("--nodaemon", "--pidfile=", "queueber", f"--data-dir={tmp_path}/d", "--listen=127.0.0.1:0")
    done = completed([sys.executable, "-O", "-c", TWISTD, *command])
    assert done.returncode == 78
    assert done.stderr == ("queueber: Python runs without assertions (-O or PYTHONOPTIMIZE), which a server needs\n")
    assert not (tmp_path / "d").exists()


def test_exposed_plaintext_is_allowed_if_asked_for(start):
    assert start("--listen=0.0.0.0:0", "--insecure-plaintext").port


def test_a_stop_under_load_answers_the_calls_under_way(start):
    server = start()
    client = Traffic(server.port)
    client.until(added=50)

    status = server.stop()
    client.end()

    # As with Twisted: by the signal, or with 0.
    assert status in (0, -signal.SIGTERM)
    server.line("Stopped; everything is on disk")
    assert not [line for line in server.lines if "Traceback" in line]
    again = start()
    again.line(r"recovered in \d+\.\d\d s$")


def test_a_failure_during_the_shutdown_is_not_a_clean_stop(start):
    """Files cannot grow any more, so the mark of a clean stop cannot be written."""
    server = start()
    foreign("forget", server.port)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, 0))

    assert server.stop() == 74
    server.line("so the server ends")
    assert not [line for line in server.lines if "everything is on disk" in line]


@pytest.mark.parametrize(
    "option", ["--listen=127.0.0.1:{port}", "--listen=unix:{path}/socket", "--manhole=unix:{path}/socket"]
)
def test_a_start_that_fails_wipes_nothing(start, tmp_path, option):
    """Addresses that are in use or impossible: a TCP port, and Unix sockets in a missing directory."""
    store = open_store(tmp_path / "data")
    store.commit([PutQueue(QueueRecord(QueueNumber(1), "mail", 0, 0, LOWEST))], TimeMark(bytes(16), 0, WallMs(1)))
    store.close()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = start("--wipe", option.format(port=port, path=tmp_path / "missing"))
        assert server.wait() == 74
    server.line("Cannot start: ")
    store = open_store(tmp_path / "data")
    assert [queue.name for queue in store.recover().queues] == ["mail"]
    store.close()


def test_wipe_empties_a_directory_of_ours_and_no_other(start, tmp_path):
    server = start()
    foreign("calls", server.port)
    server.stop()

    server = start("--wipe")
    server.line("Data in .*: 0 items in 0 queues")
    server.stop()

    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    (other / "letter").write_text("dear")
    refused = start("--wipe", data_dir=other)
    assert refused.wait() == 74
    assert (other / "letter").read_text() == "dear"


def test_a_directory_that_others_may_write_to_is_refused(start, tmp_path):
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    data_dir.chmod(0o777)
    server = start()

    assert server.wait() == 74
    assert str(data_dir) in server.line("Cannot start: .*")[0]


def test_garbage_ends_its_connection_and_no_other(start):
    server = start()
    with socket.create_connection(("127.0.0.1", server.port)) as bad:
        bad.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        bad.settimeout(TIMEOUT_SECONDS)
        while bad.recv(4096):
            pass
    foreign("calls", server.port)
    server.line("Closing the connection of .*127.0.0.1")
    assert not [line for line in server.lines if "Traceback" in line]

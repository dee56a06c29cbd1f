"""A server with a low limit of open files."""

import socket

import pytest

from queueber.store import verify
from tests.support.processes import run_command

pytestmark = pytest.mark.slow


def queueber(server, *arguments):
    done = run_command("--addr", f"127.0.0.1:{server.port}", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_at_the_minimum_it_serves_many_clients_and_queues(start):
    options = ("--http=127.0.0.1:0", "--storage-write-buffer-bytes=64KiB", "--free-space-reserve=0")
    server = start(*options, files=128)
    assert server.line(r"Descriptors: 128, 48 of them the server's own; at most (\d+) connections")[1] == "18"
    contents = server.data_dir.with_name("contents")
    contents.write_bytes(bytes(20_000))
    peers = []
    for _ in range(3):
        # More connections than descriptors, and more files than tables that may be open.
        peers += [socket.create_connection(("127.0.0.1", server.port), 5) for _ in range(40)]
        added = queueber(server, "add", *["--file", str(contents)] * 40)
        assert len(added.splitlines()) == 40
    assert len(queueber(server, "poll", "-n", "120", "--no-wait", "--json")) > 120 * 20_000
    for peer in peers:
        peer.close()
    server.stop()
    assert not [line for line in server.lines if "Too many open files" in line or "#critical" in line]
    assert (verify(server.data_dir).items, verify(server.data_dir).findings) == (120, [])


def test_below_the_minimum_it_ends_with_78(start):
    server = start(files=100)
    assert server.wait() == 78
    server.line("Cannot start: the process may have 100 files open, and a server needs 128 at least")
    assert not server.data_dir.exists()

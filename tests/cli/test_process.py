"""The command in its own process with a real reactor, and a server that is absent or silent."""

import signal
import socket
import subprocess
import sys

import pytest

from tests.support.processes import COMMAND, run_command

TIMEOUT_SECONDS = 120
"""Time limit of a process that does not end."""


pytestmark = pytest.mark.slow


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(TIMEOUT_SECONDS)
        yield server


def address_of(server):
    return f"127.0.0.1:{server.getsockname()[1]}"


def test_a_refused_connection_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = address_of(server)
    result = run_command("--addr", address, "add", "x")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"queueber: cannot connect to {address}: Connection refused\n"


def test_a_bad_address_is_one_line():
    result = run_command("--addr", "nowhere", "poll")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("queueber: 'nowhere' is not an address")


def test_a_lost_connection_is_one_line_and_the_outcome_unknown(listening):
    with subprocess.Popen([*COMMAND, "--addr", address_of(listening), "add", "x"], stderr=subprocess.PIPE) as process:
        connection, _ = listening.accept()
        connection.recv(1)
        connection.close()
        _, complaint = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 1
    assert complaint.count(b"\n") == 1
    assert b"outcome is unknown" in complaint


def test_a_peer_that_is_no_server_is_one_line(listening):
    with subprocess.Popen([*COMMAND, "--addr", address_of(listening), "poll"], stderr=subprocess.PIPE) as process:
        connection, _ = listening.accept()
        connection.recv(1)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        _, complaint = process.communicate(timeout=TIMEOUT_SECONDS)
        connection.close()
    assert process.returncode == 1
    assert complaint.count(b"\n") == 1
    assert b"this port speaks HTTP" in complaint


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_waiting_poll_without_output(listening, number):
    with subprocess.Popen([*COMMAND, "--addr", address_of(listening), "poll"], stderr=subprocess.PIPE) as process:
        connection, _ = listening.accept()
        connection.recv(1)
        process.send_signal(number)
        _, complaint = process.communicate(timeout=TIMEOUT_SECONDS)
        connection.close()
    assert (process.returncode, complaint) == (130, b"")


STOPPABLE = """
from twisted.internet.defer import Deferred
from queueber.cli.session import Interrupted, Session

async def endless(reactor):
    reactor.callLater(0, print, "begun", flush=True)
    await Deferred()

def stop():
    print("stopping", flush=True)
    return True

try:
    Session(endless, stop=stop).run()
except Interrupted:
    print("interrupted")
"""


def test_work_that_is_stopped_ends_at_the_second_signal():
    with subprocess.Popen(
        [sys.executable, "-c", STOPPABLE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGINT)
        found = process.communicate(timeout=TIMEOUT_SECONDS)
    assert (found, process.returncode) == (("interrupted\n", ""), 0)

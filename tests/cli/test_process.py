"""The command as a process of its own, where the reactor is real and the server is not there or is silent."""

import signal
import socket
import subprocess
import sys

import pytest

PATIENCE = 120
"""Only what would never end is to be found out."""

COMMAND = (sys.executable, "-m", "queueber.cli")


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        yield server


def address_of(server):
    return f"127.0.0.1:{server.getsockname()[1]}"


def run(*arguments):
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_a_refused_connection_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = address_of(server)
    result = run("--addr", address, "add", "x")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"queueber: cannot connect to {address}: Connection refused\n"


def test_a_bad_address_is_one_line():
    result = run("--addr", "nowhere", "poll")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("queueber: 'nowhere' is not an address")


def test_a_connection_that_is_lost_is_one_line_that_says_nobody_knows(listening):
    with subprocess.Popen([*COMMAND, "--addr", address_of(listening), "add", "x"], stderr=subprocess.PIPE) as process:
        connection, _ = listening.accept()
        connection.recv(1)
        connection.close()
        _, complaint = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert complaint.count(b"\n") == 1
    assert b"outcome is unknown" in complaint


def test_something_else_than_a_server_is_one_line(listening):
    with subprocess.Popen([*COMMAND, "--addr", address_of(listening), "poll"], stderr=subprocess.PIPE) as process:
        connection, _ = listening.accept()
        connection.recv(1)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        _, complaint = process.communicate(timeout=PATIENCE)
        connection.close()
    assert process.returncode == 1
    assert complaint.count(b"\n") == 1
    assert b"this port speaks HTTP" in complaint


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_waiting_poll_without_a_word(listening, number):
    with subprocess.Popen([*COMMAND, "--addr", address_of(listening), "poll"], stderr=subprocess.PIPE) as process:
        connection, _ = listening.accept()
        connection.recv(1)
        process.send_signal(number)
        _, complaint = process.communicate(timeout=PATIENCE)
        connection.close()
    assert (process.returncode, complaint) == (130, b"")

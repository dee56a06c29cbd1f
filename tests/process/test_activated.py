"""Socket activation with a Unix socket, also by the real `systemd-socket-activate`."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from queueber.cli.commands import EXIT_EMPTY
from tests.process.conftest import TIMEOUT_SECONDS, TWISTD
from tests.process.test_supervised import ACTIVATED, polled
from tests.support.waiting import until

pytestmark = pytest.mark.slow


ACTIVATE = "systemd-socket-activate"


def options(folder, *more):
    listen = "--listen=systemd:domain=UNIX:name=queueber"
    return ("--nodaemon", "--pidfile=", "queueber", f"--data-dir={folder}/data", listen, *more)


@contextmanager
def ended(process):
    """Stop *process*, and return its exit status and output."""
    said = []
    try:
        yield process, said
    finally:
        process.send_signal(signal.SIGTERM)
        said.append(process.communicate(timeout=TIMEOUT_SECONDS)[0])


def served(made, folder, *more):
    """Start a server to which the socket *made* is passed."""
    return ended(
        subprocess.Popen(
            [sys.executable, "-c", ACTIVATED, str(made.fileno()), *options(folder, *more)],
            pass_fds=[made.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    )


@pytest.fixture
def made(tmp_path):
    """Return a socket for its owner and group, in a directory of its own."""
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "run" / "s.sock"))
        (tmp_path / "run" / "s.sock").chmod(0o600)
        made.listen()
        yield made


def backlog(path):
    """Return the backlog of the socket *path*, as shown by `ss`."""
    lines = subprocess.run(["ss", "-lxH"], capture_output=True, text=True, check=True).stdout.splitlines()
    (line,) = [line.split() for line in lines if str(path) in line.split()]
    return int(line[3])


def test_it_keeps_its_mode_and_its_path_and_is_served_again(made, tmp_path):
    path = tmp_path / "run" / "s.sock"
    for _ in range(2):
        with served(made, tmp_path) as (_, said):
            done = polled(f"unix:{path}")
            mode = stat.S_IMODE(path.stat().st_mode)
        assert (done.returncode, done.stdout, oct(mode)) == (EXIT_EMPTY, "no items\n", "0o600"), said
        assert path.is_socket()
    # Between two servers a connection waits.
    with socket.socket(socket.AF_UNIX) as early:
        early.connect(str(path))


@pytest.mark.skipif(shutil.which("ss") is None, reason="there is no ss here")
def test_as_many_may_wait_as_at_our_own_sockets(made, tmp_path):
    with served(made, tmp_path) as (_, said):
        assert polled(f"unix:{tmp_path}/run/s.sock").returncode == EXIT_EMPTY, said
        most = int(Path("/proc/sys/net/core/somaxconn").read_text())
        assert backlog(tmp_path / "run" / "s.sock") == min(4096, most)


def test_it_may_lie_where_nothing_can_be_written(made, tmp_path):
    """The shipped unit has `ProtectSystem=strict`, and a socket in `/run`.  Here its path is inaccessible."""
    path = tmp_path / "run" / "s.sock"
    path.rename(tmp_path / "elsewhere.sock")
    with served(made, tmp_path) as (_, said):
        assert polled(f"unix:{tmp_path}/elsewhere.sock").returncode == EXIT_EMPTY, said
    assert "Stopped; everything is on disk" in said[0]
    assert "Traceback" not in said[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_directory_that_cannot_be_written_to_is_no_obstacle(made, tmp_path):
    folder = str(tmp_path / "run")
    if subprocess.run(["mount", "--bind", folder, folder], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        with pytest.raises(OSError, match="Read-only"):
            (tmp_path / "run" / "s.sock").chmod(0o666)
        with served(made, tmp_path) as (_, said):
            assert polled(f"unix:{folder}/s.sock").returncode == EXIT_EMPTY, said
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
    assert "Stopped; everything is on disk" in said[0]
    assert "Traceback" not in said[0]


def test_with_a_proxy_in_front_it_is_the_same_socket(made, tmp_path):
    with served(made, tmp_path, "--listen=haproxy:systemd:domain=UNIX:index=0") as (server, said):
        server.wait(TIMEOUT_SECONDS)
    # It is passed once, so its second use is refused; the first use does not change it.
    assert "Cannot start" in said[0]
    assert stat.S_IMODE((tmp_path / "run" / "s.sock").stat().st_mode) == 0o600


def test_a_socket_of_another_family_is_refused(tmp_path):
    """Other machines could reach it in plaintext, without --insecure-plaintext."""
    with socket.create_server(("127.0.0.1", 0)) as made, served(made, tmp_path) as (server, said):
        assert server.wait(TIMEOUT_SECONDS) == 74
    assert "systemd has passed a socket of AF_INET" in said[0]
    assert "Traceback" not in said[0]


def test_a_missing_systemd_socket_is_reported_in_one_line(start):
    server = start("--listen=systemd:domain=UNIX:name=queueber")
    assert server.wait() == 78
    server.line("Cannot start: --listen systemd:domain=UNIX:name=queueber: systemd has passed no such socket")
    assert not any("Traceback" in line for line in server.lines)


@pytest.mark.skipif(shutil.which(ACTIVATE) is None, reason=f"there is no {ACTIVATE} here")
def test_systemd_s_own_activation(tmp_path):
    path = tmp_path / "s.sock"
    command = [ACTIVATE, "-l", str(path), "--fdname=queueber", sys.executable, "-c", TWISTD, *options(tmp_path)]
    for _ in range(2):
        path.unlink(missing_ok=True)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        with ended(process) as (_, said):
            until(path.exists)
            path.chmod(0o600)
            # The first connection starts the server.
            assert polled(f"unix:{path}").returncode == EXIT_EMPTY
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "Stopped; everything is on disk" in said[0]
        assert path.is_socket()

"""A server under a simulated systemd: its sockets, its notifications, its logs and its signals."""

import json
import select
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from queueber import api
from queueber.cli.commands import EXIT_EMPTY
from tests.process.conftest import TIMEOUT_SECONDS, TWISTD
from tests.support.peer import Peer, polling
from tests.support.processes import completed, run_command

pytestmark = pytest.mark.slow


ACTIVATED = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="queueber")
os.execv(sys.executable, [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", *sys.argv[2:]])
"""


def polled(address):
    return run_command(f"--addr={address}", "poll", "--no-wait")


def test_a_socket_that_systemd_made_is_served(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as made:
        port = made.getsockname()[1]
        arguments = ("--nodaemon", "--pidfile=", "queueber", f"--data-dir={tmp_path}/data", "--insecure-plaintext")
        with subprocess.Popen(
            [
                sys.executable,
                "-c",
                ACTIVATED,
                str(made.fileno()),
                *arguments,
                "--listen=systemd:domain=INET:name=queueber",
            ],
            pass_fds=[made.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as server:
            # Before the server exists: the connection waits in the kernel.
            done = polled(f"127.0.0.1:{port}")
            server.terminate()
            said, _ = server.communicate(timeout=TIMEOUT_SECONDS)
    assert (done.returncode, done.stdout) == (EXIT_EMPTY, "no items\n"), said


def test_the_supervisor_is_notified_of_start_watchdog_and_stop(start, tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(TIMEOUT_SECONDS)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        server = start()

        def received():
            return dict(line.partition("=")[::2] for line in supervisor.recv(4096).decode().splitlines())

        seen = [received()]
        while "READY" not in seen[-1]:
            seen.append(received())
        assert seen[0]["STATUS"].startswith("opening the store")
        assert seen[-1]["STATUS"] == "Serving; 0 items at start"
        assert [received(), received()] == [{"WATCHDOG": "1"}] * 2
        server.process.send_signal(signal.SIGTERM)
        while "STOPPING" not in seen[-1]:
            seen.append(received())
        server.wait()


@pytest.mark.parametrize("runner", ["twistd", "twist"])
def test_a_log_for_programs_is_one_object_a_line(start, runner):
    server = start("--log-format=json", runner=runner)
    server.line("Listening on")
    server.stop()
    lines = [json.loads(line) for line in server.lines]
    (version,) = [line for line in lines if line["message"].startswith("Queueber ")]
    assert (version["level"], version["namespace"]) == ("info", "queueber.server.app.service.QueueberService")
    assert version["fields"]["version"]
    assert version["time"].endswith("+00:00")


@pytest.mark.parametrize("runner", ["twistd", "twist"])
def test_the_level_is_kept_and_can_be_changed_while_it_runs(start, runner, tmp_path):
    (tmp_path / "q.toml").write_text('log-level = "warn"\n')
    server = start(f"--config={tmp_path}/q.toml", f"--listen=unix:{tmp_path}/q", runner=runner)
    while not (tmp_path / "q").exists():
        assert server.process.poll() is None
    server.process.send_signal(signal.SIGHUP)  # possibly during the start
    assert polled(f"unix:{tmp_path}/q").returncode == EXIT_EMPTY
    (tmp_path / "q.toml").write_text('log-level = "nonsense"\nx = 1\n')
    server.process.send_signal(signal.SIGHUP)
    server.line("Not reloaded: .*q.toml: x is not an option; .*q.toml: log-level is 'nonsense'")
    assert not any("Listening" in line for line in server.lines)

    (tmp_path / "q.toml").write_text('log-level = "debug"\n')
    server.process.send_signal(signal.SIGHUP)
    server.line("Reloaded: log level debug")
    (tmp_path / "q.toml").write_text('workers = 9\nlog-level = "info"\n[limit]\nconnections = 7\n')
    server.process.send_signal(signal.SIGHUP)
    server.line("Reloaded: log level info")
    server.line(r"Changed, and not taken over without a restart: workers \(.*q.toml\), limit-connections \(.*q.toml\)$")
    server.stop()
    server.line("Stopped; everything is on disk")


@pytest.mark.parametrize("where", ["--syslog", "--logger=tests.process.logger.observer"])
def test_a_level_and_a_format_without_effect_are_logged(tmp_path, where):
    if where == "--syslog" and not Path("/dev/log").exists():
        pytest.skip("there is no system log here")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = ("--nodaemon", "--pidfile=", where, "queueber", f"--data-dir={tmp_path}/d", "--log-level=warn")
        done = completed([sys.executable, "-c", TWISTD, *command, "--log-format=json", f"--listen=127.0.0.1:{port}"])
    assert done.returncode == 74
    if where != "--syslog":
        said = (
            "--log-format and --log-level without effect: --syslog and --logger have a format and a level of their own"
        )
        assert said in done.stdout


def test_signals_during_the_shutdown_are_logged_and_ignored(start):
    """The shutdown waits for a peer that does not receive its replies.  A hangup used to end it with 129."""
    server = start("--drain-seconds=60")
    with closing(Peer(server.port, receive_bytes=4096)) as peer:
        peer.add(bytes(8 << 20))
        peer.ask(api.POLL, polling())
        peer.flush()
        select.select([peer.socket], [], [], TIMEOUT_SECONDS)
        server.process.send_signal(signal.SIGTERM)
        server.line("Stopping: 0 calls are under way, 0 of them polls that wait and are ended now; 1 connection")
        server.process.send_signal(signal.SIGHUP)
        server.line("Not reloaded: the server is stopping")
        for number in (signal.SIGTERM, signal.SIGINT):
            server.process.send_signal(number)
        server.line("Already stopping: waiting for 1 peer to take all replies")
    assert server.wait() == -signal.SIGTERM
    server.line("Stopped; everything is on disk")
    assert not any("Traceback" in line for line in server.lines)


def test_a_unix_socket_is_open_to_its_group(start, tmp_path):
    server = start(f"--listen=unix:{tmp_path}/q")
    server.line("Listening on")
    assert (tmp_path / "q").stat().st_mode & 0o777 == 0o660
    assert polled(f"unix:{tmp_path}/q").returncode == EXIT_EMPTY


def test_a_stale_socket_is_replaced(start, tmp_path):
    server = start(f"--listen=unix:{tmp_path}/q")
    server.line("Listening on")
    server.kill()
    assert (tmp_path / "q").exists()
    start(f"--listen=unix:{tmp_path}/q").line("Listening on")
    assert polled(f"unix:{tmp_path}/q").returncode == EXIT_EMPTY

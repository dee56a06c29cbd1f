"""The server under twistd and twist, with real processes, terminals and users."""

import fcntl
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from queueber.server.net.listeners import parse_listen
from tests.process.conftest import TIMEOUT_SECONDS, TWISTD, foreign
from tests.support.processes import completed, free_port
from tests.support.waiting import until

pytestmark = pytest.mark.slow

NO_USER = 65534
F_SETPIPE_SZ = 1031


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def free_port_below_1024():
    for port in range(700, 1024):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    pytest.skip("no port is free")


@pytest.fixture
def background(tmp_path):
    """Run `twistd` in the background, and return its completed parent process.  The server ends with the test."""

    def run(*words, log="twistd.log"):
        done = completed([sys.executable, "-c", TWISTD, "--pidfile=q.pid", *words], cwd=tmp_path)
        done.log = tmp_path / log
        return done

    yield run
    if (tmp_path / "q.pid").exists():
        os.kill(int((tmp_path / "q.pid").read_text()), signal.SIGKILL)


def test_in_the_background_it_serves_rotates_reloads_and_stops(background, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "q.toml").write_text(f'listen = "127.0.0.1:{free_port()}"\n')
    port = parse_listen((tmp_path / "q.toml").read_text().split('"')[1]).endpoint.split(":")[1]

    started = background("--rundir=run", "queueber", "--config=q.toml", "--log-level=debug")

    assert (started.returncode, started.stderr) == (0, "")
    # The parent process has waited for the server: no client is refused.
    foreign("calls", int(port))
    assert (tmp_path / "run" / "queueber-data" / "QUEUEBER").exists()
    pid = int((tmp_path / "q.pid").read_text())

    os.kill(pid, signal.SIGUSR1)
    until(lambda: "Rotated: the log so far is " in started.log.read_text())
    assert "Listening on" in (tmp_path / "twistd.log.1").read_text()
    (tmp_path / "q.toml").write_text(f'listen = "127.0.0.1:{port}"\nlog-level = "warn"\nworkers = 3\n')
    os.kill(pid, signal.SIGHUP)
    until(lambda: f"workers ({tmp_path}/q.toml)" in started.log.read_text())

    os.kill(pid, signal.SIGTERM)
    until(lambda: not alive(pid))
    assert started.log.read_text().splitlines()[-1].endswith("Stopped; everything is on disk (SIGTERM)")
    assert not (tmp_path / "q.pid").exists()


def test_in_the_background_a_failed_start_has_the_status_of_the_server(background, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        failed = background("--logfile=q.log", "queueber", "--data-dir=q", f"--listen={place}", log="q.log")

    assert failed.returncode == 74
    assert f"queueber: Cannot start: --listen {place}: Couldn't listen on {place}" in failed.stderr
    assert f"Cannot start: --listen {place}: Couldn't listen on" in failed.log.read_text().splitlines()[-1]
    # Nothing else was created.
    assert sorted(each.name for each in tmp_path.iterdir()) == ["q.log"]


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone may become another user")
def test_a_port_below_1024_is_bound_before_privileges_are_dropped(background, tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "run").mkdir()
    shutil.chown(tmp_path / "run", NO_USER, NO_USER)
    port = free_port_below_1024()

    started = background(
        f"--uid={NO_USER}",
        f"--gid={NO_USER}",
        "--umask=027",
        "--rundir=run",
        "queueber",
        f"--listen=127.0.0.1:{port}",
    )

    assert (started.returncode, started.stderr) == (0, "")
    foreign("calls", port)
    status = Path(f"/proc/{(tmp_path / 'q.pid').read_text()}/status").read_text()
    assert f"Uid:\t{NO_USER}\t{NO_USER}\t{NO_USER}\t{NO_USER}" in status
    assert "Umask:\t0027" in status
    files = [started.log, *(tmp_path / "run" / "queueber-data").rglob("*")]
    assert {(each.stat().st_uid, each.stat().st_gid) for each in files} == {(NO_USER, NO_USER)}


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone may become another user")
def test_the_password_of_the_console_is_read_before_privileges_are_dropped(background, tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "run").mkdir()
    shutil.chown(tmp_path / "run", NO_USER, NO_USER)
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text("ada:correct horse battery\n")
    port, console = free_port(), free_port()

    started = background(
        f"--uid={NO_USER}",
        f"--gid={NO_USER}",
        "--rundir=run",
        "queueber",
        f"--listen=127.0.0.1:{port}",
        f"--manhole=127.0.0.1:{console}",
        f"--manhole-password-file={password}",
    )

    assert (started.returncode, started.stderr) == (0, "")
    with socket.create_connection(("127.0.0.1", console)) as terminal, terminal.makefile("rb") as shown:
        terminal.sendall(b"ada\ncorrect horse battery\nlen('z' * 12)\n\x04\x04")
        assert b"\n12\n" in shown.read().replace(b"\r", b"")
    os.kill(int((tmp_path / "q.pid").read_text()), signal.SIGHUP)
    until(lambda: "Reloaded: log level info" in started.log.read_text())
    assert f"The password of the console is that of the start: {password} belongs to" in started.log.read_text()


def test_a_log_that_is_not_read_does_not_block(tmp_path):
    reading, writing = os.pipe()
    fcntl.fcntl(writing, F_SETPIPE_SZ, 4096)
    port = free_port()
    command = ["--nodaemon", "--pidfile=", "queueber", f"--data-dir={tmp_path}/q", f"--listen=127.0.0.1:{port}"]
    server = subprocess.Popen([sys.executable, "-c", TWISTD, *command, "--log-level=debug"], stdout=writing)
    os.close(writing)
    try:
        until(lambda: connects(port))
        for _ in range(100):
            # More lines than fit into the pipe.
            assert connects(port)
        foreign("calls", port)

        server.send_signal(signal.SIGTERM)
        assert server.wait(TIMEOUT_SECONDS) == -signal.SIGTERM
    finally:
        server.kill()
        server.wait()
        os.close(reading)


def connects(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=120).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_terminal_that_is_closed_ends_the_server_in_order(tmp_path):
    master, slave = pty.openpty()
    command = ["--nodaemon", "--pidfile=", "queueber", f"--data-dir={tmp_path}/q", "--listen=127.0.0.1:0"]
    server = subprocess.Popen(
        [sys.executable, "-c", TWISTD, *command],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, 0x540E, 0),  # noqa: PLW1509  (TIOCSCTTY: the terminal is this session's)
    )
    os.close(slave)
    try:
        seen = b""
        while b"Listening on" not in seen:
            seen += os.read(master, 4096)
        os.close(master)

        assert server.wait(TIMEOUT_SECONDS) == -signal.SIGHUP
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize("runner", ["-c", "-m"])
def test_without_standard_streams_it_serves_and_stops(tmp_path, runner):
    what = (TWISTD, "--nodaemon", "--pidfile=") if runner == "-c" else ("twisted",)
    port = free_port()
    server = subprocess.Popen(
        [
            *("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, runner, *what, "queueber"),
            *(f"--data-dir={tmp_path}/q", f"--listen=127.0.0.1:{port}"),
        ]
    )
    try:
        until(lambda: connects(port))
        foreign("calls", port)
        server.send_signal(signal.SIGTERM)
        assert server.wait(TIMEOUT_SECONDS) == -signal.SIGTERM
    finally:
        server.kill()
        server.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone may make a namespace of processes")
def test_process_number_1_does_not_lose_a_stop_that_comes_before_it_has_a_handler(tmp_path):
    """The case of the image: the signal is blocked at first, and sent before Python has started."""
    shell = 'kill -TERM $$; exec "$@"'
    done = completed(
        [
            *("unshare", "--pid", "--fork", "--kill-child", "env", "--block-signal=TERM", "sh", "-c", shell, "sh"),
            *(sys.executable, "-m", "twisted", "queueber", f"--data-dir={tmp_path}/q", "--listen=127.0.0.1:0"),
        ]
    )
    if "unshare failed" in done.stderr:
        pytest.skip("no namespace can be made here")

    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr == "queueber: stopped by SIGTERM before it began; nothing was opened\n"
    assert not (tmp_path / "q").exists()


def test_process_number_1_ends_an_orderly_stop_with_0(tmp_path):
    """The signal that Twisted sends to its own process at the end has no effect on process number 1."""
    log = tmp_path / "log"
    with subprocess.Popen(
        [
            *("unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", TWISTD, "-n", "--pidfile="),
            *(f"--logfile={log}", "queueber", f"--data-dir={tmp_path}/q", "--listen=127.0.0.1:0"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    ) as unshare:
        for _ in range(1_200):
            if unshare.poll() is not None or (log.exists() and "Listening" in log.read_text()):
                break
            time.sleep(0.1)
        if unshare.poll() is not None:
            assert "unshare failed" in unshare.stderr.read()
            pytest.skip("no namespace can be made here")
        children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
        assert unshare.wait(120) == 0
    assert log.read_text().splitlines()[-1].endswith("Stopped; everything is on disk (SIGTERM)")


COMMANDS = [["-m", "queueber.cli", "--version"], ["-c", TWISTD, "-n", "--pidfile=", "queueber"]]


@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize("how", ["gone", "closed"])
def test_an_unusable_working_directory_is_reported_in_a_line(tmp_path, how, words):
    """The directory is deleted, or not readable.  Root is tested without its capabilities."""
    directory = tmp_path / how
    directory.mkdir()
    if "queueber" in words:
        words = [*words, "--listen=127.0.0.1:0", "--data-dir=q"]
    if how == "gone":
        enter = ["sh", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', str(directory)]
    else:
        if os.geteuid() != 0 or not shutil.which("setpriv"):
            pytest.skip("it takes root, and setpriv")
        os.chown(directory, 65534, 65534)
        directory.chmod(0o700)
        enter = [
            "sh",
            "-c",
            'cd "$0" && exec setpriv --bounding-set=-dac_override,-dac_read_search "$@"',
            str(directory),
        ]
    done = completed([*enter, sys.executable, *words], env={**os.environ, "PYTHONSAFEPATH": "1"})
    assert "Traceback" not in done.stdout + done.stderr
    if "queueber" not in words:
        assert (done.returncode, done.stderr) == (0, "")
    elif how == "gone":
        assert done.returncode == 64
        assert done.stderr.startswith("queueber: --data-dir q: the working directory cannot be used")
    else:
        assert done.returncode in {64, 74}
        assert "queueber" in done.stderr + done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone may change its root")
def test_in_a_chroot_it_serves_reloads_rotates_and_stops(background, tmp_path):
    """In the chroot there are no modules, no plugins and no other files."""
    jail = tmp_path / "jail"
    for name in ("dev", "etc", "data"):
        (jail / name).mkdir(parents=True)
    os.mknod(jail / "dev" / "null", 0o20666, Path("/dev/null").stat().st_rdev)
    (jail / "etc" / "passwd").write_text(f"q:x:{NO_USER}:{NO_USER}::/:/none\n")
    shutil.chown(jail / "data", NO_USER, NO_USER)
    port = free_port()
    (jail / "etc" / "q.toml").write_text(f'listen = "127.0.0.1:{port}"\nhttp = "127.0.0.1:0"\ndata-dir = "/data/q"\n')
    command = [
        "--chroot=jail",
        f"--uid={NO_USER}",
        "--logfile=jail/data/q.log",
        "queueber",
        "--config=jail/etc/q.toml",
    ]
    # The last one counts.
    started = background("--pidfile=/data/q.pid", *command, log="jail/data/q.log")

    assert (started.returncode, started.stderr) == (0, "")
    pid = int((jail / "data" / "q.pid").read_text())
    try:
        foreign("calls", port)
        os.kill(pid, signal.SIGHUP)
        until(lambda: "Reloaded: log level info" in started.log.read_text())
        os.kill(pid, signal.SIGUSR1)
        until(lambda: "Rotated: the log so far is /data/q.log.1" in started.log.read_text())
        os.kill(pid, signal.SIGTERM)
        until(lambda: not alive(pid))
    finally:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
    assert started.log.read_text().splitlines()[-1].endswith("Stopped; everything is on disk (SIGTERM)")
    assert not (jail / "data" / "q.pid").exists()

"""The service's part in what stock twistd does: the waiting parent, the pid file, wrong places."""

import os
import subprocess
import sys

import pytest

from queueber.server.app.daemonize import Launcher


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


def test_the_parent_hears_of_the_start_only_when_the_server_serves(pipe):
    reading, writing = pipe
    options = {"statusPipe": writing}
    launcher = Launcher(options)
    launcher.begin()
    # twistd, which would write to it now, does not find it.
    assert "statusPipe" not in options
    os.set_blocking(reading, False)
    with pytest.raises(BlockingIOError):
        os.read(reading, 100)

    launcher.started()
    launcher.failed("too late")

    assert os.read(reading, 100) == b"0"
    assert os.read(reading, 100) == b""


def test_the_parent_hears_why_there_is_no_start(pipe):
    reading, writing = pipe
    launcher = Launcher({"statusPipe": writing})
    launcher.begin()

    launcher.failed(f"Zoë's disk\nis full {'x' * 200}")

    told = os.read(reading, 1_000)
    assert told.startswith(b"1 Zo\\xeb's disk is full xxx")
    assert len(told) == 100


def test_a_parent_that_is_gone_is_no_error():
    reading, writing = os.pipe()
    launcher = Launcher({"statusPipe": writing})
    launcher.begin()
    os.close(reading)

    launcher.started()


def test_its_own_pid_file_is_removed_and_no_other(tmp_path):
    ours, other = tmp_path / "ours.pid", tmp_path / "other.pid"
    ours.write_text(f"{os.getpid()}\n")
    other.write_text("1")
    for path in (ours, other, tmp_path / "none"):
        Launcher({"pidfile": str(path)}).remove_pid_file()

    assert not ours.exists()
    assert other.exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"rundir": "/nowhere"}, "--rundir /nowhere: there is no such directory"),
        ({"pidfile": "/nowhere/q.pid"}, "--pidfile /nowhere/q.pid: the directory /nowhere is not there"),
        ({"chroot": "/nowhere"}, "--chroot /nowhere: there is no such directory"),
    ],
)
def test_what_twistd_would_fail_on_with_a_traceback_is_a_line(options, complaint):
    assert Launcher(options).complaints()[-1].startswith(complaint)


def test_what_it_can_use_is_not_complained_of(tmp_path):
    (tmp_path / "run").mkdir()
    assert (
        Launcher({"rundir": str(tmp_path / "run"), "pidfile": str(tmp_path / "q.pid"), "chroot": None}).complaints()
        == []
    )
    assert Launcher({"rundir": ".", "pidfile": "", "chroot": None}).complaints() == []


def test_the_parent_notices_a_child_that_ends_without_a_word():
    """As twistd does it: the parent reads from the pipe with its own writing end still open."""
    script = (
        "import os\nfrom queueber.server.app.daemonize import Launcher\n"
        "launcher = Launcher({'nodaemon': False}); launcher.expect_fork()\n"
        "reading, writing = os.pipe()\n"
        "print(os.read(reading, 100) if os.fork() else os.kill(os.getpid(), 9))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)

    assert done.stdout == "b''\n", done.stderr

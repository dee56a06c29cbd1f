"""The integration with twistd: the parent process that waits, the pid file, invalid paths."""

import os
import sys

import pytest

from queueber.server.app.daemonize import Launcher
from tests.support.processes import completed


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


def test_the_start_is_reported_to_the_parent_when_the_server_serves(pipe):
    reading, writing = pipe
    options = {"statusPipe": writing}
    launcher = Launcher(options)
    launcher.begin()
    # twistd, which would write to the pipe now, does not find it.
    assert "statusPipe" not in options
    os.set_blocking(reading, False)
    with pytest.raises(BlockingIOError):
        os.read(reading, 100)

    launcher.started()
    launcher.failed(74, "too late")

    assert os.read(reading, 100) == b"0"
    assert os.read(reading, 100) == b""


def test_a_failed_start_is_reported_to_the_parent_with_status_and_reason(pipe):
    reading, writing = pipe
    launcher = Launcher({"statusPipe": writing})
    launcher.begin()

    launcher.failed(74, f"Zoë's disk\nis full {'x' * 2_000}")

    report = os.read(reading, 2_000)
    assert report.startswith(b"74 Zo\\xeb's disk is full xxx")
    assert len(report) == 1_000


def test_a_killed_parent_is_not_an_error():
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
def test_an_invalid_path_is_reported_in_a_line(options, complaint):
    assert Launcher(options).complaints()[-1].startswith(complaint)


def test_valid_paths_are_not_reported(tmp_path):
    (tmp_path / "run").mkdir()
    assert (
        Launcher({"rundir": str(tmp_path / "run"), "pidfile": str(tmp_path / "q.pid"), "chroot": None}).complaints()
        == []
    )
    assert Launcher({"rundir": ".", "pidfile": "", "chroot": None}).complaints() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("child", "status", "printed"),
    [
        ("launcher.started()", 0, ""),
        ("launcher.failed(78, 'no\\nkey')", 78, "queueber: Cannot start: no key\n"),
        # twistd itself writes 1 for an exception.
        ("os.write(writing, b'1 ValueError')", 1, "queueber: Cannot start: ValueError\n"),
        (
            "os.kill(os.getpid(), 9)",
            1,
            "queueber: Cannot start: the server ended without a report; see its log\n",
        ),
    ],
)
def test_the_parent_exits_with_the_status_of_the_start(child, status, printed):
    """The parent of twistd waits with its own writing end of the pipe still open."""
    script = (
        "import os\nfrom queueber.server.app.daemonize import Launcher\n"
        "options = {'nodaemon': False}; launcher = Launcher(options); launcher.expect_fork()\n"
        "reading, writing = os.pipe()\n"
        "if os.fork(): os._exit(99)\n"
        f"options['statusPipe'] = writing; launcher.begin(); {child}\nos._exit(0)"
    )
    done = completed([sys.executable, "-c", script])

    assert (done.returncode, done.stderr) == (status, printed)

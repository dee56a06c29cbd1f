"""Maintenance of running servers: the control socket, backups under load, and a disk that fills up."""

import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from queueber.errors import Overloaded
from queueber.store import verify
from queueber.sync import connect
from tests.process.conftest import HERE, Server
from tests.process.pseudo_terminal import CTRL_C, CTRL_D, PseudoTerminal
from tests.support.processes import completed, run_command

pytestmark = pytest.mark.slow

MIB = 1 << 20


def queueber(*arguments):
    done = run_command(*arguments)
    return done.returncode, done.stdout + done.stderr


def filler(step, port):
    done = completed([sys.executable, str(HERE / "filler.py"), step, f"127.0.0.1:{port}"])
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def content_of(path):
    """Return every file except RocksDB's own log, which changes at any time."""
    return {
        str(file.relative_to(path)): (file.stat().st_mtime_ns, file.stat().st_size, file.read_bytes())
        for file in path.rglob("*")
        if file.is_file() and file.name != "LOG"
    }


@pytest.fixture
def small_disk(tmp_path):
    """Return a directory on a file system of 400 MiB."""
    with disk_of("400m", tmp_path / "disk") as path:
        yield path


@contextmanager
def disk_of(size, path):
    """Mount a file system of *size* at *path*."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield path
    finally:
        # Lazily, because a server of a failed test may still use it.
        subprocess.run(["umount", "-l", str(path)], check=True)


def free(path):
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def test_the_socket_is_its_owner_s_alone_and_goes_with_the_server(start):
    server = start()
    socket = server.control()
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    status, said = queueber("stats", "-d", server.data_dir)
    assert (status, said.splitlines()[0].split()[0]) == (0, "version")
    assert queueber("check", "-d", server.data_dir)[0] == 0
    server.stop()
    assert not socket.exists()


def test_a_stale_control_socket_is_replaced(start):
    server = start()
    server.control()
    server.kill()
    assert (server.data_dir / "control.sock").is_socket()
    status, said = queueber("stats", "-d", server.data_dir)
    assert (status, said.count("\n")) == (1, 1)
    again = start()
    again.control()
    assert queueber("stats", "-d", server.data_dir)[0] == 0
    again.stop()
    wiped = start("--wipe")
    wiped.control()


def test_a_path_that_is_too_long_for_a_socket_costs_the_socket_only(start, tmp_path):
    data_dir = tmp_path / ("x" * 120)
    server = start(data_dir=data_dir)
    server.line("No control socket, and so no backup of the running server: .* are possible")
    assert server.port
    server.stop()
    assert verify(data_dir).findings == []


def test_a_backup_under_traffic_is_whole_and_a_server_goes_on_from_it(start, tmp_path):
    server = start()
    peer = subprocess.Popen(
        [sys.executable, str(HERE / "filler.py"), "traffic", f"127.0.0.1:{server.port}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    peer.stdout.readline()
    for number in range(3):
        assert queueber("backup", tmp_path / f"backup{number}", "-d", server.data_dir)[0] == 0
    output, _ = peer.communicate("")
    done = json.loads(output)
    assert done["added"] > done["removed"] > 0
    found = [verify(tmp_path / f"backup{number}") for number in range(3)]
    assert [each.findings for each in found] == [[], [], []]
    assert 0 < found[0].items < found[2].items <= done["added"] - done["removed"] + 3

    status, said = queueber("restore", tmp_path / "backup2", tmp_path / "restored", "--yes")
    assert status == 0, said
    restored = start(data_dir=tmp_path / "restored")
    assert restored.line(r"Data in .*: ([\d,]+) items?")[1] == f"{found[2].items:,}"


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="it takes root, and unshare")
def test_a_backup_that_would_be_out_of_sight_is_not_made(start, tmp_path):
    """The case of PrivateTmp=yes, but here the command has the private directory."""
    server = start()
    assert server.port
    (tmp_path / "private").mkdir()
    backup = shlex.join(["-m", "queueber.cli", "backup", "-d", str(server.data_dir), f"{tmp_path}/private/b"])
    done = completed(
        [
            *("unshare", "--mount", "sh", "-c"),
            f"mount --make-rprivate / && mount -t tmpfs tmpfs {tmp_path}/private && exec {sys.executable} {backup}",
        ]
    )
    assert done.returncode == 74, done.stderr
    assert re.fullmatch(
        "queueber: .*/private/b is another directory for the server, .*: nothing was done\n", done.stderr
    )
    assert list((tmp_path / "private").iterdir()) == []


def test_looking_into_a_running_server_s_directory_changes_nothing_in_it(start):
    server = start()
    status, _ = queueber("--addr", f"127.0.0.1:{server.port}", "add", "one", "two")
    assert status == 0
    # Files that the server itself writes meanwhile are ignored.
    server.suspend()
    before = content_of(server.data_dir)
    status, said = queueber("inspect", "-d", server.data_dir)
    assert status == 0
    assert "a server runs on it" in said
    assert 'queue "default": 2 items, 6 bytes, 2 ready' in said
    assert queueber("inspect", "-d", server.data_dir, "--queue", "default", "--contents")[1].count(": one\n") == 1
    assert content_of(server.data_dir) == before
    server.process.send_signal(signal.SIGCONT)
    status, said = queueber("verify", server.data_dir)
    assert status == 74
    assert f"another server holds it (process {server.process.pid})" in said


@contextmanager
def queue_of(server):
    with connect(f"queueber://127.0.0.1:{server.port}/default") as client:
        yield client.queue()


@pytest.fixture(scope="module")
def backed_up(tmp_path_factory):
    """Return a folder with the data of a server that has ended, and a backup of it with two items."""
    folder = tmp_path_factory.mktemp("backed-up")
    with Server(folder / "data") as server:
        with queue_of(server) as queue:
            queue.add(b"one", b"two")
        server.control()
        assert queueber("backup", folder / "backup", "-d", server.data_dir)[0] == 0
        server.stop()
    return folder


@pytest.fixture
def backup(backed_up, tmp_path):
    """Return a backup with two items, next to the data of its server."""
    shutil.copytree(backed_up, tmp_path, dirs_exist_ok=True)
    return tmp_path / "backup"


@pytest.fixture
def damaged(start, tmp_path):
    """Return the directory of a killed server, with one bit changed in the middle of its log."""
    server = start()
    with queue_of(server) as queue:
        for _ in range(3):
            queue.add(b"x" * 10_000)
    server.kill()
    (log,) = [file for file in (server.data_dir / "db").glob("*.log") if file.stat().st_size]
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 1
    log.write_bytes(content)
    return server.data_dir


QUESTION = "[y/N]: "
NO = pytest.mark.parametrize("no", [b"n\r", b"\r", b"maybe\rn\r", CTRL_C, CTRL_D])


def ending(no):
    """`n` is an answer; Ctrl-C and Ctrl-D are not."""
    return 130 if no in (CTRL_C, CTRL_D) else 1


@NO
def test_restoring_asks_on_a_terminal_and_without_a_yes_does_nothing(backup, tmp_path, no):
    before = content_of(tmp_path)
    terminal = PseudoTerminal("restore", backup, tmp_path / "data", "--replace")
    asked = terminal.read(QUESTION)
    assert "2 items in 1 queue as of " in asked
    assert "Items that were removed since then will be there again" in asked
    terminal.press(no)
    status, shown = terminal.end()
    assert status == ending(no)
    assert "queueber: nothing was done" in shown
    assert "restored to" not in shown
    assert "Traceback" not in shown
    assert content_of(tmp_path) == before


def test_restoring_goes_on_after_a_yes_on_a_terminal(backup, tmp_path, start):
    terminal = PseudoTerminal("restore", backup, tmp_path / "data", "--replace")
    terminal.read(QUESTION)
    assert not [*tmp_path.glob("data.replaced-*")]
    terminal.type("y")
    status, shown = terminal.end()
    assert (status, shown.splitlines()[-1]) == (0, f"restored to {tmp_path / 'data'}")
    start(data_dir=tmp_path / "data").line("Data in .*: 2 items in 1 queue")


# All answers of one question are those of the other.
@pytest.mark.parametrize("no", [b"n\r", CTRL_C])
def test_recovering_shows_what_is_lost_asks_and_without_a_yes_leaves_everything(damaged, tmp_path, no):
    before = content_of(tmp_path)
    terminal = PseudoTerminal("recover", damaged)
    asked = terminal.read(QUESTION)
    assert (
        asked.index("damage: ")
        < asked.index("left out of the log: ")
        < asked.index("what is left: 1 item in 1 queue and")
    )
    terminal.press(no)
    status, shown = terminal.end()
    assert status == ending(no)
    assert "queueber: nothing was done" in shown
    assert content_of(tmp_path) == before


def test_while_recovery_waits_for_an_answer_no_server_can_start_and_afterwards_one_can(damaged, start):
    terminal = PseudoTerminal("recover", damaged)
    terminal.read(QUESTION)
    early = start()
    assert early.wait() == 74
    early.line("Cannot start: .*/data: a backup, verify or recover holds it")
    terminal.type("y")
    assert terminal.end()[0] == 0
    (kept,) = damaged.parent.glob("data.damaged-*")
    assert (kept / "db").is_dir()
    start().line("Data in .*: 1 item in 1 queue")


def test_adds_are_refused_before_the_disk_is_full_and_come_back_with_room(start, small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(100 * MIB))
    server = start("--free-space-reserve=160MiB", data_dir=small_disk / "data")
    filled = filler("fill", server.port)
    assert filled["error"] == "Overloaded"
    assert "free_space_reserve" in filled["why"]
    assert filled["acknowledged"]
    assert free(small_disk) > 80 * MIB
    server.line("Refusing adds: ")
    _, said = queueber("stats", "-d", server.data_dir)
    # Adds may still be refused, depending on what was flushed.
    assert "refusing_adds    " in said
    assert "limit free_space_reserve was reached" in said
    # All other calls are served.
    assert filler("drain", server.port) == {"removed": len(filled["acknowledged"])}
    # The space of removed items is released, and adds are accepted again.
    assert filler("one", server.port)["attempts"]
    server.line("Taking adds again: ")
    # They are also accepted when other files are deleted.
    assert filler("fill", server.port)["error"] == "Overloaded"
    ballast.unlink()
    assert filler("one", server.port)["attempts"]
    server.stop()
    assert verify(server.data_dir).findings == []


def test_a_disk_that_others_have_filled_leaves_a_server_that_goes_on(start, tmp_path):
    """The write buffers do not fit on the disk any more.  Flushing them would end the server."""
    with disk_of("64m", tmp_path / "disk") as disk:
        server = start(data_dir=disk / "data")
        with queue_of(server) as queue:
            for _ in range(8):
                queue.add(os.urandom(MIB))
            (disk / "ballast").write_bytes(bytes(free(disk) - 3 * MIB))
            server.line("The space of removed items cannot be reclaimed: ")
            for _ in range(8):
                assert queue.poll(1, lease_ms=600_000, wait_ms=0).items
            with pytest.raises(Overloaded):
                queue.add(b"one")
        (disk / "ballast").unlink()
        server.line("Taking adds again: ")
        assert server.stop() in (0, -signal.SIGTERM)
        assert verify(server.data_dir).findings == []


def test_a_disk_that_is_full_ends_the_server_and_loses_nothing(start, small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(250 * MIB))
    server = start("--free-space-reserve=0", data_dir=small_disk / "data")
    filled = filler("fill", server.port)
    assert filled["error"] == "OutcomeUnknown"
    assert server.wait() == 74
    server.line("A commit failed, so the server ends: .*No space left on device")
    ballast.unlink()
    again = start("--free-space-reserve=0", data_dir=server.data_dir)
    there = filler("count", again.port)["numbers"]
    assert set(filled["acknowledged"]) <= set(there)
    assert len(set(there)) == len(there)
    again.stop()
    assert verify(Path(server.data_dir)).findings == []

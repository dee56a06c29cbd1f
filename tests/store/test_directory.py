"""Whose a data directory is, who holds it, and what state it is in."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from queueber.errors import StorageError
from queueber.store import open_store, wipe
from queueber.store.datadir import directory
from queueber.store.datadir.directory import lock_directory, locked_shared


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data"


def mode(path) -> int:
    return path.stat().st_mode & 0o777


def make_ready(path) -> None:
    """What a directory looks like once it has a database."""
    locked = lock_directory(path)
    locked.begin()
    locked.database.mkdir()
    (locked.database / "CURRENT").touch()
    locked.finish()
    locked.release()


def refused(path, why: str):
    return pytest.raises(StorageError, match=f"^cannot use data directory {path}: [^\n]*{why}[^\n]*$")


def test_it_is_made_for_its_owner_only(path):
    before = os.umask(0)
    try:
        locked = lock_directory(path)
    finally:
        os.umask(before)
    assert mode(path) == 0o700
    assert not locked.ready
    locked.release()


def test_what_others_could_read_is_closed_to_them(path):
    path.mkdir(mode=0o755)
    path.chmod(0o755)
    lock_directory(path).release()
    assert mode(path) == 0o700


@pytest.mark.parametrize("writable", [0o770, 0o702, 0o777])
def test_what_others_could_write_to_is_refused(path, writable):
    path.mkdir()
    path.chmod(writable)
    with refused(path, rf"others may write to it \(mode 0{writable:o}\)"):
        lock_directory(path)
    assert mode(path) == writable


def test_what_belongs_to_somebody_else_is_refused(path, monkeypatch):
    path.mkdir()
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with refused(path, f"it belongs to user {owner}, and this server runs as user {owner + 1}"):
        lock_directory(path)


def test_a_symbolic_link_is_refused(path, tmp_path):
    make_ready(tmp_path / "real")
    path.symlink_to(tmp_path / "real")
    for use in (lock_directory, wipe):
        with refused(path, "it is a symbolic link"):
            use(path)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for use in (lock_directory, wipe):
        with refused(tmp_path / "dangling", "it is a symbolic link"):
            use(tmp_path / "dangling")


def test_a_file_is_refused(path):
    path.touch()
    with refused(path, "it is not a directory"):
        lock_directory(path)


def test_without_a_parent_it_is_not_made(path):
    """A parent that is missing is more often a mistake, or a file system that is not mounted, than a wish."""
    with refused(path / "deeper", "it cannot be created: No such file or directory"):
        lock_directory(path / "deeper")


@pytest.mark.parametrize("harmless", [[], ["lock"], ["lost+found"]])
def test_an_empty_directory_is_taken(path, harmless):
    path.mkdir()
    for name in harmless:
        (path / name).touch()
    locked = lock_directory(path)
    assert not locked.ready
    locked.release()


@pytest.mark.parametrize("name", ["letter.txt", "db", "control.sock", ".git"])
def test_a_directory_with_anything_else_is_refused_and_left_alone(path, name):
    path.mkdir(mode=0o755)
    path.chmod(0o755)
    (path / name).touch()
    with refused(path, f"it is not Queueber's, and not empty: it holds '{name}'"):
        lock_directory(path)
    assert [entry.name for entry in path.iterdir()] == [name]
    assert mode(path) == 0o755


def test_a_database_that_is_missing_is_not_replaced(path):
    make_ready(path)
    (path / "db" / "MANIFEST-000001").touch()
    (path / "db" / "CURRENT").unlink()
    with refused(path, "its database is damaged: 'db/CURRENT' is missing and other files are there; restore a backup"):
        lock_directory(path)
    (path / "db" / "MANIFEST-000001").unlink()
    with refused(path, "its database, 'db', is missing; is a file system not mounted"):
        lock_directory(path)
    (path / "db").rmdir()
    with refused(path, "its database, 'db', is missing"):
        lock_directory(path)


def test_a_database_elsewhere_is_refused(path, tmp_path):
    make_ready(path)
    (path / "db").rename(tmp_path / "elsewhere")
    (path / "db").symlink_to(tmp_path / "elsewhere")
    with refused(path, "'db', is missing"):
        lock_directory(path)
    with refused(path, "'db' in it is not Queueber's"):
        wipe(path)


def test_one_that_was_not_finished_is_begun_again(path):
    """Whatever was made before the marker changed was never used."""
    locked = lock_directory(path)
    locked.begin()
    (path / "db").mkdir()
    (path / "db" / "CURRENT").write_text("half")
    (path / "synced").touch()
    locked.release()
    locked = lock_directory(path)
    assert not locked.ready
    locked.begin()
    assert sorted(entry.name for entry in path.iterdir()) == ["QUEUEBER.new", "lock"]
    locked.release()


def test_one_that_was_finished_is_ready(path):
    make_ready(path)
    locked = lock_directory(path)
    assert locked.ready
    assert (locked.database, locked.synced) == (path / "db", path / "synced")
    locked.release()


@pytest.fixture
def synced(monkeypatch):
    """What is made durable, in order."""
    paths, really = [], directory.sync_path

    def noted(path):
        paths.append(path)
        really(path)

    monkeypatch.setattr(directory, "sync_path", noted)
    return paths


def test_what_a_server_left_is_made_durable_by_the_next_one(path, synced):
    """One that was killed between a new name and its sync leaves the name in memory only: a power cut takes it back."""
    open_store(path).close()
    synced.clear()
    store = open_store(path)
    assert synced[:2] == [path.parent, path]
    store.close()


@pytest.mark.parametrize("state", ["not there", "empty", "creating"])
def test_so_is_the_name_of_a_directory_that_is_not_ready_yet(path, synced, state):
    """It may have been made by one that was killed before that was on disk."""
    if state != "not there":
        path.mkdir(mode=0o700)
    if state == "creating":
        (path / directory.CREATING).touch()
    locked = lock_directory(path)
    assert synced == [path.parent]
    locked.release()


def test_a_parent_that_cannot_be_read_is_not_ours_to_sync(path, monkeypatch):
    make_ready(path)
    refuse_to_sync(path.parent, PermissionError(errno.EACCES, "Permission denied"), monkeypatch)
    lock_directory(path).release()


@pytest.mark.parametrize(
    ("there", "error"),
    [(False, PermissionError(errno.EACCES, "Permission denied")), (True, OSError(errno.EIO, "Input/output error"))],
)
def test_a_name_that_cannot_be_made_durable_is_refused(path, monkeypatch, there, error):
    if there:
        make_ready(path)
    refuse_to_sync(path.parent, error, monkeypatch)
    with pytest.raises(StorageError, match=f"{path}: the directory above it cannot be synced: {error.strerror}"):
        lock_directory(path)


def refuse_to_sync(refused, error, monkeypatch):
    really = directory.sync_path

    def sync(path):
        if path == refused:
            raise error
        really(path)

    monkeypatch.setattr(directory, "sync_path", sync)


def test_beginning_again_takes_back_readiness_before_anything_is_removed(path, monkeypatch):
    make_ready(path)
    locked = lock_directory(path)
    monkeypatch.setattr("shutil.rmtree", lambda folder: pytest.fail("power cut"))
    with pytest.raises(pytest.fail.Exception):
        locked.begin()
    locked.release()
    locked = lock_directory(path)
    assert not locked.ready
    locked.release()


@pytest.mark.parametrize(("owner", "call"), [(os, "ftruncate"), (os, "pwrite"), (directory.fcntl, "flock")])
def test_a_call_that_names_no_file_is_told_with_the_one_it_was_about(path, monkeypatch, owner, call):
    """On a full disk, or one that lends no locks; the error of a call on a descriptor names none."""
    make_ready(path)

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(owner, call, fail)
        with refused(path, f"{path / 'lock'}: No space left on device"):
            lock_directory(path)
    lock_directory(path).release()


def test_a_second_holder_is_told_about_the_first(path):
    locked = lock_directory(path)
    for use in (lock_directory, wipe):
        with refused(path, rf"another server holds it \(process {os.getpid()}\)"):
            use(path)
    (path / "lock").write_text("")
    with refused(path, r"another server holds it \(process unknown\)"):
        lock_directory(path)
    locked.release()
    lock_directory(path).release()


def test_whoever_looks_after_it_is_not_taken_for_the_server_before(path):
    make_ready(path)
    with locked_shared(path), refused(path, "a backup, verify or recover holds it"):
        lock_directory(path)
    lock_directory(path).release()


@pytest.mark.slow
def test_it_is_held_until_the_process_ends_however_it_ends(path):
    script = (
        "import sys; from pathlib import Path; from queueber.store.datadir.directory import lock_directory\n"
        "locked = lock_directory(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with refused(path, rf"another server holds it \(process {other.pid}\)"):
            lock_directory(path)
        other.send_signal(signal.SIGKILL)
        other.wait()
    lock_directory(path).release()


def test_what_changed_while_waiting_for_the_lock_is_looked_at_again(path, monkeypatch):
    path.mkdir()
    flock = fcntl.flock

    def somebody_was_faster(descriptor, operation):
        (path / "letter.txt").touch()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", somebody_was_faster)
    with refused(path, "it holds 'letter.txt'"):
        lock_directory(path)
    monkeypatch.undo()
    (path / "letter.txt").unlink()
    lock_directory(path).release()


def test_what_the_system_refuses_is_said(path):
    path.mkdir()
    (path / "lock").symlink_to("elsewhere")
    with refused(path, "lock: Too many levels of symbolic links"):
        lock_directory(path)


def test_wiping_leaves_an_empty_directory(path):
    make_ready(path)
    (path / "db" / "000001.sst").touch()
    (path / "synced").touch()
    (path / "control.sock").touch()
    (path / "backup.new").mkdir()
    (path / "backup.new" / "000001.sst").touch()
    wipe(path)
    assert [entry.name for entry in path.iterdir()] == ["lock"]
    wipe(path)
    locked = lock_directory(path)
    assert not locked.ready
    locked.release()


def test_wiping_what_is_not_there_makes_nothing(path):
    wipe(path)
    assert not path.exists()


def test_wiping_is_the_way_out_when_the_database_is_gone(path):
    make_ready(path)
    (path / "db" / "CURRENT").unlink()
    wipe(path)
    lock_directory(path).release()


def test_wiping_spares_what_is_not_ours(path):
    make_ready(path)
    (path / "letter.txt").touch()
    with refused(path, "it will not be wiped: 'letter.txt' in it is not Queueber's"):
        wipe(path)
    assert (path / "db" / "CURRENT").exists()
    assert (path / "QUEUEBER").exists()


def test_wiping_needs_the_mark(path):
    path.mkdir()
    (path / "db").mkdir()
    with refused(path, "it is not marked as Queueber's, and holds 'db'"):
        wipe(path)
    assert (path / "db").exists()


def test_the_root_of_a_file_system_is_wiped_but_for_what_that_put_there(path):
    make_ready(path)
    (path / "lost+found").mkdir()
    wipe(path)
    assert sorted(entry.name for entry in path.iterdir()) == ["lock", "lost+found"]

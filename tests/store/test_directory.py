"""The data directory: its owner, its lock, and its state."""

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
    """Make *path* a READY directory."""
    locked = lock_directory(path)
    locked.begin()
    locked.database.mkdir()
    (locked.database / "CURRENT").touch()
    locked.finish()
    locked.release()


def refused(path, why: str):
    return pytest.raises(StorageError, match=f"^cannot use data directory {path}: [^\n]*{why}[^\n]*$")


def test_a_new_directory_is_private(path):
    before = os.umask(0)
    try:
        locked = lock_directory(path)
    finally:
        os.umask(before)
    assert mode(path) == 0o700
    assert not locked.ready
    locked.release()


def test_a_directory_that_others_can_read_is_made_private(path):
    path.mkdir(mode=0o755)
    path.chmod(0o755)
    lock_directory(path).release()
    assert mode(path) == 0o700


@pytest.mark.parametrize("writable", [0o770, 0o702, 0o777])
def test_a_directory_that_others_can_write_to_is_refused(path, writable):
    path.mkdir()
    path.chmod(writable)
    with refused(path, rf"others may write to it \(mode 0{writable:o}\)"):
        lock_directory(path)
    assert mode(path) == writable


def test_a_directory_of_another_user_is_refused(path, monkeypatch):
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


def test_a_missing_parent_is_not_created(path):
    """A missing parent is usually a mistake, or a file system that is not mounted."""
    with refused(path / "deeper", "it cannot be created: No such file or directory"):
        lock_directory(path / "deeper")


@pytest.mark.parametrize("harmless", [[], ["lock"], ["lost+found"]])
def test_an_empty_directory_is_accepted(path, harmless):
    path.mkdir()
    for name in harmless:
        (path / name).touch()
    locked = lock_directory(path)
    assert not locked.ready
    locked.release()


@pytest.mark.parametrize("name", ["letter.txt", "db", "control.sock", ".git"])
def test_a_foreign_directory_is_refused_and_not_changed(path, name):
    path.mkdir(mode=0o755)
    path.chmod(0o755)
    (path / name).touch()
    with refused(path, f"it is not Queueber's, and not empty: it holds '{name}'"):
        lock_directory(path)
    assert [entry.name for entry in path.iterdir()] == [name]
    assert mode(path) == 0o755


def test_a_missing_database_is_not_replaced(path):
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


def test_a_symbolically_linked_database_is_refused(path, tmp_path):
    make_ready(path)
    (path / "db").rename(tmp_path / "elsewhere")
    (path / "db").symlink_to(tmp_path / "elsewhere")
    with refused(path, "'db', is missing"):
        lock_directory(path)
    with refused(path, "'db' in it is not Queueber's"):
        wipe(path)


def test_an_unfinished_directory_is_begun_again(path):
    """Files from before the marker changed were never used."""
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


def test_a_finished_directory_is_ready(path):
    make_ready(path)
    locked = lock_directory(path)
    assert locked.ready
    assert (locked.database, locked.synced) == (path / "db", path / "synced")
    locked.release()


@pytest.fixture
def synced(monkeypatch):
    """The paths that are made durable, in order."""
    paths, really = [], directory.sync_path

    def noted(path):
        paths.append(path)
        really(path)

    monkeypatch.setattr(directory, "sync_path", noted)
    return paths


def test_the_state_that_a_server_left_is_made_durable_by_the_next(path, synced):
    """A server that was killed before it synced a new name leaves it in memory only: a power cut reverts it."""
    open_store(path).close()
    synced.clear()
    store = open_store(path)
    assert synced[:2] == [path.parent, path]
    store.close()


@pytest.mark.parametrize("state", ["not there", "empty", "creating"])
def test_the_name_of_a_directory_that_is_not_ready_is_made_durable(path, synced, state):
    """A server may have created it, and been killed before the name was on disk."""
    if state != "not there":
        path.mkdir(mode=0o700)
    if state == "creating":
        (path / directory.CREATING).touch()
    locked = lock_directory(path)
    assert synced == [path.parent]
    locked.release()


def test_a_parent_that_cannot_be_read_need_not_be_synced(path, monkeypatch):
    make_ready(path)
    refuse_to_sync(path.parent, PermissionError(errno.EACCES, "Permission denied"), monkeypatch)
    lock_directory(path).release()


@pytest.mark.parametrize(
    ("there", "error"),
    [(False, PermissionError(errno.EACCES, "Permission denied")), (True, OSError(errno.EIO, "Input/output error"))],
)
def test_a_directory_whose_name_cannot_be_made_durable_is_refused(path, monkeypatch, there, error):
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


def test_beginning_again_ends_ready_before_anything_is_removed(path, monkeypatch):
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
def test_an_error_on_the_lock_file_names_the_file(path, monkeypatch, owner, call):
    """On a full disk, or one without locks.  The error of a call on a descriptor has no file name."""
    make_ready(path)

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(owner, call, fail)
        with refused(path, f"{path / 'lock'}: No space left on device"):
            lock_directory(path)
    lock_directory(path).release()


def test_the_error_for_a_locked_directory_names_the_process(path):
    locked = lock_directory(path)
    for use in (lock_directory, wipe):
        with refused(path, rf"another server holds it \(process {os.getpid()}\)"):
            use(path)
    (path / "lock").write_text("")
    with refused(path, r"another server holds it \(process unknown\)"):
        lock_directory(path)
    locked.release()
    lock_directory(path).release()


def test_a_shared_lock_is_not_attributed_to_the_last_server(path):
    make_ready(path)
    with locked_shared(path), refused(path, "a backup, verify or recover holds it"):
        lock_directory(path)
    lock_directory(path).release()


@pytest.mark.slow
def test_a_lock_ends_with_its_process_even_if_killed(path):
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


def test_the_content_is_checked_again_after_locking(path, monkeypatch):
    path.mkdir()
    flock = fcntl.flock

    def flock_after_another(descriptor, operation):
        (path / "letter.txt").touch()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_after_another)
    with refused(path, "it holds 'letter.txt'"):
        lock_directory(path)
    monkeypatch.undo()
    (path / "letter.txt").unlink()
    lock_directory(path).release()


def test_a_lock_file_that_cannot_be_opened_is_reported(path):
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


def test_wiping_a_missing_directory_creates_nothing(path):
    wipe(path)
    assert not path.exists()


def test_a_directory_without_its_database_can_be_wiped(path):
    make_ready(path)
    (path / "db" / "CURRENT").unlink()
    wipe(path)
    lock_directory(path).release()


def test_a_directory_with_foreign_files_is_not_wiped(path):
    make_ready(path)
    (path / "letter.txt").touch()
    with refused(path, "it will not be wiped: 'letter.txt' in it is not Queueber's"):
        wipe(path)
    assert (path / "db" / "CURRENT").exists()
    assert (path / "QUEUEBER").exists()


def test_a_directory_without_the_marker_is_not_wiped(path):
    path.mkdir()
    (path / "db").mkdir()
    with refused(path, "it is not marked as Queueber's, and holds 'db'"):
        wipe(path)
    assert (path / "db").exists()


def test_wiping_the_root_of_a_file_system_leaves_lost_and_found(path):
    make_ready(path)
    (path / "lost+found").mkdir()
    wipe(path)
    assert sorted(entry.name for entry in path.iterdir()) == ["lock", "lost+found"]

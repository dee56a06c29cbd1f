"""Copies of data directories: consistent, complete, and marked as ready only at the end."""

import os
import resource
import shutil
import stat
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from queueber.broker.model import LOWEST, QueueNumber, QueueRecord
from queueber.broker.storage import DeleteItem, PutItems, PutQueue
from queueber.errors import StorageError
from queueber.store import Durability, open_store
from queueber.store.maintenance.backup import copy_directory
from queueber.store.maintenance.verification import verify
from queueber.store.tuning import FLUSH_FILES
from tests.support.waiting import until

MAIL = QueueNumber(1)
ELSEWHERE = Path("/dev/shm")
"""For RocksDB's background work: long, because only a wait without an end is an error."""


@pytest.fixture
def target(tmp_path):
    return tmp_path / "backup"


@pytest.fixture
def other_file_system(tmp_path, tmp_path_factory):
    """A directory on another file system, to which hard links are impossible."""
    device = tmp_path.stat().st_dev
    places = [each for each in (ELSEWHERE, tmp_path_factory.getbasetemp()) if each.is_dir()]
    elsewhere = next((each for each in places if each.stat().st_dev != device), None)
    if elsewhere is None:
        pytest.skip("there is only one file system")
    path = elsewhere / f"queueber-test-{os.getpid()}"
    path.mkdir()
    yield path
    for root, directories, files in os.walk(path, topdown=False):
        for name in files:
            (Path(root) / name).unlink()
        for name in directories:
            (Path(root) / name).rmdir()
    path.rmdir()


def contents(store):
    found = store.recover()
    scans = [store.scan(record.number, LOWEST, items_max=99, bytes_max=10**9).items for record in found.queues]
    items = [(item.key, item.contents) for items in scans for item in items]
    return found.queues, found.leases, found.mark, items


def test_a_backup_is_a_data_directory_with_everything_in_it(busy, target):
    expected = contents(busy)
    busy.backup(target)
    assert verify(target).findings == []
    store = open_store(target)
    assert (contents(store), store.clean_shutdown) == (expected, False)
    store.close()


def test_a_backup_needs_space_for_the_write_buffers(busy, target, monkeypatch):
    """RocksDB would refuse all later writes, and the server would end."""
    whole = shutil.disk_usage(target.parent)
    monkeypatch.setattr("shutil.disk_usage", lambda path: whole._replace(free=1))
    with pytest.raises(StorageError, match=r"has 1 byte free, and a backup begins by writing the .* make room first"):
        busy.backup(target)
    assert not target.exists()
    monkeypatch.undo()
    busy.backup(target)


def test_a_backup_needs_inodes(busy, target, monkeypatch):
    whole = os.statvfs(target.parent)
    few = SimpleNamespace(
        f_files=1_000,
        f_favail=FLUSH_FILES - 1,
        **{name: getattr(whole, name) for name in ("f_bavail", "f_bfree", "f_blocks", "f_frsize")},
    )
    monkeypatch.setattr("queueber.store.rocks.os.statvfs", lambda path: few)
    with pytest.raises(StorageError, match=f"has {FLUSH_FILES - 1} inodes free, and a backup begins by writing up to"):
        busy.backup(target)
    few.f_files = 0  # as of a file system that creates inodes as needed
    busy.backup(target)


@pytest.mark.parametrize("use", [lambda store, target: store.backup(target), lambda store, _: store.reclaim_space()])
def test_a_flush_needs_spare_descriptors(busy, target, make, use):
    """After a flush that fails for lack of them RocksDB refuses all writes, and the server ends."""
    with ExitStack() as taken:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        highest = os.open("/", os.O_RDONLY)
        taken.callback(os.close, highest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 2, hard))
        with suppress(OSError):
            while True:
                taken.callback(os.close, os.open("/", os.O_RDONLY))
        with pytest.raises(StorageError, match=r"needs 8 descriptors: .*: Too many open files; try later"):
            use(busy, target)
    busy.commit([PutItems(MAIL, [make.item(78)])], make.mark)
    use(busy, target)


def test_a_backup_is_readable_by_its_owner_only_and_marked_as_ready(busy, target):
    busy.backup(target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert {path.name for path in target.iterdir()} == {"QUEUEBER", "lock", "db", "synced"}


def test_later_commits_do_not_change_a_backup(busy, target, make):
    busy.backup(target)
    busy.commit([PutItems(MAIL, [make.item(77)])], make.mark)
    store = open_store(target)
    assert 77 not in [item.key.due for item in store.scan(MAIL, LOWEST, items_max=99, bytes_max=10**9).items]
    store.close()


def test_a_backup_on_another_file_system_is_a_copy(busy, other_file_system, tmp_path):
    reports = []
    busy.backup(other_file_system / "backup", lambda done, total: reports.append((done, total)))
    assert verify(other_file_system / "backup").findings == []
    assert reports[0][0] == 0
    assert reports[-1][0] == reports[-1][1] > 0
    assert not (tmp_path / "data" / "backup.new").exists()


def test_the_remains_of_a_killed_backup_are_removed_at_the_next_start(data):
    (data / "backup.new").mkdir()
    (data / "backup.new" / "000001.sst").touch()
    open_store(data).close()
    assert not (data / "backup.new").exists()


@pytest.mark.slow
def test_a_backup_during_commits_is_a_consistent_snapshot(tmp_path, make):
    """Each commit adds an item and counts it: every backup must be consistent, and reach its noted sequence number."""
    store = open_store(tmp_path / "data", durability=Durability.OS)
    stop, committed = threading.Event(), []

    def traffic() -> None:
        added = 0
        while not stop.is_set():
            added += 1
            writes = [
                PutItems(MAIL, [make.item(added, b"x" * 100)]),
                PutQueue(QueueRecord(MAIL, "mail", added, 0, LOWEST, 100 * added)),
            ]
            store.commit(writes, make.mark)
            committed.append(added)

    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        while not committed:
            pass
        floors = []
        for number in range(5):
            floors.append(committed[-1])
            store.backup(tmp_path / f"backup{number}")
    finally:
        stop.set()
        thread.join()
        store.close()
    for number, least in enumerate(floors):
        found = verify(tmp_path / f"backup{number}")
        assert found.findings == []
        assert found.items >= least


@pytest.mark.parametrize("name", ["data", "data/db", "data/backup"])
def test_a_backup_within_its_own_directory_is_refused(busy, tmp_path, name):
    with pytest.raises(StorageError, match="must not be inside the directory"):
        busy.backup(tmp_path / name)


def test_a_target_that_is_not_empty_is_refused_and_not_changed(busy, target):
    target.mkdir()
    (target / "photo").touch()
    with pytest.raises(StorageError, match="it must be empty, and holds 'photo'"):
        busy.backup(target)
    assert [path.name for path in target.iterdir()] == ["photo"]


def test_an_empty_target_is_used_and_made_private(busy, target):
    target.mkdir(mode=0o755)
    busy.backup(target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o700


def test_a_store_without_a_log_is_not_backed_up(tmp_path, target):
    store = open_store(tmp_path / "data", durability=Durability.NONE)
    with pytest.raises(StorageError, match="a running server with durability none cannot be backed up"):
        store.backup(target)
    store.close()


@pytest.mark.parametrize(
    "step",
    ["queueber.store.maintenance.backup.sync_files", "queueber.store.datadir.directory.LockedDirectory.publish"],
    ids=["early", "late"],
)
def test_a_failed_backup_is_removed(busy, target, monkeypatch, step):
    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(step, fail)
    with pytest.raises(StorageError, match="No space left on device"):
        busy.backup(target)
    assert {path.name for path in target.iterdir()} == {"lock"}
    monkeypatch.undo()
    busy.backup(target)
    assert verify(target).findings == []


def test_closing_the_store_ends_a_backup_in_progress(tmp_path, other_file_system):
    store = open_store(tmp_path / "data")
    closing = threading.Thread(target=store.close)

    def close(done, total):
        if total and not closing.ident:
            closing.start()
            while not store.closing:
                pass

    with pytest.raises(StorageError, match="the server is stopping"):
        store.backup(other_file_system / "backup", close)
    closing.join()
    assert {path.name for path in (other_file_system / "backup").iterdir()} == {"lock"}
    assert verify(tmp_path / "data").findings == []


def test_the_space_of_removed_items_is_reclaimed(tmp_path, make):
    store = open_store(tmp_path / "data", durability=Durability.OS)
    items = [make.item(due, os.urandom(64 << 10)) for due in range(1, 501)]
    for item in items:
        store.commit([PutItems(MAIL, [item])], make.mark)
    # Otherwise some might still be in memory when they are removed, and never reach a file.
    store.reclaim_space()
    store.commit([DeleteItem(MAIL, item.key) for item in items], make.mark)

    def size():
        total = 0
        for file in (tmp_path / "data" / "db").glob("*.blob"):
            with suppress(FileNotFoundError):  # RocksDB removes them meanwhile
                total += file.stat().st_size
        return total

    assert size() > 500 * (64 << 10)
    store.reclaim_space()
    until(lambda: size() == 0)
    tables = len(list((tmp_path / "data" / "db").glob("*.sst")))
    store.reclaim_space()
    assert len(list((tmp_path / "data" / "db").glob("*.sst"))) <= tables
    store.close()


class TestCopyDirectory:
    def test_a_copy_is_equal_and_shares_no_files(self, data, target, state_of):
        before = state_of(data)
        copy_directory(data, target)
        assert state_of(data) == before
        assert verify(target).findings == []
        assert all(file.stat().st_nlink == 1 for file in target.rglob("*") if file.is_file())
        assert (target / "synced").read_bytes()[:40]

    def test_a_backup_can_be_copied_before_a_server_has_used_it(self, busy, target, tmp_path):
        busy.backup(target)
        (target / "lock").unlink()
        (target / "synced").unlink()
        copy_directory(target, tmp_path / "restored")
        assert verify(tmp_path / "restored").items == 5

    def test_a_directory_in_use_is_not_copied(self, busy, target, tmp_path):
        with pytest.raises(StorageError, match=rf"another server holds it \(process {os.getpid()}\)"):
            copy_directory(tmp_path / "data", target)
        assert not target.exists()

    def test_only_a_data_directory_is_copied(self, tmp_path, target):
        (tmp_path / "empty").mkdir()
        with pytest.raises(StorageError, match="'QUEUEBER' is missing"):
            copy_directory(tmp_path / "empty", target)

    def test_a_copy_within_its_original_is_refused(self, data):
        with pytest.raises(StorageError, match="must not be inside the directory"):
            copy_directory(data, data / "copy")

    def test_a_lock_file_that_cannot_be_opened_is_reported(self, data, target):
        (data / "lock").unlink()
        (data / "lock").symlink_to("elsewhere")
        with pytest.raises(StorageError, match=r"lock: Too many levels of symbolic links"):
            copy_directory(data, target)

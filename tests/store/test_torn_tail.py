"""A damaged end of the log: cut off if nothing acknowledged is lost, else refused."""

import os
from shutil import Error, copytree, rmtree

import pytest

from queueber.broker.model import LOWEST, QueueNumber, QueueRecord
from queueber.broker.storage import PutItems, PutQueue
from queueber.errors import Passing, StorageError
from queueber.plyvel.wal import map_file, read_wal, wal_files
from queueber.store import open_store, verify, wipe
from queueber.store.datadir import torn_tail as torn
from queueber.store.datadir.copying import read_only_view
from queueber.store.datadir.synced import SyncedFile
from queueber.store.maintenance.backup import copy_directory
from tests.support.waiting import until

MAIL = QueueNumber(1)
COMMITS = 20
NOTED = 15
BEFORE, NOW = b"b" * 16, b"n" * 16
"""Boot ids; `make.mark` has the first."""


@pytest.fixture(scope="module")
def at_power_cut(tmp_path_factory, make, settled):
    """The directory at a power cut: twenty commits in the log, of which fifteen are noted as synced."""
    path = tmp_path_factory.mktemp("power-cut")
    store = open_store(path / "live")
    for number in range(1, COMMITS + 1):
        record = QueueRecord(MAIL, "mail", number, 0, LOWEST, 9_000 * number)
        store.commit([PutItems(MAIL, [make.item(number, bytes([number]) * 9_000)]), PutQueue(record)], make.mark)
        if number == NOTED:
            store.note_synced()
    copytree(settled(path / "live"), path / "data")
    store.close()
    return path / "data"


@pytest.fixture
def data(at_power_cut, tmp_path):
    """A copy of that directory."""
    return copytree(at_power_cut, tmp_path / "data")


def copy_open(source, target):
    """Copy a directory in use, once its engine has removed the log of before the start, which it does in a thread."""
    until(lambda: len(wal_files(source / "db")) <= 1)
    copytree(source, target)


def the_log(path):
    (log,) = [log for log in wal_files(path / "db") if log.stat().st_size]
    return log


def hole(path, number, size=4_096):
    """Make a hole in the middle of a commit, of pages that were never written."""
    log = the_log(path)
    content = bytearray(log.read_bytes())
    at = content.index(bytes([number]) * 3_000) + 1_000
    content[at : at + size] = bytes(size)
    log.write_bytes(content)


def fail(path, number):
    """Write the final mark of a server whose commit after *number* commits failed."""
    file = SyncedFile(path / "synced")
    file.read()
    log = the_log(path)
    content = log.read_bytes()
    log.write_bytes(content[: read_wal(content[: content.index(bytes([number + 1]) * 3_000)]).end])
    with read_only_view(path) as db:
        file.note_failed(db.sequence())
    log.write_bytes(content)


def items_in(store):
    return store.recover().queues[0].added, len(store.scan(MAIL, LOWEST, items_max=100, bytes_max=1 << 30).items)


def kept_in(path):
    return sorted(path.glob("torn-*"))


def test_the_damaged_last_batch_is_cut_off_kept_and_reported(data):
    hole(data, COMMITS)
    log = the_log(data)
    content = log.read_bytes()
    reports = []
    store = open_store(data, boot_id=NOW, report=reports.append)
    assert items_in(store) == (COMMITS - 1, COMMITS - 1)
    (kept,) = kept_in(data)
    tail = kept.read_bytes()
    at = len(content) - len(tail)
    assert (content[at:], kept.name) == (tail, f"torn-{log.stem}-{at}")
    assert f"its last {len(tail):,} bytes, which no sync had covered, are moved" in store.dropped
    assert f"at {at:,} to {kept}" in store.dropped
    assert reports == [store.dropped]
    store.close()
    assert verify(data).findings == []

    store = open_store(data, boot_id=NOW, report=reports.append)
    assert (store.dropped, len(reports)) == (None, 1)
    store.close()
    wipe(data)
    assert [entry.name for entry in data.iterdir()] == ["lock"]


def test_the_cut_is_reported_before_it_is_made(data, state_of):
    """After a crash in between, the next start reports and cuts again, and keeps the end under the same name."""
    hole(data, COMMITS)
    before = the_log(data).read_bytes()

    def crash(_):
        assert len(kept_in(data)) == 1
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            open_store(data, boot_id=NOW, report=crash)
        assert the_log(data).read_bytes() == before
    reports = []
    open_store(data, boot_id=NOW, report=reports.append).close()
    assert (len(reports), len(kept_in(data))) == (1, 1)


def test_a_passing_error_is_raised_as_such(data, monkeypatch):
    hole(data, COMMITS)
    before = the_log(data).read_bytes()

    def refused(*_, **__):
        raise Passing("Too many open files")

    with monkeypatch.context() as broken:
        broken.setattr(torn, "_state_before", refused)
        with pytest.raises(Passing, match="Too many open files") as raised:
            open_store(data, boot_id=NOW)
    assert "recover" not in str(raised.value)
    assert (the_log(data).read_bytes(), kept_in(data)) == (before, [])
    store = open_store(data, boot_id=NOW)
    assert items_in(store) == (COMMITS - 1, COMMITS - 1)
    store.close()


def test_an_earlier_cut_off_end_is_kept(tmp_path, data, make):
    hole(data, COMMITS)
    store = open_store(data, boot_id=NOW)
    for number in (COMMITS, COMMITS + 1):
        record = QueueRecord(MAIL, "mail", number, 0, LOWEST, 9_000 * number)
        store.commit([PutItems(MAIL, [make.item(number, bytes([number]) * 9_000)]), PutQueue(record)], make.mark)
    copy_open(data, tmp_path / "again")
    store.close()
    hole(tmp_path / "again", COMMITS + 1)
    store = open_store(tmp_path / "again", boot_id=b"later".ljust(16))
    assert items_in(store) == (COMMITS, COMMITS)
    assert len(kept_in(tmp_path / "again")) == 2
    store.close()


def test_only_the_data_directory_needs_space(data, monkeypatch):
    hole(data, COMMITS)
    monkeypatch.setattr("tempfile.tempdir", str(data / "not there"))
    store = open_store(data, boot_id=NOW)
    assert items_in(store) == (COMMITS - 1, COMMITS - 1)
    assert not (data / "backup.new").exists()
    store.close()


def test_a_batch_of_which_only_the_last_pages_were_written_is_cut_off(data):
    log = the_log(data)
    content = log.read_bytes()
    at = read_wal(content[:-1]).end
    log.write_bytes(content[:at] + bytes(4_096) + content[at + 4_096 :])
    store = open_store(data, boot_id=NOW)
    assert items_in(store) == (COMMITS - 1, COMMITS - 1)
    store.close()


def test_a_batch_of_which_one_block_was_written_is_cut_off(tmp_path, make, settled):
    """RocksDB refuses a part without the next one in preallocated space."""
    store = open_store(tmp_path / "live")
    for number, size in ((1, 9_000), (2, 90_000)):
        record = QueueRecord(MAIL, "mail", number, 0, LOWEST, 9_000 * number)
        store.commit([PutItems(MAIL, [make.item(number, bytes([number]) * size)]), PutQueue(record)], make.mark)
    for blocks in (1, 2):
        path = tmp_path / f"{blocks} blocks"
        copytree(settled(tmp_path / "live"), path)
        content = the_log(path).read_bytes()
        the_log(path).write_bytes(content[: blocks * 32_768].ljust(len(content), b"\0"))
        opened = open_store(path, boot_id=NOW)
        assert items_in(opened) == (1, 1)
        assert "there is a hole" in opened.dropped
        opened.close()
    store.close()


@pytest.mark.parametrize(
    ("boot_id", "number"),
    [(BEFORE, COMMITS), (bytes(16), COMMITS), (b"", COMMITS), (NOW, COMMITS - 1), (NOW, NOTED - 1)],
    ids=["no power cut", "unknown boot", "no boot", "a batch follows", "noted"],
)
def test_without_a_reboot_the_damage_is_refused_and_nothing_is_changed(data, state_of, boot_id, number):
    hole(data, number)
    before = {name: rest for name, rest in state_of(data).items() if name.endswith(".log") or name == "synced"}
    with pytest.raises(StorageError, match="Corruption"):
        open_store(data, boot_id=boot_id)
    after = state_of(data)
    assert {name: after[name] for name in before} == before
    assert kept_in(data) == []


@pytest.mark.parametrize("boot_id", [BEFORE, NOW, bytes(16), b""])
def test_the_last_batch_is_cut_off_on_the_same_boot_after_a_noted_failure(tmp_path, data, boot_id):
    fail(data, COMMITS - 1)
    hole(data, COMMITS)
    copytree(data, tmp_path / "again")
    reports = []
    store = open_store(data, boot_id=boot_id, report=reports.append)
    assert items_in(store) == (COMMITS - 1, COMMITS - 1)
    assert reports == [store.dropped]
    assert store.dropped.startswith("a write failed and the server ended itself: its last ")
    assert len(kept_in(data)) == 1
    assert not SyncedFile(data / "synced").failed
    store.close()
    assert verify(data).findings == []


def test_the_last_batch_of_a_copy_is_cut_off(tmp_path, data):
    fail(data, COMMITS - 1)
    hole(data, COMMITS)
    copy_directory(data, tmp_path / "copied")
    store = open_store(tmp_path / "copied", boot_id=BEFORE)
    assert items_in(store) == (COMMITS - 1, COMMITS - 1)
    store.close()


@pytest.mark.parametrize(
    ("failed", "number"), [(COMMITS - 1, COMMITS - 1), (COMMITS, COMMITS)], ids=["a batch follows", "synced"]
)
def test_only_the_end_after_the_noted_failure_is_cut_off(data, state_of, failed, number):
    if failed == COMMITS:
        file = SyncedFile(data / "synced")
        file.read()
        with read_only_view(data) as db:
            file.note_failed(db.sequence())
    else:
        fail(data, failed)
    hole(data, number)
    before = {name: rest for name, rest in state_of(data).items() if name.endswith(".log") or name == "synced"}
    with pytest.raises(StorageError, match="Corruption"):
        open_store(data, boot_id=BEFORE)
    after = state_of(data)
    assert {name: after[name] for name in before} == before


def test_the_mark_of_the_next_start_ends_the_permission_to_cut(tmp_path, data, make):
    fail(data, COMMITS - 1)
    store = open_store(data, boot_id=BEFORE)
    assert (store.dropped, items_in(store)) == (None, (COMMITS, COMMITS))
    record = QueueRecord(MAIL, "mail", COMMITS + 1, 0, LOWEST, 9_000 * (COMMITS + 1))
    item = make.item(COMMITS + 1, bytes([COMMITS + 1]) * 9_000)
    store.commit([PutItems(MAIL, [item]), PutQueue(record)], make.mark)
    copy_open(data, tmp_path / "again")
    store.close()
    hole(tmp_path / "again", COMMITS + 1)
    with pytest.raises(StorageError, match="Corruption"):
        open_store(tmp_path / "again", boot_id=BEFORE)


def test_a_torn_end_in_the_first_second_is_distinguished_from_a_loss(tmp_path, make, settled):
    store = open_store(tmp_path / "live")
    for number in (1, 2):
        record = QueueRecord(MAIL, "mail", number, 0, LOWEST, 9_000 * number)
        store.commit([PutItems(MAIL, [make.item(number, bytes([number]) * 9_000)]), PutQueue(record)], make.mark)
    copytree(settled(tmp_path / "live"), tmp_path / "data")
    store.close()
    hole(tmp_path / "data", 2)
    store = open_store(tmp_path / "data", boot_id=NOW)
    assert items_in(store) == (1, 1)
    store.close()


def test_without_a_synced_file_the_damage_is_refused(data):
    (data / "synced").unlink()
    hole(data, COMMITS)
    with pytest.raises(StorageError, match="Corruption"):
        open_store(data, boot_id=NOW)


def test_a_log_that_does_not_reach_the_noted_sequence_is_refused(data):
    """The last batch in the log is damaged, but later ones were noted."""
    log = the_log(data)
    content = log.read_bytes()
    os.truncate(log, read_wal(content[: content.index(bytes([NOTED]) * 3_000)]).end)
    hole(data, NOTED - 1)
    with pytest.raises(StorageError, match="Corruption"):
        open_store(data, boot_id=NOW)


def test_damage_before_the_last_batch_is_not_a_torn_tail(data):
    open_store(data, boot_id=NOW).close()
    for table in (data / "db").glob("*.sst"):
        os.truncate(table, table.stat().st_size - 10)
    with pytest.raises(StorageError, match=r"Corruption|IO error"):
        open_store(data, boot_id=NOW)


def test_a_batch_in_a_later_log_is_a_later_batch(data):
    hole(data, COMMITS)
    log = the_log(data)
    later = log.with_name("000099.log")
    later.write_bytes(map_file(log)[: read_wal(map_file(log)).end])
    with pytest.raises(StorageError, match="Corruption"):
        open_store(data, boot_id=NOW)


def test_an_empty_later_log_is_not_a_later_batch(data):
    hole(data, COMMITS)
    the_log(data).with_name("000099.log").touch()
    store = open_store(data, boot_id=NOW)
    assert items_in(store) == (COMMITS - 1, COMMITS - 1)
    store.close()


def test_an_unreadable_rest_is_refused(data):
    hole(data, COMMITS)
    manifest = next((data / "db").glob("MANIFEST-*"))
    manifest.write_bytes(manifest.read_bytes()[:-3] + b"???")
    with pytest.raises(StorageError):
        open_store(data, boot_id=NOW)


def test_a_database_without_a_commit_has_no_boot(tmp_path):
    open_store(tmp_path / "data").close()
    path = tmp_path / "copy"
    store = open_store(tmp_path / "data")
    store.note_synced()
    while not path.exists():
        # RocksDB deletes obsolete files in a background thread.
        try:
            copytree(tmp_path / "data", path)
        except Error:
            rmtree(path)
    store.close()
    log = the_log(path)
    content = bytearray(log.read_bytes())
    content[-1] ^= 1
    log.write_bytes(content)
    with pytest.raises(StorageError, match="Corruption"):
        open_store(path, boot_id=NOW)

"""Recovery of a damaged log, with each kind of damage on a copy."""

import errno
import os
from pathlib import Path
from shutil import copytree

import pytest

from queueber.broker.model import LOWEST, LeaseId, LeaseRecord, QueueNumber, QueueRecord
from queueber.broker.storage import PutItems, PutLease, PutNumbers, PutQueue, PutRetired
from queueber.errors import StorageError
from queueber.plyvel.errors import translate_error
from queueber.plyvel.wal import read_wal
from queueber.store import copy_directory, open_store, replace_directory, salvage, verify
from queueber.store.datadir import copying
from queueber.store.datadir.database import open_database
from queueber.store.maintenance import recovery
from queueber.store.maintenance.recovery import check_movable
from queueber.store.rows.meta import FORMAT, write_format
from queueber.store.tuning import Tuning
from queueber.units import WallMs

MAIL = QueueNumber(1)
COMMITS = 20


@pytest.fixture(scope="module")
def killed(tmp_path_factory, make, settled):
    """The directory of a killed server: twenty commits of an item each, all in the log, and ten noted as on disk."""
    path = tmp_path_factory.mktemp("killed")
    store = open_store(path / "live")
    for number in range(1, COMMITS + 1):
        record = QueueRecord(MAIL, "mail", number, 0, LOWEST, 160 * number)
        store.commit([PutItems(MAIL, [make.item(number, b"contents" * 20)]), PutQueue(record)], make.mark)
        if number == COMMITS // 2:
            store.note_synced()
    copytree(settled(path / "live"), path / "data")
    store.close()
    return path / "data"


@pytest.fixture
def crashed(killed, tmp_path):
    """A copy of that directory."""
    return copytree(killed, tmp_path / "data")


@pytest.fixture
def recovered(tmp_path):
    return tmp_path / "recovered"


def log_of(path):
    (log,) = [file for file in (path / "db").glob("*.log") if file.stat().st_size]
    return log


def damage(path, share):
    """Change one bit of the log."""
    log = log_of(path)
    content = bytearray(log.read_bytes())
    content[int(len(content) * share)] ^= 1
    log.write_bytes(content)


def cut(path, share):
    """Cut the log at the end of a record, as if the rest had never been written.  RocksDB does not detect that."""
    log = log_of(path)
    content = log.read_bytes()
    at = 0
    while at < len(content) * share:
        at += 7 + int.from_bytes(content[at + 4 : at + 6], "little")
    os.truncate(log, at)


def test_a_sound_directory_is_not_recovered(crashed, recovered, state_of):
    before = state_of(crashed)
    assert salvage(crashed, recovered) is None
    assert not recovered.exists()
    assert state_of(crashed) == before


def test_damage_after_the_noted_sequence_is_no_known_loss(crashed, recovered, state_of):
    damage(crashed, 0.8)
    before = state_of(crashed)
    found = salvage(crashed, recovered)
    assert "Corruption" in found.why
    assert COMMITS // 2 <= found.items < COMMITS
    assert found.acknowledged_lost == 0
    assert (found.queues, found.leases, found.as_of) == (1, 0, 2_000)
    assert found.dropped[0].startswith(f"{log_of(crashed).name}: dropping ")
    assert state_of(crashed) == before
    assert verify(recovered).findings == []


def test_damage_before_the_noted_sequence_is_reported_as_a_loss(crashed, recovered):
    damage(crashed, 0.3)
    found = salvage(crashed, recovered)
    assert found.items < COMMITS // 2
    assert found.acknowledged_lost == found.noted - found.reached > 0


def test_a_log_that_ends_too_early_is_recovered(crashed, recovered):
    cut(crashed, 0.2)
    with pytest.raises(StorageError, match=r"acknowledged writes are missing: .*`queueber recover` shows"):
        open_store(crashed)
    found = salvage(crashed, recovered)
    assert found.why.startswith("the log ends at")
    assert found.acknowledged_lost > 0
    assert found.dropped == ()


def test_a_damaged_synced_file_is_replaced(crashed, recovered):
    (crashed / "synced").write_bytes(b"?" * 8_192)
    found = salvage(crashed, recovered)
    assert (found.items, found.noted, found.acknowledged_lost) == (COMMITS, None, 0)
    assert "is damaged" in found.why
    assert verify(recovered).findings == []


def test_without_a_synced_file_the_loss_is_unknown(crashed, recovered):
    (crashed / "synced").unlink()
    damage(crashed, 0.3)
    found = salvage(crashed, recovered)
    assert (found.noted, found.acknowledged_lost) == (None, 0)


def test_a_server_starts_on_the_replacement_and_the_damaged_directory_is_kept(crashed, recovered, tmp_path, state_of):
    damage(crashed, 0.8)
    before = state_of(crashed)
    found = salvage(crashed, recovered)
    replace_directory(crashed, found.path, tmp_path / "damaged")
    assert state_of(tmp_path / "damaged") == before
    assert not recovered.exists()
    store = open_store(crashed)
    assert store.recover().queues[0].added == found.items
    store.close()
    # Table files are shared by hard links: writes to the new directory must not change the old one.
    assert state_of(tmp_path / "damaged") == before


def test_the_damaged_directory_does_not_overwrite_anything(crashed, recovered, tmp_path):
    damage(crashed, 0.8)
    found = salvage(crashed, recovered)
    (tmp_path / "damaged").mkdir()
    with pytest.raises(StorageError, match="it exists already"):
        replace_directory(crashed, found.path, tmp_path / "damaged")
    assert crashed.exists()


def test_a_directory_in_any_state_can_be_replaced(crashed, data_copy, tmp_path):
    (crashed / "db" / "CURRENT").unlink()
    replace_directory(crashed, data_copy, tmp_path / "damaged")
    assert verify(crashed).items == COMMITS


@pytest.fixture
def data_copy(crashed, tmp_path):
    copy_directory(crashed, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_directory_that_cannot_be_renamed_is_not_changed(crashed, recovered, tmp_path):
    damage(crashed, 0.8)
    found = salvage(crashed, recovered)
    with pytest.raises(StorageError, match="it cannot be renamed") as raised:
        replace_directory(crashed, found.path, tmp_path / "nowhere" / "damaged")
    assert str(recovered) not in str(raised.value)
    assert crashed.exists()
    assert recovered.exists()


def test_a_directory_whose_replacement_cannot_be_renamed_gets_its_name_back(crashed, tmp_path):
    with pytest.raises(StorageError, match="its replacement cannot be renamed"):
        replace_directory(crashed, tmp_path / "nowhere", tmp_path / "damaged")
    assert crashed.exists()
    assert not (tmp_path / "damaged").exists()


def test_a_mount_point_is_refused_before_anything_is_created(crashed, recovered, monkeypatch):
    damage(crashed, 0.8)
    monkeypatch.setattr(Path, "is_mount", lambda path: path == crashed)
    with pytest.raises(StorageError, match="it is a mount point, which cannot be moved"):
        salvage(crashed, recovered)
    assert not recovered.exists()
    check_movable(recovered.parent)


def test_damage_outside_of_the_log_needs_a_backup(crashed, recovered):
    (crashed / "db" / "CURRENT").write_text("MANIFEST-999999\n")
    with pytest.raises(StorageError, match="cannot be recovered, a backup has to be restored") as raised:
        salvage(crashed, recovered)
    assert str(recovered) not in str(raised.value)
    assert not recovered.exists()


@pytest.fixture
def leased(tmp_path, make):
    """A stopped directory with a leased item, in a table file without compression."""
    store = open_store(tmp_path / "data", tuning=Tuning(compression="none"))
    writes = [PutItems(MAIL, [make.item(n, b"contents" * 20)]) for n in range(1, COMMITS + 1)]
    lease = PutLease(LeaseId(b"l" * 16), LeaseRecord(MAIL, WallMs(99), (make.key(1),)))
    store.commit([*writes, PutQueue(QueueRecord(MAIL, "mail", COMMITS, 0, LOWEST, 160 * COMMITS)), lease], make.mark)
    store.reclaim_space()
    store.close()
    return tmp_path / "data"


def test_damage_to_rows_that_a_start_reads_is_found_although_the_database_opens(leased, recovered):
    (table,) = [file for file in (leased / "db").glob("*.sst") if b"contents" in file.read_bytes()]
    content = bytearray(table.read_bytes())
    content[content.index(b"contents")] ^= 1
    table.write_bytes(content)
    store = open_store(leased)
    with pytest.raises(StorageError, match=rf"{leased}: .*checksum mismatch.*`queueber recover` reports"):
        store.recover()
    store.close()
    with pytest.raises(StorageError, match=r"cannot be recovered, a backup has to be restored: .*checksum mismatch"):
        salvage(leased, recovered)
    assert not recovered.exists()


@pytest.mark.parametrize("number", range(1, 6))
def test_a_passing_error_is_not_damage(crashed, recovered, monkeypatch, state_of, number):
    """Whichever opening of a file fails: no copy is left, and the error does not ask for a backup."""
    damage(crashed, 0.8)
    before, calls = state_of(crashed), []

    def refused(path, **wanted):
        calls.append(path)
        if len(calls) == number:
            raise translate_error(Exception(f"IO error: while open a file for lock: {path}/LOCK: Too many open files"))
        return open_database(path, **wanted)

    for module in (copying, recovery):
        monkeypatch.setattr(module, "open_database", refused)
    if number > 3:
        assert salvage(crashed, recovered) is not None
        return
    with pytest.raises(StorageError, match="Too many open files") as raised:
        salvage(crashed, recovered)
    assert "backup" not in str(raised.value)
    assert str(recovered) not in str(raised.value)
    assert not recovered.exists()
    assert state_of(crashed) == before


def test_a_new_directory_without_its_log_has_nothing_to_recover(tmp_path, recovered, settled):
    live = open_store(tmp_path / "live")
    copytree(settled(tmp_path / "live"), tmp_path / "data")
    live.close()
    log_of(tmp_path / "data").unlink()
    (tmp_path / "data" / "synced").unlink()
    with pytest.raises(StorageError, match="has no format version"):
        open_store(tmp_path / "data")
    with pytest.raises(StorageError, match=r"cannot be recovered, .* has no format version"):
        salvage(tmp_path / "data", recovered)
    assert not recovered.exists()


@pytest.mark.parametrize("wrong", ["format", "lease"])
def test_rows_on_which_no_server_starts_are_not_sound(leased, recovered, make, wrong):
    with open_database(leased / "db") as db:
        if wrong == "format":
            write_format(db, "", FORMAT + 1)
    if wrong == "lease":
        store = open_store(leased)
        lease = LeaseRecord(QueueNumber(9), WallMs(99), (make.key(1),))
        store.commit([PutLease(LeaseId(b"m" * 16), lease)], make.mark)
        store.close()
    what = {"format": f"the data is of format {FORMAT + 1}", "lease": "queue 9, which does not exist"}[wrong]
    with pytest.raises(StorageError, match=f"cannot be recovered, .*{what}"):
        salvage(leased, recovered)


def test_leases_on_items_of_a_retired_number_are_recovered(tmp_path, make, recovered, settled):
    store = open_store(tmp_path / "live")
    lease = LeaseRecord(QueueNumber(7), WallMs(99), (make.key(1),))
    writes = [PutRetired(QueueNumber(7), MAIL), PutNumbers(QueueNumber(8)), PutLease(LeaseId(b"l" * 16), lease)]
    record = QueueRecord(MAIL, "mail", 1, 0, LOWEST)
    store.commit([PutQueue(record), *writes, PutItems(QueueNumber(7), [make.item(1)])], make.mark)
    copytree(settled(tmp_path / "live"), tmp_path / "data")
    store.close()
    assert salvage(tmp_path / "data", recovered) is None


def test_several_findings_are_counted(leased, recovered, make):
    store = open_store(leased)
    writes = [PutItems(QueueNumber(9), [make.item(n)]) for n in (50, 51)]
    lease = PutLease(LeaseId(b"m" * 16), LeaseRecord(QueueNumber(9), WallMs(99), (make.key(50),)))
    store.commit([*writes, lease], make.mark)
    store.close()
    with pytest.raises(StorageError, match="and 2 findings more"):
        salvage(leased, recovered)


def test_a_full_disk_is_not_damage(crashed, recovered, monkeypatch):
    damage(crashed, 0.8)

    def fail(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("queueber.store.maintenance.recovery.link_files", fail)
    with pytest.raises(StorageError, match=r"was not changed, because recovery failed: .*No space left") as raised:
        salvage(crashed, recovered)
    assert "backup" not in str(raised.value)
    assert not recovered.exists()


def test_an_interrupted_recovery_leaves_nothing(crashed, recovered, monkeypatch):
    damage(crashed, 0.8)

    def interrupt(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("queueber.store.maintenance.recovery.link_files", interrupt)
    with pytest.raises(KeyboardInterrupt):
        salvage(crashed, recovered)
    assert not recovered.exists()


def test_a_directory_in_use_is_refused(busy, tmp_path, recovered):
    with pytest.raises(StorageError, match="another server holds it"):
        salvage(tmp_path / "data", recovered)


def test_a_damaged_mark_of_a_clean_shutdown_is_recovered_without_loss(data, recovered):
    with open_database(data / "db") as db:
        db.put(b"mclean", b"?" * len(db.get(b"mclean")))
        db.sync()
    with pytest.raises(StorageError, match="damaged row in table meta, key 6d636c65616e"):
        open_store(data)
    found = salvage(data, recovered)
    assert "damaged row in table meta" in found.why
    assert (found.acknowledged_lost, found.items) == (0, 5)
    store = open_store(recovered)
    assert not store.clean_shutdown
    store.close()


def test_a_record_type_that_rocksdb_never_finishes_reading_is_refused_by_every_command(crashed, recovered):
    log = log_of(crashed)
    content = bytearray(log.read_bytes())
    last = read_wal(bytes(content[:-1])).end
    content[last + 6] ^= 4
    log.write_bytes(content)
    for command in (open_store, verify):
        with pytest.raises(StorageError, match="is of type 5"):
            command(crashed)
    found = salvage(crashed, recovered)
    assert (found.items, "is of type 5" in found.why) == (COMMITS - 1, True)

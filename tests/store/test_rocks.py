"""A store in a data directory: refusals, crashes, damage, and the report on the previous server."""

import errno
import os
import signal
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from shutil import Error as CopyError
from shutil import copytree, rmtree
from time import sleep

import pytest
from attrs import define, field

import queueber
from queueber.broker.model import LOWEST, LeaseId, LeaseRecord, QueueNumber, QueueRecord
from queueber.broker.storage import DeleteItem, PutItems, PutLease, PutQueue, StoreStalled
from queueber.errors import Stalled, Stopping, StorageError
from queueber.plyvel import CorruptionError, Error
from queueber.plyvel.rocksdb import RocksDB
from queueber.store import Durability, Encoding, inspect, open_store, wipe
from queueber.store.datadir.database import PROPERTY_NAMES, open_database, read_properties
from queueber.store.datadir.synced import SyncedFile
from queueber.store.rows.keys import FORMAT_KEY, item_key
from queueber.store.rows.kv_store import KeyValueStore
from queueber.store.rows.meta import FORMAT, read_format, write_format
from queueber.units import WallMs

MAIL = QueueNumber(1)
MANY = 10**9


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def die():
    """Return a function that abandons a store as a killed process does, with its files as they are."""

    def now(store, path: Path) -> None:
        # A copy equals the state after a kill only while RocksDB does nothing in the background.
        while any(store.properties()[name] for name in ("running_compactions", "pending_compaction_bytes")):
            sleep(0.01)
        copy = path.with_name("copy")
        while True:
            try:
                copytree(path, copy)
            except CopyError:
                # RocksDB deletes a log in the background once its rows are in a table.
                rmtree(copy)
            else:
                break
        store.close()
        rmtree(path)
        copy.rename(path)

    return now


def put(store, make, *dues: int) -> None:
    store.commit([PutItems(MAIL, [make.item(due, b"contents")]) for due in dues], make.mark)


def dues(store) -> list[int]:
    return [item.key.due for item in store.scan(MAIL, LOWEST, items_max=MANY, bytes_max=MANY).items]


def refused(path, why: str):
    return pytest.raises(StorageError, match=f"^cannot use data directory {path}: [^\n]*{why}[^\n]*$")


def test_a_store_is_created_and_then_reopened(path, make):
    store = open_store(path)
    assert (store.created, store.clean_shutdown) == (True, True)
    put(store, make, 1)
    store.close()
    store = open_store(path)
    assert (store.created, store.clean_shutdown, dues(store)) == (False, True, [1])
    store.close()


@pytest.mark.parametrize("durability", [Durability.FSYNC, Durability.OS])
def test_after_a_kill_all_commits_are_there_and_the_shutdown_is_unclean(path, make, die, durability):
    store = open_store(path, durability=durability)
    put(store, make, 1, 2)
    die(store, path)
    for _ in range(2):  # the second is killed before it writes anything
        store = open_store(path, durability=durability)
        assert (store.created, store.clean_shutdown, dues(store)) == (False, False, [1, 2])
        die(store, path)


def test_durability_and_encoding_may_change_between_starts(path, make):
    choices = [
        (Durability.FSYNC, Encoding.PACKED),
        (Durability.OS, Encoding.UNPACKED),
        (Durability.FSYNC, Encoding.UNPACKED),
    ]
    for due, (durability, encoding) in enumerate(choices, 1):
        store = open_store(path, durability=durability, encoding=encoding)
        put(store, make, due)
        assert dues(store) == list(range(1, due + 1))
        store.close()


def test_a_second_server_is_refused_in_one_line(path):
    store = open_store(path)
    with refused(path, rf"another server holds it \(process {os.getpid()}\)"):
        open_store(path)
    store.close()
    open_store(path).close()


def test_a_refused_directory_is_unlocked(path):
    open_store(path).close()
    with open_database(path / "db") as db:
        write_format(db, "", FORMAT + 1)
    for _ in range(2):
        with refused(path, f"format {FORMAT + 1}, which a newer Queueber wrote; this one reads up to {FORMAT}"):
            open_store(path)


def test_a_database_without_a_format_is_refused(path):
    open_store(path).close()
    with open_database(path / "db") as db:
        db.delete(FORMAT_KEY)
    with refused(path, "has no format version"):
        open_store(path)


def test_an_unfinished_directory_is_created_again(path, make, monkeypatch):
    """A power cut during the first start."""
    monkeypatch.setattr("queueber.store.datadir.directory.LockedDirectory.finish", lambda _: pytest.fail("power cut"))
    with pytest.raises(pytest.fail.Exception):
        open_store(path)
    monkeypatch.undo()
    store = open_store(path)
    assert store.created
    put(store, make, 1)
    store.close()


def test_a_damaged_item_under_a_lease_without_sizes_counts_no_bytes(data, make):
    row_key = item_key(QueueNumber(1), make.key(11))
    with open_database(data / "db") as db:
        db.put(row_key, db.get(row_key)[:-1] + b"?")
        db.sync()
    with closing(open_store(data)) as store:
        (lease,) = store.recover().leases.values()
    assert (lease.keys, lease.sizes) == ((make.key(10), make.key(11)), (8, 0))


def test_an_error_of_the_system_is_one_line(path):
    open_store(path).close()
    wipe(path)
    (path / "QUEUEBER.new").touch()
    (path / "db").touch()
    with refused(path, "Not a directory"):
        open_store(path)


class TestDurabilityNone:
    """Durability `none`, without a log."""

    def test_a_clean_shutdown_keeps_everything(self, path, make):
        store = open_store(path, durability=Durability.NONE)
        put(store, make, 1)
        store.close()
        store = open_store(path, durability=Durability.NONE)
        assert (store.created, store.clean_shutdown, dues(store)) == (False, True, [1])
        store.close()

    def test_an_unclean_shutdown_empties_the_store(self, path, make, die):
        """Also rows in table files: removed items would return."""
        store = open_store(path, durability=Durability.NONE)
        put(store, make, 1)
        store.close()
        store = open_store(path, durability=Durability.NONE)
        put(store, make, 2)
        store.reclaim_space()
        die(store, path)
        store = open_store(path, durability=Durability.NONE)
        assert (store.created, store.clean_shutdown, dues(store)) == (True, False, [])
        put(store, make, 3)
        store.close()
        store = open_store(path, durability=Durability.NONE)
        assert (store.created, store.clean_shutdown, dues(store)) == (False, True, [3])
        store.close()

    def test_it_needs_a_directory_that_was_created_with_it(self, path):
        open_store(path).close()
        with refused(path, "it was created with a log and cannot be used with durability none"):
            open_store(path, durability=Durability.NONE)

    @pytest.mark.parametrize("durability", [Durability.FSYNC, Durability.OS])
    def test_its_directory_cannot_be_opened_otherwise(self, path, durability):
        open_store(path, durability=Durability.NONE).close()
        with refused(path, f"it was created with durability none and cannot be used with durability {durability}"):
            open_store(path, durability=durability)
        wipe(path)
        open_store(path, durability=durability).close()


class TestDamage:
    """Damage to files."""

    @pytest.mark.parametrize("left", [0, 0.5])
    def test_a_missing_end_of_the_log_is_detected(self, path, make, die, left):
        """RocksDB itself accepts an empty or cut log."""
        open_store(path).close()
        store = open_store(path)
        put(store, make, 1)
        put(store, make, 2)
        store.note_synced()
        die(store, path)
        log = max((path / "db").glob("*.log"))
        log.write_bytes(log.read_bytes()[: int(log.stat().st_size * left)])
        with refused(path, "acknowledged writes are missing: the log ends at [0-9]+, and [0-9]+ was on disk"):
            open_store(path)
        (path / "synced").unlink()
        store = open_store(path)
        assert dues(store) in ([], [1])
        store.close()

    def test_a_clean_shutdown_leaves_an_empty_log(self, path, make):
        store = open_store(path)
        put(store, make, 1)
        store.close()
        for log in (path / "db").glob("*.log"):
            log.unlink()
        store = open_store(path)
        assert dues(store) == [1]
        store.close()

    def test_a_changed_byte_in_the_log_is_detected(self, path, make, die):
        store = open_store(path)
        for due in range(1, 20):
            put(store, make, due)
        die(store, path)
        (log,) = (path / "db").glob("*.log")
        content = bytearray(log.read_bytes())
        content[len(content) // 3] ^= 1
        log.write_bytes(content)
        with refused(path, "Corruption: "):
            open_store(path)

    def test_an_unacknowledged_torn_tail_is_dropped(self, path, make, die):
        store = open_store(path, durability=Durability.OS)
        put(store, make, 1)
        put(store, make, 2)
        die(store, path)
        (log,) = (path / "db").glob("*.log")
        log.write_bytes(log.read_bytes()[:-20])
        store = open_store(path, durability=Durability.OS)
        assert dues(store) == [1]
        store.close()

    def test_a_changed_byte_in_a_table_is_an_error_and_never_an_empty_queue(self, path, make):
        store = open_store(path)
        put(store, make, *range(1, 2_000))
        store.close()
        open_store(path).close()
        table = max((path / "db").glob("*.sst"), key=lambda file: file.stat().st_size)
        content = bytearray(table.read_bytes())
        content[:-600] = bytes(byte ^ 0x55 for byte in content[:-600])
        table.write_bytes(content)
        with refused(path, "Corruption: "):
            open_store(path)

    def test_a_row_with_another_rows_value_is_reported(self, path, make):
        store = open_store(path)
        put(store, make, 1)
        store.close()
        with open_database(path / "db") as db:
            row, value = next(iter(db.iterator(prefix=b"i")))
            db.put(row[:-1] + b"\xff", value)
        store = open_store(path)
        (gap,) = store.scan(MAIL, LOWEST, items_max=MANY, bytes_max=MANY).gaps
        assert str(gap.why).startswith("damaged row in table items")
        store.close()


class TestTheSyncedFile:
    def test_it_follows_the_commits(self, path, make):
        store = open_store(path)
        begun = SyncedFile(path / "synced").read()
        assert begun > 0
        store.note_synced()
        assert SyncedFile(path / "synced").read() == begun
        assert store.synced_sequence == 0
        for due in range(1, 4):
            put(store, make, due)
            store.note_synced()
            assert SyncedFile(path / "synced").read() == store.synced_sequence > begun
        store.close()

    def test_it_is_written_at_a_clean_shutdown(self, path, make):
        store = open_store(path)
        put(store, make, 1)
        store.close()
        assert (path / "synced").exists()

    def test_it_does_not_advance_without_fsync(self, path, make):
        store = open_store(path, durability=Durability.OS)
        noted = SyncedFile(path / "synced").read()
        put(store, make, 1)
        store.note_synced()
        store.close()
        assert SyncedFile(path / "synced").read() == noted

    def test_after_any_number_of_starts_the_log_reaches_it(self, path, make):
        for due in range(1, 8):
            store = open_store(path)
            put(store, make, due)
            store.close()
        open_store(path).close()


@define
class Recording:
    """An engine that records the calls of its methods, and raises *failure* from the method that its text names."""

    done: list[str] = field(factory=list)
    failure: Exception | None = None

    def write_many(self, writes):
        self.done += [f"{'delete' if value is None else 'put'} {key[:1].decode()}" for key, value in writes]
        self._do("write")
        return 7

    def sync(self):
        self._do("sync")

    def _do(self, what):
        self.done.append(what)
        if self.failure is not None and what in str(self.failure):
            raise self.failure


@pytest.mark.parametrize(
    ("durability", "done"),
    [
        (Durability.FSYNC, ["put i", "put m", "write", "sync"]),
        (Durability.OS, ["put i", "put m", "write"]),
        (Durability.NONE, ["put i", "put m", "write"]),
    ],
)
def test_a_commit_is_one_batch_and_with_fsync_a_sync(make, durability, done):
    engine = Recording()
    put(KeyValueStore(engine, durability=durability, encoding=Encoding.UNPACKED), make, 1)
    assert engine.done == done


def test_the_seconds_of_each_sync_are_reported(make):
    observed = []
    store = KeyValueStore(Recording(), durability=Durability.FSYNC, encoding=Encoding.UNPACKED, on_sync=observed.append)
    put(store, make, 1)
    (seconds,) = observed
    assert 0 <= seconds < 60


def test_the_properties_of_the_engine_are_read(path, make):
    with closing(open_store(path)) as store:
        put(store, make, 1)
        properties = store.properties()
    assert set(properties) == set(PROPERTY_NAMES)
    assert properties["write_buffer_bytes"] > 0
    assert (properties["write_stopped"], properties["background_errors"]) == (0, 0)


def test_unknown_properties_are_omitted():
    class Silent:
        def get_property(self, name):
            return b"3" if name == b"rocksdb.num-files-at-level2" else None

    assert read_properties(Silent()) == {"level_2_files": 3}


def test_a_stall_is_reported_and_nothing_is_synced(make):
    engine = Recording(failure=Stalled("write"))
    store = KeyValueStore(engine, durability=Durability.FSYNC, encoding=Encoding.UNPACKED)
    with pytest.raises(StoreStalled):
        put(store, make, 1)
    assert "sync" not in engine.done
    engine.failure = None
    put(store, make, 1)
    assert store.synced_sequence == 7


def calls_of(function):
    """Count the Python calls within `queueber` that *function* makes."""
    package, calls = str(Path(queueber.__file__).parent), []

    def profile(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(package):
            calls.append(frame.f_code.co_qualname)

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return len(calls)


def test_a_commit_takes_few_python_calls_and_none_for_a_further_item(path, make):
    record, lease = QueueRecord(MAIL, "mail", 1, 0, LOWEST), LeaseRecord(MAIL, WallMs(9), (make.key(1),))
    items = [make.item(due, bytes(due)) for due in range(1, 100)]
    with closing(open_store(path)) as store:
        store.commit([PutQueue(record)], make.mark)  # the struct of a queue is cached by name
        for writes, most in (
            ([PutItems(MAIL, items[:1]), PutQueue(record)], 12),
            ([PutItems(MAIL, items), PutQueue(record)], 12),
            ([DeleteItem(MAIL, make.key(1)), PutQueue(record)], 12),
            ([PutLease(LeaseId(b"l" * 16), lease), PutQueue(record)], 14),
        ):
            assert calls_of(partial(store.commit, writes, make.mark)) <= most


@pytest.mark.parametrize("where", ["write", "sync"])
def test_any_other_error_is_raised_unchanged_and_not_retried(make, where):
    engine = Recording(failure=Error(f"IO error: {where}"))
    store = KeyValueStore(engine, durability=Durability.FSYNC, encoding=Encoding.UNPACKED)
    with pytest.raises(Error, match=where):
        put(store, make, 1)
    assert engine.done.count(where) == 1
    assert store.synced_sequence == 0


@pytest.mark.slow
@pytest.mark.parametrize("durability", [Durability.FSYNC, Durability.OS])
def test_commits_before_a_kill_survive(path, durability):
    """The process reports each commit, and is killed during a later one."""
    script = (
        "import sys; from pathlib import Path\n"
        "from queueber.broker.model import Item, Key, TimeMark\n"
        "from queueber.broker.storage import DeleteItem, PutItems\n"
        "from queueber.store import Durability, open_store\n"
        "store = open_store(Path(sys.argv[1]), durability=Durability(sys.argv[2]))\n"
        "keys = [Key(due, due.to_bytes(16, 'big')) for due in range(100_000)]\n"
        "for due in range(10, 100_000):\n"
        "    writes = [PutItems(1, [Item(keys[due], bytes(100), 0)]), DeleteItem(1, keys[due - 10])]\n"
        "    store.commit(writes, TimeMark(bytes(16), 0, due))\n"
        "    print(due, flush=True)\n"
    )
    command = [sys.executable, "-c", script, str(path), durability]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        last = 0
        while last < 300:
            last = int(other.stdout.readline())
        other.send_signal(signal.SIGKILL)
        last = max([last, *map(int, other.stdout.read().splitlines()[:-1])])
    store = open_store(path, durability=durability)
    found = dues(store)
    assert found in [list(range(first, first + 10)) for first in (last - 9, last - 8, last - 7)]
    assert store.recover().mark.queue_time == found[-1]
    assert not store.clean_shutdown
    store.close()


def test_a_scan_does_not_step_over_removed_items_again(path, make):
    """A scan that starts after removed items meets none of their deletions."""
    store = open_store(path, durability=Durability.OS)
    put(store, make, *range(1, 3_000))
    assert dues(store) == list(range(1, 3_000))
    after = make.key(2_990)
    scan = store.scan(MAIL, after, items_max=MANY, bytes_max=MANY)
    assert [item.key.due for item in scan.items] == list(range(2_991, 3_000))
    store.close()


def test_the_engines_errors_are_storage_errors():
    """Readers catch one class only."""
    assert issubclass(CorruptionError, StorageError)


def test_the_format_names_durability_none(path):
    open_store(path, durability=Durability.NONE).close()
    with open_database(path / "db") as db:
        assert read_format(db).durability == "none"


def test_unflushed_bytes_are_reported_until_a_flush(path, make):
    """These bytes will take space on the disk once more."""
    with closing(open_store(path)) as store:
        store.commit([PutItems(MAIL, [make.item(1, bytes(1 << 20))])], make.mark)
        assert store.unflushed_bytes > 1 << 20
        store.reclaim_space()
        assert store.unflushed_bytes < 1 << 20


@pytest.mark.parametrize("leases_read", [0, 1])
def test_a_cancelled_recovery_ends_at_the_next_row_or_lookup(data, monkeypatch, leases_read):
    store = open_store(data)
    if leases_read:
        # All leases have been read by then, and none of their items.
        get_many = RocksDB.get_many
        monkeypatch.setattr(RocksDB, "get_many", lambda *asked: (store.cancel_recovery(), get_many(*asked))[1])
    else:
        store.cancel_recovery()
    with pytest.raises(Stopping):
        store.recover()
    assert store.recovered_leases == 1
    store.close()
    store = open_store(data)
    assert store.clean_shutdown
    store.close()


def test_an_error_of_the_system_is_one_line_with_the_file_and_without_a_number(data, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "file")

    monkeypatch.setattr(SyncedFile, "note", full)
    with pytest.raises(StorageError, match=f"^cannot use data directory {data}: file: No space left on device$"):
        open_store(data)


def test_a_mark_of_a_clean_shutdown_is_void_after_later_writes(data):
    with open_database(data / "db") as db:
        db.put(b"mtime", db.get(b"mtime"))
        db.sync()
    store = open_store(data)
    assert not store.clean_shutdown
    store.close()
    assert inspect(data, lambda _: 0).clean_shutdown

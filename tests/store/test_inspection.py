"""Inspection of a data directory, also while a server uses it, without changing it."""

import errno
import os
from pathlib import Path

import pytest

from queueber.broker.model import LOWEST, QueueNumber, QueueRecord
from queueber.broker.storage import PutQueue
from queueber.errors import InvalidRequest, Passing, StorageError, Withheld
from queueber.store import inspect, open_store
from queueber.store.datadir.copying import read_only_view
from queueber.store.datadir.database import open_database
from queueber.store.maintenance import inspection
from queueber.store.maintenance.inspection import ATTEMPTS, is_locked
from queueber.store.rows.meta import FORMAT
from queueber.units import WallMs

FIRST = QueueNumber(1)


def at_25(mark):
    assert mark.queue_time == 2_000
    return WallMs(25)


def counts(found):
    return {
        queue.record.name: (queue.items, queue.ready, queue.delayed, queue.leased, queue.leases)
        for queue in found.queues
    }


def test_a_stopped_directory_is_shown_and_not_changed(data, state_of):
    before = state_of(data)
    found = inspect(data, at_25)
    assert counts(found) == {"first": (4, 1, 1, 2, 1), "second": (1, 0, 1, 0, 0), "emptied": (0, 0, 0, 0, 0)}
    assert (found.locked, found.clean_shutdown, found.format.version, found.mark.queue_time) == (
        False,
        True,
        FORMAT,
        2_000,
    )
    assert found.noted <= found.reached
    assert found.disk_bytes > 0
    assert found.items == []
    assert state_of(data) == before


def test_a_directory_in_use_is_shown_and_not_changed(busy, tmp_path, state_of):
    path = tmp_path / "data"
    before = state_of(path)
    found = inspect(path, at_25)
    assert counts(found)["first"] == (4, 1, 1, 2, 1)
    assert (found.locked, found.clean_shutdown) == (True, False)
    after = state_of(path)
    # The server's RocksDB deletes the manifest of the creation in the background.
    assert {**before, **after} == before
    assert before.keys() - after.keys() <= {"db/MANIFEST-000001"}


def test_the_items_of_a_queue_are_shown_in_order_with_their_states(data):
    found = inspect(data, at_25, queue="first", limit=10)
    assert [(item.item.key.due, item.state, len(item.item.contents)) for item in found.items] == [
        (10, "leased", 8),
        (11, "leased", 8),
        (20, "ready", 8),
        (30, "delayed", 50_000),
    ]
    assert len(inspect(data, at_25, queue="first", limit=2).items) == 2


def test_a_leased_item_with_a_later_due_is_not_counted_as_delayed(data, make):
    found = inspect(data, lambda _: WallMs(10))
    assert counts(found)["first"] == (4, 0, 2, 2, 1)


def test_a_missing_queue_is_reported(data):
    with pytest.raises(InvalidRequest, match="there is no queue 'mial'"):
        inspect(data, at_25, queue="mial")


def test_a_directory_that_is_no_data_directory_is_reported(tmp_path):
    with pytest.raises(StorageError, match="'QUEUEBER' is missing"):
        inspect(tmp_path, at_25)


def test_an_inspection_starts_again_when_the_server_removes_a_file(busy, tmp_path, monkeypatch):
    left = [True, True]

    def unlucky(path, **options):
        if left:
            left.pop()
            raise StorageError("IO error: No such file or directory")
        return open_database(path, **options)

    monkeypatch.setattr("queueber.store.datadir.copying.open_database", unlucky)
    assert len(inspect(tmp_path / "data", at_25).queues) == 3
    left[:] = [True] * ATTEMPTS
    with pytest.raises(StorageError, match="No such file"):
        inspect(tmp_path / "data", at_25)
    assert not left


def test_a_file_that_is_missing_without_a_server_is_reported(data, monkeypatch):
    tries = []

    def unlucky(path, **options):
        tries.append(path)
        raise StorageError("no")

    monkeypatch.setattr("queueber.store.datadir.copying.open_database", unlucky)
    with pytest.raises(StorageError):
        inspect(data, at_25)
    assert len(tries) == 1


def test_inspections_do_not_disturb_a_running_server(busy, tmp_path, make):
    for due in range(100, 130):
        busy.commit([], make.mark)
        inspect(tmp_path / "data", at_25, queue="first", limit=due)
    assert len(busy.scan(FIRST, LOWEST, items_max=99, bytes_max=10**9).items) == 4


def test_the_lock_is_examined_without_being_taken(data):
    assert not is_locked(data)
    (data / "lock").unlink()
    assert not is_locked(data)
    store = open_store(data)
    assert is_locked(data)
    store.close()


def test_an_unreadable_list_of_locks_is_reported(data, monkeypatch):
    class Locks:
        def read_text(self):
            raise OSError(errno.EMFILE, "Too many open files", "/proc/locks")

    monkeypatch.setattr(inspection, "_LOCKS", Locks())
    with pytest.raises(
        StorageError, match="which process has locked it cannot be read: /proc/locks: Too many open files"
    ):
        inspect(data, at_25)


@pytest.mark.parametrize(("number", "kind"), [(errno.EMFILE, Passing), (errno.ENOENT, Withheld)])
def test_a_view_that_cannot_be_opened_is_withheld_or_passing(data, monkeypatch, number, kind):
    def refused(*_):
        raise OSError(number, os.strerror(number), "file")

    monkeypatch.setattr(Path, "symlink_to", refused)
    with (
        pytest.raises(kind, match=f"^cannot use data directory {data}: file: {os.strerror(number)}$"),
        read_only_view(data),
    ):
        pass


def test_dead_items_are_apart_from_the_queue_of_that_name(data, make):
    store = open_store(data)
    store.commit([PutQueue(QueueRecord(QueueNumber(9), "first", 0, 0, LOWEST, dead_of=FIRST))], make.mark)
    store.close()
    found = inspect(data, at_25, queue="first", limit=9)
    assert [(queue.record.name, queue.dead) for queue in found.queues if queue.record.name == "first"] == [
        ("first", False),
        ("first", True),
    ]
    assert len(found.items) == 4

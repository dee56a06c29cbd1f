"""A store whose disk fails: it refuses further commits, and notes the failure for the next start."""

import os
from contextlib import closing

import pytest

from queueber.broker.model import QueueNumber
from queueber.broker.storage import PutItems, StoreStalled
from queueber.errors import Stalled, StorageError
from queueber.plyvel import DB
from queueber.store import Durability, open_store
from queueber.store.datadir.synced import SyncedFile

MAIL = QueueNumber(1)


def put(store, make, due):
    store.commit([PutItems(MAIL, [make.item(due)])], make.mark)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data"


class TestFailure:
    """A failed write or sync, which ends the server."""

    @pytest.fixture
    def store(self, path, make):
        store = open_store(path)
        put(store, make, 1)
        yield store
        store.close()

    def fails(self, store, monkeypatch, owner, name, error=None):
        def fail(*_):
            raise error or StorageError("injected")

        monkeypatch.setattr(owner, name, fail)

    def left(self, path):
        file = SyncedFile(path / "synced")
        return file.read(), file.failed

    @pytest.mark.parametrize("call", ["sync", "write_many"])
    def test_a_failed_commit_notes_the_last_synced_sequence(self, store, path, make, monkeypatch, call):
        synced = store.synced_sequence
        with monkeypatch.context() as broken:
            self.fails(store, broken, DB, call)
            with pytest.raises(StorageError, match="injected"):
                put(store, make, 2)
        assert self.left(path) == (synced, True)
        assert synced == store.synced_sequence

    def test_a_failed_first_commit_notes_the_sequence_of_the_start(self, tmp_path, make, monkeypatch):
        store = open_store(tmp_path / "other")
        noted = SyncedFile(tmp_path / "other" / "synced").read()
        with monkeypatch.context() as broken:
            self.fails(store, broken, DB, "sync")
            with pytest.raises(StorageError, match="injected"):
                put(store, make, 1)
        assert self.left(tmp_path / "other") == (noted, True)
        store.close()

    def test_no_commit_and_no_note_follows_a_failure(self, store, path, make, monkeypatch):
        synced = store.synced_sequence
        with monkeypatch.context() as broken:
            self.fails(store, broken, DB, "sync")
            with pytest.raises(StorageError, match="injected"):
                put(store, make, 2)
        with pytest.raises(StorageError, match="a write or a sync has failed before"):
            put(store, make, 3)
        store.note_synced()
        assert self.left(path) == (synced, True)

    def test_a_failed_note_is_a_failure(self, store, path, make, monkeypatch):
        with monkeypatch.context() as broken:
            self.fails(store, broken, os, "fdatasync", OSError("injected"))
            with pytest.raises(OSError, match="injected"):
                store.note_synced()
        assert self.left(path) == (store.synced_sequence, True)

    def test_a_note_that_fails_during_a_commit_fails_the_commit(self, path, make, monkeypatch):
        """The commit may be later than the noted sequence number."""

        def note(_):
            with pytest.raises(OSError, match="injected"):
                store.note_synced()

        store = open_store(path, on_sync=note)
        with closing(store), monkeypatch.context() as broken:
            self.fails(store, broken, os, "fdatasync", OSError("injected"))
            with pytest.raises(StorageError, match="a write or a sync has failed before"):
                put(store, make, 2)

    def test_a_failed_close_is_a_failure(self, path, make, monkeypatch):
        store = open_store(path)
        put(store, make, 1)
        synced = store.synced_sequence
        with monkeypatch.context() as broken:
            self.fails(store, broken, DB, "sync")
            with pytest.raises(StorageError, match="injected"):
                store.close()
        assert self.left(path) == (synced, True)
        store.close()

    def test_a_stall_is_not_a_failure(self, store, path, make, monkeypatch):
        with monkeypatch.context() as stalling:
            self.fails(store, stalling, DB, "write_many", Stalled("not now"))
            with pytest.raises(StoreStalled):
                put(store, make, 2)
        put(store, make, 2)
        assert not self.left(path)[1]

    def test_nothing_is_noted_without_fsync(self, tmp_path, make, monkeypatch):
        store = open_store(tmp_path / "os", durability=Durability.OS)
        before = self.left(tmp_path / "os")
        with monkeypatch.context() as broken:
            self.fails(store, broken, DB, "write_many")
            with pytest.raises(StorageError, match="injected"):
                put(store, make, 1)
        assert self.left(tmp_path / "os") == before
        store.close()

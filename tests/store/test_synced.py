"""The file `synced`, with the sequence number up to which the log is on disk."""

import os
from threading import Event

import pytest

from queueber.errors import StorageError
from queueber.store.datadir import synced
from queueber.store.datadir.synced import SyncedFile


@pytest.fixture
def path(tmp_path):
    return tmp_path / "synced"


def noted(path) -> int | None:
    return SyncedFile(path).read()


def test_without_a_file_there_is_no_number(path):
    assert noted(path) is None


def test_the_last_number_is_read(path):
    file = SyncedFile(path)
    for number in (5, 6, 7, 9, 200):
        file.note(number)
        assert noted(path) == number


def test_marks_are_written_after_reopening(path):
    for number in (5, 6, 7, 8, 9):
        file = SyncedFile(path)
        file.read()
        file.note(number)
        assert noted(path) == number


def test_an_unchanged_number_costs_no_sync(path, monkeypatch):
    file = SyncedFile(path)
    file.note(5)
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: pytest.fail("synced"))
    file.note(5)


@pytest.mark.parametrize("cut", range(22))
@pytest.mark.parametrize("last", [6, 7])
def test_a_torn_slot_leaves_the_other_valid(path, last, cut, monkeypatch):
    """A write torn at any byte: the previous mark is still there, and further marks can be written."""
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: None)  # a dozen syncs for each of the cuts take seconds
    file = SyncedFile(path)
    for number in range(1, last + 1):
        file.note(number)
    before = path.read_bytes()
    file.note(last + 1)
    after = path.read_bytes()
    slot = next(i for i in range(len(after)) if before[i] != after[i]) // 4096 * 4096
    path.write_bytes(before[:slot] + after[slot : slot + cut] + before[slot + cut :])
    assert noted(path) in {last, last + 1}
    for number in (last + 2, last + 3):
        file = SyncedFile(path)
        file.read()
        file.note(number)
        assert noted(path) == number


def test_a_file_without_a_readable_slot_is_damaged(path):
    path.write_bytes(b"x" * 5000)
    with pytest.raises(StorageError, match=f"{path} is damaged; `queueber recover` shows"):
        noted(path)


def test_the_file_is_created_atomically(path):
    """A power cut during its creation leaves only a file under another name."""
    (path.parent / "synced.new").write_bytes(b"x")
    assert noted(path) is None
    file = SyncedFile(path)
    file.note(1)
    assert [entry.name for entry in path.parent.iterdir()] == ["synced"]


OLD = ("019a986fce00000000010000000500000000000000", "011417682d00000000010000000600000000000000")
"""The marks 5 and 6, as written by a version without the flag."""


def ended(path) -> tuple[int | None, bool]:
    file = SyncedFile(path)
    return file.read(), file.failed


class TestTheFinalMark:
    """The mark of a server that ends itself because of a failed write or sync."""

    def test_it_is_the_newest_until_the_next_start_writes_a_mark(self, path):
        for started in range(1, 40, 10):
            file = SyncedFile(path)
            file.read()
            for number in range(started, started + started % 3 + 1):
                file.note(number)
            file.note_failed(started + 5)
            assert ended(path) == (started + 5, True)
        file = SyncedFile(path)
        file.read()
        file.note(100)
        assert ended(path) == (100, False)
        assert not file.failed

    def test_it_may_have_the_same_number_as_the_previous_mark(self, path):
        file = SyncedFile(path)
        file.note(5)
        file.note(6)
        file.note_failed(0)
        assert ended(path) == (6, True)

    @pytest.mark.parametrize("last", [6, 7])
    def test_it_does_not_overwrite_the_newest_slot(self, path, last):
        file = SyncedFile(path)
        for number in range(1, last + 1):
            file.note(number)
        before = path.read_bytes()
        file.note_failed(last + 1)
        after = path.read_bytes()
        slot = next(i for i in range(len(after)) if before[i] != after[i]) // 4096 * 4096
        path.write_bytes(after[:slot] + b"torn" + after[slot + 4 :])
        assert ended(path) == (last, False)

    def test_it_overwrites_a_mark_whose_sync_failed(self, path, monkeypatch):
        file = SyncedFile(path)
        file.note(5)
        file.note(6)

        def fail(_):
            raise OSError("injected")

        monkeypatch.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match="injected"):
            file.note(7)
        file.note_failed(7)
        content = path.read_bytes()
        assert ended(path) == (7, True)
        path.write_bytes(bytes(4096) + content[4096:])
        kept = noted(path)
        path.write_bytes(content[:4096])
        assert {kept, noted(path)} == {6, 7}

    def test_no_mark_is_written_after_it(self, path):
        file = SyncedFile(path)
        file.note(5)
        file.note_failed(6)
        file.note(7)
        assert ended(path) == (6, True)

    def test_it_is_not_synced(self, path, monkeypatch):
        file = SyncedFile(path)
        file.note(5)
        monkeypatch.setattr(os, "fdatasync", lambda _: pytest.fail("synced"))
        monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("synced"))
        file.note_failed(6)
        assert ended(path) == (6, True)

    @pytest.mark.parametrize("call", ["open", "pwrite"])
    def test_its_errors_are_suppressed(self, path, monkeypatch, call):
        file = SyncedFile(path)
        file.note(5)

        def fail(*_):
            raise OSError("injected")

        with monkeypatch.context() as broken:
            broken.setattr(os, call, fail)
            file.note_failed(6)
        assert ended(path) == (5, False)

    def test_a_thread_that_cannot_start_is_suppressed(self, path, monkeypatch):
        file = SyncedFile(path)
        file.note(5)

        def fail(**_):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(synced, "Thread", fail)
        file.note_failed(6)
        assert ended(path) == (5, False)

    def test_the_wait_for_the_disk_is_bounded(self, path, monkeypatch):
        file = SyncedFile(path)
        file.note(5)
        disk, written = Event(), Event()
        write = os.pwrite

        def hang(*args):
            disk.wait(60)
            write(*args)
            written.set()

        monkeypatch.setattr(os, "pwrite", hang)
        monkeypatch.setattr(synced, "FINAL_MARK_SECONDS", 0.0)
        file.note_failed(6)
        assert not written.is_set()
        disk.set()
        assert written.wait(60)


def test_marks_without_the_flag_are_read_and_still_written(path):
    """Both slots from an older version, and then one from this version."""
    file = SyncedFile(path)
    file.note(5)
    file.note(6)
    old = [bytes.fromhex(note) for note in OLD]
    assert [path.read_bytes()[at : at + len(note)] for at, note in zip((0, 4096), reversed(old), strict=True)] == old[
        ::-1
    ]
    path.write_bytes(old[0].ljust(4096, b"\0") + old[1])
    assert ended(path) == (6, False)
    file = SyncedFile(path)
    file.read()
    file.note(7)
    assert ended(path) == (7, False)
    assert noted(path) == 7
    file.note_failed(8)
    assert ended(path) == (8, True)

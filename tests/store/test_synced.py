"""The note of how far the log was on disk."""

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


def test_without_a_file_nothing_is_known(path):
    assert noted(path) is None


def test_the_last_number_noted_is_read(path):
    file = SyncedFile(path)
    for number in (5, 6, 7, 9, 200):
        file.note(number)
        assert noted(path) == number


def test_noting_goes_on_after_opening_again(path):
    for number in (5, 6, 7, 8, 9):
        file = SyncedFile(path)
        file.read()
        file.note(number)
        assert noted(path) == number


def test_no_news_cost_no_sync(path, monkeypatch):
    file = SyncedFile(path)
    file.note(5)
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: pytest.fail("synced"))
    file.note(5)


@pytest.mark.parametrize("cut", range(22))
@pytest.mark.parametrize("last", [6, 7])
def test_a_torn_slot_leaves_the_one_before(path, last, cut):
    """A write is torn at some byte: what was noted before it is still there, and noting goes on."""
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


def test_it_is_there_whole_or_not_at_all(path):
    """What a power cut while it is first written leaves behind is under another name."""
    (path.parent / "synced.new").write_bytes(b"x")
    assert noted(path) is None
    file = SyncedFile(path)
    file.note(1)
    assert [entry.name for entry in path.parent.iterdir()] == ["synced"]


OLD = ("019a986fce00000000010000000500000000000000", "011417682d00000000010000000600000000000000")
"""The notes 5 and 6 by a version without the flag."""


def ended(path) -> tuple[int | None, bool]:
    file = SyncedFile(path)
    return file.read(), file.failed


class TestTheLastNote:
    """By a server that ends itself because a write or a sync has failed."""

    def test_it_is_the_newest_until_the_next_start_notes_something(self, path):
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

    def test_nothing_new_was_synced_since_the_note_before(self, path):
        file = SyncedFile(path)
        file.note(5)
        file.note(6)
        file.note_failed(0)
        assert ended(path) == (6, True)

    @pytest.mark.parametrize("last", [6, 7])
    def test_it_spares_the_newest_slot(self, path, last):
        file = SyncedFile(path)
        for number in range(1, last + 1):
            file.note(number)
        before = path.read_bytes()
        file.note_failed(last + 1)
        after = path.read_bytes()
        slot = next(i for i in range(len(after)) if before[i] != after[i]) // 4096 * 4096
        path.write_bytes(after[:slot] + b"torn" + after[slot + 4 :])
        assert ended(path) == (last, False)

    def test_it_goes_over_a_note_whose_sync_failed(self, path, monkeypatch):
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

    def test_none_is_made_after_it(self, path):
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
    def test_what_fails_about_it_is_nobodys_business(self, path, monkeypatch, call):
        file = SyncedFile(path)
        file.note(5)

        def fail(*_):
            raise OSError("injected")

        with monkeypatch.context() as broken:
            broken.setattr(os, call, fail)
            file.note_failed(6)
        assert ended(path) == (5, False)

    def test_neither_is_that_there_can_be_no_thread(self, path, monkeypatch):
        file = SyncedFile(path)
        file.note(5)

        def fail(**_):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(synced, "Thread", fail)
        file.note_failed(6)
        assert ended(path) == (5, False)

    def test_nobody_waits_for_a_disk_that_takes_it_for_ever(self, path, monkeypatch):
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


def test_notes_from_before_there_was_a_flag_are_read_and_still_written(path):
    """By an older version, slot after slot, and then by this one."""
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

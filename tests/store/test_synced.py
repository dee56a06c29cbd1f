"""The note of how far the log was on disk."""

import os

import pytest

from queueber.errors import StorageError
from queueber.store.synced import SyncedFile


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

"""
How far the log was known to be on disk, noted where the loss of the log does not take the note with it.

RocksDB opens without complaint when its newest log file is missing, empty, or
cut between two records: it cannot know how far the log once went.  So about
once a second the sequence number of the last synced commit goes into a small
file beside the database, and a database that has not got so far any more is
refused at start.

The file has two slots, written in turn, so that a power cut in the middle of
writing one leaves the other.  Each is a sealed SyncMark.
"""

import os
from pathlib import Path
from typing import Final

from queueber.errors import StorageError
from queueber.store.directory import SYNCED_NEW, sync_path
from queueber.store.records import decode_sequence, encode_sequence

# Slots a page apart: what a disk writes at once is not larger.
_SLOT_BYTES: Final = 4_096
_SLOTS: Final = 2
_ROW: Final = b"synced"
_MARK_BYTES: Final = len(encode_sequence(_ROW, 0))


class SyncedFile:
    """The note in *path*: first `read`, then `note` as often as you like.  One user at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = 0
        self._noted: int | None = None

    def read(self) -> int | None:
        """
        The highest sequence number noted; None without a file, which is how copies made while running look.

        Raises:
            StorageError: no slot is readable, which no power cut brings about.
        """
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        marks = [_mark(content[slot * _SLOT_BYTES :][:_MARK_BYTES]) for slot in range(_SLOTS)]
        found = [mark for mark in marks if mark is not None]
        if not found:
            raise StorageError(f"{self._path} is damaged; `queueber recover` shows what can be gone on with")
        self._noted = max(found)
        # The next goes over the older one, or over the one that cannot be read.
        self._turn = marks.index(None) if None in marks else marks.index(min(found))
        return self._noted

    def note(self, sequence: int) -> None:
        """Durably note that everything up to *sequence* is on disk.  Costs one sync, or nothing if it is no news."""
        if sequence == self._noted:
            return
        mark = encode_sequence(_ROW, sequence)
        if self._noted is None:
            self._create(mark)
        else:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(descriptor, mark, self._turn * _SLOT_BYTES)
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
            self._turn = (self._turn + 1) % _SLOTS
        self._noted = sequence

    def _create(self, mark: bytes) -> None:
        # Under another name first: after a power cut there must be no file, or one that can be read.
        new = self._path.with_name(SYNCED_NEW)
        new.write_bytes(mark.ljust(_SLOT_BYTES, b"\0") + mark)
        sync_path(new)
        new.rename(self._path)
        sync_path(self._path.parent)


def _mark(slot: bytes) -> int | None:
    """The number in *slot*; None if it cannot be read."""
    try:
        return decode_sequence(_ROW, slot)
    except StorageError:
        return None

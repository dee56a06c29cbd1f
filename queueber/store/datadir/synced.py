"""
How far the log was known to be on disk, noted where the loss of the log does not take the note with it.

RocksDB opens without complaint when its newest log file is missing, empty, or
cut between two records: it cannot know how far the log once went.  So about
once a second the sequence number of the last synced commit goes into a small
file beside the database, and a database that has not got so far any more is
refused at start.

The file has two slots, written in turn, so that a power cut in the middle of
writing one leaves the other.  Each is a sealed SyncMark.

A server that ends itself because a write or a sync has failed leaves a last
note there: exactly how far it had got, and that nothing behind that was
acknowledged.  By that the next start tells a commit that the disk has lost
half of from damage to what was acknowledged.  While such a note is the newest,
nothing is acknowledged; the ordinary one of the next start ends that.
"""

import os
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread
from typing import Final

from queueber.errors import StorageError
from queueber.store.datadir.directory import SYNCED_NEW, sync_path
from queueber.store.rows.records import decode_synced, encode_sequence

# Slots a page apart: what a disk writes at once is not larger.
_SLOT_BYTES: Final = 4_096
_SLOTS: Final = 2
_ROW: Final = b"synced"
# The flag has a word of its own, which is only written with it.
_MARK_BYTES: Final = tuple(len(encode_sequence(_ROW, 0, failed=failed)) for failed in (False, True))

LAST_NOTE_SECONDS: Final = 1.0
"""How long a server that has to end waits for its last note, on a disk of which nobody knows what it still does."""


class SyncedFile:
    """
    The note in *path*: first `read`, then `note` as often as you like, then `close`.

    One at a time, but for `note_failed`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = 0
        self._noted: int | None = None
        self._descriptor: int | None = None
        self._writing = Lock()
        """Held while a slot is written, and not while it is synced, which may never end."""

        self._over = False
        self.failed = False
        """Whether the newest note is by a server that ended itself for a failed write."""

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
        marks = [_mark(content[slot * _SLOT_BYTES :]) for slot in range(_SLOTS)]
        found = [mark for mark in marks if mark is not None]
        if not found:
            raise StorageError(f"{self._path} is damaged; `queueber recover` shows what can be gone on with")
        # Of two with one number the failure's is newer: every start writes something before it notes anything.
        self._noted, self.failed = max(found)
        # The next goes over the older one, or over the one that cannot be read.
        self._turn = marks.index(None) if None in marks else marks.index(min(found))
        return self._noted

    def note(self, sequence: int) -> None:
        """
        Durably note that everything up to *sequence* is on disk.

        Costs one sync, or nothing if it is no news or the last note was made.
        """
        if sequence == self._noted:
            assert not self.failed, "the note of a failure can only be followed by one of something newer"
            return
        if self._noted is None:
            self.create(sequence)
            return
        descriptor = self.open()
        with self._writing:
            if self._over:
                return
            self._write(descriptor, encode_sequence(_ROW, sequence))
        os.fdatasync(descriptor)
        self._turn = (self._turn + 1) % _SLOTS
        self._noted, self.failed = sequence, False

    def open(self) -> int:
        """
        A descriptor of the file, which must be there; kept until `close`.

        A process that has no descriptor to spare for a moment must not end for want of a note.
        """
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        return self._descriptor

    def close(self) -> None:
        """Let go of the file.  Does nothing the second time."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def note_failed(self, sequence: int) -> None:
        """
        Note, as far as the disk still takes it, that nothing behind *sequence* was or will be acknowledged.

        The last note: no other is made any more.  Not synced, because that may
        never end on a disk that fails; what it does not survive is a power
        cut, after which it is not needed.  From any thread; raises nothing, and returns within `LAST_NOTE_SECONDS`.
        """
        self._over = True
        mark = encode_sequence(_ROW, max(sequence, self._noted or 0), failed=True)
        with suppress(Exception):
            # Even a write into the page cache may wait for the disk.
            writer = Thread(target=self._write_last, args=(mark,), daemon=True)
            writer.start()
            writer.join(LAST_NOTE_SECONDS)

    def _write_last(self, mark: bytes) -> None:
        with suppress(OSError):
            descriptor = self.open()
            with self._writing:
                self._write(descriptor, mark)

    def _write(self, descriptor: int, mark: bytes) -> None:
        """Over the older slot, or one whose sync has not come to an end: the newest that is on disk stays."""
        os.pwrite(descriptor, mark, self._turn * _SLOT_BYTES)

    def create(self, sequence: int, *, failed: bool = False) -> None:
        """Durably make the file, which is not there."""
        self._create(encode_sequence(_ROW, sequence, failed=failed))
        self._noted, self.failed = sequence, failed

    def _create(self, mark: bytes) -> None:
        # Under another name first: after a power cut there must be no file, or one that can be read.
        new = self._path.with_name(SYNCED_NEW)
        new.write_bytes(mark.ljust(_SLOT_BYTES, b"\0") + mark)
        sync_path(new)
        new.rename(self._path)
        sync_path(self._path.parent)


def _mark(slot: bytes) -> tuple[int, bool] | None:
    """The number in *slot* and whether it was a failure's; None if it cannot be read."""
    for size in _MARK_BYTES:
        with suppress(StorageError):
            return decode_synced(_ROW, slot[:size])
    return None

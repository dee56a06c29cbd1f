"""
The file `synced`: the sequence number up to which the log is known to be on disk, kept outside of the log.

RocksDB opens without an error when its newest log file is missing, empty, or
cut between two records, because it does not know how long the log was.  So
about once a second the sequence number of the last synced commit is written to
this file, and a start refuses a database that ends before it.

The file has two slots that are written in turn, so that a power cut during a
write leaves the other one valid.  Each contains a `SyncMark` row.

A server that ends itself because of a failed write or sync writes a final mark,
with the flag `failed`: the exact sequence number up to which everything was
synced, after which nothing was acknowledged.  With it the next start can
distinguish an unacknowledged commit that the disk has partly lost from
damage to acknowledged ones.  While a failed mark is the newest, nothing is
acknowledged; the mark that the next start writes ends this state.
"""

import os
from contextlib import suppress
from pathlib import Path
from threading import Lock, Thread
from typing import Final

from queueber.errors import StorageError
from queueber.store.datadir.directory import SYNCED_NEW, sync_path
from queueber.store.rows.records import decode_sync_mark, encode_sync_mark

# Slots are a page apart: a disk does not write more than a page at once.
_SLOT_BYTES: Final = 4_096
_SLOTS: Final = 2
_ROW_KEY: Final = b"synced"
# A mark with the flag is a word longer, because the flag has a word of its own that is written only if it is set.
_MARK_BYTES: Final = tuple(len(encode_sync_mark(_ROW_KEY, 0, failed=failed)) for failed in (False, True))

FINAL_MARK_SECONDS: Final = 1.0
"""Longest wait for the final mark, on a disk that has just failed."""


class SyncedFile:
    """
    The marks in the file *path*.

    Call `read` first, then `note` any number of times, then `close`.  Not
    thread-safe, except for `note_failed`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next_slot = 0
        self._noted: int | None = None
        self._descriptor: int | None = None
        self._writing = Lock()
        """Held while a slot is written, but not during the sync, which may never return."""

        self._final = False
        """Whether `note_failed` was called; no other mark is written after it."""

        self.failed = False
        """Whether the newest mark was written because of a failed write or sync."""

    def read(self) -> int | None:
        """
        Return the highest sequence number in the file; None if there is no file.

        There is none with durability `none`, or if an operator removed it to accept a loss.

        Raises:
            StorageError: no slot is valid, which a power cut cannot cause.
        """
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        marks = [_decode_slot(content[slot * _SLOT_BYTES :]) for slot in range(_SLOTS)]
        valid = [mark for mark in marks if mark is not None]
        if not valid:
            raise StorageError(f"{self._path} is damaged; `queueber recover` shows what can be recovered")
        # Of two marks with the same number, the failed one is newer: a start writes rows before its first mark.
        self._noted, self.failed = max(valid)
        # Write next over the invalid slot, or over the older one.
        self._next_slot = marks.index(None) if None in marks else marks.index(min(valid))
        return self._noted

    def note(self, sequence: int) -> None:
        """
        Durably write that everything up to *sequence* is on disk.

        Costs one sync; nothing if *sequence* was written before, or after the final mark.
        """
        if sequence == self._noted:
            assert not self.failed, "the mark of a failure can only be followed by one with a higher number"
            return
        if self._noted is None:
            self.create(sequence)
            return
        descriptor = self.open()
        with self._writing:
            if self._final:
                return
            self._write(descriptor, encode_sync_mark(_ROW_KEY, sequence))
        os.fdatasync(descriptor)
        self._next_slot = (self._next_slot + 1) % _SLOTS
        self._noted, self.failed = sequence, False

    def open(self) -> int:
        """
        Return a descriptor of the existing file; it stays open until `close`.

        Opened once, so that a process without a free descriptor can still write its mark.
        """
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        return self._descriptor

    def close(self) -> None:
        """Close the file.  Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def note_failed(self, sequence: int) -> None:
        """
        Write the final mark: no write after *sequence* was or will be acknowledged.

        Thread-safe, raises nothing, and returns within `FINAL_MARK_SECONDS`.
        The mark is not synced, because a sync may never return on a failing
        disk.  It is lost only in a power cut, after which it is not needed.
        """
        self._final = True
        mark = encode_sync_mark(_ROW_KEY, max(sequence, self._noted or 0), failed=True)
        with suppress(Exception):
            # In a thread: even a write to the page cache may wait for the disk.
            writer = Thread(target=self._write_final, args=(mark,), daemon=True)
            writer.start()
            writer.join(FINAL_MARK_SECONDS)

    def _write_final(self, mark: bytes) -> None:
        with suppress(OSError):
            descriptor = self.open()
            with self._writing:
                self._write(descriptor, mark)

    def _write(self, descriptor: int, mark: bytes) -> None:
        """Write *mark* over the older slot, or over one whose sync has not returned: the newest durable mark stays."""
        os.pwrite(descriptor, mark, self._next_slot * _SLOT_BYTES)

    def create(self, sequence: int, *, failed: bool = False) -> None:
        """Durably create the missing file."""
        self._create(encode_sync_mark(_ROW_KEY, sequence, failed=failed))
        self._noted, self.failed = sequence, failed

    def _create(self, mark: bytes) -> None:
        # Under another name first: after a power cut there is either no file or a valid one.
        new = self._path.with_name(SYNCED_NEW)
        new.write_bytes(mark.ljust(_SLOT_BYTES, b"\0") + mark)
        sync_path(new)
        new.rename(self._path)
        sync_path(self._path.parent)


def _decode_slot(slot: bytes) -> tuple[int, bool] | None:
    """Return the sequence number in *slot* and its flag; None if the slot is not valid."""
    for size in _MARK_BYTES:
        with suppress(StorageError):
            return decode_sync_mark(_ROW_KEY, slot[:size])
    return None

"""`RocksStore`, the store in a data directory, and `open_store`, which checks and opens it."""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Lock

from queueber.broker import TimeMark, Write
from queueber.broker.storage import Recovered, StoreStalled
from queueber.errors import StorageError, reason
from queueber.plyvel import CorruptionError
from queueber.plyvel.rocksdb import RocksDB
from queueber.store.datadir.copying import ProgressCallback, no_progress
from queueber.store.datadir.database import open_database, read_properties
from queueber.store.datadir.directory import DATABASE, LockedDirectory, directory_error, lock_directory
from queueber.store.datadir.synced import SyncedFile
from queueber.store.datadir.torn_tail import cut_torn_tail
from queueber.store.maintenance.backup import back_up
from queueber.store.rows.kv_store import Durability, KeyValueStore
from queueber.store.rows.meta import (
    check_version,
    delete_clean_mark,
    mark_clean_shutdown,
    read_format,
    upgrade,
    was_shut_down_cleanly,
    write_format,
)
from queueber.store.rows.values import Encoding
from queueber.store.tuning import DEFAULT_TUNING, FLUSH_FILES, TUNING_OPTIONS, Tuning, flush_bytes_max
from queueber.units import counted

_WRITE_BUFFER_BYTES = b"rocksdb.cur-size-all-mem-tables"


class RocksStore(KeyValueStore):
    """The store in a data directory, made by `open_store`."""

    def __init__(
        self,
        db: RocksDB,
        directory: LockedDirectory,
        synced: SyncedFile,
        *,
        durability: Durability,
        encoding: Encoding,
        created: bool,
        clean_shutdown: bool,
        dropped: str | None,
        on_sync: Callable[[float], object] | None,
    ) -> None:
        super().__init__(db, durability=durability, encoding=encoding, on_sync=on_sync)
        self._engine = db
        self._using_engine = Lock()
        """Held by a backup and by `reclaim_space`, so that the database is not closed meanwhile."""

        self._flushed_sequence = 0
        self.unflushed_bytes = 0
        """Size of the write buffers, which are yet to be written to table files.  Updated by each commit."""

        self._closing = False
        self._directory = directory
        self._synced = synced
        self._created = created
        self._clean_shutdown = clean_shutdown
        self._dropped = dropped
        self._failed = False

    @property
    def closing(self) -> bool:
        """Whether `close` was called, which may wait for a backup or a flush to end."""
        return self._closing

    @property
    def created(self) -> bool:
        """Whether the database was created by this opening."""
        return self._created

    @property
    def clean_shutdown(self) -> bool:
        """Whether the previous server closed its store; also True if there was none."""
        return self._clean_shutdown

    @property
    def dropped(self) -> str | None:
        """A sentence about the damaged end of the log that this opening cut off; None if it was sound."""
        return self._dropped

    def note_synced(self) -> None:
        """
        Write the last synced sequence number to `synced`, so that the next start detects a missing end of the log.

        Blocks for one sync, unless nothing was committed since.  Called about once a second, by one thread at a time;
        commits may go on.  An `OSError` is as final as that of a commit: the disk is the same.
        """
        if self._synced_sequence:
            try:
                self._synced.note(self._synced_sequence)
            except Exception:
                self._note_failure()
                raise

    @property
    def in_force(self) -> dict[str, str]:
        """RocksDB's options as it reported them."""
        return self._engine.in_force

    @property
    def fixed_options(self) -> dict[str, str]:
        """RocksDB's options in force that an operator cannot choose."""
        chosen = {option.rocksdb for option in TUNING_OPTIONS}
        return {name: value for name, value in self.in_force.items() if name not in chosen}

    def reclaim_space(self) -> None:
        """
        Flush the write buffers, so that compaction frees the space of removed items soon.

        Deletions are so small that they stay in memory for long, and no compaction sees them there.  Does nothing if
        nothing was written since the last call.
        """
        with self._using_engine:
            sequence = self._engine.sequence()
            if sequence != self._flushed_sequence and not self._closing:
                self._check_descriptors("making room")
                self._engine.flush()
                self._flushed_sequence = sequence
                self._update_unflushed_bytes()

    def recover(self) -> Recovered:
        """Read the state from which a broker starts; a `StorageError` names the directory and the row."""
        try:
            return super().recover()
        except StorageError as error:
            raise directory_error(self._directory.path, _with_advice(error), error) from error

    def commit(self, writes: Sequence[Write], mark: TimeMark) -> None:
        """
        Apply *writes* atomically, with the durability that the store was opened with.

        Any error but `StoreStalled` is final: it is noted for the next start, and all later commits are refused.
        """
        if self._failed:
            raise _failed_before()
        try:
            super().commit(writes, mark)
        except StoreStalled:
            raise
        except Exception:
            self._note_failure()
            raise
        # `_update_unflushed_bytes` without the call: lone calls wait for each step of a commit.
        self.unflushed_bytes = int(self._engine.get_property(_WRITE_BUFFER_BYTES) or 0)
        # `note_synced` may have failed during this commit, and noted that no later write is acknowledged.
        if self._failed:
            raise _failed_before()

    def _note_failure(self) -> None:
        """Refuse further commits, and note for the next start that no write after the last sync was acknowledged."""
        # The flag first: no commit that the note does not cover may be acknowledged.
        self._failed = True
        if self._sync:
            self._synced.note_failed(self._synced_sequence)

    def backup(self, target: Path, progress: ProgressCallback = no_progress) -> None:
        """
        Copy everything committed so far to *target*, as `queueber.store.maintenance.backup.back_up` does.

        Blocks for long; commits may go on, and `close` ends it soon.  After a `StorageError` this store is as usable as
        before.
        """

        def report(done: int, total: int) -> None:
            progress(done, total)
            if self._closing:
                raise StorageError("the server is stopping")

        with self._using_engine:
            report(0, 0)
            self._check_room_for_flush()
            back_up(self._engine, self._directory, target, report)

    def _update_unflushed_bytes(self) -> None:
        self.unflushed_bytes = int(self._engine.get_property(_WRITE_BUFFER_BYTES) or 0)

    def _check_room_for_flush(self) -> None:
        """Refuse a backup without room for the flush that it begins with: RocksDB stops for good if a flush fails."""
        self._update_unflushed_bytes()
        self._check_descriptors("a backup")
        found = os.statvfs(self._directory.path)
        if found.f_files and found.f_favail < FLUSH_FILES:
            raise StorageError(
                f"{self._directory.path} has {counted(found.f_favail, 'inode')} free, and a backup begins by writing"
                f" up to {FLUSH_FILES} files: make room first"
            )
        free = shutil.disk_usage(self._directory.path).free
        if free < flush_bytes_max(self.unflushed_bytes):
            raise StorageError(
                f"{self._directory.path} has {counted(free, 'byte')} free, and a backup begins by writing the"
                f" {counted(self.unflushed_bytes, 'that is', 'that are')} in memory: make room first"
            )

    def _check_descriptors(self, what: str) -> None:
        """Check that *what* can open as many files as a flush may: RocksDB stops for good if it cannot."""
        with ExitStack() as spare:
            try:
                for _ in range(FLUSH_FILES):
                    spare.callback(os.close, os.open(self._directory.path, os.O_RDONLY | os.O_CLOEXEC))
            except OSError as error:
                raise StorageError(f"{what} needs {FLUSH_FILES} descriptors: {reason(error)}; try later") from None

    def properties(self) -> dict[str, int]:
        """Return RocksDB's properties as `queueber.store.datadir.database.read_properties` does.  May block briefly."""
        return read_properties(self._engine)

    def close(self) -> None:
        """Mark a clean shutdown, close the database and release the directory."""
        self._closing = True
        with self._using_engine:
            self._close()

    def _close(self) -> None:
        try:
            mark_clean_shutdown(self._db)
            super().close()
        except Exception:
            self._note_failure()
            raise
        self.note_synced()
        self._synced.close()
        self._directory.release()


def _failed_before() -> StorageError:
    return StorageError("a write or a sync has failed before; nothing is written after that")


def _ignore(_: str) -> None:
    """Ignore a report."""


def open_store(
    path: Path,
    *,
    durability: Durability = Durability.FSYNC,
    encoding: Encoding = Encoding.UNPACKED,
    tuning: Tuning = DEFAULT_TUNING,
    boot_id: bytes = b"",
    report: Callable[[str], object] = _ignore,
    on_sync: Callable[[float], object] | None = None,
    upgrading: ProgressCallback = no_progress,
) -> RocksStore:
    """
    Open the store in the data directory *path*, which is created if it is missing.

    Args:
        path: the directory.  Other users must not be able to write to it; afterwards they cannot read it either.
        durability: failures that a commit survives.  `none` requires a directory that was created with it, and such a
            directory cannot be opened otherwise.
        encoding: the encoding of structs that are written from now on.
        tuning: the operator's choice of RocksDB's options.
        boot_id: the machine's present boot, as time marks name it.  Without it, a damaged end of the log is not
            attributed to a power cut, only to a failed write that was noted.
        report: called with a sentence about a damaged end of the log, before it is cut off.
        on_sync: called with the duration of each sync of the log in seconds, on the thread that made it.
        upgrading: called with the number of items done and in total while data of an older format is converted.  If it
            raises, the next opening goes on.

    Raises:
        StorageError: the directory or its content cannot be used.  The text is one line with its name and the reason.
    """
    directory = lock_directory(path)
    with ExitStack() as undo:
        undo.callback(directory.release)
        try:
            store = _open(directory, undo, durability, encoding, tuning, boot_id, report, on_sync, upgrading)
        except (StorageError, OSError) as error:
            raise directory_error(path, _with_advice(error), error) from error
        undo.pop_all()
    return store


def _open(
    directory: LockedDirectory,
    undo: ExitStack,
    durability: Durability,
    encoding: Encoding,
    tuning: Tuning,
    boot_id: bytes,
    report: Callable[[str], object],
    on_sync: Callable[[float], object] | None,
    upgrading: ProgressCallback,
) -> RocksStore:
    """Open the store in *directory*; *undo* receives the callbacks that close it again."""
    wal = durability is not Durability.NONE
    # A backup that was in progress when the last server died.
    shutil.rmtree(directory.staging, ignore_errors=True)
    synced = SyncedFile(directory.synced)
    created, clean_shutdown, dropped = not directory.ready, True, None
    if not created:
        directory.confirm()
        noted = synced.read()
        try:
            db = open_database(directory.database, wal=wal, tuning=tuning)
        except CorruptionError:
            dropped = cut_torn_tail(directory, noted, boot_id, report, failed=synced.failed)
            if dropped is None:
                raise
            db = open_database(directory.database, wal=wal, tuning=tuning)
        undo.callback(db.close)
        _check_end(db, noted)
        clean_shutdown = _check_format(db, durability, upgrading)
        if not clean_shutdown and not wal:
            # The rows that were flushed before the server died are an older state: removed items would return.
            db.close()
            created = True
    if created:
        directory.begin()
        db = open_database(directory.database, create_if_missing=True, wal=wal, tuning=tuning)
        undo.callback(db.close)
        write_format(db, "" if wal else durability)
    delete_clean_mark(db)
    db.sync()
    if wal:
        # At once: without a mark in the file, damage by a power cut cannot be distinguished from a loss.
        synced.note(db.sequence())
        synced.open()
        undo.callback(synced.close)
    if created:
        directory.finish()
    return RocksStore(
        db,
        directory,
        synced,
        durability=durability,
        encoding=encoding,
        created=created,
        clean_shutdown=clean_shutdown,
        dropped=dropped,
        on_sync=on_sync,
    )


def _with_advice(error: Exception) -> str:
    """Return the text of *error*, for damage with advice."""
    if isinstance(error, CorruptionError):
        return f"{error}; `queueber recover` reports whether it can be repaired, and what that loses"
    return reason(error)


def _check_end(db: RocksDB, noted: int | None) -> None:
    """Refuse a database whose log ends before *noted*, which was on disk."""
    found = db.sequence()
    if noted is not None and found < noted:
        raise StorageError(
            f"acknowledged writes are missing: the log ends at {found:,}, and {noted:,} was on disk;"
            f" `queueber recover` shows what is left without them"
        )


def _check_format(db: RocksDB, durability: Durability, upgrading: ProgressCallback) -> bool:
    """
    Refuse *db* if it was created with other durability, upgrade it, and return whether it was shut down cleanly.

    A database without a log that was not shut down cleanly is not upgraded: it is about to be emptied.
    """
    found = read_format(db)
    if found is None:
        raise StorageError("its database has no format version")
    clean_shutdown = was_shut_down_cleanly(db)
    check_version(found)
    asked = "" if durability is not Durability.NONE else durability
    if found.durability != asked:
        made = f"durability {found.durability}" if found.durability else "a log"
        raise StorageError(
            f"it was created with {made} and cannot be used with durability {durability}; use another directory"
        )
    if clean_shutdown or not found.durability:
        upgrade(db, found, upgrading)
    return clean_shutdown


def unflushed_bytes(path: Path) -> int:
    """Return about the size of the logs that opening the data directory *path* reads; 0 if there is no database."""
    return sum(log.stat().st_size for log in (path / DATABASE).glob("*.log"))

"""Opening a store in a data directory, and the marks that tell later what became of it."""

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
from queueber.store.datadir.clean_shutdown import mark_closed, unmark, was_closed
from queueber.store.datadir.database import open_database
from queueber.store.datadir.directory import DATABASE, HeldDirectory, hold, refusal
from queueber.store.datadir.synced import SyncedFile
from queueber.store.datadir.torn_tail import cut_torn_end
from queueber.store.maintenance.backup import back_up
from queueber.store.maintenance.copying import Progress, silent
from queueber.store.properties import properties_of
from queueber.store.rows.format import read_format, upgrade, write_format
from queueber.store.rows.kv_store import Durability, KeyValueStore
from queueber.store.rows.records import Encoding
from queueber.store.tuning import DEFAULT_TUNING, FLUSH_FILES, TUNING_OPTIONS, Tuning, to_flush
from queueber.units import counted

_WRITE_BUFFER_BYTES = b"rocksdb.cur-size-all-mem-tables"


class RocksStore(KeyValueStore):
    """The store in a data directory.  Made by `open_store`."""

    def __init__(
        self,
        db: RocksDB,
        held: HeldDirectory,
        synced: SyncedFile,
        *,
        durability: Durability,
        encoding: Encoding,
        created: bool,
        clean: bool,
        dropped: str | None,
        on_sync: Callable[[float], object],
    ) -> None:
        super().__init__(db, durability=durability, encoding=encoding, on_sync=on_sync)
        self._engine = db
        self._backing_up = Lock()
        """Held by a backup and the like, which must not lose the database under way."""

        self._flushed = 0
        self.unflushed_bytes = 0
        """What is in memory and will be written to files once more, later."""

        self._closing = False
        self._held = held
        self._synced = synced
        self._created = created
        self._clean = clean
        self._dropped = dropped
        self._failed = False

    @property
    def created(self) -> bool:
        """Whether the database was made by this opening."""
        return self._created

    @property
    def clean(self) -> bool:
        """Whether the server before this one closed its store, as against died; True if there was none."""
        return self._clean

    @property
    def dropped(self) -> str | None:
        """What this opening cut off the end of the log, by a power cut or a failed write; a sentence, or None."""
        return self._dropped

    def note_synced(self) -> None:
        """
        Note how far the log is known to be on disk, so that the next start notices if the end of it is missing.

        Blocks for one sync, unless nothing was committed since.  To be called
        about once a second by one thread at a time; commits may go on.  An
        `OSError` is as final as a failed commit: it is the same disk.
        """
        if self._synced_sequence:
            try:
                self._synced.note(self._synced_sequence)
            except Exception:
                self._note_failure()
                raise

    @property
    def in_force(self) -> dict[str, str]:
        """What the engine runs with, as it says itself."""
        return self._engine.in_force

    @property
    def fixed(self) -> dict[str, str]:
        """Of that, what is nobody's choice."""
        chosen = {option.rocksdb for option in TUNING_OPTIONS}
        return {name: value for name, value in self.in_force.items() if name not in chosen}

    def make_room(self) -> None:
        """
        Let go of the space of removed items, as far as that can be hurried.

        Deletions are so small that they stay in memory for long, and as long as they do nothing is merged away.  Does
        nothing if nothing was written since the last time.
        """
        with self._backing_up:
            sequence = self._engine.sequence()
            if sequence != self._flushed and not self._closing:
                self._refuse_without_descriptors("making room")
                self._engine.flush()
                self._flushed = sequence
                self._update_unflushed_bytes()

    def recover(self) -> Recovered:
        """Read what a broker starts from; a `StorageError` names the directory, and what cannot be read."""
        try:
            return super().recover()
        except StorageError as error:
            raise refusal(self._held.path, _advised(error), error) from error

    def commit(self, writes: Sequence[Write], mark: TimeMark) -> None:
        """
        Apply all of *writes*, as durably as this store was opened to be.

        Any error but `StoreStalled` is the end: it is noted for the next start, and every later commit is refused.
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

    def backup(self, target: Path, progress: Progress = silent) -> None:
        """
        Put everything committed so far into *target*, as `queueber.store.maintenance.backup.back_up` does.

        Blocks for long; commits may go on meanwhile, `close` ends it soon.  A `StorageError` leaves this store as
        usable as it was.
        """

        def told(done: int, total: int) -> None:
            progress(done, total)
            if self._closing:
                raise StorageError("the server is stopping")

        with self._backing_up:
            told(0, 0)
            self._refuse_without_room()
            back_up(self._engine, self._held, target, told)

    def _update_unflushed_bytes(self) -> None:
        self.unflushed_bytes = int(self._engine.get_property(_WRITE_BUFFER_BYTES) or 0)

    def _refuse_without_room(self) -> None:
        """A backup begins by writing out what is in memory, and if that fails the engine stops for good."""
        self._update_unflushed_bytes()
        self._refuse_without_descriptors("a backup")
        found = os.statvfs(self._held.path)
        if found.f_files and found.f_favail < FLUSH_FILES:
            raise StorageError(
                f"{self._held.path} has {counted(found.f_favail, 'inode')} free, and a backup begins by writing up to"
                f" {FLUSH_FILES} files: make room first"
            )
        free = shutil.disk_usage(self._held.path).free
        if free < to_flush(self.unflushed_bytes):
            raise StorageError(
                f"{self._held.path} has {counted(free, 'byte')} free, and a backup begins by writing the"
                f" {counted(self.unflushed_bytes, 'that is', 'that are')} in memory: make room first"
            )

    def _refuse_without_descriptors(self, what: str) -> None:
        """Open as many files as a flush may, for a moment: the engine stops for good if it cannot."""
        with ExitStack() as spare:
            try:
                for _ in range(FLUSH_FILES):
                    spare.callback(os.close, os.open(self._held.path, os.O_RDONLY | os.O_CLOEXEC))
            except OSError as error:
                raise StorageError(f"{what} needs {FLUSH_FILES} descriptors: {reason(error)}; try later") from None

    def properties(self) -> dict[str, int]:
        """What the engine says of its own state, by the names in `queueber.store.properties`.  Blocks for a moment."""
        return properties_of(self._engine)

    def close(self) -> None:
        """Mark a clean stop, close the database and let others have the directory."""
        self._closing = True
        with self._backing_up:
            self._close()

    def _close(self) -> None:
        try:
            mark_closed(self._db)
            super().close()
        except Exception:
            self._note_failure()
            raise
        self.note_synced()
        self._synced.close()
        self._held.release()


def _failed_before() -> StorageError:
    return StorageError("a write or a sync has failed before; nothing is written after that")


def _ignore(_: object) -> None:
    """Do nothing."""


def open_store(
    path: Path,
    *,
    durability: Durability = Durability.FSYNC,
    encoding: Encoding = Encoding.UNPACKED,
    tuning: Tuning = DEFAULT_TUNING,
    boot_id: bytes = b"",
    tell: Callable[[str], object] = _ignore,
    on_sync: Callable[[float], object] = _ignore,
) -> RocksStore:
    """
    The store in the data directory *path*, which is created if it is not there.

    Args:
        path: the directory.  Nobody else may be able to write to it; others cannot read it afterwards.
        durability: what a commit survives.  `none` is for directories created with it only, and only it is for those.
        encoding: how structs are written from now on.
        tuning: what was chosen of the engine.
        boot_id: what time marks carry now.  Without it, no damage to the end of the log is taken for the trace of a
            power cut, only for that of a failed write that was noted.
        tell: called with what is dropped of such an end, in a sentence, before it is.
        on_sync: called with the seconds that each sync of the log took, on the thread that made it.

    Raises:
        StorageError: the directory or what is in it cannot be used.  One line that names it and says why.
    """
    held = hold(path)
    with ExitStack() as undo:
        undo.callback(held.release)
        try:
            store = _open(held, undo, durability, encoding, tuning, boot_id, tell, on_sync)
        except (StorageError, OSError) as error:
            raise refusal(path, _advised(error), error) from error
        undo.pop_all()
    return store


def _open(
    held: HeldDirectory,
    undo: ExitStack,
    durability: Durability,
    encoding: Encoding,
    tuning: Tuning,
    boot_id: bytes,
    tell: Callable[[str], object],
    on_sync: Callable[[float], object],
) -> RocksStore:
    """The store in *held*; *undo* gets what closes it again."""
    wal = durability is not Durability.NONE
    # A backup that was being made when the server died.
    shutil.rmtree(held.staging, ignore_errors=True)
    synced = SyncedFile(held.synced)
    created, clean, dropped = not held.ready, True, None
    if not created:
        held.confirm()
        noted = synced.read()
        try:
            db = open_database(held.database, wal=wal, tuning=tuning)
        except CorruptionError:
            dropped = cut_torn_end(held, noted, boot_id, tell, failed=synced.failed)
            if dropped is None:
                raise
            db = open_database(held.database, wal=wal, tuning=tuning)
        undo.callback(db.close)
        _check_end(db, noted)
        clean = _check_format(db, durability)
        if not clean and not wal:
            # What was flushed before the server died is some older state: removed items would come back.
            db.close()
            created = True
    if created:
        held.begin()
        db = open_database(held.database, create_if_missing=True, wal=wal, tuning=tuning)
        undo.callback(db.close)
        write_format(db, "" if wal else durability)
    unmark(db)
    db.sync()
    if wal:
        # Not a second from now: without a note, what a power cut does to the log cannot be told from a loss.
        synced.note(db.sequence())
        synced.open()
        undo.callback(synced.close)
    if created:
        held.finish()
    return RocksStore(
        db,
        held,
        synced,
        durability=durability,
        encoding=encoding,
        created=created,
        clean=clean,
        dropped=dropped,
        on_sync=on_sync,
    )


def _advised(error: Exception) -> str:
    """The text of *error*, and what to do about damage."""
    if isinstance(error, CorruptionError):
        return f"{error}; `queueber recover` tells whether it can be mended, and what that loses"
    return reason(error)


def _check_end(db: RocksDB, noted: int | None) -> None:
    """Refuse a database whose log ends before what was known to be on disk."""
    found = db.sequence()
    if noted is not None and found < noted:
        raise StorageError(
            f"acknowledged writes are missing: the log ends at {found:,}, and {noted:,} was on disk;"
            f" `queueber recover` shows what is left without them"
        )


def _check_format(db: RocksDB, durability: Durability) -> bool:
    """Bring *db* up to date, refuse it for what it cannot be used for, and say whether it was closed in order."""
    found = read_format(db)
    if found is None:
        raise StorageError("its database does not say of which format it is")
    clean = was_closed(db)
    upgrade(db, found)
    asked = "" if durability is not Durability.NONE else durability
    if found.durability != asked:
        made = f"durability {found.durability}" if found.durability else "a log"
        raise StorageError(
            f"it was created with {made} and cannot be used with durability {durability}; what needs"
            f" no log is kept apart from what must last"
        )
    return clean


def unflushed_bytes(path: Path) -> int:
    """About how much of the data directory *path* is in logs that opening it has to read; 0 if there is none."""
    return sum(log.stat().st_size for log in (path / DATABASE).glob("*.log"))

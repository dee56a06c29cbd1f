"""
Copies of a whole data directory, with or without a server that uses it.

A copy is a data directory on which a server can start.  It is marked as one
only after everything in it is on disk.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from queueber.errors import StorageError, reason
from queueber.plyvel import DB
from queueber.store.datadir.copying import ProgressCallback, copy_files, no_progress, sync_files
from queueber.store.datadir.directory import (
    DATABASE,
    SYNCED,
    LockedDirectory,
    create_empty,
    directory_error,
    locked_shared,
)
from queueber.store.datadir.synced import SyncedFile
from queueber.store.rows.meta import read_format


def back_up(db: DB, home: LockedDirectory, target: Path, progress: ProgressCallback = no_progress) -> None:
    """
    Copy the open database *db* of the data directory *home* to *target*, which must be missing or empty.

    Commits may go on.  The copy is a consistent snapshot with everything that
    was committed before the call.  On the same file system it shares table
    files with the original and takes almost no space; on another one they are copied.

    Raises:
        StorageError: the copy failed, and its remains were removed.
    """
    if target.resolve().is_relative_to(home.path.resolve()):
        raise directory_error(target, "a backup must not be inside the directory that it copies")
    found = read_format(db)
    if found is None or found.durability:
        raise directory_error(target, "a running server with durability none cannot be backed up: it has no log")
    # Before the checkpoint: the copy's log may go further than this number, but must reach it.
    sequence = db.sequence()

    def fill(database: Path) -> None:
        if database.parent.stat().st_dev == home.path.stat().st_dev:
            db.checkpoint(database)
            sync_files(database)
            return
        # RocksDB would also copy, but other threads could not run meanwhile.
        shutil.rmtree(home.staging, ignore_errors=True)
        try:
            db.checkpoint(home.staging)
            copy_files(home.staging, database, progress)
        finally:
            shutil.rmtree(home.staging, ignore_errors=True)

    _create(target, fill, sequence)


def copy_directory(source: Path, target: Path, progress: ProgressCallback = no_progress) -> None:
    """
    Copy the data directory *source*, which no server may use, to *target*, which must be missing or empty.

    Raises:
        StorageError: the copy failed, and its remains were removed.
    """
    if target.resolve().is_relative_to(source.resolve()):
        raise directory_error(target, "a copy must not be inside the directory that it copies")
    with locked_shared(source):
        synced = SyncedFile(source / SYNCED)
        noted = synced.read()
        # With a damaged end of the log and the mark that allows to cut it off.
        _create(target, lambda database: copy_files(source / DATABASE, database, progress), noted, failed=synced.failed)


def _create(target: Path, fill: Callable[[Path], None], sequence: int | None, *, failed: bool = False) -> None:
    """Make *target* a data directory whose database *fill* creates, with *sequence* noted in `synced`."""
    directory = create_empty(target)
    try:
        try:
            fill(directory.database)
            if sequence is not None:
                SyncedFile(directory.synced).create(sequence, failed=failed)
            directory.publish()
        except BaseException:
            shutil.rmtree(directory.database, ignore_errors=True)
            directory.synced.unlink(missing_ok=True)
            raise
    except (OSError, StorageError) as error:
        raise directory_error(target, reason(error), error) from error
    finally:
        directory.release()

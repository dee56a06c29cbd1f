"""
Copies of a whole data directory: of one in use, and of one at rest.

A copy is a data directory itself, which a server can be started on.  It is
marked as one only once everything in it is on disk.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from queueber.errors import StorageError, reason
from queueber.plyvel import DB
from queueber.store.datadir.directory import DATABASE, SYNCED, HeldDirectory, claim, locked_shared, refusal
from queueber.store.datadir.synced import SyncedFile
from queueber.store.maintenance.copying import Progress, copy_files, silent, sync_files
from queueber.store.rows.format import read_format


def back_up(db: DB, home: HeldDirectory, target: Path, progress: Progress = silent) -> None:
    """
    Put *db* as it is now, which lives in *home*, into *target*, which must not be there or be empty.

    Commits may go on meanwhile; the copy is of one moment and holds everything
    that was committed before the call.  On the same file system it shares table
    files with the original and takes next to no space; to another one they are copied.

    Raises:
        StorageError: it cannot be done; what was begun is removed.
    """
    if target.resolve().is_relative_to(home.path.resolve()):
        raise refusal(target, "a backup must not lie in what it is a backup of")
    found = read_format(db)
    if found is None or found.durability:
        raise refusal(target, "what is kept without a log cannot be restored, and is not backed up")
    # Before everything else: the copy may go further than this, and must not fall short of it.
    sequence = db.sequence()

    def fill(database: Path) -> None:
        if database.parent.stat().st_dev == home.path.stat().st_dev:
            db.checkpoint(database)
            sync_files(database)
            return
        # RocksDB would copy too, but without letting any other thread run.
        shutil.rmtree(home.staging, ignore_errors=True)
        try:
            db.checkpoint(home.staging)
            copy_files(home.staging, database, progress)
        finally:
            shutil.rmtree(home.staging, ignore_errors=True)

    _make(target, fill, sequence)


def copy_directory(source: Path, target: Path, progress: Progress = silent) -> None:
    """
    Copy the data directory *source*, which no server may hold, to *target*, which must not be there or be empty.

    Raises:
        StorageError: it cannot be done; what was begun is removed.
    """
    if target.resolve().is_relative_to(source.resolve()):
        raise refusal(target, "a copy must not lie in what it is a copy of")
    with locked_shared(source):
        synced = SyncedFile(source / SYNCED)
        noted = synced.read()
        # A torn end is copied, too, and what tells that it is one.
        _make(target, lambda database: copy_files(source / DATABASE, database, progress), noted, failed=synced.failed)


def _make(target: Path, fill: Callable[[Path], None], sequence: int | None, *, failed: bool = False) -> None:
    """Make *target* a data directory whose database *fill* puts in place, with a log that reaches *sequence*."""
    held = claim(target)
    try:
        try:
            fill(held.database)
            if sequence is not None:
                SyncedFile(held.synced).create(sequence, failed=failed)
            held.publish()
        except BaseException:
            shutil.rmtree(held.database, ignore_errors=True)
            held.synced.unlink(missing_ok=True)
            raise
    except (OSError, StorageError) as error:
        raise refusal(target, reason(error), error) from error
    finally:
        held.release()

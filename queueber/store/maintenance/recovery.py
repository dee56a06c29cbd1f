"""
Recovery of a data directory with a damaged log: salvage what is readable, report the loss, and replace the directory.

The salvage works on a copy, which shares the files that never change with the
original.  The original is not changed, and gets another name in the end.  All
rows of the copy are verified before it is offered.
"""

import re
import shutil
from pathlib import Path
from typing import Final

from attrs import frozen

from queueber.errors import Passing, StorageError, reason
from queueber.store.datadir.copying import ProgressCallback, link_files, no_progress, read_only_view, sync_files
from queueber.store.datadir.database import open_database
from queueber.store.datadir.directory import (
    DATABASE,
    SYNCED,
    create_empty,
    directory_error,
    locked_shared,
    shared_lock,
    sync_path,
)
from queueber.store.datadir.synced import SyncedFile
from queueber.store.maintenance.verification import Verified, verify
from queueber.store.rows.engine_port import KeyValueEngine
from queueber.store.rows.kv_store import Durability, KeyValueStore
from queueber.store.rows.meta import FORMAT, delete_clean_mark, read_format, was_shut_down_cleanly
from queueber.store.rows.values import Encoding
from queueber.units import counted

_DROPPED: Final = re.compile(r"[0-9]+\.log: dropping [0-9]+ bytes.*")
"""RocksDB's line in its info log about a part of a WAL that it drops."""


@frozen
class Salvage:
    """A recovered copy of a data directory, ready to replace it."""

    path: Path
    why: str
    """Reason why a server cannot start on the original."""

    reached: int
    """Sequence number of the last write in the copy."""

    noted: int | None
    """Sequence number up to which the log was known to be on disk; None if there is none."""

    items: int
    leases: int
    queues: int
    as_of: int | None
    """Queue time of the last commit in the copy."""

    dropped: tuple[str, ...]
    """The dropped parts of the log, in RocksDB's words."""

    @property
    def acknowledged_lost(self) -> int:
        """Number of acknowledged row writes that are certainly lost.  More may be lost, from the last second."""
        return 0 if self.noted is None else max(0, self.noted - self.reached)


def salvage(path: Path, target: Path, progress: ProgressCallback = no_progress) -> Salvage | None:
    """
    Create a recovered copy of the data directory *path* in *target*, which must not exist.

    *path* is not changed.  Both must be on one file system.  *progress* counts the items that are verified.

    Returns:
        The copy; None, and none is created, if a server can start on *path* as it is.

    Raises:
        StorageError: *path* cannot be recovered, its rows are not consistent, a server uses it, or it cannot be read
            for a reason other than damage.  No copy is left.
    """
    with locked_shared(path):
        try:
            noted, why = SyncedFile(path / SYNCED).read(), None
        except StorageError as error:
            noted, why = None, str(error)
        why = why or _start_error(path, noted)
        return None if why is None else _create(path, target, why, noted, progress)


def _start_error(path: Path, noted: int | None) -> str | None:
    """Return the reason why a server cannot start on *path*; None if it can."""
    try:
        with read_only_view(path) as db:
            reached = db.sequence()
            if noted is not None and reached < noted:
                return f"the log ends at {reached:,}, and {noted:,} was on disk"
            _check_start(db)
    except Passing:
        raise
    except StorageError as error:
        return str(error)
    return None


def _check_start(db: KeyValueEngine) -> None:
    """
    Read all that a start reads.

    Raises:
        StorageError: a row cannot be read, or no server can start on the rows.
    """
    found = read_format(db)
    if found is None:
        raise StorageError("its database has no format version")
    if found.version > FORMAT:
        raise StorageError(f"the data is of format {found.version}, which a newer Queueber wrote")
    was_shut_down_cleanly(db)
    recovered = KeyValueStore(db, durability=Durability.OS, encoding=Encoding.UNPACKED).recover()
    numbers = {record.number for record in recovered.queues} | recovered.retired.keys()
    for lease, record in recovered.leases.items():
        if record.queue not in numbers:
            raise StorageError(f"lease {lease.hex()} is on items of queue {record.queue}, which does not exist")


def _create(path: Path, target: Path, why: str, noted: int | None, progress: ProgressCallback) -> Salvage:
    check_movable(path)
    directory = create_empty(target)
    try:
        try:
            link_files(path / DATABASE, directory.database)
            with open_database(directory.database, salvage=True) as db:
                reached = db.sequence()
                # The original was not shut down cleanly, and this mark may itself be damaged.
                delete_clean_mark(db)
            SyncedFile(directory.synced).note(reached)
            sync_files(directory.database)
            directory.publish()
            dropped = tuple(_DROPPED.findall((directory.database / "LOG").read_text(errors="replace")))
        finally:
            directory.release()
        left = _verify(target, progress)
    except BaseException as error:
        shutil.rmtree(target)
        # The copy is removed; the error is equally one of the original.
        text = reason(error).replace(str(target), str(path))
        if isinstance(error, StorageError) and not isinstance(error, Passing):
            raise StorageError(f"{path} cannot be recovered, a backup has to be restored: {text}") from error
        if isinstance(error, StorageError | OSError):
            raise StorageError(f"{path} was not changed, because recovery failed: {text}") from error
        raise
    return Salvage(target, why, reached, noted, left.items, left.leases, left.queues, left.as_of, dropped)


def _verify(target: Path, progress: ProgressCallback) -> Verified:
    """Return the contents of *target*; raise `StorageError` if they are not consistent."""
    found = verify(target, progress)
    if found.findings:
        more = len(found.findings) + found.more - 1
        raise StorageError(found.findings[0] + (f"; and {counted(more, 'finding')} more" if more else ""))
    return found


def check_movable(path: Path) -> None:
    """
    Check early that *path* can be renamed, as far as that can be known.

    Raises:
        StorageError: *path* is a mount point.
    """
    if path.is_mount():
        raise directory_error(
            path,
            "it is a mount point, which cannot be moved: copy its contents to a directory, recover or replace that,"
            " and copy them back",
        )


def replace_directory(path: Path, replacement: Path, kept: Path) -> None:
    """
    Rename *path* to *kept*, which must not exist, and *replacement* to *path*.

    After a crash between the two steps there is no *path*, but both others.

    Raises:
        StorageError: a server uses *path*, or it cannot be renamed.  Nothing was changed.
    """
    with shared_lock(path):
        if kept.exists():
            raise directory_error(kept, "it exists already")
        try:
            path.rename(kept)
        except OSError as error:
            raise directory_error(path, f"it cannot be renamed ({error.strerror})") from error
        try:
            replacement.rename(path)
        except OSError as error:
            kept.rename(path)
            raise directory_error(path, f"its replacement cannot be renamed ({error.strerror})") from error
        sync_path(path.parent)

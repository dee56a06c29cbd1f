"""
A damaged log: what can be had of it, what that loses, and putting it in place.

Everything is tried on a copy, which shares the files that never change with
the original; the original stays as it is, under another name in the end.  What
is made is verified, every row of it, before it is called usable.
"""

import re
import shutil
from pathlib import Path
from typing import Final

from attrs import frozen

from queueber.errors import Passing, StorageError, reason
from queueber.store.datadir.clean_shutdown import unmark, was_closed
from queueber.store.datadir.database import open_database
from queueber.store.datadir.directory import DATABASE, SYNCED, claim, locked_shared, not_held, refusal, sync_path
from queueber.store.datadir.synced import SyncedFile
from queueber.store.maintenance.copying import Progress, link_files, silent, sync_files, viewing
from queueber.store.maintenance.verification import Verified, verify
from queueber.store.rows.engine_port import KeyValue
from queueber.store.rows.format import FORMAT, read_format
from queueber.store.rows.kv_store import Durability, KeyValueStore
from queueber.store.rows.records import Encoding
from queueber.units import counted

_DROPPED: Final = re.compile(r"[0-9]+\.log: dropping [0-9]+ bytes.*")
"""What RocksDB tells its own log of a part it leaves out."""


@frozen
class Salvage:
    """What a directory looks like after recovery, made beside it and waiting to take its place."""

    path: Path
    why: str
    """What keeps a server from starting on the original."""

    reached: int
    """The number of the last write that is there."""

    noted: int | None
    """The number of a write that was known to be on disk; None if nothing was noted."""

    items: int
    leases: int
    queues: int
    as_of: int | None
    """Queue time of the last commit that is there."""

    dropped: tuple[str, ...]
    """What is left out of the log, in RocksDB's words."""

    @property
    def acknowledged_lost(self) -> int:
        """How many acknowledged row writes are certainly lost; more may be, of the last second."""
        return 0 if self.noted is None else max(0, self.noted - self.reached)


def salvage(path: Path, beside: Path, progress: Progress = silent) -> Salvage | None:
    """
    Make in *beside*, which must not be there, what recovery can make of the data directory *path*.

    *path* is not changed.  Both must be on one file system.  *progress* counts the items that are verified.

    Returns:
        What that would be; None, and nothing is made, if a server can start on *path* as it is.

    Raises:
        StorageError: it cannot be recovered, or what is left is not sound, or a server holds it, or it cannot be read
            for a reason that is not damage.  Nothing is made.
    """
    with locked_shared(path):
        try:
            noted, why = SyncedFile(path / SYNCED).read(), None
        except StorageError as error:
            noted, why = None, str(error)
        why = why or _refusal_of(path, noted)
        return None if why is None else _make(path, beside, why, noted, progress)


def _refusal_of(path: Path, noted: int | None) -> str | None:
    """Why a server would not start on *path*, having read what a start reads; None if it would."""
    try:
        with viewing(path) as db:
            reached = db.sequence()
            if noted is not None and reached < noted:
                return f"the log ends at {reached:,}, and {noted:,} was on disk"
            _start_on(db)
    except Passing:
        raise
    except StorageError as error:
        return str(error)
    return None


def _start_on(db: KeyValue) -> None:
    """
    Read what a start reads.

    Raises:
        StorageError: something of it cannot be read, or no server can start on it.
    """
    found = read_format(db)
    if found is None:
        raise StorageError("its database does not say of which format it is")
    if found.version > FORMAT:
        raise StorageError(f"the data is of format {found.version}, which a newer Queueber wrote")
    was_closed(db)
    recovered = KeyValueStore(db, durability=Durability.OS, encoding=Encoding.UNPACKED).recover()
    numbers = {record.number for record in recovered.queues}
    for lease in recovered.leases:
        if lease.queue not in numbers:
            raise StorageError(f"lease {lease.id.hex()} is on items of queue {lease.queue}, which does not exist")


def _make(path: Path, beside: Path, why: str, noted: int | None, progress: Progress) -> Salvage:
    check_movable(path)
    held = claim(beside)
    try:
        try:
            link_files(path / DATABASE, held.database)
            with open_database(held.database, salvage=True) as db:
                reached = db.sequence()
                # What is mended was not closed in order, and that mark too may be what is damaged.
                unmark(db)
            SyncedFile(held.synced).note(reached)
            sync_files(held.database)
            held.publish()
            dropped = tuple(_DROPPED.findall((held.database / "LOG").read_text(errors="replace")))
        finally:
            held.release()
        left = _verified(beside, progress)
    except BaseException as error:
        shutil.rmtree(beside)
        # The copy is gone; what is wrong with it is wrong with the original.
        text = reason(error).replace(str(beside), str(path))
        if isinstance(error, StorageError) and not isinstance(error, Passing):
            raise StorageError(f"{path} cannot be recovered, a backup has to be restored: {text}") from error
        if isinstance(error, StorageError | OSError):
            raise StorageError(f"{path} is as it was, for recovery cannot be tried: {text}") from error
        raise
    return Salvage(beside, why, reached, noted, left.items, left.leases, left.queues, left.as_of, dropped)


def _verified(beside: Path, progress: Progress) -> Verified:
    """What is in *beside*, which is as it should be."""
    found = verify(beside, progress)
    if found.findings:
        more = len(found.findings) + found.more - 1
        raise StorageError(found.findings[0] + (f"; and {counted(more, 'finding')} more" if more else ""))
    return found


def check_movable(path: Path) -> None:
    """
    Tell early that *path* cannot be renamed, as far as that can be known.

    Raises:
        StorageError: it is a mount point.
    """
    if path.is_mount():
        raise refusal(
            path,
            "it is a mount point, which cannot be moved: copy what is in it to a directory, have that mended or"
            " replaced, and put its contents back",
        )


def put_in_place(made: Path, path: Path, kept: Path) -> None:
    """
    Let *made* become *path*, and what *path* was *kept*, which must not be there.

    A crash between the two steps leaves nothing under *path*, and both beside it.

    Raises:
        StorageError: a server holds *path*, or it cannot be renamed; nothing was changed, and *made* is still there.
    """
    with not_held(path):
        if kept.exists():
            raise refusal(kept, "it is there already")
        try:
            path.rename(kept)
        except OSError as error:
            raise refusal(path, f"it cannot be renamed ({error.strerror})") from error
        try:
            made.rename(path)
        except OSError as error:
            kept.rename(path)
            raise refusal(path, f"its replacement cannot be renamed ({error.strerror})") from error
        sync_path(path.parent)

"""
A damaged log: what can be had of it, what that loses, and putting it in place.

Everything is tried on a copy, which shares the files that never change with
the original; the original stays as it is, under another name in the end.
"""

import re
import shutil
from pathlib import Path
from typing import Final

from attrs import frozen

from queueber.errors import StorageError
from queueber.store.copying import link_files, sync_files, viewing
from queueber.store.directory import DATABASE, SYNCED, claim, kept_still, not_held, refusal, sync_path
from queueber.store.engine import DB
from queueber.store.keys import LEASES, QUEUES, TIME_KEY
from queueber.store.kv import KeyValue
from queueber.store.records import decode_queue, decode_time
from queueber.store.synced import SyncedFile

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


def salvage(path: Path, beside: Path) -> Salvage | None:
    """
    Make in *beside*, which must not be there, what recovery can make of the data directory *path*.

    *path* is not changed.  Both must be on one file system.

    Returns:
        What that would be; None, and nothing is made, if a server can start on *path* as it is.

    Raises:
        StorageError: it cannot be recovered, or a server holds it.
    """
    with kept_still(path):
        try:
            noted, why = SyncedFile(path / SYNCED).read(), None
        except StorageError as error:
            noted, why = None, str(error)
        why = why or _refusal_of(path, noted)
        return None if why is None else _make(path, beside, why, noted)


def _refusal_of(path: Path, noted: int | None) -> str | None:
    """Why a server would not start on *path*; None if it would."""
    try:
        with viewing(path) as db:
            reached = db.sequence()
    except StorageError as error:
        return str(error)
    if noted is not None and reached < noted:
        return f"the log ends at {reached:,}, and {noted:,} was on disk"
    return None


def _make(path: Path, beside: Path, why: str, noted: int | None) -> Salvage:
    held = claim(beside)
    try:
        link_files(path / DATABASE, held.database)
        with DB.tuned(held.database, salvage=True) as db:
            reached = db.sequence()
            items, leases, queues, as_of = _count(db)
        SyncedFile(held.synced).note(reached)
        sync_files(held.database)
        held.publish()
        dropped = tuple(_DROPPED.findall((held.database / "LOG").read_text(errors="replace")))
    except BaseException as error:
        shutil.rmtree(beside)
        if isinstance(error, StorageError | OSError):
            raise StorageError(f"{path} cannot be recovered, a backup has to be restored: {error}") from error
        raise
    finally:
        held.release()
    return Salvage(beside, why, reached, noted, items, leases, queues, as_of, dropped)


def _count(db: KeyValue) -> tuple[int, int, int, int | None]:
    """How many items, leases and queues there are, and the queue time of the last commit."""
    with db.iterator(prefix=QUEUES) as rows:
        records = [decode_queue(row, value) for row, value in rows]
    with db.iterator(prefix=LEASES) as rows:
        leases = sum(1 for _ in rows)
    mark = db.get(TIME_KEY)
    as_of = None if mark is None else decode_time(TIME_KEY, mark).queue_time
    return sum(record.added - record.removed for record in records), leases, len(records), as_of


def put_in_place(made: Path, path: Path, kept: Path) -> None:
    """
    Let *made* become *path*, and what *path* was *kept*, which must not be there.

    A crash between the two steps leaves nothing under *path*, and both beside it.

    Raises:
        StorageError: a server holds *path*, or it cannot be renamed, being a mount point for one; nothing was changed.
    """
    with not_held(path):
        if kept.exists():
            raise refusal(kept, "it is there already")
        try:
            path.rename(kept)
        except OSError as error:
            raise refusal(path, f"it cannot be renamed ({error.strerror}); what would replace it is {made}") from error
        made.rename(path)
        sync_path(path.parent)

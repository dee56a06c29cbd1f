"""
What a power cut or a failing disk may leave at the end of the log: a batch of which any part may be missing.

RocksDB takes a batch that is cut short for a torn end, and drops it, but
refuses one that is long enough and has a hole, or pages that were never
written.  Such an end is cut off here, when all of this holds:

1. the machine was started anew since the last commit, so that it may have lost what was not synced, or the server
   has noted that it ended itself because a write or a sync had failed, and that nothing behind that was acknowledged;
2. nothing behind the damage is a batch: only one commit is under way at a time, so all before the last were synced;
3. what lies before the damage reaches what was noted to be on disk.

Otherwise it is damage to what was acknowledged, or may be, and is refused as
ever.  What is cut off is kept beside the database, in a file of its own for
each cut, and is told before it is gone from the log: a crash at any moment
leaves the whole log, and another start to do it all again, or a cut that was told.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from queueber.errors import Passing, StorageError
from queueber.plyvel.wal import find_later_batch, map_file, read_wal, wal_files
from queueber.store.datadir.directory import HeldDirectory, sync_path
from queueber.store.maintenance.copying import viewing
from queueber.store.rows.keys import TIME_KEY
from queueber.store.rows.records import decode_time
from queueber.units import counted


@frozen
class _End:
    """Where a log is to end."""

    log: Path
    at: int
    what: str


def cut_torn_end(
    held: HeldDirectory, noted: int | None, boot_id: bytes, tell: Callable[[str], object], *, failed: bool = False
) -> str | None:
    """
    Cut the end off the log in *held*, if a power cut or a failed write left it and nothing acknowledged is in it.

    Args:
        held: the directory.
        noted: the number of a write that was known to be on disk; None if nothing was noted.
        boot_id: of the machine as it runs now; zeros if that cannot be known.
        tell: called with what is dropped, in a sentence, before it is.
        failed: whether the note was made by a server that ended itself for a failed write.

    Returns:
        That sentence; None if nothing was dropped, and everything is as it was.

    Raises:
        Passing: what is left cannot be read for now; everything is as it was.
    """
    found = _torn_end(held.database)
    if found is None or noted is None or not (failed or any(boot_id)):
        return None
    try:
        reached, before = _what_is_left(held, found)
    except Passing:
        # Of what is left nothing is known then, and the damage is not what keeps this start from succeeding.
        raise
    except StorageError:
        return None
    if reached < noted or not (failed or (before is not None and before != boot_id)):
        return None
    kept = held.torn(found.log, found.at)
    dropped = _keep(found, kept)
    why = "a write failed and the server ended itself" if failed else "the machine went down while the log was written"
    told = (
        f"{why}: its last {counted(dropped, 'byte')}, which no sync had covered, {'is' if dropped == 1 else 'are'}"
        f" moved from {found.log} at {found.at:,} to {kept} ({found.what}); the log goes on from write"
        f" {reached:,}, and {noted:,} was known to be on disk"
    )
    tell(told)
    _cut(found)
    return told


def _what_is_left(held: HeldDirectory, end: _End) -> tuple[int, bytes | None]:
    """Without what is behind *end*: the number of the last write, and the boot it was made on, if any was committed."""
    # The copy that this takes is no larger than what a start needs anyway, to write what is in the log to a table; but
    # only where the data is, and not where others put what may go.
    held.staging.mkdir()
    try:
        with viewing(held.path, ends={end.log.name: end.at}, place=held.staging) as db:
            mark = db.get(TIME_KEY)
            return db.sequence(), None if mark is None else decode_time(TIME_KEY, mark).boot_id
    finally:
        shutil.rmtree(held.staging)


def _torn_end(database: Path) -> _End | None:
    """Where the damage begins, if it is to the last batch."""
    found: _End | None = None
    for log in wal_files(database):
        content = map_file(log)
        state = read_wal(content, checksums=True)
        if found is not None and state.end:
            return None  # whole batches in a later log
        if state.damage is not None:
            if find_later_batch(content, state.end, state.next_sequence) is not None:
                return None
            found = found or _End(log, state.end, state.damage)
    return found


def _keep(end: _End, kept: Path) -> int:
    """Durably copy what is behind *end* to *kept*; how many bytes that is."""
    with end.log.open("rb") as log:
        log.seek(end.at)
        tail = log.read()
    kept.write_bytes(tail)
    sync_path(kept)
    sync_path(kept.parent)
    return len(tail)


def _cut(end: _End) -> None:
    """Durably remove it."""
    with end.log.open("r+b") as log:
        log.truncate(end.at)
        os.fsync(log.fileno())

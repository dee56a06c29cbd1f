"""
Damage that a power cut or a failing disk may leave at the end of the log, in a batch of which any part may be missing.

RocksDB drops a batch that is cut short, as a torn tail, but refuses one of full
length that has a hole or pages that were never written.  Such an end is cut
off if all of these hold:

1. The machine has booted since the last commit, so that it may have lost unsynced writes.  Or the server has noted in
   `synced` that it ended itself because of a failed write or sync, and that nothing later was acknowledged.
2. No batch follows the damage.  Only one commit is in progress at a time, so all before the last were synced.
3. The log before the damage reaches the sequence number in `synced`.

Otherwise acknowledged writes are or may be damaged, and the start is refused.
The end is kept in a file of its own next to the database, and reported before
it is cut from the log.  A crash at any time leaves either the whole log, so that
the next start does it again, or a cut that was reported.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from queueber.errors import Passing, StorageError
from queueber.plyvel.wal import find_later_batch, map_file, read_wal, wal_files
from queueber.store.datadir.copying import read_only_view
from queueber.store.datadir.directory import LockedDirectory, sync_path
from queueber.store.rows.keys import TIME_KEY
from queueber.store.rows.records import decode_time
from queueber.units import counted


@frozen
class _TornTail:
    """The damaged end of a log."""

    log: Path
    at: int
    """Offset of the end of the last valid batch."""

    damage: str


def cut_torn_tail(
    directory: LockedDirectory,
    noted: int | None,
    boot_id: bytes,
    report: Callable[[str], object],
    *,
    failed: bool = False,
) -> str | None:
    """
    Cut a damaged end off the log in *directory*, if a power cut or a failed write caused it before it was acknowledged.

    Args:
        directory: the data directory.
        noted: the sequence number in `synced`; None if there is none.
        boot_id: the machine's present boot; zeros if unknown.
        report: called with a sentence about what is cut off, before that is done.
        failed: whether `synced` was written by a server that ended itself because of a failed write.

    Returns:
        That sentence; None if nothing was changed.

    Raises:
        Passing: the rest cannot be read for now; nothing was changed.
    """
    tail = _find_torn_tail(directory.database)
    if tail is None or noted is None or not (failed or any(boot_id)):
        return None
    try:
        reached, last_boot = _state_before(directory, tail)
    except Passing:
        # Nothing is known of the rest, and the damage is not the reason why this start fails.
        raise
    except StorageError:
        return None
    if reached < noted or not (failed or (last_boot is not None and last_boot != boot_id)):
        return None
    kept = directory.torn_tail(tail.log, tail.at)
    size = _keep(tail, kept)
    why = "a write failed and the server ended itself" if failed else "the machine went down while the log was written"
    sentence = (
        f"{why}: its last {counted(size, 'byte')}, which no sync had covered, {'is' if size == 1 else 'are'}"
        f" moved from {tail.log} at {tail.at:,} to {kept} ({tail.damage}); the log goes on from write"
        f" {reached:,}, and {noted:,} was known to be on disk"
    )
    report(sentence)
    _cut(tail)
    return sentence


def _state_before(directory: LockedDirectory, tail: _TornTail) -> tuple[int, bytes | None]:
    """Return the last sequence number before *tail*, and the boot of that commit; None if there is no commit."""
    # Opening a copy takes no more space than a start needs anyway, to write the log's rows to a table.  The copy is in
    # the data directory, because the system's temporary directory may be smaller.
    directory.staging.mkdir()
    try:
        with read_only_view(directory.path, ends={tail.log.name: tail.at}, place=directory.staging) as db:
            mark = db.get(TIME_KEY)
            return db.sequence(), None if mark is None else decode_time(TIME_KEY, mark).boot_id
    finally:
        shutil.rmtree(directory.staging)


def _find_torn_tail(database: Path) -> _TornTail | None:
    """Return the damage in the logs, if it is in the last batch."""
    found: _TornTail | None = None
    for log in wal_files(database):
        content = map_file(log)
        state = read_wal(content, checksums=True)
        if found is not None and state.end:
            return None  # whole batches in a later log
        if state.damage is not None:
            if find_later_batch(content, state.end, state.next_sequence) is not None:
                return None
            found = found or _TornTail(log, state.end, state.damage)
    return found


def _keep(tail: _TornTail, kept: Path) -> int:
    """Durably copy *tail* to the file *kept*, and return its size."""
    with tail.log.open("rb") as log:
        log.seek(tail.at)
        content = log.read()
    kept.write_bytes(content)
    sync_path(kept)
    sync_path(kept.parent)
    return len(content)


def _cut(tail: _TornTail) -> None:
    """Durably cut *tail* off its log."""
    with tail.log.open("r+b") as log:
        log.truncate(tail.at)
        os.fsync(log.fileno())

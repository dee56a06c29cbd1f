"""
Rows of the meta table: the format version with its upgrades, and the mark of a clean shutdown.

The rule for versions: raise `FORMAT` when a server of the previous version
would misread, refuse or lose what the new one writes, and add a step to
`upgrades.UPGRADES` that converts the previous form.  A field added to
``storage.capnp`` whose absence keeps the old meaning needs neither.  Steps are
never edited after a release.  ``tests/store/golden`` keeps a directory of every
version, and each must always open.

The mark of a clean shutdown is the last row that a server writes before it
stops, and contains the sequence number of the previous write.  It is valid
only as the last write: a start deletes it before it writes anything else.  A
damaged mark is refused as any other damaged row is.
"""

from collections.abc import Mapping
from typing import Final

from attrs import frozen

from queueber.errors import StorageError
from queueber.store.rows.engine_port import KeyValueEngine, write_retrying
from queueber.store.rows.keys import CLEAN_KEY, FORMAT_KEY
from queueber.store.rows.records import decode_format, decode_sync_mark, encode_format, encode_sync_mark
from queueber.store.rows.upgrades import UPGRADES, Progress, UpgradeStep

FORMAT: Final = 2


@frozen
class Format:
    """The format of a database."""

    version: int
    durability: str
    """`none` if the database was created without a log, else empty."""


def write_format(db: KeyValueEngine, durability: str, version: int = FORMAT) -> None:
    """Write that *db* is of *version*; durable after the next sync."""
    write_retrying(db, [(FORMAT_KEY, encode_format(version, durability))])


def read_format(db: KeyValueEngine) -> Format | None:
    """Return the format of *db*; None if nothing was ever written to it."""
    value = db.get(FORMAT_KEY)
    return None if value is None else Format(*decode_format(value))


def _ignore(done: int, total: int) -> None:
    """Ignore the progress."""


def check_version(found: Format, target: int = FORMAT) -> None:
    """Refuse a database that is newer than *target*."""
    if found.version > target:
        raise StorageError(
            f"the data is of format {found.version}, which a newer Queueber wrote; this one reads up to {target}"
        )


def upgrade(
    db: KeyValueEngine,
    found: Format,
    progress: Progress = _ignore,
    *,
    target: int = FORMAT,
    upgrades: Mapping[int, UpgradeStep] = UPGRADES,
) -> None:
    """
    Convert *db* from the format *found* to version *target*, durably, one version at a time.

    If *progress* raises, the next start goes on.

    Raises:
        StorageError: *db* is newer, or a step is missing; nothing was changed in these cases.
    """
    check_version(found, target)
    steps = range(found.version, target)
    for version in steps:
        if version not in upgrades:
            raise StorageError(f"the data is of format {found.version}; there is no upgrade from {version} to {target}")
    for version in steps:
        upgrades[version](db, progress)
        write_format(db, found.durability, version + 1)
        db.sync()


def mark_clean_shutdown(db: KeyValueEngine) -> None:
    """Write the mark of a clean shutdown, as the last write."""
    write_retrying(db, [(CLEAN_KEY, encode_sync_mark(CLEAN_KEY, db.sequence()))])


def delete_clean_mark(db: KeyValueEngine) -> None:
    """Delete the mark of a clean shutdown, if it exists; durable after the next sync."""
    write_retrying(db, [(CLEAN_KEY, None)])


def was_shut_down_cleanly(db: KeyValueEngine) -> bool:
    """
    Return whether the last server on *db* shut down cleanly.

    Must be called before anything is written to *db*.

    Raises:
        Damaged: the mark is not as it was written.
    """
    value = db.get(CLEAN_KEY)
    return value is not None and decode_sync_mark(CLEAN_KEY, value)[0] + 1 == db.sequence()

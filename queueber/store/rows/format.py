"""
The version of what is on disk, the rule for changing it, and the way up from older ones.

The rule: raise `FORMAT` when a server of the version before would misread,
refuse or lose what the new one writes, and add a step to `UPGRADES` that turns
the old form into the new.  A field added to ``storage.capnp`` whose absence
means what it meant before needs neither.  Steps are never edited after a
release, and ``tests/store/golden`` keeps a directory of every version, which
is opened for ever.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from attrs import frozen

from queueber.errors import StorageError
from queueber.store.rows.engine_port import KeyValue, write_all
from queueber.store.rows.keys import FORMAT_KEY
from queueber.store.rows.records import decode_format, encode_format

FORMAT: Final = 1

Step = Callable[[KeyValue], None]
"""Writes, in one batch at the end or so that it may be begun again, the form of the next version."""

UPGRADES: Mapping[int, Step] = MappingProxyType({})
"""The step from each older version to the one after it."""


@frozen
class Format:
    """What a database says of itself."""

    version: int
    durability: str
    """`none` if it was created without a log, else empty."""


def write_format(db: KeyValue, durability: str, version: int = FORMAT) -> None:
    """Note in *db* that it is of *version*; durable after the next sync."""
    write_all(db, [(FORMAT_KEY, encode_format(FORMAT_KEY, version, durability))])


def read_format(db: KeyValue) -> Format | None:
    """What *db* says of itself; None if nothing was ever written to it."""
    value = db.get(FORMAT_KEY)
    return None if value is None else Format(*decode_format(FORMAT_KEY, value))


def upgrade(db: KeyValue, found: Format, *, target: int = FORMAT, upgrades: Mapping[int, Step] = UPGRADES) -> None:
    """
    Turn *db*, which is in the form *found*, into that of *target*, durably, one version at a time.

    Raises:
        StorageError: it is newer, or no step leads on from it; nothing was changed in that case.
    """
    if found.version > target:
        raise StorageError(
            f"the data is of format {found.version}, which a newer Queueber wrote; this one reads up to {target}"
        )
    steps = range(found.version, target)
    for version in steps:
        if version not in upgrades:
            raise StorageError(f"the data is of format {found.version}; there is no way from {version} to {target}")
    for version in steps:
        upgrades[version](db)
        write_format(db, found.durability, version + 1)
        db.sync()

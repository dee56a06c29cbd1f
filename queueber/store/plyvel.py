"""
plyvel over RocksDB: ``from queueber.store import plyvel`` in place of ``import plyvel``.

docs/plyvel.md has each name, with what differs.
"""

from importlib.metadata import version
from typing import Final

from queueber.store.engine import (
    DB,
    CorruptionError,
    Error,
    IOError,  # noqa: A004 - plyvel's name
    Iterator,
    IteratorInvalidError,
    PrefixedDB,
    RawIterator,
    Snapshot,
    WriteBatch,
    destroy_db,
    repair_db,
)

__version__: Final = "1.5.1"
"""The plyvel whose interface this is."""

__leveldb_version__: Final = "1.22"
"""The LevelDB that behaviour was compared with.  Its files cannot be read: those here are RocksDB's."""

__rocksdict_version__: Final = version("rocksdict")
"""What is there instead of LevelDB."""

__all__ = [
    "DB",
    "CorruptionError",
    "Error",
    "IOError",
    "Iterator",
    "IteratorInvalidError",
    "PrefixedDB",
    "RawIterator",
    "Snapshot",
    "WriteBatch",
    "__leveldb_version__",
    "__rocksdict_version__",
    "__version__",
    "destroy_db",
    "repair_db",
]

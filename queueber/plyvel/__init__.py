"""
plyvel's interface over RocksDB: ``from queueber import plyvel`` in place of ``import plyvel``.

Knows RocksDB by way of rocksdict, which only this package imports; knows no
queue, no row and no data directory.  Start reading at `db`.  `rocksdb` opens
databases with RocksDB's own options, and `wal` checks RocksDB's log files;
plyvel has neither.  docs/plyvel.md compares each name with plyvel's.
"""

from importlib.metadata import version
from typing import Final

from queueber.plyvel.db import DB
from queueber.plyvel.errors import (
    CorruptionError,
    Error,
    IOError,  # noqa: A004 - plyvel's name
    IteratorInvalidError,
)
from queueber.plyvel.files import destroy_db, repair_db
from queueber.plyvel.iterator import Iterator, prefix_successor
from queueber.plyvel.prefixed_db import PrefixedDB
from queueber.plyvel.raw_iterator import RawIterator
from queueber.plyvel.snapshot import Snapshot
from queueber.plyvel.write_batch import WriteBatch

__version__: Final = "1.5.1"
"""The version of plyvel whose interface this is."""

__leveldb_version__: Final = "1.22"
"""The LevelDB whose behaviour is reproduced.  Its files cannot be opened; those here are RocksDB's."""

__rocksdict_version__: Final = version("rocksdict")
"""The version of rocksdict in use."""

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
    "prefix_successor",
    "repair_db",
]

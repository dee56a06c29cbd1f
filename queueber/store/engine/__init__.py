"""
RocksDB behind plyvel's interface: nothing outside this package knows rocksdict.

Names, keyword-only arguments and errors are plyvel's.  The store asks for it
as `DB.tuned`; everybody else takes `queueber.store.plyvel`, which stands where
``import plyvel`` would.
"""

from queueber.store.engine.batch import WriteBatch
from queueber.store.engine.db import DB
from queueber.store.engine.errors import (
    CorruptionError,
    Error,
    IOError,  # noqa: A004 - plyvel's name
    IteratorInvalidError,
)
from queueber.store.engine.files import destroy_db, repair_db
from queueber.store.engine.iterator import Iterator
from queueber.store.engine.logs import batch_behind, content_of, logs_of, look_at
from queueber.store.engine.prefixed import PrefixedDB
from queueber.store.engine.raw import RawIterator
from queueber.store.engine.snapshot import Snapshot

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
    "batch_behind",
    "content_of",
    "destroy_db",
    "logs_of",
    "look_at",
    "repair_db",
]

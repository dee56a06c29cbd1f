"""
RocksDB behind plyvel's interface: this package stands where ``import plyvel`` would.

Names, keyword-only arguments and errors are plyvel's, for the part of it that
is here.  Nothing outside this package knows rocksdict.
"""

from queueber.store.engine.batch import WriteBatch
from queueber.store.engine.db import DB
from queueber.store.engine.errors import CorruptionError, Error, IOError  # noqa: A004 - plyvel's name
from queueber.store.engine.iterator import Iterator
from queueber.store.engine.prefixed import PrefixedDB

__all__ = ["DB", "CorruptionError", "Error", "IOError", "Iterator", "PrefixedDB", "WriteBatch"]

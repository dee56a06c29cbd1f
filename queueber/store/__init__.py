"""
Rows at rest: `open_store` on a data directory, and `MemoryStore` without one.

Both are a `queueber.broker.port.Store`.  The layers below, from the top:
`keyvalue` turns the port's writes into rows, `keys` and `records` say what rows
look like, `kv` is what is needed of an engine, and `engine` is RocksDB.  `plyvel` is the
door to the engine for everybody else.
"""

from queueber.store.directory import wipe
from queueber.store.keyvalue import Durability
from queueber.store.memory import MemoryStore
from queueber.store.records import Encoding
from queueber.store.rocks import RocksStore, open_store

__all__ = ["Durability", "Encoding", "MemoryStore", "RocksStore", "open_store", "wipe"]

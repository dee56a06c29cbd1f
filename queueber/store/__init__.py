"""
Durable storage: `open_store` on a data directory, and `MemoryStore` without one.

Both return a `queueber.broker.storage.Store`.  `rows` turns the broker's writes
into rows of a key-value engine, `datadir` has the data directory and opens
RocksDB in it, and `maintenance` has `copy_directory`, `inspect`, `verify` and
`salvage`, none of which writes to the directory that it reads.  Knows no RPC and
no method.  Start at `rocks`.
"""

from types import ModuleType
from warnings import warn

from queueber import plyvel as _plyvel
from queueber.process import CONTROL
from queueber.store.datadir.directory import locked_shared, wipe
from queueber.store.maintenance.backup import copy_directory
from queueber.store.maintenance.inspection import inspect
from queueber.store.maintenance.recovery import replace_directory, salvage
from queueber.store.maintenance.verification import verify
from queueber.store.rocks import RocksStore, open_store, unflushed_bytes
from queueber.store.rows.kv_store import Durability
from queueber.store.rows.memory import MemoryStore
from queueber.store.rows.values import Encoding

__all__ = [
    "CONTROL",
    "Durability",
    "Encoding",
    "MemoryStore",
    "RocksStore",
    "copy_directory",
    "inspect",
    "locked_shared",
    "open_store",
    "replace_directory",
    "salvage",
    "unflushed_bytes",
    "verify",
    "wipe",
]


def __getattr__(name: str) -> ModuleType:
    """Return `queueber.plyvel` for ``from queueber.store import plyvel``, which is deprecated."""
    if name != "plyvel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warn("queueber.store.plyvel is now queueber.plyvel", DeprecationWarning, stacklevel=2)
    return _plyvel

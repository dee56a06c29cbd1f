"""
Rows at rest: `open_store` on a data directory, and `MemoryStore` without one.

Both are a `queueber.broker.storage.Store`.  The layers below, from the top:
`keyvalue` turns the port's writes into rows, `keys` and `records` say what rows
look like, `kv` is what is needed of an engine, and `database` opens RocksDB,
which is `queueber.plyvel`.

Data directories as a whole are looked after by `copy_directory`, `inspect`,
`verify` and `salvage`; none of them writes to the one it is given.
"""

from types import ModuleType
from warnings import warn

from queueber import plyvel as _plyvel
from queueber.paths import CONTROL
from queueber.store.datadir.directory import locked_shared, wipe
from queueber.store.maintenance.backup import copy_directory
from queueber.store.maintenance.inspection import inspect
from queueber.store.maintenance.recovery import put_in_place, salvage
from queueber.store.maintenance.verification import verify
from queueber.store.rocks import RocksStore, open_store, unflushed_bytes
from queueber.store.rows.kv_store import Durability
from queueber.store.rows.memory import MemoryStore
from queueber.store.rows.records import Encoding

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
    "put_in_place",
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

"""`PrefixedDB`: a database within the database."""

from typing import TYPE_CHECKING, Unpack

from queueber.plyvel.arguments import as_bool, check_key
from queueber.plyvel.handle import Handle
from queueber.plyvel.iterator import Iterator, IteratorArguments, new_iterator
from queueber.plyvel.snapshot import Snapshot
from queueber.plyvel.write_batch import WriteBatch

if TYPE_CHECKING:
    from queueber.plyvel.db import DB


class PrefixedDB:
    """
    plyvel's `PrefixedDB`: the rows whose keys begin with a prefix, under keys without that prefix.

    Has no resources of its own, and need not be closed.
    """

    __slots__ = ("_db", "_handle", "_prefix")

    def __init__(self, db: "DB", handle: Handle, prefix: bytes) -> None:
        self._db = db
        self._handle = handle
        self._prefix = check_key(prefix, "prefix")

    @property
    def db(self) -> "DB":
        """The underlying database, also of a nested `PrefixedDB`."""
        return self._db

    @property
    def prefix(self) -> bytes:
        """The full prefix in the underlying database."""
        return self._prefix

    def __repr__(self) -> str:
        return f"<{__package__}.PrefixedDB with prefix {self._prefix!r} at {id(self):#x}>"

    def get(
        self, key: bytes, default: bytes | None = None, *, verify_checksums: bool = True, fill_cache: bool = True
    ) -> bytes | None:
        """Return the value of *key*, or *default* if there is none."""
        full_key = self._prefix + check_key(key)
        return self._db.get(full_key, default, verify_checksums=verify_checksums, fill_cache=fill_cache)

    def put(self, key: bytes, value: bytes, *, sync: bool = False) -> None:
        """Set *key* to *value*; with *sync*, return when that is durable."""
        self._db.put(self._prefix + check_key(key), value, sync=sync)

    def delete(self, key: bytes, *, sync: bool = False) -> None:
        """Delete *key*, if it exists; with *sync*, return when that is durable."""
        self._db.delete(self._prefix + check_key(key), sync=sync)

    def write_batch(self, *, transaction: bool = False, sync: bool = False) -> WriteBatch:
        """Return an empty batch that adds the prefix to each key; see `DB.write_batch`."""
        transaction, sync = as_bool(transaction, "transaction"), as_bool(sync, "sync")
        return WriteBatch(self._handle, self._prefix, transaction=transaction, sync=sync)

    def iterator(self, **arguments: Unpack[IteratorArguments]) -> Iterator:
        """Return an iterator over a range of the present rows; see `IteratorArguments`."""
        return new_iterator(self._handle, self._handle, self._prefix, arguments)

    def __iter__(self) -> Iterator:
        return self.iterator()

    def snapshot(self) -> Snapshot:
        """Return a snapshot of the present rows with the prefix."""
        return Snapshot(self._handle, self._prefix)

    def prefixed_db(self, prefix: bytes) -> "PrefixedDB":
        """Return a nested `PrefixedDB` whose full prefix is this one's followed by *prefix*."""
        return PrefixedDB(self._db, self._handle, self._prefix + check_key(prefix, "prefix"))

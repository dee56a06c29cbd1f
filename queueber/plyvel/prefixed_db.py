"""A database within the database."""

from typing import TYPE_CHECKING, Unpack

from queueber.plyvel.arguments import flag_of, key_of
from queueber.plyvel.handle import Handle
from queueber.plyvel.iterator import Iterator, Range, iterate
from queueber.plyvel.snapshot import Snapshot
from queueber.plyvel.write_batch import WriteBatch

if TYPE_CHECKING:
    from queueber.plyvel.db import DB


class PrefixedDB:
    """plyvel's `PrefixedDB`: the keys that begin with a prefix, seen without it.  There is nothing to close."""

    __slots__ = ("_db", "_handle", "_prefix")

    def __init__(self, db: "DB", handle: Handle, prefix: bytes) -> None:
        self._db = db
        self._handle = handle
        self._prefix = key_of(prefix, "prefix")

    @property
    def db(self) -> "DB":
        """The whole database."""
        return self._db

    @property
    def prefix(self) -> bytes:
        """What all its keys begin with, in the whole database."""
        return self._prefix

    def __repr__(self) -> str:
        return f"<{__package__}.PrefixedDB with prefix {self._prefix!r} at {id(self):#x}>"

    def get(
        self, key: bytes, default: bytes | None = None, *, verify_checksums: bool = True, fill_cache: bool = True
    ) -> bytes | None:
        """The value of *key*, or *default*."""
        whole = self._prefix + key_of(key)
        return self._db.get(whole, default, verify_checksums=verify_checksums, fill_cache=fill_cache)

    def put(self, key: bytes, value: bytes, *, sync: bool = False) -> None:
        """Set *key* to *value*; durable when this returns if *sync*."""
        self._db.put(self._prefix + key_of(key), value, sync=sync)

    def delete(self, key: bytes, *, sync: bool = False) -> None:
        """Remove *key*, whether or not it is there; durable when this returns if *sync*."""
        self._db.delete(self._prefix + key_of(key), sync=sync)

    def write_batch(self, *, transaction: bool = False, sync: bool = False) -> WriteBatch:
        """A batch whose keys all get the prefix."""
        transaction, sync = flag_of(transaction, "transaction"), flag_of(sync, "sync")
        return WriteBatch(self._handle, self._prefix, transaction=transaction, sync=sync)

    def iterator(self, **wanted: Unpack[Range]) -> Iterator:
        """A walk over the rows in a range."""
        return iterate(self._handle, self._handle, self._prefix, wanted)

    def __iter__(self) -> Iterator:
        return self.iterator()

    def snapshot(self) -> Snapshot:
        """The part as it is now."""
        return Snapshot(self._handle, self._prefix)

    def prefixed_db(self, prefix: bytes) -> "PrefixedDB":
        """The part of this part whose keys begin with *prefix* after its own."""
        return PrefixedDB(self._db, self._handle, self._prefix + key_of(prefix, "prefix"))

"""A database within the database."""

from typing import TYPE_CHECKING, Unpack

from queueber.store.engine.batch import WriteBatch
from queueber.store.engine.iterator import Iterator, Range

if TYPE_CHECKING:
    from queueber.store.engine.db import DB


class PrefixedDB:
    """plyvel's `PrefixedDB`: the keys that begin with a prefix, seen without it.  There is nothing to close."""

    def __init__(self, db: "DB", prefix: bytes) -> None:
        self._db = db
        self._prefix = prefix

    @property
    def db(self) -> "DB":
        """The whole database."""
        return self._db

    @property
    def prefix(self) -> bytes:
        """What all its keys begin with, in the whole database."""
        return self._prefix

    def get(self, key: bytes, default: bytes | None = None) -> bytes | None:
        """The value of *key*, or *default*."""
        return self._db.get(self._prefix + key, default)

    def put(self, key: bytes, value: bytes, *, sync: bool = False) -> None:
        """Set *key* to *value*; durable when this returns if *sync*."""
        self._db.put(self._prefix + key, value, sync=sync)

    def delete(self, key: bytes, *, sync: bool = False) -> None:
        """Remove *key*, whether or not it is there; durable when this returns if *sync*."""
        self._db.delete(self._prefix + key, sync=sync)

    def write_batch(self, *, transaction: bool = False, sync: bool = False) -> WriteBatch:
        """A batch whose keys all get the prefix."""
        return WriteBatch(self._db, prefix=self._prefix, transaction=transaction, sync=sync)

    def iterator(self, **wanted: Unpack[Range]) -> Iterator:
        """A walk over the rows in a range."""
        return self._db.iterator_below(self._prefix, wanted)

    def __iter__(self) -> Iterator:
        return self.iterator()

    def prefixed_db(self, prefix: bytes) -> "PrefixedDB":
        """The part of this part whose keys begin with *prefix* after its own."""
        return PrefixedDB(self._db, self._prefix + prefix)

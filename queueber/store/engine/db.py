"""
The database.

plyvel's `snapshot` is not here yet.  rocksdict's own does not help with it:
in 0.3.29 only look-ups by key see its moment, its iterators see the present.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack, cast
from weakref import WeakSet

import rocksdict

from queueber.store.engine import tuning
from queueber.store.engine.batch import WriteBatch, as_bytes
from queueber.store.engine.errors import Error, translating
from queueber.store.engine.iterator import Iterator, Range
from queueber.store.engine.prefixed import PrefixedDB


class DB:
    """
    plyvel's `DB`, and `sync`, `get_many` and `sequence` beside it.

    All methods but `close` may be called from several threads.  Errors are
    those of `queueber.store.engine.errors`; on a closed database it is
    `RuntimeError`.
    """

    def __init__(
        self, name: str | bytes, *, create_if_missing: bool = False, error_if_exists: bool = False, wal: bool = True
    ) -> None:
        """
        Open the database in the directory *name*.

        Args:
            name: the directory.
            create_if_missing: make it, if it is not there.
            error_if_exists: refuse one that is there.
            wal: keep a write-ahead log.  Without it a process that dies loses what was written since the last `sync`.
        """
        self._name = os.fsdecode(name)
        exists = (Path(self._name) / "CURRENT").exists()
        # rocksdict makes the directory and a file in it before RocksDB gets to refuse.
        if exists and error_if_exists:
            raise Error(f"Invalid argument: {self._name}: exists (error_if_exists is true)")
        if not exists and not create_if_missing:
            raise Error(f"Invalid argument: {self._name}: does not exist (create_if_missing is false)")
        self._wal = wal
        self._write_options = tuning.write_options(wal=wal)
        self._open: WeakSet[Iterator] = WeakSet()
        self._closed = False
        options = tuning.options(create=create_if_missing)
        with translating():
            # A column family without options of its own would get those of the last open, with a tiny cache.
            self._native = rocksdict.Rdict(self._name, options, column_families={"default": options})

    @property
    def name(self) -> str:
        """The directory."""
        return self._name

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """Close what was opened from here, then let go of the files.  Does nothing the second time."""
        if not self._closed:
            self._closed = True
            # RocksDB stays open, and its directory held, for as long as an iterator lives.
            for opened in list(self._open):
                opened.close()
            with translating():
                self._native.close()

    def get(self, key: bytes, default: bytes | None = None) -> bytes | None:
        """The value of *key*, or *default*."""
        with translating():
            value: bytes | None = self._native.get(as_bytes(key), default)
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of *keys*, in that order, None where there is none.  Other threads run meanwhile."""
        with translating():
            # The stub of rocksdict knows nothing of lists.
            return cast(list[bytes | None], self._native.get(list(keys)))

    def put(self, key: bytes, value: bytes, *, sync: bool = False) -> None:
        """Set *key* to *value*; durable when this returns if *sync*."""
        with translating():
            self._native.put(as_bytes(key), as_bytes(value), self._write_options)
        if sync:
            self.sync()

    def delete(self, key: bytes, *, sync: bool = False) -> None:
        """Remove *key*, whether or not it is there; durable when this returns if *sync*."""
        with translating():
            self._native.delete(as_bytes(key), self._write_options)
        if sync:
            self.sync()

    def write_batch(self, *, transaction: bool = False, sync: bool = False) -> WriteBatch:
        """A batch; as a context manager it is written at the end, but not after an error if *transaction*."""
        return WriteBatch(self, transaction=transaction, sync=sync)

    def write_native(self, batch: rocksdict.WriteBatch, *, sync: bool) -> None:
        """Write rocksdict's own kind of *batch*, which is used up by this.  For `WriteBatch` only."""
        with translating():
            self._native.write(batch, self._write_options)
        if sync:
            self.sync()

    def sync(self) -> None:
        """
        Return once everything written before the call would survive a power cut.

        Other threads run meanwhile, which is why no write here is ever synced
        by itself.  An error is final: a second attempt may succeed without
        the data being there.
        """
        with translating():
            if self._wal:
                self._native.flush_wal(True)
            else:
                self._native.flush(True)

    def sequence(self) -> int:
        """The number of the last write.  It grows by one with each row written and outlives restarts."""
        with translating():
            return self._native.latest_sequence_number()

    def iterator(self, **wanted: Unpack[Range]) -> Iterator:
        """A walk over the rows in a range, as they are now."""
        return self.iterator_below(b"", wanted)

    def iterator_below(self, base: bytes, wanted: Range) -> Iterator:
        """A walk over the rows below *base*.  For this package only."""
        with translating():
            made = Iterator(self._native, base=base, **wanted)
        self._open.add(made)
        return made

    def __iter__(self) -> Iterator:
        return self.iterator()

    def prefixed_db(self, prefix: bytes) -> PrefixedDB:
        """The part of this database whose keys begin with *prefix*, seen without it."""
        return PrefixedDB(self, prefix)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

"""`DB`: an open database."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import rocksdict

from queueber.plyvel.arguments import as_bool, as_bytes, check_key, check_keywords, type_error
from queueber.plyvel.cursor import read_options
from queueber.plyvel.errors import translate_error, translating_errors
from queueber.plyvel.files import check_openable, directory_path
from queueber.plyvel.handle import Closable, Handle, KeyWrite
from queueber.plyvel.iterator import Iterator, IteratorArguments, new_iterator
from queueber.plyvel.options import Parameters, options_from_parameters
from queueber.plyvel.prefixed_db import PrefixedDB
from queueber.plyvel.raw_iterator import RawIterator
from queueber.plyvel.size_estimates import approximate_sizes
from queueber.plyvel.snapshot import Snapshot
from queueber.plyvel.write_batch import WriteBatch

_LEVELDB_PREFIX = b"leveldb."
_ROCKSDB_PREFIX = b"rocksdb."
_MEMORY_PROPERTIES = ("rocksdb.size-all-mem-tables", "rocksdb.block-cache-usage")
"""Their sum is LevelDB's `approximate-memory-usage`."""


class DB(Closable):
    """
    plyvel's `DB`, with the additional methods `sync`, `get_many`, `write_many`, `sequence`, `flush` and
    `checkpoint`.

    Thread-safe, except for `close`.  Errors of RocksDB are raised as those of
    `queueber.plyvel.errors`.  Use of a closed database raises `RuntimeError`.
    """

    __slots__ = ("_handle", "_name")

    def __init__(
        self,
        name: str | bytes,
        *,
        create_if_missing: bool = False,
        error_if_exists: bool = False,
        **parameters: Unpack[Parameters],
    ) -> None:
        """
        Open the database in the directory *name*, which this process locks until `close`.

        Args:
            name: the directory, in UTF-8.
            create_if_missing: create the database if it is missing; its parent directory must exist.
            error_if_exists: refuse an existing database.
            parameters: see `Parameters`.

        Raises:
            IOError: another `DB` has the database open, or a file cannot be read or written.
            CorruptionError: a file is damaged.
            Error: the database is missing, or exists, or RocksDB refuses it.
            TypeError, ValueError, OverflowError: an argument is wrong.
        """
        self._name = name
        path = directory_path(name)
        create = as_bool(create_if_missing, "create_if_missing")
        refuse_existing = as_bool(error_if_exists, "error_if_exists")
        check_keywords("DB", parameters, Parameters)
        options = options_from_parameters(create=create, **parameters)
        # Checked by RocksDB, after it has taken the lock.
        options.set_error_if_exists(refuse_existing)
        check_openable(path, create_if_missing=create)
        self._handle = Handle(path, options, wal=True, wait_on_stall=True)

    @property
    def name(self) -> str | bytes:
        """The directory, as it was given."""
        return self._name

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._handle.closed

    def __repr__(self) -> str:
        return f"<{__package__}.DB with name {self._name!r}{' (closed)' * self.closed} at {id(self):#x}>"

    def close(self) -> None:
        """Close all iterators and snapshots, flush write buffers to table files, and release the lock.  Idempotent."""
        self._handle.close()

    def get(
        self, key: bytes, default: bytes | None = None, *, verify_checksums: bool = True, fill_cache: bool = True
    ) -> bytes | None:
        """Return the value of *key*, or *default* if there is none.  Unlike plyvel's, verifies checksums by default."""
        if type(key) is not bytes:
            raise type_error("key", "bytes", key)
        options = None
        if verify_checksums is not True or fill_cache is not True:
            options = read_options(as_bool(verify_checksums, "verify_checksums"), as_bool(fill_cache, "fill_cache"))
        try:
            value: bytes | None = self._handle.native.get(key, default, options)
        except Exception as error:
            raise translate_error(error) from error
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of *keys* in the same order, None where there is none.  Other threads run meanwhile."""
        for index, key in enumerate(keys):
            if type(key) is not bytes:
                raise type_error(f"keys[{index}]", "bytes", key)
        with translating_errors:
            values: list[bytes | None] | None = self._handle.native.get(list(keys))
            # rocksdict's stub lacks the overload for lists: only for a single key may it return None.
            assert values is not None
            return values

    def put(self, key: bytes, value: bytes, *, sync: bool = False) -> None:
        """Set *key* to *value*; with *sync*, return when that is durable."""
        self._handle.write([(check_key(key), as_bytes(value))], sync=as_bool(sync, "sync"))

    def delete(self, key: bytes, *, sync: bool = False) -> None:
        """Delete *key*, if it exists; with *sync*, return when that is durable."""
        self._handle.write([(check_key(key), None)], sync=as_bool(sync, "sync"))

    def write_many(self, writes: Sequence[KeyWrite]) -> int:
        """
        Apply *writes*, pairs of a key and its value, atomically, and return the sequence number of the last one.

        A value of None deletes the key.  Of several writes of one key, the last takes effect.  A `WriteBatch` checks
        each write when it is added; this method has no cost per write in Python.

        Raises:
            TypeError: a key or a value is not `bytes`; nothing was written.
            Stalled: nothing was written.  Only from a `queueber.plyvel.rocksdb.RocksDB`.
        """
        try:
            return self._handle.write(writes)
        except (KeyError, ValueError) as error:
            # rocksdict's, of a key and of a value.
            raise TypeError("write_many: keys must be bytes, and values bytes or None") from error

    def write_batch(self, *, transaction: bool = False, sync: bool = False) -> WriteBatch:
        """
        Return an empty batch.

        Used as a context manager, the batch is written at the end of the block; not after an exception if
        *transaction*.  With *sync*, a write of the batch returns when it is durable.
        """
        transaction, sync = as_bool(transaction, "transaction"), as_bool(sync, "sync")
        return WriteBatch(self._handle, b"", transaction=transaction, sync=sync)

    def sync(self) -> None:
        """
        Return when all earlier writes are durable.  Other threads run meanwhile.

        After an error the durability of those writes is unknown, and a second
        `sync` may succeed although some are lost.
        """
        self._handle.sync()

    def flush(self) -> None:
        """
        Write the write buffers to table files, so that compaction can drop deleted rows.

        Other threads run meanwhile.
        """
        with translating_errors:
            self._handle.native.flush(True)

    def checkpoint(self, path: Path) -> None:
        """
        Create a copy of the present database in the directory *path*, which must not exist.

        On the same file system, table files are hard links.  On another one
        they are copied, without other threads running meanwhile.  Write buffers
        are flushed first, so the copy includes writes that were not synced.
        """
        self.flush()
        with translating_errors:
            rocksdict.Checkpoint(self._handle.native).create_checkpoint(str(path))

    def sequence(self) -> int:
        """Return the sequence number of the last write: incremented by each row written, and persistent."""
        with translating_errors:
            return self._handle.native.latest_sequence_number()

    def iterator(self, **arguments: Unpack[IteratorArguments]) -> Iterator:
        """Return an iterator over a range of the present rows; see `IteratorArguments`."""
        return new_iterator(self._handle, self._handle, b"", arguments)

    def __iter__(self) -> Iterator:
        return self.iterator()

    def raw_iterator(self, *, verify_checksums: bool = True, fill_cache: bool = True) -> RawIterator:
        """Return a raw iterator over the present rows."""
        verify, fill = as_bool(verify_checksums, "verify_checksums"), as_bool(fill_cache, "fill_cache")
        return RawIterator(self._handle, self._handle, verify_checksums=verify, fill_cache=fill)

    def snapshot(self) -> Snapshot:
        """Return a snapshot of the present rows."""
        return Snapshot(self._handle, b"")

    def prefixed_db(self, prefix: bytes) -> PrefixedDB:
        """Return the rows whose keys begin with *prefix* as a database of their own, in which keys lack the prefix."""
        return PrefixedDB(self, self._handle, prefix)

    def get_property(self, name: bytes) -> bytes | None:
        """Return the property `leveldb.NAME` or `rocksdb.NAME`, both of which are RocksDB's; None if unknown."""
        native = self._handle.native
        if type(name) is not bytes:
            raise type_error("name", "bytes", name)
        try:
            if name == b"leveldb.approximate-memory-usage":
                return b"%d" % sum(native.property_int_value(part) or 0 for part in _MEMORY_PROPERTIES)
            if name.startswith(_LEVELDB_PREFIX):
                name = _ROCKSDB_PREFIX + name.removeprefix(_LEVELDB_PREFIX)
            if b"\0" in name or not name.isascii():
                return None
            value = native.property_value(name.decode())
        except Exception as error:
            raise translate_error(error) from error
        return None if value is None else value.encode()

    def compact_range(self, *, start: bytes | None = None, stop: bytes | None = None) -> None:
        """Compact the rows from *start* to *stop*; None for an open end."""
        for bound, name in ((start, "start"), (stop, "stop")):
            if bound is not None:
                check_key(bound, name)
        with translating_errors:
            self._handle.native.compact_range(start, stop)

    def approximate_size(self, start: bytes, stop: bytes) -> int:
        """Return the estimated bytes in table files of the rows from *start* up to *stop*."""
        return self.approximate_sizes((start, stop))[0]

    def approximate_sizes(self, *ranges: tuple[bytes, bytes]) -> list[int]:
        """Return the estimates of `approximate_size` for several ranges, each a pair of start and stop."""
        with translating_errors:
            return approximate_sizes(self._handle.native, ranges)

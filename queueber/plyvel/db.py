"""The database."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack, cast

import rocksdict

from queueber.plyvel import options, size_estimates
from queueber.plyvel.arguments import as_bytes, check_words, flag_of, key_of, wrong_type
from queueber.plyvel.cursor import read_options
from queueber.plyvel.errors import translated, translating
from queueber.plyvel.files import check_openable, directory
from queueber.plyvel.handle import Handle, NoCopy
from queueber.plyvel.iterator import Iterator, Range, iterate
from queueber.plyvel.options import Parameters
from queueber.plyvel.prefixed_db import PrefixedDB
from queueber.plyvel.raw_iterator import RawIterator
from queueber.plyvel.snapshot import Snapshot
from queueber.plyvel.write_batch import WriteBatch


class DB(NoCopy):
    """
    plyvel's `DB`, and `sync`, `get_many` and `sequence` beside it.

    All methods but `close` may be called from several threads.  Errors are
    those of `queueber.plyvel.errors`; on a closed database it is
    `RuntimeError`.
    """

    __slots__ = ("_handle", "_name")

    def __init__(
        self,
        name: str | bytes,
        *,
        create_if_missing: bool = False,
        error_if_exists: bool = False,
        **wanted: Unpack[Parameters],
    ) -> None:
        """
        Open the database in the directory *name*.

        Args:
            name: the directory, in UTF-8.
            create_if_missing: make it, if it is not there.
            error_if_exists: refuse one that is there.
            wanted: plyvel's other parameters, each described in `Parameters`.
        """
        self._name = name
        path = directory(name)
        create = flag_of(create_if_missing, "create_if_missing")
        refuse = flag_of(error_if_exists, "error_if_exists")
        check_words("DB", wanted, Parameters)
        chosen = options.from_parameters(create=create, **wanted)
        # By RocksDB itself, which first looks whether somebody else has it open.
        chosen.set_error_if_exists(refuse)
        check_openable(path, create_if_missing=create)
        self._handle = Handle(path, chosen, wal=True, patient=True)

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
        """
        Close what was opened from here, write out what is in memory, and let go of the files.

        Does nothing the second time.
        """
        self._handle.close()

    def get(
        self, key: bytes, default: bytes | None = None, *, verify_checksums: bool = True, fill_cache: bool = True
    ) -> bytes | None:
        """The value of *key*, or *default*; unlike plyvel's it checks what it reads, unless told not to."""
        if type(key) is not bytes:
            raise wrong_type("key", "bytes", key)
        read = None
        if verify_checksums is not True or fill_cache is not True:
            read = read_options(flag_of(verify_checksums, "verify_checksums"), flag_of(fill_cache, "fill_cache"))
        try:
            value: bytes | None = self._handle.native.get(key, default, read)
        except Exception as error:
            raise translated(error) from error
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of *keys*, in that order, None where there is none.  Other threads run meanwhile."""
        for at, key in enumerate(keys):
            key_of(key, f"keys[{at}]")
        with translating():
            # The stub of rocksdict knows nothing of lists.
            return cast(list[bytes | None], self._handle.native.get(list(keys)))

    def put(self, key: bytes, value: bytes, *, sync: bool = False) -> None:
        """Set *key* to *value*; durable when this returns if *sync*."""
        key, value, synced = key_of(key), as_bytes(value), flag_of(sync, "sync")
        handle = self._handle
        handle.write(lambda: handle.native.put(key, value, handle.write_options), sync=synced)

    def delete(self, key: bytes, *, sync: bool = False) -> None:
        """Remove *key*, whether or not it is there; durable when this returns if *sync*."""
        key, synced = key_of(key), flag_of(sync, "sync")
        handle = self._handle
        handle.write(lambda: handle.native.delete(key, handle.write_options), sync=synced)

    def write_batch(self, *, transaction: bool = False, sync: bool = False) -> WriteBatch:
        """A batch; as a context manager it is written at the end, but not after an error if *transaction*."""
        transaction, sync = flag_of(transaction, "transaction"), flag_of(sync, "sync")
        return WriteBatch(self._handle, b"", transaction=transaction, sync=sync)

    def sync(self) -> None:
        """
        Return once everything written before the call would survive a power cut.

        Other threads run meanwhile, which is why no write here is ever synced
        by itself.  An error is final: a second attempt may succeed without
        the data being there.
        """
        self._handle.sync()

    def flush(self) -> None:
        """
        Put what is in memory into a table file, so that what it overwrote or removed can be merged away.

        Other threads run meanwhile.
        """
        with translating():
            self._handle.native.flush(True)

    def checkpoint(self, path: Path) -> None:
        """
        Put the database as it is now into *path*, which must not be there: links to table files, copies of the rest.

        What is in memory goes to a table file first, so that it is in it
        whether it was synced or not.  All of that but the last moment's is done
        while other threads run; on another file system, RocksDB would copy
        everything while they do not.
        """
        self.flush()
        with translating():
            rocksdict.Checkpoint(self._handle.native).create_checkpoint(str(path))

    def sequence(self) -> int:
        """The number of the last write.  It grows by one with each row written and outlives restarts."""
        with translating():
            return self._handle.native.latest_sequence_number()

    def iterator(self, **wanted: Unpack[Range]) -> Iterator:
        """A walk over the rows in a range, as they are now."""
        return iterate(self._handle, self._handle, b"", wanted)

    def __iter__(self) -> Iterator:
        return self.iterator()

    def raw_iterator(self, *, verify_checksums: bool = True, fill_cache: bool = True) -> RawIterator:
        """An iterator that is moved and asked by hand, over the rows as they are now."""
        verify, fill = flag_of(verify_checksums, "verify_checksums"), flag_of(fill_cache, "fill_cache")
        return RawIterator(self._handle, self._handle, verify_checksums=verify, fill_cache=fill)

    def snapshot(self) -> Snapshot:
        """The database as it is now."""
        return Snapshot(self._handle, b"")

    def prefixed_db(self, prefix: bytes) -> PrefixedDB:
        """The part of this database whose keys begin with *prefix*, seen without it."""
        return PrefixedDB(self, self._handle, prefix)

    def get_property(self, name: bytes) -> bytes | None:
        """What RocksDB says of itself under *name*, or None; `leveldb.` at its beginning stands for `rocksdb.`."""
        asked = key_of(name, "name")
        with translating():
            return size_estimates.property_of(self._handle.native, asked)

    def compact_range(self, *, start: bytes | None = None, stop: bytes | None = None) -> None:
        """Rewrite the rows from *start* up to *stop*, both of them open if None, without what was overwritten."""
        for bound, name in ((start, "start"), (stop, "stop")):
            if bound is not None:
                key_of(bound, name)
        with translating():
            self._handle.native.compact_range(start, stop)

    def approximate_size(self, start: bytes, stop: bytes) -> int:
        """About how many bytes of table files the rows from *start* up to *stop* take."""
        return self.approximate_sizes((start, stop))[0]

    def approximate_sizes(self, *ranges: tuple[bytes, bytes]) -> list[int]:
        """The same for several ranges, each a pair of start and stop."""
        with translating():
            return size_estimates.approximate_sizes(self._handle.native, ranges)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

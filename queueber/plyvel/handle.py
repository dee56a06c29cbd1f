"""The open RocksDB database that a `DB` shares with the objects made from it."""

from collections.abc import Sequence
from pathlib import Path
from time import sleep
from types import TracebackType
from typing import Never, Self, SupportsIndex, TypeAlias
from weakref import WeakSet

import rocksdict
from rocksdict import WriteBatch

from queueber.errors import Stalled
from queueber.plyvel.errors import translate_error, translating_errors
from queueber.plyvel.options import write_options

_STALL_RETRY_SECONDS = 0.01
"""Delay between attempts of a write that RocksDB stalls."""


KeyWrite: TypeAlias = tuple[bytes, bytes | None]
"""A key and its new value, or None to delete the key."""


class NoCopy:
    """Base of objects that refuse to be copied or pickled: a copy would refer to, and close, the same native object."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> Never:
        """
        Refuse to be copied or pickled.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"{type(self).__name__} cannot be copied or pickled")


class Closable(NoCopy):
    """Base of objects that hold native resources until they are closed, as context managers at the end of the block."""

    __slots__ = ()

    def close(self) -> None:
        """Release the resources.  Idempotent."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


class Handle:
    """
    An open RocksDB database.

    Iterators and snapshots register here, weakly, and are closed with the
    database: RocksDB stays open, and its directory locked, as long as one
    native iterator exists.
    """

    def __init__(
        self, path: Path, options: rocksdict.Options, *, wal: bool, wait_on_stall: bool, read_only: bool = False
    ) -> None:
        """
        Open the database in the directory *path*.

        Args:
            path: the directory.
            options: options of the database and of its only column family.
            wal: write to the WAL.
            wait_on_stall: retry a stalled write until it succeeds instead of raising `Stalled`.
            read_only: open without write access.  rocksdict creates a file of its own in the directory all the same.
        """
        self.closed = False
        self.write_options = write_options(wal=wal)
        self._wal = wal
        self._wait_on_stall = wait_on_stall
        self._children: WeakSet[Closable] = WeakSet()
        with translating_errors:
            # Without options for the column family, rocksdict takes those of the last opening, with a tiny cache.
            self.native = rocksdict.Rdict(str(path), options, {"default": options}, _access(read_only=read_only))

    def check_open(self) -> None:
        """
        Check that the database is open.

        Raises:
            RuntimeError: the database is closed.
        """
        if self.closed:
            raise RuntimeError("the database is closed")

    def register(self, child: Closable) -> None:
        """Close *child* before the database, if it is still referenced then."""
        self._children.add(child)

    def cursor(self, options: rocksdict.ReadOptions, upper: bytes | None) -> rocksdict.RdictIter:  # noqa: ARG002
        """Return a cursor over the present rows.  *options* must include the bound *upper* and outlive the cursor."""
        if self.closed:
            self.check_open()
        return self.native.iter(options)

    def write(self, writes: Sequence[KeyWrite], *, sync: bool = False) -> int:
        """
        Apply *writes* atomically, then `sync` if *sync*, and return the sequence number of the last write.

        Raises:
            Stalled: nothing was written.  Never raised with `wait_on_stall`.
        """
        if self.closed:
            self.check_open()
        native = self.native
        while True:
            # Made anew for each attempt: rocksdict consumes a batch even if the write fails.
            batch = WriteBatch(raw_mode=True)
            put, delete = batch.put, batch.delete
            for key, value in writes:
                if value is None:
                    delete(key)
                else:
                    put(key, value)
            try:
                native.write(batch, self.write_options)
                sequence: int = native.latest_sequence_number()
                break
            except Exception as error:
                translated = translate_error(error)
                if not (isinstance(translated, Stalled) and self._wait_on_stall):
                    raise translated from error
            # Wait here, where other threads run; during a wait inside RocksDB, rocksdict would hold the GIL.
            sleep(_STALL_RETRY_SECONDS)
        if sync:
            self.sync()
        return sequence

    def sync(self) -> None:
        """Return when all earlier writes are durable: sync the WAL or, without one, flush to table files."""
        try:
            if self._wal:
                self.native.flush_wal(True)
            else:
                self.native.flush(True)
        except Exception as error:
            raise translate_error(error) from error

    def close(self) -> None:
        """Close the registered objects, then the database.  Idempotent."""
        if not self.closed:
            self.closed = True
            for child in list(self._children):
                child.close()
            with translating_errors:
                self.native.close()


def _access(*, read_only: bool) -> rocksdict.AccessType:
    if read_only:
        # The WAL is replayed into memory, without writing table files.
        return rocksdict.AccessType.read_only(error_if_log_file_exist=False)
    return rocksdict.AccessType.read_write()

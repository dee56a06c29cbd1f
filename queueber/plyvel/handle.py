"""The open RocksDB that a `DB` and all that was opened from it share."""

from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Never, Protocol, SupportsIndex
from weakref import WeakSet

import rocksdict

from queueber.plyvel.errors import Stalled, translating
from queueber.plyvel.options import write_options

_PATIENCE = 0.01
"""Seconds between the attempts of a write that RocksDB wants to slow down."""


class NoCopy:
    """An object that is neither copied nor pickled: a copy would refer to the same object of RocksDB and close it."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> Never:
        """
        Refuse.

        Raises:
            TypeError: always, from `copy` as from `pickle`.
        """
        raise TypeError(f"{type(self).__name__} cannot be copied or pickled")


class Closable(Protocol):
    """What holds on to the files until it is closed."""

    def close(self) -> None:
        """Let go of them.  Nothing happens the second time."""


class Handle:
    """
    RocksDB, open.

    It knows what was opened from it, weakly, because RocksDB stays open and
    its directory held for as long as one iterator lives.
    """

    def __init__(
        self, path: Path, options: rocksdict.Options, *, wal: bool, patient: bool, read_only: bool = False
    ) -> None:
        """
        Open the database in *path*.

        Args:
            path: the directory.
            options: what RocksDB runs with.
            wal: keep a write-ahead log.
            patient: writes that RocksDB wants to slow down wait for it, as against raising `Stalled`.
            read_only: let RocksDB change nothing; rocksdict puts a file of its own there all the same.
        """
        self.closed = False
        self.write_options = write_options(wal=wal)
        self._wal = wal
        self._patient = patient
        self._opened: WeakSet[Closable] = WeakSet()
        with translating():
            # A column family without options of its own would get those of the last open, with a tiny cache.
            self.native = rocksdict.Rdict(str(path), options, {"default": options}, _access(read_only=read_only))

    def check(self) -> None:
        """Raise `RuntimeError` if it is closed."""
        if self.closed:
            raise RuntimeError("the database is closed")

    def keep(self, opened: Closable) -> None:
        """Close *opened* before the database, if it still lives then."""
        self._opened.add(opened)

    def cursor(self, options: rocksdict.ReadOptions, upper: bytes | None) -> rocksdict.RdictIter:  # noqa: ARG002
        """A cursor over the rows as they are now.  *upper* must be in *options* already, which must outlive it."""
        if self.closed:
            self.check()
        return self.native.iter(options)

    def write(self, attempt: Callable[[], None], *, sync: bool) -> None:
        """
        Call *attempt*, which writes at once or fails, and then `sync` if so wanted.

        Raises:
            Stalled: nothing was written; never if this is patient.
        """
        self.check()
        while True:
            try:
                with translating():
                    attempt()
                break
            except Stalled:
                if not self._patient:
                    raise
            # Here and not in RocksDB, where rocksdict would hold the interpreter meanwhile.
            sleep(_PATIENCE)
        if sync:
            self.sync()

    def sync(self) -> None:
        """Return once everything written before the call would survive a power cut."""
        with translating():
            if self._wal:
                self.native.flush_wal(True)
            else:
                self.native.flush(True)

    def close(self) -> None:
        """Close what was opened from here, then let go of the files.  Does nothing the second time."""
        if not self.closed:
            self.closed = True
            for opened in list(self._opened):
                opened.close()
            with translating():
                self.native.close()


def _access(*, read_only: bool) -> rocksdict.AccessType:
    if read_only:
        # What the log holds is read into memory, and stays there.
        return rocksdict.AccessType.read_only(error_if_log_file_exist=False)
    return rocksdict.AccessType.read_write()

"""`RocksDB`: a `DB` opened with RocksDB's own options, with stricter recovery."""

from pathlib import Path

from queueber.plyvel.db import DB
from queueber.plyvel.files import check_openable
from queueber.plyvel.handle import Handle
from queueber.plyvel.rocksdb_options import RocksDBOptions, check_in_force, native_options
from queueber.plyvel.wal import check_wal, truncate_damage


class RocksDB(DB):
    """
    A `DB` that is opened with `RocksDBOptions` in place of plyvel's parameters.

    There are three differences from a `DB`.  The structure of the WAL and of the
    manifest is checked before RocksDB reads them.  The options that RocksDB
    reports after opening are compared with those it was given.  A write that
    RocksDB would delay raises `Stalled` instead of waiting.
    """

    __slots__ = ("in_force",)

    in_force: dict[str, str]
    """The options that RocksDB reported after opening, by its names.  Not set if the database is read-only."""

    def __init__(
        self,
        path: Path,
        options: RocksDBOptions,
        *,
        create_if_missing: bool = False,
        wal: bool = True,
        read_only: bool = False,
        salvage: bool = False,
    ) -> None:
        """
        Open the database in the directory *path*.

        Args:
            path: the directory.
            options: RocksDB's options.
            create_if_missing: create the database if it is missing.
            wal: write to the WAL.  Without it, a process that dies loses the writes since the last `sync`.
            read_only: refuse writes, and take no lock.
            salvage: truncate a damaged WAL before the damage instead of refusing it.

        Raises:
            CorruptionError: the WAL or the manifest is damaged.
            Error: the database cannot be opened, or RocksDB runs with other options; it is closed again.
        """
        check_openable(path, create_if_missing=create_if_missing)
        if salvage:
            truncate_damage(path)
        else:
            check_wal(path)
        self._name = str(path)
        native = native_options(options, create=create_if_missing, salvage=salvage)
        self._handle = Handle(path, native, wal=wal, wait_on_stall=False, read_only=read_only)
        if not read_only:
            try:
                self.in_force = check_in_force(path, self.get_property, options, salvage=salvage)
            except BaseException:
                self.close()
                raise

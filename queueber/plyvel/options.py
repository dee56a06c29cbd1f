"""
plyvel's parameters as RocksDB options, and the options of every database.

A parameter that is not given has RocksDB's default, which is usually larger
than LevelDB's.  `rocksdb_options` has options that plyvel has no parameter for.
"""

from collections.abc import Callable
from typing import TypedDict

from rocksdict import BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Options, WriteOptions

from queueber.plyvel.arguments import CType, as_integer, check_key, type_error
from queueber.units import MIB

_MAX_OPEN_FILES = 1_000
"""LevelDB's default; RocksDB's is no limit."""

_MAX_TOTAL_WAL_SIZE = 128 * MIB
"""RocksDB's default is four times all write buffers."""


class Parameters(TypedDict, total=False):
    """The keyword arguments that plyvel's `DB` and `repair_db` share.  Sizes are in bytes."""

    paranoid_checks: bool | None
    """Treat damage as an error as soon as it is found; on by default, unlike in LevelDB."""

    write_buffer_size: int | None
    """Size of the rows in memory at which they are flushed to a table file; 64 MiB."""

    max_open_files: int | None
    """Table files that are open at the same time; 1000."""

    lru_cache_size: int | None
    """Capacity of the block cache; 32 MiB."""

    block_size: int | None
    """Uncompressed size of the blocks of a table file; 4 KiB."""

    block_restart_interval: int | None
    """Keys per restart point of prefix compression; 16."""

    max_file_size: int | None
    """Target size of a table file; 64 MiB."""

    compression: str | bytes | None
    """`snappy`, the default, or None."""

    bloom_filter_bits: int
    """Bits per key of the Bloom filters; 0, the default, for no filters."""

    comparator: Callable[[bytes, bytes], int] | None
    """Not supported: keys are in bytewise order."""

    comparator_name: bytes | None
    """Required with *comparator*."""


def default_options(*, create: bool) -> Options:
    """Return the options that every database has, with the database created if *create* and it is missing."""
    options = Options(raw_mode=True)  # in the other mode, rocksdict unpickles values
    set_defaults(options, create=create)
    return options


def set_defaults(options: Options, *, create: bool) -> None:
    """Set the options that every database has: against silent loss of data, and against files that pile up."""
    options.create_if_missing(create)

    # RocksDB's default recovery silently drops every record after the first damaged one, synced or not.  This mode
    # drops a torn tail, which no sync had covered, and refuses anything else.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_paranoid_checks(True)
    # RocksDB's crash tests cover neither, and both can lose synced rows after a hole in the WAL.
    options.set_recycle_log_file_num(0)
    options.set_wal_bytes_per_sync(0)
    options.set_max_total_wal_size(_MAX_TOTAL_WAL_SIZE)

    # Obsolete files are deleted in the background, and not by the thread that closes an iterator.
    options.set_avoid_unnecessary_blocking_io(True)

    # RocksDB's info log: by default 1000 old files are kept, and each opening adds one.
    options.set_keep_log_file_num(5)
    options.set_max_log_file_size(4 * MIB)


def write_options(*, wal: bool) -> WriteOptions:
    """Return the options of all writes, which go to the WAL if *wal*."""
    options = WriteOptions()
    # rocksdict holds the GIL during a write, so a write that waited for a flush would stop the whole process.
    options.no_slowdown = True
    options.disable_wal = not wal  # type: ignore[method-assign, assignment] # a property; the stub is wrong
    return options


def options_from_parameters(
    *,
    create: bool,
    paranoid_checks: bool | None = None,
    write_buffer_size: int | None = None,
    max_open_files: int | None = None,
    lru_cache_size: int | None = None,
    block_size: int | None = None,
    block_restart_interval: int | None = None,
    max_file_size: int | None = None,
    compression: str | bytes | None = "snappy",
    bloom_filter_bits: int = 0,
    comparator: Callable[[bytes, bytes], int] | None = None,
    comparator_name: bytes | None = None,
) -> Options:
    """
    Return the options for plyvel's parameters, with the database created if *create* and it is missing.

    Raises:
        TypeError: a parameter is of the wrong type.
        ValueError: the compression is unknown, or a comparator or its name is missing.
        OverflowError: a size does not fit into plyvel's C type.
        NotImplementedError: a comparator is given.
    """
    _refuse_comparator(comparator, comparator_name)
    options = default_options(create=create)
    options.set_paranoid_checks(True if paranoid_checks is None else bool(paranoid_checks))
    if write_buffer_size is not None:
        options.set_write_buffer_size(as_integer(write_buffer_size, "write_buffer_size", CType.SIZE_T))
    if max_open_files is None:
        max_open_files = _MAX_OPEN_FILES
    options.set_max_open_files(as_integer(max_open_files, "max_open_files", CType.INT))
    if max_file_size is not None:
        options.set_target_file_size_base(as_integer(max_file_size, "max_file_size", CType.SIZE_T))
    options.set_compression_type(_compression_type(compression))

    tables = BlockBasedOptions()
    if lru_cache_size is not None:
        tables.set_block_cache(Cache(as_integer(lru_cache_size, "lru_cache_size", CType.SIZE_T)))
    if block_size is not None:
        tables.set_block_size(as_integer(block_size, "block_size", CType.SIZE_T))
    if block_restart_interval is not None:
        interval = as_integer(block_restart_interval, "block_restart_interval", CType.INT)
        tables.set_block_restart_interval(interval)
    bits = as_integer(bloom_filter_bits, "bloom_filter_bits", CType.INT)
    if bits > 0:
        tables.set_bloom_filter(bits, False)
    options.set_block_based_table_factory(tables)
    return options


def _compression_type(name: object) -> DBCompressionType:
    if name is None:
        return DBCompressionType.none()
    if not isinstance(name, str | bytes):
        raise type_error("compression", "None or a string", name)
    if name not in ("snappy", b"snappy"):
        raise ValueError(f"argument 'compression' must be None or 'snappy', not {name!r}")
    return DBCompressionType.snappy()


def _refuse_comparator(comparator: object, name: object) -> None:
    """Check both arguments as plyvel does, and refuse a valid comparator, which rocksdict cannot install."""
    if name is not None:
        check_key(name, "comparator_name")
    if (comparator is None) != (name is None):
        raise ValueError("'comparator' and 'comparator_name' must be given together")
    if comparator is None:
        return
    if not callable(comparator):
        raise type_error("comparator", "callable", comparator)
    raise NotImplementedError("rocksdict has no comparators: keys are in the order of their bytes")

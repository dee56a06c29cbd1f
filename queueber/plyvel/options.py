"""
plyvel's parameters in RocksDB's words.

What is not given has RocksDB's own default, which is larger than LevelDB's in
most cases.  `tuning` is the other way to set RocksDB up: that of the store.
"""

from collections.abc import Callable
from typing import TypedDict

from rocksdict import BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Options, WriteOptions

from queueber.plyvel.arguments import Size, integer_of, key_of, wrong_type
from queueber.units import MIB

# LevelDB's.  RocksDB's own is to keep all of them open.
OPEN_FILES_MAX = 1_000

WAL_BYTES_MAX = 128 * MIB
"""Length of the log beyond which the oldest rows are flushed."""


class Parameters(TypedDict, total=False):
    """The keyword arguments that plyvel's `DB` and `repair_db` share."""

    paranoid_checks: bool | None
    """Whether an error is told as soon as it is seen; unlike LevelDB's, RocksDB's default is yes."""

    write_buffer_size: int | None
    """Bytes in memory before they go to a table file; 64 MiB."""

    max_open_files: int | None
    """1000."""

    lru_cache_size: int | None
    """Bytes of table files in memory; 32 MiB."""

    block_size: int | None
    """Bytes that are read from a table file at a time; 4 KiB."""

    block_restart_interval: int | None
    """Keys for each that is stored whole; 16."""

    max_file_size: int | None
    """Bytes of a table file; 64 MiB."""

    compression: str | bytes | None
    """'snappy', which is the default, or None."""

    bloom_filter_bits: int
    """Bits for each key in a filter that saves reads; 0 means none."""

    comparator: Callable[[bytes, bytes], int] | None
    """Cannot be had: keys are in the order of their bytes."""

    comparator_name: bytes | None
    """Goes with *comparator*."""


def safe_options(*, create: bool) -> Options:
    """What holds for every database, whoever opens it: nothing is lost silently, and nothing piles up."""
    chosen = Options(raw_mode=True)  # any other mode unpickles what it reads
    set_safe_defaults(chosen, create=create)
    return chosen


def set_safe_defaults(chosen: Options, *, create: bool) -> None:
    """Set the options that every database has: no silent loss, and no files that pile up."""
    chosen.create_if_missing(create)

    # Faults.  RocksDB's default recovery silently drops every record behind the first damaged one, synced or not;
    # this one drops a torn tail, which no sync had covered, and refuses anything else.
    chosen.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    chosen.set_paranoid_checks(True)
    # Neither is covered by RocksDB's own crash tests, and both can lose synced rows behind a hole in the log.
    chosen.set_recycle_log_file_num(0)
    chosen.set_wal_bytes_per_sync(0)
    chosen.set_max_total_wal_size(WAL_BYTES_MAX)

    # Deleting files that nobody needs any longer is not the business of the thread that closes an iterator.
    chosen.set_avoid_unnecessary_blocking_io(True)

    # RocksDB's own log: by default a thousand old ones are kept, one more with every start.
    chosen.set_keep_log_file_num(5)
    chosen.set_max_log_file_size(4 * MIB)


def write_options(*, wal: bool) -> WriteOptions:
    """Options for every write: without the log unless *wal*."""
    chosen = WriteOptions()
    # rocksdict holds the interpreter during a write, so one that waits for a flush would stop the whole process.
    chosen.no_slowdown = True
    chosen.disable_wal = not wal  # type: ignore[method-assign, assignment] # a property, whatever its stub says
    return chosen


def from_parameters(
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
    Options for opening a database, which is created if *create* and it is not there.

    Raises:
        TypeError: something is of the wrong type.
        ValueError: a compression that plyvel does not know, or a comparator without a name.
        OverflowError: a size is negative, or too large for plyvel.
        NotImplementedError: there is a comparator.
    """
    _refuse(comparator, comparator_name)
    chosen = safe_options(create=create)
    chosen.set_paranoid_checks(True if paranoid_checks is None else bool(paranoid_checks))
    if write_buffer_size is not None:
        chosen.set_write_buffer_size(integer_of(write_buffer_size, "write_buffer_size", Size.SIZE))
    if max_open_files is None:
        max_open_files = OPEN_FILES_MAX
    chosen.set_max_open_files(integer_of(max_open_files, "max_open_files", Size.INT))
    if max_file_size is not None:
        chosen.set_target_file_size_base(integer_of(max_file_size, "max_file_size", Size.SIZE))
    chosen.set_compression_type(_compression(compression))

    tables = BlockBasedOptions()
    if lru_cache_size is not None:
        tables.set_block_cache(Cache(integer_of(lru_cache_size, "lru_cache_size", Size.SIZE)))
    if block_size is not None:
        tables.set_block_size(integer_of(block_size, "block_size", Size.SIZE))
    if block_restart_interval is not None:
        interval = integer_of(block_restart_interval, "block_restart_interval", Size.INT)
        tables.set_block_restart_interval(interval)
    bits = integer_of(bloom_filter_bits, "bloom_filter_bits", Size.INT)
    if bits > 0:
        tables.set_bloom_filter(bits, False)
    chosen.set_block_based_table_factory(tables)
    return chosen


def _compression(name: object) -> DBCompressionType:
    if name is None:
        return DBCompressionType.none()
    if not isinstance(name, str | bytes):
        raise wrong_type("compression", "None or a string", name)
    if name not in ("snappy", b"snappy"):
        raise ValueError(f"argument 'compression' must be None or 'snappy', not {name!r}")
    return DBCompressionType.snappy()


def _refuse(comparator: object, name: object) -> None:
    if name is not None:
        key_of(name, "comparator_name")
    if (comparator is None) != (name is None):
        raise ValueError("'comparator' and 'comparator_name' must be given together")
    if comparator is None:
        return
    if not callable(comparator):
        raise wrong_type("comparator", "callable", comparator)
    raise NotImplementedError("rocksdict has no comparators: keys are in the order of their bytes")

"""
plyvel's parameters in RocksDB's words.

What is not given has RocksDB's own default, which is larger than LevelDB's in
most cases.  `tuning` is the other way to set RocksDB up: that of the store.
"""

from collections.abc import Callable
from typing import TypedDict

from rocksdict import BlockBasedOptions, Cache, DBCompressionType, Options

from queueber.store.engine import tuning
from queueber.store.engine.arguments import Size, integer_of, key_of, wrong_type

# LevelDB's.  RocksDB's own is to keep all of them open.
OPEN_FILES_MAX = 1_000


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


def options(
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
    chosen = tuning.safe_options(create=create)
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

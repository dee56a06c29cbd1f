"""
RocksDB's options beyond plyvel's parameters, and the check that RocksDB runs with them.

Options that are not listed here keep RocksDB's defaults on purpose.  In
particular nothing sets `manual_wal_flush`, `enable_pipelined_write`,
`unordered_write` or `best_efforts_recovery`: each weakens the guarantee of a
sync that has returned.
"""

import re
import resource
from collections.abc import Callable
from pathlib import Path

from attrs import frozen
from rocksdict import BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Options, SliceTransform

from queueber.plyvel.errors import Error
from queueber.plyvel.options import set_defaults
from queueber.units import MIB

BLOB_FILE_BYTES = 64 * MIB

_OPTIONS_FILE_DIRECTORY = Path(__file__).parent / "options_file"
"""
Holds an OPTIONS file with the two options that rocksdict has no method for.

`track_and_verify_wals_in_manifest` detects a WAL that is missing while others are there.
`max_bgerror_resume_count=0` keeps RocksDB stopped after an error, where it would by default resume by itself.
"""

ALWAYS = {
    "track_and_verify_wals_in_manifest": "true",
    "max_bgerror_resume_count": "0",
    "paranoid_checks": "true",
    "recycle_log_file_num": "0",
    "manual_wal_flush": "false",
    "enable_pipelined_write": "false",
    "unordered_write": "false",
}
"""Required values of options that cannot be chosen, because durability rests on them."""

_COMPRESSIONS = {
    "none": (DBCompressionType.none, "kNoCompression"),
    "lz4": (DBCompressionType.lz4, "kLZ4Compression"),
    "zstd": (DBCompressionType.zstd, "kZSTD"),
}

_DEFAULT_LEVEL = 32_767
"""RocksDB's `kDefaultCompressionLevel`."""


@frozen(kw_only=True)
class RocksDBOptions:
    """Options under RocksDB's names.  Sizes are in bytes.  The defaults are RocksDB's unless noted."""

    parallelism: int = 2
    """Background threads, as set by `IncreaseParallelism`."""

    max_background_jobs: int = 2
    write_buffer_size: int = 64 * MIB
    max_write_buffer_number: int = 2
    max_total_wal_size: int = 128 * MIB
    """Not RocksDB's default, which is four times all write buffers."""

    bytes_per_sync: int = 0
    wal_bytes_per_sync: int = 0
    compression: str = "lz4"
    """`none`, `lz4` or `zstd`, of tables and blobs.  RocksDB's default is snappy."""

    compression_level: int | None = None
    """Of zstd; None for the default of the compression."""

    deletion_trigger: int = 0
    """Deletions within `deletion_window` adjacent rows that mark a table for compaction; 0 for never."""

    deletion_window: int = 1_024
    min_blob_size: int = 0
    """Values of at least this size go to blob files; 0 for no blob files."""

    block_cache_size: int = 32 * MIB
    """Includes index and filter blocks."""

    bloom_bits: int = 0
    """Bits per key of the Bloom filters; 0 for no filters."""

    prefix_length: int = 0
    """Bytes of the fixed-length prefix extractor; 0 for none.  All iterators ask for total order."""

    max_open_files: int = 1_000
    """At most the process's limit of open files.  RocksDB's default is no limit."""


_PRELOADED: list[Options] = []


def preload_options() -> None:
    """Read the options file for one database that is opened later, when the file may be out of reach (chroot)."""
    _PRELOADED.append(Options.load_latest(str(_OPTIONS_FILE_DIRECTORY))[0])


def native_options(chosen: RocksDBOptions, *, create: bool, salvage: bool = False) -> Options:
    """
    Build rocksdict's options.

    Args:
        chosen: the options.
        create: create the database if it is missing.
        salvage: recover a damaged WAL up to the damage instead of refusing it.
    """
    native = _PRELOADED.pop() if _PRELOADED else Options.load_latest(str(_OPTIONS_FILE_DIRECTORY))[0]
    set_defaults(native, create=create)
    if salvage:
        native.set_wal_recovery_mode(DBRecoveryMode.point_in_time())

    # Writing.
    native.increase_parallelism(chosen.parallelism)
    native.set_max_background_jobs(chosen.max_background_jobs)
    native.set_write_buffer_size(chosen.write_buffer_size)
    native.set_max_write_buffer_number(chosen.max_write_buffer_number)
    native.set_max_total_wal_size(chosen.max_total_wal_size)
    native.set_bytes_per_sync(chosen.bytes_per_sync)
    native.set_wal_bytes_per_sync(chosen.wal_bytes_per_sync)
    compression = _COMPRESSIONS[chosen.compression][0]()
    native.set_compression_type(compression)
    native.set_blob_compression_type(compression)
    if chosen.compression_level is not None:
        # Window bits, strategy and dictionary size are RocksDB's defaults.
        native.set_compression_options(-14, chosen.compression_level, 0, 0)
    if chosen.deletion_trigger:
        native.add_compact_on_deletion_collector_factory(chosen.deletion_window, chosen.deletion_trigger, 0.5)
    native.set_enable_blob_files(chosen.min_blob_size > 0)
    native.set_min_blob_size(chosen.min_blob_size)
    native.set_blob_file_size(BLOB_FILE_BYTES)
    # Blob garbage collection rewrites the oldest quarter of the blob files in each compaction, garbage or not.
    native.set_enable_blob_gc(False)

    # Reading.
    native.set_block_based_table_factory(_tables(chosen))
    native.set_max_open_files(_open_files(chosen))
    # Each shard rounds its share up, so that RocksDB's 64 would have 64 files open where 20 are allowed.
    native.set_table_cache_num_shard_bits(2)
    if chosen.prefix_length:
        native.set_prefix_extractor(SliceTransform.create_fixed_prefix(chosen.prefix_length))
    return native


def _open_files(chosen: RocksDBOptions) -> int:
    """Return `max_open_files`, at most the process's limit, as RocksDB lowers it."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return chosen.max_open_files if soft == resource.RLIM_INFINITY else min(chosen.max_open_files, soft)


def _tables(chosen: RocksDBOptions) -> BlockBasedOptions:
    tables = BlockBasedOptions()
    tables.set_block_cache(Cache(chosen.block_cache_size))
    # Within the cache's capacity; otherwise memory for filters and indexes would grow with the database.
    tables.set_cache_index_and_filter_blocks(True)
    tables.set_pin_l0_filter_and_index_blocks_in_cache(True)
    if chosen.bloom_bits:
        tables.set_bloom_filter(chosen.bloom_bits, False)
    return tables


def expected(chosen: RocksDBOptions, *, salvage: bool = False) -> dict[str, str]:
    """Return the values that RocksDB must report when it runs with *chosen*, by RocksDB's names."""
    compression = _COMPRESSIONS[chosen.compression][1]
    level = _DEFAULT_LEVEL if chosen.compression_level is None else chosen.compression_level
    return ALWAYS | {
        "wal_recovery_mode": "kPointInTimeRecovery" if salvage else "kTolerateCorruptedTailRecords",
        "max_background_jobs": str(chosen.max_background_jobs),
        "write_buffer_size": str(chosen.write_buffer_size),
        "max_write_buffer_number": str(chosen.max_write_buffer_number),
        "max_total_wal_size": str(chosen.max_total_wal_size),
        "bytes_per_sync": str(chosen.bytes_per_sync),
        "wal_bytes_per_sync": str(chosen.wal_bytes_per_sync),
        "compression": compression,
        "blob_compression_type": compression,
        "compression_opts.level": str(level),
        "deletion_trigger": str(chosen.deletion_trigger),
        "enable_blob_files": str(chosen.min_blob_size > 0).lower(),
        "min_blob_size": str(chosen.min_blob_size),
        "max_open_files": str(_open_files(chosen)),
        "block-cache-capacity": str(chosen.block_cache_size),
        "filter_policy": "bloomfilter" if chosen.bloom_bits else "nullptr",
        "prefix_extractor": f"rocksdb.FixedPrefix.{chosen.prefix_length}" if chosen.prefix_length else "nullptr",
    }


GetProperty = Callable[[bytes], bytes | None]
"""The `get_property` of an open database."""

_PROPERTIES = ("block-cache-capacity",)
"""Values that are read from a property, because the OPTIONS file does not have them."""

_LEVEL = re.compile(r"\blevel=(-?\d+)")
_TRIGGER = re.compile(r"\bdeletion_trigger=(\d+)")
_LINE = re.compile(r"^\s*(\w+)=(.*?)\s*$", re.MULTILINE)


def in_force(path: Path, get_property: GetProperty) -> dict[str, str]:
    """
    Read the options that the open database in *path* runs with.

    They come from the OPTIONS file that RocksDB wrote when it opened, and from properties.
    Neither has the number of threads or the bits per key of a filter.
    """
    # A crash may have left a file before its rename: `OPTIONS-000102.dbtmp`.
    complete = [file for file in path.glob("OPTIONS-*") if not file.suffix]
    newest = max(complete, key=lambda file: int(file.name.removeprefix("OPTIONS-")))
    found = dict(_LINE.findall(newest.read_text()))
    level = _LEVEL.search(found.get("compression_opts", ""))
    trigger = _TRIGGER.search(found.get("table_properties_collectors", ""))
    for name in _PROPERTIES:
        found[name] = (get_property(f"rocksdb.{name}".encode()) or b"unknown").decode()
    found["compression_opts.level"] = level[1] if level else "unknown"
    found["deletion_trigger"] = trigger[1] if trigger else "0"
    return found


def check_in_force(
    path: Path, get_property: GetProperty, chosen: RocksDBOptions, *, salvage: bool = False
) -> dict[str, str]:
    """
    Compare *chosen* with the options that RocksDB runs with, and return the compared ones.

    Raises:
        Error: some differ; the text names each.  An option that silently does not apply may be one that
            durability rests on.
    """
    found, wanted = in_force(path, get_property), expected(chosen, salvage=salvage)
    differ = [
        f"{name} is {found.get(name)} and not {value}" for name, value in wanted.items() if found.get(name) != value
    ]
    if differ:
        raise Error(f"RocksDB does not run with the options that it was opened with: {'; '.join(differ)}")
    return {name: found[name] for name in wanted}

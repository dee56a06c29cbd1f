"""
The options of the storage engine that an operator can set, each with its default and the reason for it.

Options on which a promise rests are not among them, such as the recovery mode
and checksums: `queueber.plyvel.rocksdb_options` fixes those.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

from attrs import field, fields, frozen

from queueber.units import GIB, KIB, MIB, Unit, quantity

COMPRESSION = re.compile(r"(?P<kind>none|lz4|zstd)(?::(?P<level>[0-9]{1,2}))?")
ZSTD_LEVEL_DEFAULT = 3
ZSTD_LEVEL_MAX = 22


def usable_cores() -> int:
    """Return the number of cores that this process may use, at least 2."""
    return max(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@frozen
class TuningOption:
    """One option: its name, default and limits."""

    name: str
    default: Any
    unit: Unit | None
    """Unit of the number; None for other values."""

    low: int
    high: int
    says: str
    """One line for help texts."""

    rocksdb: str
    """Name under which RocksDB reports the value; empty if it does not."""


def _option(default: Any, says: str, rocksdb: str, unit: Unit | None = Unit.COUNT, low: int = 0, high: int = 0) -> Any:  # noqa: ANN401
    return field(default=default, metadata={"tuning": (default, unit, low, high, says, rocksdb)})


@frozen(kw_only=True)
class Tuning:
    """The options that a store is opened with."""

    parallelism: int = _option(usable_cores(), "Threads for compactions and flushes", "", low=1, high=256)
    """The cores: more would compete with the reactor thread."""

    background_jobs: int = _option(
        usable_cores(), "Most compactions and flushes at the same time", "max_background_jobs", low=2, high=256
    )
    """The cores, not twice as many: one job is always a flush, and on a small machine a third compaction takes
    processor time from the reactor, which limits throughput and latency."""

    write_buffer_bytes: int = _option(
        16 * MIB,
        "Size of a write buffer, which keeps new rows in memory until they are written as a table",
        "write_buffer_size",
        Unit.BYTES,
        64 * KIB,
        GIB,
    )
    """Most items are added and removed within one buffer and never reach a table.  A restart reads no more log than the
    buffers cover."""

    write_buffers: int = _option(4, "Most write buffers", "max_write_buffer_number", low=2, high=64)
    """With four, a burst does not wait for a flush."""

    log_bytes: int = _option(
        128 * MIB,
        "Length of the log beyond which the oldest rows are flushed",
        "max_total_wal_size",
        Unit.BYTES,
        MIB,
        64 * GIB,
    )
    """
    A start rewrites the log as tables and needs that much free space.

    A short log lets a start succeed on a nearly full disk.
    """

    block_cache_bytes: int = _option(
        64 * MIB,
        "Cache for the blocks of tables, filters and indexes included",
        "block-cache-capacity",
        Unit.BYTES,
        MIB,
        256 * GIB,
    )
    """The broker keeps the heads of queues in memory and compaction bypasses the cache, so few blocks are read
    twice."""

    bloom_bits: int = _option(
        10, "Bits per key in the Bloom filters of tables; 0 for no filters", "filter_policy", low=0, high=64
    )
    """With 10 bits, 1 % of lookups read a table in vain.  Expired leases and recovery read by key, and for removed
    items the filter answers."""

    prefix_extractor: bool = _option(
        False, "Index filters and write buffers by the table and queue of a key", "prefix_extractor", None
    )
    """
    Off: every scan is already bounded to one queue, and the filter would only answer whether a queue has rows.

    No code asks that.  Scans request total order, so the filter does no harm.
    """

    compression: str = _option("lz4", "Compression of tables: none, lz4, zstd, or zstd:LEVEL", "compression", None)
    """lz4 costs little more than copying, and the rows of one producer are similar."""

    blob_bytes: int = _option(
        16 * KIB,
        "Size from which contents are stored in blob files; 0 for no blob files",
        "min_blob_size",
        Unit.BYTES,
        0,
        GIB,
    )
    """Compaction then moves a pointer instead of copying the contents."""

    bytes_per_sync: int = _option(
        MIB,
        "Bytes of a table after which the disk starts writing them; 0 for only at the table's end",
        "bytes_per_sync",
        Unit.BYTES,
        0,
        GIB,
    )
    """A commit's sync then does not wait until a whole table is written."""

    wal_bytes_per_sync: int = _option(
        0,
        "Bytes of the log after which the disk starts writing them between syncs; 0 for never",
        "wal_bytes_per_sync",
        Unit.BYTES,
        0,
        GIB,
    )
    """Never: every commit syncs the log anyway, and with this option RocksDB may leave a hole that stops recovery."""

    open_files: int = _option(
        512, "Most tables that are open at the same time", "max_open_files", low=20, high=1_000_000
    )
    """RocksDB's default, all tables, would let the backlog use the descriptors that connections need, and would open
    every file at start."""

    deletions_trigger: int = _option(
        512,
        "Deletions among 1,024 adjacent rows that trigger an early compaction of a table; 0 for never",
        "deletion_trigger",
        low=0,
        high=1_024,
    )
    """The head of a queue consists of deletions, and a scan from there steps over each."""


TUNING_OPTIONS = tuple(TuningOption(each.name, *each.metadata["tuning"]) for each in fields(Tuning))
"""All options, in the order in which they are listed."""

DEFAULT_TUNING = Tuning()


NOT_REPORTED = ("parallelism", "bloom_bits")
"""Options that RocksDB does not report; of the Bloom bits it reports only whether there are any."""


def describe(tuning: Tuning, in_force: Mapping[str, str]) -> str:
    """Return one line with the value of each option: those that RocksDB reported in *in_force*, then the others."""
    reported, not_reported = [], []
    for option in TUNING_OPTIONS:
        name = f"storage-{option.name.replace('_', '-')}"
        if option.name in NOT_REPORTED or option.rocksdb not in in_force:
            not_reported.append(f"{name} {getattr(tuning, option.name)}")
        else:
            reported.append(f"{name} {_format(option, tuning, in_force[option.rocksdb])}")
    return f"{', '.join(reported)}; set, but not reported by RocksDB: {', '.join(not_reported)}"


def _format(option: TuningOption, tuning: Tuning, found: str) -> str:
    """Return the value *found* for *option*.  A value that is no number was already compared with that in *tuning*."""
    if option.unit is None:
        value = getattr(tuning, option.name)
        return ("yes" if value else "no") if isinstance(value, bool) else str(value)
    return quantity(int(found), option.unit)


FLUSH_FILES = 8
"""Most files that a flush creates and has open: a table, a blob file, logs and the manifest."""


def flush_bytes_max(unflushed: int) -> int:
    """Return the most disk space that a flush of *unflushed* bytes of write buffers takes."""
    # An eighth for filters, indexes and block overhead, and a MiB for the log that grows meanwhile.
    return unflushed + unflushed // 8 + MIB


def read_compression(text: str) -> str:
    """
    Return *text* in lower case.

    Raises:
        ValueError: it does not name a compression.
    """
    found = COMPRESSION.fullmatch(text.lower())
    level = int(found["level"]) if found and found["level"] else None
    if not found or (level is not None and (found["kind"] != "zstd" or not 1 <= level <= ZSTD_LEVEL_MAX)):
        raise ValueError(f"is {text!r}; it must be none, lz4, zstd, or zstd: and a level from 1 to {ZSTD_LEVEL_MAX}")
    return text.lower()

"""
What an operator may choose of the storage engine, each with its default and the reason for that.

What a promise rests on is not among them: recovery mode, checksums and what a
sync means are the engine's own business.
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


def _cores() -> int:
    return max(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@frozen
class TuningOption:
    """What there is to know about one choice, beside the reason for its default."""

    name: str
    default: Any
    unit: Unit | None
    """What it counts; None when it is no number."""

    low: int
    high: int
    says: str
    rocksdb: str
    """What RocksDB calls it, where it can be read back."""


def _choice(default: Any, says: str, rocksdb: str, unit: Unit | None = Unit.COUNT, low: int = 0, high: int = 0) -> Any:  # noqa: ANN401
    return field(default=default, metadata={"tuning": (default, unit, low, high, says, rocksdb)})


@frozen(kw_only=True)
class Tuning:
    """The choices a store is opened with."""

    parallelism: int = _choice(_cores(), "Threads for compactions and flushes", "", low=1, high=256)
    """The cores: more would only take turns with the thread that decides."""

    background_jobs: int = _choice(
        _cores(), "Most compactions and flushes at the same time", "max_background_jobs", low=2, high=256
    )
    """The cores, and not twice as many: one job is always a flush, and on a small machine a third compaction takes its
    time from the reactor, which is where throughput and latency are decided."""

    write_buffer_bytes: int = _choice(
        16 * MIB,
        "Size of a write buffer, which keeps new rows in memory until they are written as a table",
        "write_buffer_size",
        Unit.BYTES,
        64 * KIB,
        GIB,
    )
    """Most items are added and removed within one of these and never reach a table; and a restart reads back no more
    log than these cover."""

    write_buffers: int = _choice(4, "Most write buffers", "max_write_buffer_number", low=2, high=64)
    """Four, so that a burst does not have to wait for a flush."""

    log_bytes: int = _choice(
        128 * MIB,
        "Length of the log beyond which the oldest rows are flushed",
        "max_total_wal_size",
        Unit.BYTES,
        MIB,
        64 * GIB,
    )
    """A start on a full disk needs about as much room as there is log to be read, so the log is kept short."""

    block_cache_bytes: int = _choice(
        64 * MIB,
        "Cache for the blocks of tables, filters and indexes included",
        "block-cache-capacity",
        Unit.BYTES,
        MIB,
        256 * GIB,
    )
    """The heads of the queues are kept by the broker, and compaction reads round the cache: little is read twice."""

    bloom_bits: int = _choice(
        10, "Bits per key in the Bloom filters of tables; 0 for no filters", "filter_policy", low=0, high=64
    )
    """Ten make one look in a hundred at a table in vain.  Reads by key are those of ended leases and of recovery, and
    for removed items the filter is the answer."""

    prefix_extractor: bool = _choice(
        False, "Index filters and write buffers by the table and queue of a key", "prefix_extractor", None
    )
    """Off: every walk here is bounded to one queue already, and nothing asks whether a queue exists at all, which is
    all that it would answer.  Walks ask for the total order, so it does no harm."""

    compression: str = _choice("lz4", "Compression of tables: none, lz4, zstd, or zstd:LEVEL", "compression", None)
    """lz4 costs little more than copying, and rows of one producer resemble each other."""

    blob_bytes: int = _choice(
        16 * KIB,
        "Size from which contents are stored in blob files; 0 for no blob files",
        "min_blob_size",
        Unit.BYTES,
        0,
        GIB,
    )
    """So that compaction moves a pointer instead of copying them."""

    bytes_per_sync: int = _choice(
        MIB,
        "Bytes of a table after which the disk starts writing them; 0 for only at the table's end",
        "bytes_per_sync",
        Unit.BYTES,
        0,
        GIB,
    )
    """So that a commit's sync does not wait behind a whole table."""

    wal_bytes_per_sync: int = _choice(
        0,
        "Bytes of the log after which the disk starts writing them between syncs; 0 for never",
        "wal_bytes_per_sync",
        Unit.BYTES,
        0,
        GIB,
    )
    """Never: every commit syncs the log anyway, and with this RocksDB may leave a hole that recovery cannot pass."""

    open_files: int = _choice(
        512, "Most tables that are open at the same time", "max_open_files", low=20, high=1_000_000
    )
    """RocksDB's default, all of them, would let the backlog decide how many descriptors are left for connections, and
    would open every file at start."""

    deletions_trigger: int = _choice(
        512,
        "Deletions among 1,024 adjacent rows that trigger an early compaction of a table; 0 for never",
        "deletion_trigger",
        low=0,
        high=1_024,
    )
    """The head of a queue is nothing but deletions, and a walk that begins there has to step over each one."""


TUNING_OPTIONS = tuple(TuningOption(each.name, *each.metadata["tuning"]) for each in fields(Tuning))
"""All choices, in the order in which they are told."""

DEFAULT_TUNING = Tuning()


UNTOLD = ("parallelism", "bloom_bits")
"""What the engine does not tell, or of which it tells only whether there are any."""


def told(tuning: Tuning, in_force: Mapping[str, str]) -> str:
    """The choices for a person: by our names what the engine says of each, and of the rest what it was told."""
    figures, untold = [], []
    for option in TUNING_OPTIONS:
        name = f"storage-{option.name.replace('_', '-')}"
        if option.name in UNTOLD or option.rocksdb not in in_force:
            untold.append(f"{name} {getattr(tuning, option.name)}")
        else:
            figures.append(f"{name} {_figure(option, tuning, in_force[option.rocksdb])}")
    return f"{', '.join(figures)}; told, and not read back: {', '.join(untold)}"


def _figure(option: TuningOption, tuning: Tuning, found: str) -> str:
    """What was *found* of it, in a person's words; what has no number was compared already."""
    if option.unit is None:
        value = getattr(tuning, option.name)
        return ("yes" if value else "no") if isinstance(value, bool) else str(value)
    return quantity(int(found), option.unit)


FLUSH_FILES = 8
"""Files that writing out what is in memory makes and has open at most: a table, a blob file, logs and the manifest."""


def to_flush(unflushed: int) -> int:
    """How many bytes of the disk writing out *unflushed* bytes of memory may take at most."""
    # Filters, indexes and what they are part of beside the rows; a little of the log that goes on meanwhile.
    return unflushed + unflushed // 8 + MIB


def read_compression(text: str) -> str:
    """
    *text*, if it names a compression, in small letters.

    Raises:
        ValueError: it does not.
    """
    found = COMPRESSION.fullmatch(text.lower())
    level = int(found["level"]) if found and found["level"] else None
    if not found or (level is not None and (found["kind"] != "zstd" or not 1 <= level <= ZSTD_LEVEL_MAX)):
        raise ValueError(f"is {text!r}; it must be none, lz4, zstd, or zstd: and a level from 1 to {ZSTD_LEVEL_MAX}")
    return text.lower()

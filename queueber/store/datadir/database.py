"""
RocksDB for the store: opening it with the operator's options, and reading its properties.

`queueber.store.tuning` has the options themselves, with the reason for each default.
"""

import resource
from pathlib import Path
from typing import Final, Protocol

from queueber.plyvel.rocksdb import RocksDB
from queueber.plyvel.rocksdb_options import RocksDBOptions
from queueber.store.tuning import COMPRESSION, DEFAULT_TUNING, ZSTD_LEVEL_DEFAULT, Tuning

PREFIX_BYTES: Final = 5
"""Length of an item key's prefix: the table byte and the queue's number."""

OPEN_FILES_MIN: Final = 20
"""RocksDB's minimum of `max_open_files`."""

OTHER_FILES: Final = 64
"""Descriptors of a process other than those for tables and blobs; includes RocksDB's logs and manifest."""

DELETION_WINDOW: Final = 1_024
"""Adjacent rows among which deletions are counted."""

LEVELS: Final = 7
"""RocksDB's default number of levels."""

_PROPERTIES: Final = {
    "write_stopped": "is-write-stopped",
    "delayed_write_bytes_per_second": "actual-delayed-write-rate",
    "pending_compaction_bytes": "estimate-pending-compaction-bytes",
    "running_compactions": "num-running-compactions",
    "running_flushes": "num-running-flushes",
    "background_errors": "background-errors",
    "write_buffer_bytes": "cur-size-all-mem-tables",
    "waiting_write_buffers": "num-immutable-mem-table",
    "block_cache_bytes": "block-cache-usage",
    "table_reader_bytes": "estimate-table-readers-mem",
    "table_bytes": "total-sst-files-size",
    "live_table_bytes": "live-sst-files-size",
    "blob_bytes": "total-blob-file-size",
    "live_blob_bytes": "live-blob-file-size",
    "rows": "estimate-num-keys",
} | {f"level_{level}_files": f"num-files-at-level{level}" for level in range(LEVELS)}
"""RocksDB's properties by our names, which stay when RocksDB's change."""

PROPERTY_NAMES: Final = tuple(_PROPERTIES)


def rocksdb_options(tuning: Tuning) -> RocksDBOptions:
    """Translate *tuning* to RocksDB's options."""
    compression = COMPRESSION.fullmatch(tuning.compression)
    assert compression is not None, tuning.compression
    level = int(compression["level"] or ZSTD_LEVEL_DEFAULT) if compression["kind"] == "zstd" else None
    return RocksDBOptions(
        parallelism=tuning.parallelism,
        max_background_jobs=tuning.background_jobs,
        write_buffer_size=tuning.write_buffer_bytes,
        max_write_buffer_number=tuning.write_buffers,
        max_total_wal_size=tuning.log_bytes,
        bytes_per_sync=tuning.bytes_per_sync,
        wal_bytes_per_sync=tuning.wal_bytes_per_sync,
        compression=compression["kind"],
        compression_level=level,
        deletion_trigger=tuning.deletions_trigger,
        deletion_window=DELETION_WINDOW,
        min_blob_size=tuning.blob_bytes,
        block_cache_size=tuning.block_cache_bytes,
        bloom_bits=tuning.bloom_bits,
        prefix_length=PREFIX_BYTES if tuning.prefix_extractor else 0,
        max_open_files=_open_files(tuning.open_files),
    )


def _open_files(wanted: int) -> int:
    """Return *wanted*, or fewer if the process's limit is low.  A server has already lowered *wanted* further."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, max(OPEN_FILES_MIN, soft - OTHER_FILES))


def open_database(
    path: Path,
    *,
    tuning: Tuning = DEFAULT_TUNING,
    create_if_missing: bool = False,
    wal: bool = True,
    read_only: bool = False,
    salvage: bool = False,
) -> RocksDB:
    """Open the database in the directory *path* with the options in *tuning*; see `RocksDB` for other arguments."""
    return RocksDB(
        path,
        rocksdb_options(tuning),
        create_if_missing=create_if_missing,
        wal=wal,
        read_only=read_only,
        salvage=salvage,
    )


class PropertySource(Protocol):
    """A database whose properties can be read."""

    def get_property(self, name: bytes) -> bytes | None:
        """Return the property *name*; None if unknown."""


def read_properties(db: PropertySource) -> dict[str, int]:
    """
    Return the properties of *db* that it knows, by the names in `PROPERTY_NAMES`.  Each takes a few microseconds.

    Not for the reactor's thread: RocksDB may wait for its own lock.
    """
    found = {name: db.get_property(b"rocksdb." + rocksdb.encode()) for name, rocksdb in _PROPERTIES.items()}
    return {name: int(value) for name, value in found.items() if value is not None}

"""
Opening RocksDB for the store: the operator's choices as RocksDB's options.

`tuning` has the choices themselves, with the reason for each default.
"""

import resource
from pathlib import Path

from queueber.plyvel.rocksdb import RocksDB
from queueber.plyvel.rocksdb_options import RocksDBOptions
from queueber.store.tuning import COMPRESSION, DEFAULT_TUNING, ZSTD_LEVEL_DEFAULT, Tuning

PREFIX_BYTES = 5
"""Length of an item key's prefix: the table byte and the number of the queue."""

OPEN_FILES_MIN = 20
"""RocksDB's least."""

OTHER_FILES = 64
"""What a process that opens a database has open beside tables and blobs, RocksDB's logs and manifest included."""

DELETION_WINDOW = 1_024
"""Adjacent rows among which deletions are counted."""


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
    """As many as leave some for everything else; a server has lowered *wanted* itself, to less than that."""
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
    """Open the database in the directory *path* with the options that *tuning* gives; see `RocksDB` for the rest."""
    return RocksDB(
        path,
        rocksdb_options(tuning),
        create_if_missing=create_if_missing,
        wal=wal,
        read_only=read_only,
        salvage=salvage,
    )

"""What RocksDB says of its own state, by names that do not change with it."""

from typing import Protocol

LEVELS = 7

_INTEGERS = {
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
}

NAMES = (*_INTEGERS, *(f"level_{level}_files" for level in range(LEVELS)))
"""All there are."""


class Asked(Protocol):
    """A database that answers for itself."""

    def get_property(self, name: bytes) -> bytes | None:
        """What it says under *name*."""


def properties_of(db: Asked) -> dict[str, int]:
    """
    Everything in `NAMES` that *db* tells of.  A few microseconds each.

    It may wait a moment for RocksDB's own lock, so the reactor should not ask.
    """
    asked = _INTEGERS | {f"level_{level}_files": f"num-files-at-level{level}" for level in range(LEVELS)}
    told = {name: db.get_property(b"rocksdb." + rocksdb.encode()) for name, rocksdb in asked.items()}
    return {name: int(value) for name, value in told.items() if value is not None}

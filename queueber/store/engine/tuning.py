"""
How RocksDB is set up for the store, each setting with the access pattern or the fault behind it.

What is not named here has RocksDB's own default on purpose; in particular
nothing ever sets `manual_wal_flush`, `enable_pipelined_write`,
`unordered_write` or `best_efforts_recovery`, which all weaken what a returned
sync means.  There is no prefix extractor either: with one, a walk that leaves
its prefix sees an undefined part of the rows unless each reader asks for total
order, and every walk here is already bounded to one queue.
"""

import os

from rocksdict import BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Options, WriteOptions

from queueber.units import KIB, MIB

# The newest rows, in memory.  Most items are added and removed within one of these and never reach a table file; and
# a restart reads back no more log than these cover.  Four, so that a burst does not have to wait for the flush.
WRITE_BUFFER_BYTES = 16 * MIB
WRITE_BUFFERS = 4

# A start on a full disk needs about as much room as there is log to be recovered, so the log is kept short.
LOG_BYTES_MAX = 128 * MIB

# The heads of the queues are kept by the broker, and compaction reads round the cache: little is read twice.
BLOCK_CACHE_BYTES = 64 * MIB

# Contents from this size on live in files of their own, so that compaction moves a pointer instead of copying them.
BLOB_BYTES_MIN = 16 * KIB
BLOB_FILE_BYTES = 64 * MIB

# Table files opened at the same time.  RocksDB's default, all of them, would let the backlog decide how many
# descriptors are left for connections, and would open every file at start.
OPEN_FILES_MAX = 512

# A table file with this many deletions among so many neighbouring rows is compacted early.  The head of a queue is
# nothing but deletions, and a walk that begins there has to step over each one.
DELETIONS_WINDOW = 1_024
DELETIONS_TRIGGER = 512

BLOOM_BITS_PER_KEY = 10


def safe_options(*, create: bool) -> Options:
    """What holds for every database, whoever opens it: nothing is lost silently, and nothing piles up."""
    chosen = Options(raw_mode=True)  # any other mode unpickles what it reads
    chosen.create_if_missing(create)

    # Faults.  RocksDB's default recovery silently drops every record behind the first damaged one, synced or not;
    # this one drops a torn tail, which no sync had covered, and refuses anything else.
    chosen.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    chosen.set_paranoid_checks(True)
    # Neither is covered by RocksDB's own crash tests, and both can lose synced rows behind a hole in the log.
    chosen.set_recycle_log_file_num(0)
    chosen.set_wal_bytes_per_sync(0)
    chosen.set_max_total_wal_size(LOG_BYTES_MAX)

    # Deleting files that nobody needs any longer is not the business of the thread that closes an iterator.
    chosen.set_avoid_unnecessary_blocking_io(True)

    # RocksDB's own log: by default a thousand old ones are kept, one more with every start.
    chosen.set_keep_log_file_num(5)
    chosen.set_max_log_file_size(4 * MIB)
    return chosen


def options(*, create: bool, salvage: bool = False) -> Options:
    """
    Options for opening the store's database, which is created if *create* and it is not there.

    With *salvage* a damaged log is taken up to the damage: for `recovery`, which tells what that loses.
    """
    chosen = safe_options(create=create)
    if salvage:
        chosen.set_wal_recovery_mode(DBRecoveryMode.point_in_time())

    # Writing.
    chosen.set_write_buffer_size(WRITE_BUFFER_BYTES)
    chosen.set_max_write_buffer_number(WRITE_BUFFERS)
    chosen.set_max_background_jobs(max(2, os.cpu_count() or 1))
    # Hand table files to the disk as they grow, so that a commit's sync does not wait behind a whole one.
    chosen.set_bytes_per_sync(MIB)
    # lz4 costs little more than copying, and rows of one producer resemble each other.
    chosen.set_compression_type(DBCompressionType.lz4())
    chosen.add_compact_on_deletion_collector_factory(DELETIONS_WINDOW, DELETIONS_TRIGGER, 0.5)
    chosen.set_enable_blob_files(True)
    chosen.set_min_blob_size(BLOB_BYTES_MIN)
    chosen.set_blob_file_size(BLOB_FILE_BYTES)
    chosen.set_blob_compression_type(DBCompressionType.lz4())
    chosen.set_enable_blob_gc(True)

    # Reading.
    chosen.set_block_based_table_factory(_tables())
    chosen.set_max_open_files(OPEN_FILES_MAX)
    return chosen


def _tables() -> BlockBasedOptions:
    tables = BlockBasedOptions()
    tables.set_block_cache(Cache(BLOCK_CACHE_BYTES))
    # Inside the cache's budget, or filters and indexes would grow with the backlog.
    tables.set_cache_index_and_filter_blocks(True)
    tables.set_pin_l0_filter_and_index_blocks_in_cache(True)
    # Reads by key are those of ended leases and of recovery; for removed items the filter is the answer.
    tables.set_bloom_filter(BLOOM_BITS_PER_KEY, False)
    return tables


def write_options(*, wal: bool) -> WriteOptions:
    """Options for every write: without the log unless *wal*."""
    chosen = WriteOptions()
    # rocksdict holds the interpreter during a write, so one that waits for a flush would stop the whole process.
    chosen.no_slowdown = True
    chosen.disable_wal = not wal  # type: ignore[method-assign, assignment] # a property, whatever its stub says
    return chosen

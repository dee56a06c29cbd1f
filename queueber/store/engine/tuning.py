"""
How RocksDB is set up for the store, each setting with the access pattern or the fault behind it.

What is not named here has RocksDB's own default on purpose; in particular
nothing ever sets `manual_wal_flush`, `enable_pipelined_write`,
`unordered_write` or `best_efforts_recovery`, which all weaken what a returned
sync means.  A prefix extractor is the operator's choice, and off by default:
with one, a walk that leaves its prefix would see an undefined part of the rows,
so each reader here asks for total order whether there is one or not.
"""

import re
import resource
from collections.abc import Callable
from pathlib import Path

from rocksdict import BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Options, SliceTransform, WriteOptions

from queueber.store.engine.errors import Error
from queueber.store.tuning import COMPRESSION, DEFAULT_TUNING, ZSTD_LEVEL_DEFAULT, Tuning
from queueber.units import MIB

BLOB_FILE_BYTES = 64 * MIB

# What RocksDB calls a compression's own choice.
_NO_LEVEL = 32_767

# Among how many neighbouring rows deletions are counted.
DELETIONS_WINDOW = 1_024

# Table and queue: the beginning of every item's key.
PREFIX_BYTES = 5

# Settings for which rocksdict has no method come in through a file such as RocksDB writes.  The first finds a log
# that is missing while others are there; the second has RocksDB stay stopped after an error instead of going on by
# itself, because an error is the end of this process.
_ONLY_BY_FILE = Path(__file__).parent / "by_file"

ALWAYS = {
    "track_and_verify_wals_in_manifest": "true",
    "max_bgerror_resume_count": "0",
    "paranoid_checks": "true",
    "recycle_log_file_num": "0",
    "manual_wal_flush": "false",
    "enable_pipelined_write": "false",
    "unordered_write": "false",
}
"""What must be read back whatever was chosen: promises rest on it."""

_COMPRESSIONS = {
    "none": (DBCompressionType.none, "kNoCompression"),
    "lz4": (DBCompressionType.lz4, "kLZ4Compression"),
    "zstd": (DBCompressionType.zstd, "kZSTD"),
}


def safe_options(*, create: bool) -> Options:
    """What holds for every database, whoever opens it: nothing is lost silently, and nothing piles up."""
    chosen = Options(raw_mode=True)  # any other mode unpickles what it reads
    _make_safe(chosen, create=create)
    return chosen


def _make_safe(chosen: Options, *, create: bool) -> None:
    chosen.create_if_missing(create)

    # Faults.  RocksDB's default recovery silently drops every record behind the first damaged one, synced or not;
    # this one drops a torn tail, which no sync had covered, and refuses anything else.
    chosen.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    chosen.set_paranoid_checks(True)
    # Neither is covered by RocksDB's own crash tests, and both can lose synced rows behind a hole in the log.
    chosen.set_recycle_log_file_num(0)
    chosen.set_wal_bytes_per_sync(0)
    chosen.set_max_total_wal_size(DEFAULT_TUNING.log_bytes)

    # Deleting files that nobody needs any longer is not the business of the thread that closes an iterator.
    chosen.set_avoid_unnecessary_blocking_io(True)

    # RocksDB's own log: by default a thousand old ones are kept, one more with every start.
    chosen.set_keep_log_file_num(5)
    chosen.set_max_log_file_size(4 * MIB)


def options(tuning: Tuning, *, create: bool, salvage: bool = False) -> Options:
    """
    Options for opening the store's database, which is created if *create* and it is not there.

    With *salvage* a damaged log is taken up to the damage: for `recovery`, which tells what that loses.
    """
    chosen = Options.load_latest(str(_ONLY_BY_FILE))[0]
    _make_safe(chosen, create=create)
    if salvage:
        chosen.set_wal_recovery_mode(DBRecoveryMode.point_in_time())

    # Writing.
    chosen.increase_parallelism(tuning.parallelism)
    chosen.set_max_background_jobs(tuning.background_jobs)
    chosen.set_write_buffer_size(tuning.write_buffer_bytes)
    chosen.set_max_write_buffer_number(tuning.write_buffers)
    chosen.set_max_total_wal_size(tuning.log_bytes)
    chosen.set_bytes_per_sync(tuning.bytes_per_sync)
    chosen.set_wal_bytes_per_sync(tuning.wal_bytes_per_sync)
    _compress(chosen, tuning.compression)
    if tuning.deletions_trigger:
        chosen.add_compact_on_deletion_collector_factory(DELETIONS_WINDOW, tuning.deletions_trigger, 0.5)
    chosen.set_enable_blob_files(tuning.blob_bytes > 0)
    chosen.set_min_blob_size(tuning.blob_bytes)
    chosen.set_blob_file_size(BLOB_FILE_BYTES)
    # RocksDB's collection moves a quarter of the contents in each merge, garbage or not: hundreds of megabytes for some
    # kilobytes of tables.  In a queue the oldest go first, and a file goes with the last of its contents.
    chosen.set_enable_blob_gc(False)

    # Reading.
    chosen.set_block_based_table_factory(_tables(tuning))
    chosen.set_max_open_files(_open_files(tuning))
    if tuning.prefix_extractor:
        chosen.set_prefix_extractor(SliceTransform.create_fixed_prefix(PREFIX_BYTES))
    return chosen


def _compress(chosen: Options, compression: str) -> None:
    found = COMPRESSION.fullmatch(compression)
    assert found is not None, compression
    kind = _COMPRESSIONS[found["kind"]][0]()
    chosen.set_compression_type(kind)
    chosen.set_blob_compression_type(kind)
    if found["kind"] == "zstd":
        # Window, strategy and dictionary as RocksDB has them by default.
        chosen.set_compression_options(-14, _level(found), 0, 0)


def _level(compression: re.Match[str]) -> int:
    if compression["kind"] != "zstd":
        return _NO_LEVEL
    return int(compression["level"] or ZSTD_LEVEL_DEFAULT)


def _open_files(tuning: Tuning) -> int:
    """As many as the process may have: RocksDB takes no more either."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return tuning.open_files if soft == resource.RLIM_INFINITY else min(tuning.open_files, soft)


def _tables(tuning: Tuning) -> BlockBasedOptions:
    tables = BlockBasedOptions()
    tables.set_block_cache(Cache(tuning.block_cache_bytes))
    # Inside the cache's budget, or filters and indexes would grow with the backlog.
    tables.set_cache_index_and_filter_blocks(True)
    tables.set_pin_l0_filter_and_index_blocks_in_cache(True)
    if tuning.bloom_bits:
        tables.set_bloom_filter(tuning.bloom_bits, False)
    return tables


def expected(tuning: Tuning, *, salvage: bool = False) -> dict[str, str]:
    """What RocksDB must say of itself when it runs with *tuning*, by its own names."""
    found = COMPRESSION.fullmatch(tuning.compression)
    assert found is not None, tuning.compression
    return ALWAYS | {
        "wal_recovery_mode": "kPointInTimeRecovery" if salvage else "kTolerateCorruptedTailRecords",
        "max_background_jobs": str(tuning.background_jobs),
        "write_buffer_size": str(tuning.write_buffer_bytes),
        "max_write_buffer_number": str(tuning.write_buffers),
        "max_total_wal_size": str(tuning.log_bytes),
        "bytes_per_sync": str(tuning.bytes_per_sync),
        "wal_bytes_per_sync": str(tuning.wal_bytes_per_sync),
        "compression": _COMPRESSIONS[found["kind"]][1],
        "blob_compression_type": _COMPRESSIONS[found["kind"]][1],
        "compression_opts.level": str(_level(found)),
        "deletion_trigger": str(tuning.deletions_trigger),
        "enable_blob_files": str(tuning.blob_bytes > 0).lower(),
        "min_blob_size": str(tuning.blob_bytes),
        "max_open_files": str(_open_files(tuning)),
        "block-cache-capacity": str(tuning.block_cache_bytes),
        "filter_policy": "bloomfilter" if tuning.bloom_bits else "nullptr",
        "prefix_extractor": f"rocksdb.FixedPrefix.{PREFIX_BYTES}" if tuning.prefix_extractor else "nullptr",
    }


Ask = Callable[[bytes], bytes | None]
"""What an open database says under a name."""

_ASKED = ("block-cache-capacity",)
"""What is not in the file."""

_LEVEL = re.compile(r"\blevel=(-?\d+)")
_TRIGGER = re.compile(r"\bdeletion_trigger=(\d+)")
_LINE = re.compile(r"^\s*(\w+)=(.*?)\s*$", re.MULTILINE)


def in_force(path: Path, ask: Ask) -> dict[str, str]:
    """
    What RocksDB says of itself: the file that it wrote when the database in *path* was opened last, and its answers.

    Neither tells how many threads there are and how many bits a key has in a filter.
    """
    # Beside whole files there may be one that a crash kept from getting its name: `OPTIONS-000102.dbtmp`.
    whole = [file for file in path.glob("OPTIONS-*") if not file.suffix]
    files = sorted(whole, key=lambda file: int(file.name.removeprefix("OPTIONS-")))
    found = dict(_LINE.findall(files[-1].read_text()))
    level = _LEVEL.search(found.get("compression_opts", ""))
    trigger = _TRIGGER.search(found.get("table_properties_collectors", ""))
    for name in _ASKED:
        found[name] = (ask(f"rocksdb.{name}".encode()) or b"unknown").decode()
    found["compression_opts.level"] = level[1] if level else "unknown"
    found["deletion_trigger"] = trigger[1] if trigger else "0"
    return found


def check_in_force(path: Path, ask: Ask, tuning: Tuning, *, salvage: bool = False) -> dict[str, str]:
    """
    Compare what was chosen with what RocksDB says it runs with, and return that, as far as it was compared.

    Raises:
        Error: naming every difference: a setting that silently does not hold may be the one that keeps the data.
    """
    found = in_force(path, ask)
    differ = [
        f"{name} is {found.get(name)} and not {wanted}"
        for name, wanted in expected(tuning, salvage=salvage).items()
        if found.get(name) != wanted
    ]
    if differ:
        raise Error(f"the storage engine does not run as it was told to: {'; '.join(differ)}")
    return {name: found[name] for name in expected(tuning)}


def write_options(*, wal: bool) -> WriteOptions:
    """Options for every write: without the log unless *wal*."""
    chosen = WriteOptions()
    # rocksdict holds the interpreter during a write, so one that waits for a flush would stop the whole process.
    chosen.no_slowdown = True
    chosen.disable_wal = not wal  # type: ignore[method-assign, assignment] # a property, whatever its stub says
    return chosen

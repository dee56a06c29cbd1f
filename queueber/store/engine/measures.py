"""What RocksDB tells of itself, under LevelDB's names."""

from collections.abc import Iterable
from typing import Any

import rocksdict

from queueber.store.engine.arguments import key_of

_LEVELDB = b"leveldb."
_ROCKSDB = b"rocksdb."
_MEMORY = ("rocksdb.size-all-mem-tables", "rocksdb.block-cache-usage")

_DIGITS = 8
"""Bytes of a key, from where those of a file begin to differ, that count for its place between them."""


def property_of(native: rocksdict.Rdict, name: bytes) -> bytes | None:
    """The property *name*, which may begin with `leveldb.` or `rocksdb.`; None if RocksDB has no such thing."""
    if name == b"leveldb.approximate-memory-usage":
        return b"%d" % sum(native.property_int_value(part) or 0 for part in _MEMORY)
    if name.startswith(_LEVELDB):
        name = _ROCKSDB + name.removeprefix(_LEVELDB)
    try:
        found = native.property_value(name.decode())
    except UnicodeDecodeError:
        return None
    return None if found is None else found.encode()


def approximate_sizes(native: rocksdict.Rdict, ranges: Iterable[tuple[bytes, bytes]]) -> list[int]:
    """
    For each of *ranges*, about how many bytes of table files its rows take.

    rocksdict does not hand out RocksDB's own estimate.  A file that lies partly
    in a range counts by the share of the range in its keys, as if these were
    evenly spread.  What is still in memory, and contents that the store keeps
    beside its tables, do not count.
    """
    checked = [(key_of(start, "start"), key_of(stop, "stop")) for start, stop in ranges]
    files = native.live_files()
    return [sum(_share(file, start, stop) for file in files) for start, stop in checked]


def _share(file: dict[str, Any], start: bytes, stop: bytes) -> int:
    """The bytes of *file* from *start* up to *stop*."""
    first, last = file["start_key"], file["end_key"]
    size: int = file["size"]
    return max(0, round(size * (_place(first, last, stop) - _place(first, last, start))))


def _place(first: bytes, last: bytes, key: bytes) -> float:
    """How far *key* lies between *first* and *last*, from 0 to 1."""
    if key <= first:
        return 0.0
    if key > last:
        return 1.0
    same = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    low, high, here = (int.from_bytes(row[same : same + _DIGITS].ljust(_DIGITS, b"\0")) for row in (first, last, key))
    # Keys that differ by zero bytes at their end only are as far from each other as none.
    return (here - low) / (high - low) if high > low else 0.0

"""What RocksDB tells of itself, under LevelDB's names."""

from collections.abc import Iterable
from string import ascii_letters, ascii_lowercase, ascii_uppercase, digits
from typing import Any

import rocksdict

from queueber.plyvel.arguments import key_of

_LEVELDB = b"leveldb."
_ROCKSDB = b"rocksdb."
_MEMORY = ("rocksdb.size-all-mem-tables", "rocksdb.block-cache-usage")

_DIGITS = 16
"""Bytes of a key, from where those of a file begin to differ, that count for its place between them."""

# What keys are usually written in.  Numbers in decimal use 10 of 256 bytes, and would seem to lie in heaps otherwise.
_ALPHABETS = tuple(
    sorted(letters.encode())
    for letters in (digits, digits + "abcdef", ascii_lowercase, ascii_uppercase, digits + ascii_letters)
)
_ALL_BYTES = list(range(256))


def property_of(native: rocksdict.Rdict, name: bytes) -> bytes | None:
    """The property *name*, which may begin with `leveldb.` or `rocksdb.`; None if RocksDB has no such thing."""
    if name == b"leveldb.approximate-memory-usage":
        return b"%d" % sum(native.property_int_value(part) or 0 for part in _MEMORY)
    if name.startswith(_LEVELDB):
        name = _ROCKSDB + name.removeprefix(_LEVELDB)
    if b"\0" in name or not name.isascii():
        return None
    found = native.property_value(name.decode())
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
    low = high = here = 0
    for at in range(same, same + _DIGITS):
        found = [row[at : at + 1] for row in (first, last, key)]
        there = {byte for one in found for byte in one}
        alphabet = next((letters for letters in _ALPHABETS if there.issubset(letters)), _ALL_BYTES)
        # A key that has ended counts as if it went on with the lowest letter.
        low, high, here = (
            total * len(alphabet) + (alphabet.index(one[0]) if one else 0)
            for total, one in zip((low, high, here), found, strict=True)
        )
    # Keys that differ in nothing but lowest letters at their end have no room between them.
    return (here - low) / (high - low) if high > low else 0.0

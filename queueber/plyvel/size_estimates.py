"""
Estimates of the disk space of key ranges, from the properties of live table files.

rocksdict does not expose RocksDB's `GetApproximateSizes`.  Instead, a file
that overlaps a range partly counts by the range's share of the file's keys,
which are taken as evenly distributed between the first and the last.  Write
buffers and blob files do not count.
"""

from collections.abc import Iterable
from string import ascii_letters, ascii_lowercase, ascii_uppercase, digits
from typing import Any

import rocksdict

from queueber.plyvel.arguments import check_key

_SIGNIFICANT_BYTES = 16
"""Bytes after the common prefix of a file's keys that a position is computed from."""

_ALPHABETS = tuple(
    sorted(letters.encode())
    for letters in (digits, digits + "abcdef", ascii_lowercase, ascii_uppercase, digits + ascii_letters)
)
"""
Common alphabets of keys.

Decimal digits use only 10 of 256 byte values, and are evenly distributed only within these.
"""

_ALL_BYTES = list(range(256))


def approximate_sizes(native: rocksdict.Rdict, ranges: Iterable[tuple[bytes, bytes]]) -> list[int]:
    """
    Return the estimated bytes in table files for each of *ranges*, pairs of start and exclusive stop.

    Raises:
        TypeError: a bound is not `bytes`.
        ValueError: a range is not a pair.
    """
    checked = [(check_key(start, "start"), check_key(stop, "stop")) for start, stop in ranges]
    files = native.live_files()
    return [sum(_size_in_range(file, start, stop) for file in files) for start, stop in checked]


def _size_in_range(file: dict[str, Any], start: bytes, stop: bytes) -> int:
    """Estimate the bytes of *file*, an element of `live_files`, from *start* to *stop*."""
    first, last = file["start_key"], file["end_key"]
    size: int = file["size"]
    return max(0, round(size * (_fraction_below(first, last, stop) - _fraction_below(first, last, start))))


def _fraction_below(first: bytes, last: bytes, key: bytes) -> float:
    """Estimate the fraction, 0 to 1, of the keys from *first* to *last* that are below *key*."""
    if key <= first:
        return 0.0
    if key > last:
        return 1.0
    common = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    # The keys' bytes after the common prefix, as numbers in the smallest alphabet that has all three.
    low = high = number = 0
    for at in range(common, common + _SIGNIFICANT_BYTES):
        column = [row[at : at + 1] for row in (first, last, key)]
        present = {byte for one in column for byte in one}
        alphabet = next((letters for letters in _ALPHABETS if present.issubset(letters)), _ALL_BYTES)
        # A key that has ended continues with the lowest letter.
        low, high, number = (
            total * len(alphabet) + (alphabet.index(one[0]) if one else 0)
            for total, one in zip((low, high, number), column, strict=True)
        )
    # Equal if the keys differ only by trailing lowest letters.
    return (number - low) / (high - low) if high > low else 0.0

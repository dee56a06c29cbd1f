"""
Scans of one queue's rows that continue after damage.

A read that fails for lack of a descriptor or of memory is not damage: the scan
ends before it, and raises the error if it has read no row.  The same holds for
a block that the disk does not return, or a missing file, until that has lasted
for a while.  Every other error is damage.

A damaged value is one row, and the scan continues with the next.  A damaged
block of a table file, or one that the disk does not return, contains several
rows, and the engine does not report where it ends: an iterator cannot pass it,
nor start in it.  The scan then searches for the first key from which an
iterator can start, which takes some hundred small reads.

Starting anywhere after the damage is not enough.  Readable rows between this
damage and a later one would be skipped, and delivered out of order after a
repair.  Where the engine knows the keys of the unreadable rows, as with large
contents in blob files, an iterator with an upper bound finds the row, and the
scan continues with the next key.  Otherwise, or after several such rows, the
search goes forward in doubling steps and then bisects, and then goes back in
doubling steps.  So it skips readable rows only where they are fewer than the
damaged ones that follow them.

Skipped rows stay in the database, and the scan reports them as gaps.  All this
is for single damaged places and not for a failed disk, so a scan that finds no
readable row raises the error.
"""

from typing import Final

from attrs import define, field

from queueber.broker.model import Item, Key, QueueNumber
from queueber.broker.storage import Gap, Scan
from queueber.errors import Damaged, StorageError, Withheld
from queueber.store.rows.engine_port import KeyValueEngine, Row
from queueber.store.rows.keys import ITEM_KEY_BYTES, item_key, items_end
from queueber.store.rows.records import decode_item

READS_MAX: Final = 100
"""Iterators that one scan starts.  Each after the first costs some hundredths of a second for its search."""

SINGLE_ROWS_MAX: Final = 8
"""Most consecutive unreadable rows that a search finds one by one, and most times that it goes back."""


@define
class Scanner:
    """One scan of *queue* above *after*."""

    _db: KeyValueEngine
    _queue: QueueNumber
    _after: Key
    _items_max: int
    _bytes_max: int
    _withheld_is_damage: bool = False
    """Skip also rows that the disk does not return."""

    _items: list[Item] = field(factory=list, init=False)
    _size: int = field(default=0, init=False)
    _last_row_key: bytes | None = field(default=None, init=False)
    """Key of the row that the last iterator returned last; None if it returned none."""

    def scan(self) -> Scan:
        """
        Scan as `queueber.broker.storage.Store.scan` specifies.

        Raises:
            StorageError: there are rows, and none is readable, or the first is unreadable for a reason other than
                damage.
        """
        gaps: list[Gap] = []
        try:
            return self._scan(gaps)
        except _NoDamageError as ended:
            # The next scan starts with the failed read, and with the damage before it, whose end is unknown.
            if not self._items:
                raise ended.why from None
            last = self._items[-1].key
            return Scan(self._items, exhausted=False, gaps=[gap for gap in gaps if gap.after < last])

    def _scan(self, gaps: list[Gap]) -> Scan:
        start: bytes | None = item_key(self._queue, self._after) + b"\0"
        for _ in range(READS_MAX):
            if start is None:
                break
            try:
                exhausted = self._read(start)
            except StorageError as why:
                if self._full:
                    return Scan(self._items, exhausted=False, gaps=gaps)
                self._check_damage(why)
                gaps.append(Gap(self._last_key, why))
                start = self._resume_key(start)
            else:
                if gaps and not self._items:
                    raise gaps[0].why
                return Scan(self._items, exhausted=exhausted, gaps=gaps)
        # The end of the last damage was not found: this scan ends before it, and the next starts with it.
        last = gaps.pop()
        if not self._items:
            raise last.why
        return Scan(self._items, exhausted=False, gaps=gaps)

    @property
    def _last_key(self) -> Key:
        """Key of the last readable item; the unreadable rows lie above it."""
        return self._items[-1].key if self._items else self._after

    @property
    def _full(self) -> bool:
        items = self._items
        return bool(items) and (len(items) >= self._items_max or self._size >= self._bytes_max)

    @property
    def _stop(self) -> bytes:
        return items_end(self._queue)

    def _read(self, start: bytes) -> bool:
        """Read rows from *start* on, up to the limits; return True if there are no more."""
        items, items_max, bytes_max = self._items, self._items_max, self._bytes_max
        row_key, size = None, self._size
        try:
            with self._db.iterator(start=start, stop=self._stop) as rows:
                for row_key, value in rows:
                    if items and (len(items) >= items_max or size >= bytes_max):
                        return False
                    item = decode_item(row_key, value)
                    items.append(item)
                    size += len(item.contents)
        finally:
            self._last_row_key, self._size = row_key, size
        return True

    def _resume_key(self, start: bytes) -> bytes | None:
        """Return the key at which to continue after the read from *start* failed; None if there is none."""
        if self._last_row_key is None:
            return self._first_readable(start)
        if self._items and item_key(self._queue, self._last_key) == self._last_row_key:
            return self._first_readable(self._last_row_key + b"\0")
        # The row's own value is damaged.
        return self._last_row_key + b"\0"

    def _first_readable(self, start: bytes) -> bytes | None:
        """Return about the first key from *start* on at which an iterator can start; None if there is none."""
        # Keys of the full length as integers.  A longer key is between two of them.
        low = int.from_bytes(start[:ITEM_KEY_BYTES]) + (len(start) > ITEM_KEY_BYTES)
        high = int.from_bytes(self._stop.ljust(ITEM_KEY_BYTES, b"\0")) - 1
        for _ in range(SINGLE_ROWS_MAX):
            if self._readable(low):
                return _to_key(low)
            row = self._first_row(low, high)
            # The row is readable if the failure was transient.
            low = row if self._readable(row) else min(row + 1, high)
        good = self._gallop(low, high)
        if good is None:
            return None
        for _ in range(SINGLE_ROWS_MAX):
            first = self._bisect(low, good)
            good = self._gallop_back(first, low)
            if good is None:
                break
        return _to_key(first)

    def _first_row(self, low: int, high: int) -> int:
        """Return the position of the first row from *low* on; *low* if the engine cannot read its key."""
        if not self._empty(low, low):
            return low
        while low < high:
            middle = (low + high) // 2
            if self._empty(low, middle):
                low = middle + 1
            else:
                high = middle
        return high

    def _gallop(self, low: int, high: int) -> int | None:
        """Return a key at which an iterator can start, in doubling steps from *low*; None if there is none."""
        step = 0
        while low + step < high and not self._readable(low + step):
            step = 2 * step or 1
        good = min(low + step, high)
        return good if self._readable(good) else None

    def _bisect(self, bad: int, good: int) -> int:
        """Return a key above *bad*, up to *good*, at which an iterator can start, but not at the key before it."""
        while good - bad > 1:
            middle = (bad + good) // 2
            if self._readable(middle):
                good = middle
            else:
                bad = middle
        return good

    def _gallop_back(self, first: int, low: int) -> int | None:
        """Return a key above *low* at which an iterator can start, in doubling steps back from *first*; or None."""
        step = 1
        while first - step > low:
            if self._readable(first - step):
                return first - step
            step *= 2
        return None

    def _empty(self, first: int, last: int) -> bool:
        """Return whether an iterator from *first* to *last* ends without a row and without an error."""
        try:
            return self._first_of(first, _to_key(last + 1)) is None
        except StorageError as why:
            self._check_damage(why)
            return False

    def _readable(self, number: int) -> bool:
        """Return whether an iterator can start at *number*."""
        try:
            self._first_of(number, self._stop)
        except StorageError as why:
            self._check_damage(why)
            return False
        return True

    def _check_damage(self, why: StorageError) -> None:
        """Raise `_NoDamageError` unless *why* is damage."""
        if not isinstance(why, Damaged) or (isinstance(why, Withheld) and not self._withheld_is_damage):
            raise _NoDamageError(why)

    def _first_of(self, number: int, stop: bytes) -> Row | None:
        with self._db.iterator(start=_to_key(number), stop=stop) as rows:
            return next(iter(rows), None)


class _NoDamageError(Exception):
    """A read failed for a reason other than damage."""

    def __init__(self, why: StorageError) -> None:
        self.why = why


def _to_key(number: int) -> bytes:
    return number.to_bytes(ITEM_KEY_BYTES)

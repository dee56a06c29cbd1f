"""
Reading a stretch of one queue's rows, past those that cannot be read.

A read that fails for want of a descriptor or of memory says nothing about the
rows, and is no reason to pass over any: the scan ends before it, and fails if
that leaves nothing.  The same goes for a disk that does not return a block, or
has lost a file, until that has lasted.  All else is damage.

Damage comes in two sizes.  A value that is not as it was written is one row.
A block of a table that does not match its checksum, or that the disk does not
give, is all rows in it, and the engine does not say where it ends: a walk does
not get over it, and one that begins in it does not get anywhere.  So the first
key is looked for from which a walk gets on, which takes some hundred small
reads.

Any such key would not do.  A walk gets on from behind the next damage too, and
what lies between the two would be hidden, out of its turn, until it is mended.
Where the engine knows the keys of rows that it cannot give, as it does of
large contents, which lie in files of their own, a walk with a bound tells
which row it is, and the next key is the one.  Where it does not know them, or
where there are many in a row, the key is looked for in steps that double and
then halve, and then in steps that double on the way back: no stretch is hidden
but one that is shorter than the damage behind it.

What is passed over stays where it is, and is told.  This is for damage here
and there and not for a disk that has gone, so it is an error if nothing is
left that can be read.
"""

from typing import Final

from attrs import define, field

from queueber.broker.model import Item, Key, QueueNumber
from queueber.broker.storage import Gap, Scan
from queueber.errors import Damaged, StorageError, Withheld
from queueber.plyvel import prefix_successor
from queueber.store.rows.engine_port import KeyValue, Row
from queueber.store.rows.keys import ITEM_KEY_BYTES, item_key, items_of
from queueber.store.rows.records import decode_item

WALKS_MAX: Final = 100
"""For one scan.  Each but the first costs some hundredths of a second."""

TRIES: Final = 8
"""So many rows that follow each other and cannot be read are found one by one."""


@define
class Scanner:
    """One scan of *queue* above *after*."""

    _db: KeyValue
    _queue: QueueNumber
    _after: Key
    _items_max: int
    _bytes_max: int
    _lasting: bool = False
    """What the disk withholds is passed over, too."""

    _found: list[Item] = field(factory=list, init=False)
    _size: int = field(default=0, init=False)
    _tried: bytes | None = field(default=None, init=False)
    """The row that the last walk had come to; None if it came to none."""

    def scan(self) -> Scan:
        """
        What `queueber.broker.storage.Store.scan` promises.

        Raises:
            StorageError: there are rows, and none of them can be read; or the first of them cannot be, and that is no
                damage.
        """
        gaps: list[Gap] = []
        try:
            return self._scan(gaps)
        except _NoDamageError as ended:
            # The next scan begins with it, and with the damage before it, of which the end is not known.
            if not self._found:
                raise ended.why from None
            found = self._found[-1].key
            return Scan(self._found, exhausted=False, gaps=[gap for gap in gaps if gap.after < found])

    def _scan(self, gaps: list[Gap]) -> Scan:
        start: bytes | None = item_key(self._queue, self._after) + b"\0"
        for _ in range(WALKS_MAX):
            if start is None:
                break
            try:
                exhausted = self._walk(start)
            except StorageError as why:
                if self._full:
                    return Scan(self._found, exhausted=False, gaps=gaps)
                self._check_damage(why)
                gaps.append(Gap(self._known, why))
                start = self._beyond(start)
            else:
                if gaps and not self._found:
                    raise gaps[0].why
                return Scan(self._found, exhausted=exhausted, gaps=gaps)
        # There is no end to it: this scan ends before it, and the next one will begin with it.
        last = gaps.pop()
        if not self._found:
            raise last.why
        return Scan(self._found, exhausted=False, gaps=gaps)

    @property
    def _known(self) -> Key:
        """All that could not be read lies above it."""
        return self._found[-1].key if self._found else self._after

    @property
    def _full(self) -> bool:
        found = self._found
        return bool(found) and (len(found) >= self._items_max or self._size >= self._bytes_max)

    @property
    def _stop(self) -> bytes:
        stop = prefix_successor(items_of(self._queue))
        assert stop is not None, "items are not the last table"
        return stop

    def _walk(self, start: bytes) -> bool:
        """Take in the rows from *start* on, up to the bounds; whether there are no more."""
        found, items_max, bytes_max = self._found, self._items_max, self._bytes_max
        row, size = None, self._size
        try:
            with self._db.iterator(start=start, stop=self._stop) as rows:
                for row, value in rows:
                    if found and (len(found) >= items_max or size >= bytes_max):
                        return False
                    item = decode_item(row, value)
                    found.append(item)
                    size += len(item.contents)
        finally:
            self._tried, self._size = row, size
        return True

    def _beyond(self, start: bytes) -> bytes | None:
        """Where to go on after the walk from *start* has failed; None if it cannot be found."""
        if self._tried is None:
            return self._first_readable(start)
        if self._found and item_key(self._queue, self._known) == self._tried:
            return self._first_readable(self._tried + b"\0")
        # It is this row's own value that is damaged.
        return self._tried + b"\0"

    def _first_readable(self, start: bytes) -> bytes | None:
        """The first key from *start* on from which a walk gets anywhere, about; None if there is none."""
        # Of all keys of that length, as numbers.  A longer one lies between two of them.
        low = int.from_bytes(start[:ITEM_KEY_BYTES]) + (len(start) > ITEM_KEY_BYTES)
        high = int.from_bytes(self._stop.ljust(ITEM_KEY_BYTES, b"\0")) - 1
        for _ in range(TRIES):
            if self._readable(low):
                return _key(low)
            row = self._first_row(low, high)
            # It is readable if the failure was a passing one.
            low = row if self._readable(row) else min(row + 1, high)
        good = self._some_readable(low, high)
        if good is None:
            return None
        for _ in range(TRIES):
            first = self._halved(low, good)
            good = self._readable_before(first, low)
            if good is None:
                break
        return _key(first)

    def _first_row(self, low: int, high: int) -> int:
        """Where the first row from *low* on lies; *low* if the engine does not get as far as its key."""
        if not self._empty(low, low):
            return low
        while low < high:
            middle = (low + high) // 2
            if self._empty(low, middle):
                low = middle + 1
            else:
                high = middle
        return high

    def _some_readable(self, low: int, high: int) -> int | None:
        """A key from *low* on from which a walk gets anywhere, looked for far and wide; None if there is none."""
        step = 0
        while low + step < high and not self._readable(low + step):
            step = 2 * step or 1
        good = min(low + step, high)
        return good if self._readable(good) else None

    def _halved(self, bad: int, good: int) -> int:
        """A key up to *good* from which a walk gets anywhere, while none does from the one before it."""
        while good - bad > 1:
            middle = (bad + good) // 2
            if self._readable(middle):
                good = middle
            else:
                bad = middle
        return good

    def _readable_before(self, first: int, low: int) -> int | None:
        """A key above *low*, but before *first* and the damage before that, from which a walk gets anywhere."""
        step = 1
        while first - step > low:
            if self._readable(first - step):
                return first - step
            step *= 2
        return None

    def _empty(self, first: int, last: int) -> bool:
        """Whether a walk from one key to the other ends without having met anything."""
        try:
            return self._first_of(first, _key(last + 1)) is None
        except StorageError as why:
            self._check_damage(why)
            return False

    def _readable(self, number: int) -> bool:
        try:
            self._first_of(number, self._stop)
        except StorageError as why:
            self._check_damage(why)
            return False
        return True

    def _check_damage(self, why: StorageError) -> None:
        """Raise a `_NoDamageError` if *why* is none."""
        if not isinstance(why, Damaged) or (isinstance(why, Withheld) and not self._lasting):
            raise _NoDamageError(why)

    def _first_of(self, number: int, stop: bytes) -> Row | None:
        with self._db.iterator(start=_key(number), stop=stop) as rows:
            return next(iter(rows), None)


class _NoDamageError(Exception):
    """A read failed for a reason that is not damage."""

    def __init__(self, why: StorageError) -> None:
        self.why = why


def _key(number: int) -> bytes:
    return number.to_bytes(ITEM_KEY_BYTES)

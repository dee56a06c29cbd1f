"""
The request ids that may have a record: a Bloom filter of those of the last ten minutes and more.

Nearly all adds with a request id are sent once.  Without a record to read they are decided at once, without waiting for
a thread.  An id that the filter has may have a record, and is read.  One that it lacks has none, because

- each id is noted when its record is written, and forgotten when that has ended;
- records of earlier runs of the server have ended `REQUEST_SPAN` after the start, and until then every id may have
  one, unless a sweep has found that there are none.

Two filters of the same size take turns: when the newer one has taken ids for its time, the older one is emptied.  The
filter is that of B. H. Bloom, "Space/time trade-offs in hash coding with allowable errors" (1970).
"""

from typing import Final

from queueber.broker.storage import RequestId
from queueber.units import MINUTE, SpanMs, WallMs, no_earlier_than

REQUEST_SPAN: Final = SpanMs(10 * MINUTE)
"""The time for which a call that is sent again is answered from its record."""

_TURN: Final = SpanMs(REQUEST_SPAN + MINUTE)
"""The time for which a filter takes new ids.  It is kept as long again; all its records have ended by then."""

_BITS: Final = 24
"""The logarithm of the bits of a filter, 2 MiB.  With two million ids in it, it is wrong about 2 % of the others."""

_HASHES: Final = 4
_MASK: Final = (1 << _BITS) - 1


class RecentRequests:
    """The request ids whose records may exist."""

    def __init__(self) -> None:
        self._filters: tuple[bytearray, bytearray] | None = None
        """The filters of this turn and of the one before; None before the first id."""

        self._turn_ends = WallMs(0)
        self._all_known_at: WallMs | None = None
        """The time at which the records of earlier runs have ended; None before the first look."""

    def note_no_others(self) -> None:
        """Note that there is no record of an id that was not noted."""
        self._all_known_at = WallMs(0)

    def note(self, request: RequestId, now: WallMs) -> None:
        """Note that a record of *request* is written, which ends in `REQUEST_SPAN`."""
        self._advance(now)
        if self._filters is None:
            self._filters = _empty(), _empty()
        newer = self._filters[0]
        for place in _places(request):
            newer[place >> 3] |= 1 << (place & 7)

    def may_have_record(self, request: RequestId, now: WallMs) -> bool:
        """Return whether *request* may have a record that has not ended."""
        self._advance(now)
        if self._all_known_at is None:
            self._all_known_at = no_earlier_than(now, REQUEST_SPAN)
        if now <= self._all_known_at:
            return True
        places = _places(request)
        return any(all(bits[place >> 3] & 1 << (place & 7) for place in places) for bits in self._filters or ())

    def _advance(self, now: WallMs) -> None:
        """Begin another turn if it is time."""
        if now < self._turn_ends:
            return
        self._turn_ends = no_earlier_than(now, _TURN)
        if self._filters is not None:
            self._filters = _empty(), self._filters[0]


def _empty() -> bytearray:
    return bytearray(1 << _BITS - 3)


def _places(request: RequestId) -> list[int]:
    """Return the bits of *request*.  Python's hash has a secret of the process: no peer can choose ids that collide."""
    number = hash(request)
    first, step = number & _MASK, number >> _BITS & _MASK | 1
    return [first + step * each & _MASK for each in range(_HASHES)]

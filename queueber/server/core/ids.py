"""Fresh ids: UUIDv7 for items, UUIDv4 for leases (RFC 9562, sections 5.7 and 5.4); and other random numbers."""

import os
from collections.abc import Callable, Iterator
from itertools import islice
from struct import Struct
from typing import Any, Final

from queueber.broker import ItemId, LeaseId
from queueber.units import WallMs

_VERSION_7 = 7 << 76
_VERSION_4 = 4 << 76
_VARIANT = 2 << 62
COUNTER_MAX: Final = (1 << 62) - 1
"""The largest counter within a millisecond."""

# Ids of one millisecond are up to this far apart, so that one id reveals little
# about the next, and at least 2**29 of them fit.
_STEP_MAX = 1 << 32
_STEPS = Struct("<1024I")

_STARTS = Struct(">512Q")
"""Two for each millisecond: the random bits above the variant, and those below it."""

_LEASE_BYTES = 16
_LEASES_DRAWN = 256

_BELOW_BYTES = 16


class RandomIds:
    """Ids out of the operating system's random bytes, drawn many at a time."""

    def __init__(self, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._random_bytes = random_bytes
        self._steps: Iterator[int] = iter(())
        self._starts: tuple[int, ...] = ()
        self._start_at = 0
        self._lease_bits = b""
        self._lease_at = 0
        self._last_ms = -1
        self._last = self._highest = 0
        """The last id of this millisecond, or the start of its ids, and the highest possible one, as numbers."""

    def items(self, now: WallMs, count: int) -> list[ItemId]:
        """
        Return *count* UUIDv7 of *now*, each larger than every one before.

        Within a millisecond the random part is a counter with random steps
        (RFC 9562, section 6.2, method 2).  If it overflows, or *now* is
        smaller than before, the time part runs ahead.
        """
        if now > self._last_ms or self._last + count * _STEP_MAX > self._highest:
            self._last_ms = ms = max(now, self._last_ms + 1)
            # The counter is the low part alone; its top bit stays free for the steps of this millisecond.
            if self._start_at == len(self._starts):
                self._starts, self._start_at = _STARTS.unpack(self._random_bytes(_STARTS.size)), 0
            high, low = self._starts[self._start_at : self._start_at + 2]
            self._start_at += 2
            self._last = ms << 80 | _VERSION_7 | high >> 52 << 64 | _VARIANT | low & COUNTER_MAX >> 1
            self._highest = self._last | COUNTER_MAX
        # `ItemId` itself would cost a call of Python for each.
        ids: list[Any] = []
        last = self._last
        while len(ids) < count:
            for step in islice(self._steps, count - len(ids)):
                last += step
                ids.append(last.to_bytes(16, "big"))
            if len(ids) < count:
                self._steps = iter([1 + each for each in _STEPS.unpack(self._random_bytes(_STEPS.size))])
        self._last = last
        return ids

    def lease(self) -> LeaseId:
        """Return 122 random bits in UUIDv4 layout: they are the right to the lease's items."""
        at = self._lease_at
        if at == len(self._lease_bits):
            self._lease_bits, at = self._random_bytes(_LEASE_BYTES * _LEASES_DRAWN), 0
        self._lease_at = end = at + _LEASE_BYTES
        value = int.from_bytes(self._lease_bits[at:end], "big")
        value = value & ~(0xF << 76) & ~(0x3 << 62) | _VERSION_4 | _VARIANT
        return LeaseId(value.to_bytes(16, "big"))

    def below(self, bound: int) -> int:
        """Return a random integer from 0 to *bound* - 1.  *bound* is positive and at most 2**64."""
        # 128 bits, so that no result is more likely than another by more than 2**-64.
        return int.from_bytes(self._random_bytes(_BELOW_BYTES), "big") % bound

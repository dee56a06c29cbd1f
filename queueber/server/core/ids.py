"""Fresh ids: UUIDv7 for items, UUIDv4 for leases (RFC 9562, sections 5.7 and 5.4)."""

import os
from collections.abc import Callable, Iterator
from itertools import islice
from struct import Struct

from queueber.broker import ItemId, LeaseId
from queueber.units import WallMs

_VERSION_7 = 7 << 76
_VERSION_4 = 4 << 76
_VARIANT = 2 << 62
_LOW_BITS = (1 << 62) - 1

# Ids of one millisecond lie up to this far apart, so that knowing one tells
# little about the next, and 2**29 of them fit at least.
_STEP_MAX = 1 << 32
_STEPS = Struct("<1024I")


class RandomIds:
    """Ids out of the operating system's random bytes, drawn many at a time."""

    def __init__(self, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._random_bytes = random_bytes
        self._pool = memoryview(b"")
        self._steps: Iterator[int] = iter(())
        self._last_ms = -1
        self._last = self._highest = 0
        """The last id of this millisecond, or where they begin, as a number, and the highest that it can have."""

    def _draw(self, count: int) -> int:
        if len(self._pool) < count:
            self._pool = memoryview(self._random_bytes(4096))
        drawn, self._pool = self._pool[:count], self._pool[count:]
        return int.from_bytes(drawn, "big")

    def items(self, now: WallMs, count: int) -> list[ItemId]:
        """
        *count* UUIDv7 of *now*, each larger than every one before.

        Within a millisecond the random part is a counter with random steps
        (RFC 9562, section 6.2, method 2); should it overflow, or *now* be
        smaller than before, the time part runs ahead.
        """
        if now > self._last_ms:
            self._begin(now)
        elif self._last + count * _STEP_MAX > self._highest:
            self._begin(WallMs(self._last_ms + 1))
        ids: list[ItemId] = []
        last = self._last
        while len(ids) < count:
            for step in islice(self._steps, count - len(ids)):
                last += step
                ids.append(ItemId(last.to_bytes(16, "big")))
            if len(ids) < count:
                self._steps = iter([1 + each for each in _STEPS.unpack(self._random_bytes(_STEPS.size))])
        self._last = last
        return ids

    def _begin(self, ms: WallMs) -> None:
        self._last_ms = ms
        tail = self._draw(9)
        # The counter is the low part alone; its top bit stays free for the steps of this millisecond.
        low = tail & _LOW_BITS >> 1
        self._last = ms << 80 | _VERSION_7 | (tail >> 60) << 64 | _VARIANT | low
        self._highest = self._last | _LOW_BITS

    def lease(self) -> LeaseId:
        """122 random bits in UUIDv4 layout: who knows them holds the lease."""
        value = self._draw(16)
        value = value & ~(0xF << 76) & ~(0x3 << 62) | _VERSION_4 | _VARIANT
        return LeaseId(value.to_bytes(16, "big"))

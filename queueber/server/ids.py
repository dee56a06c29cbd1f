"""Fresh ids: UUIDv7 for items, UUIDv4 for leases (RFC 9562, sections 5.7 and 5.4)."""

import os
from collections.abc import Callable

from queueber.broker import ItemId, LeaseId
from queueber.units import WallMs

_VERSION_7 = 7 << 76
_VERSION_4 = 4 << 76
_VARIANT = 2 << 62
_RANDOM_BITS = 74
_LOW_BITS = (1 << 62) - 1

# Ids of one millisecond lie up to this far apart, so that knowing one tells
# little about the next, and 2**38 of them fit at least.
_STEP_BYTES = 4


class RandomIds:
    """Ids out of the operating system's random bytes, drawn many at a time."""

    def __init__(self, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._random_bytes = random_bytes
        self._pool = memoryview(b"")
        self._last_ms = -1
        self._tail = 0

    def _draw(self, count: int) -> int:
        if len(self._pool) < count:
            self._pool = memoryview(self._random_bytes(4096))
        drawn, self._pool = self._pool[:count], self._pool[count:]
        return int.from_bytes(drawn, "big")

    def item(self, now: WallMs) -> ItemId:
        """
        A UUIDv7 of *now*, larger than every one before.

        Within a millisecond the random part is a counter with random steps
        (RFC 9562, section 6.2, method 2); should it overflow, or *now* be
        smaller than before, the time part runs ahead.
        """
        if now > self._last_ms:
            self._last_ms = now
            # The top bit stays free for the steps of this millisecond.
            self._tail = self._draw(9) >> 1
        else:
            self._tail += 1 + self._draw(_STEP_BYTES)
            if self._tail >> _RANDOM_BITS:
                self._last_ms += 1
                self._tail = self._draw(9) >> 1
        high, low = self._tail >> 62, self._tail & _LOW_BITS
        value = self._last_ms << 80 | _VERSION_7 | high << 64 | _VARIANT | low
        return ItemId(value.to_bytes(16, "big"))

    def lease(self) -> LeaseId:
        """122 random bits in UUIDv4 layout: who knows them holds the lease."""
        value = self._draw(16)
        value = value & ~(0xF << 76) & ~(0x3 << 62) | _VERSION_4 | _VARIANT
        return LeaseId(value.to_bytes(16, "big"))

"""
One budget for all memory that peers make the server hold: incomplete messages, and replies they do not read.

Each connection has limits of its own, but ten thousand connections at their
limits would fill any memory.  Refusing the latest bytes would let the largest
holders keep theirs for ever.  So connections are evicted, by two rules about
something that a peer can influence:

- A connection that holds no more than an even share of the limit is never
  evicted, however long it has held it: a worker that has opened a few queues
  by name is safe.  So many connections that each keep to their share can leave
  no room for large messages; other limits bound their number.
- Of the others, those that held most over the last minute go first.  A peer
  that sends a message byte by byte goes before a large message that is just
  arriving.  Open answers and capabilities count once, whatever their age.
"""

from collections.abc import Callable
from heapq import heapify, heappop
from math import exp
from typing import Final, Protocol

from attrs import define, field

MEMORY_SECONDS: Final = 60.0
"""Decay time of past holdings: after this long they weigh a third."""

FREED_PART: Final = 16
"""The limit divided by this number is freed at a time: ranking all holders at each read would cost too much."""


class Holder(Protocol):
    """A connection."""

    def evict(self, limit: str, reason: str) -> None:
        """Close at once because of *limit*, which *reason* names, and release all memory."""


@define(eq=False)
class _Holding:
    """The memory of one connection."""

    since: float
    """The time to which `byte_seconds` is accumulated."""

    transient: int = 0
    """Bytes of incomplete messages and of replies that wait."""

    retained: int = 0
    """Bytes of state that stays until the peer releases it."""

    byte_seconds: float = 0.0
    """Past `transient` bytes, decayed."""

    def accumulate(self, now: float) -> None:
        """Bring `byte_seconds` up to *now*."""
        if now > self.since:
            left = exp((self.since - now) / MEMORY_SECONDS)
            self.byte_seconds = self.byte_seconds * left + self.transient * MEMORY_SECONDS * (1 - left)
            self.since = now

    @property
    def weight(self) -> float:
        """The rank for eviction.  One second is added to each age, so that new holders are ranked by size."""
        return self.byte_seconds + self.transient + self.retained


@define(eq=False)
class MemoryBudget:
    """The bytes that each connection holds, and their total."""

    _limit: int
    _seconds: Callable[[], float]
    _connections: Callable[[], int]
    """Returns the number of connections, including those that hold nothing: among them the limit is shared."""

    _held: dict[Holder, _Holding] = field(factory=dict, init=False)
    total: int = field(default=0, init=False)
    """Bytes held for all connections."""

    def update(self, holder: Holder, transient: int, retained: int = 0) -> None:
        """Record what *holder* holds now, and evict the largest holders if the limit is exceeded."""
        holding = self._held.get(holder)
        if holding is None:
            if not transient and not retained:
                return
            holding = self._held[holder] = _Holding(self._seconds())
        self.total += transient + retained - holding.transient - holding.retained
        if not transient and not retained:
            del self._held[holder]
            return
        holding.accumulate(self._seconds())
        holding.transient, holding.retained = transient, retained
        if not transient:
            holding.byte_seconds = 0.0
        if self.total > self._limit:
            self._evict_largest()

    def _evict_largest(self) -> None:
        target = self._limit - self._limit // FREED_PART
        share = target / max(self._connections(), len(self._held))
        now = self._seconds()
        # While the total exceeds the target, at least one holder exceeds an even share of it.
        ranked = []
        for number, (holder, holding) in enumerate(self._held.items()):
            if holding.transient + holding.retained > share:
                holding.accumulate(now)
                ranked.append((-holding.weight, number, holder))
        heapify(ranked)
        while self.total > target:
            holder = heappop(ranked)[2]
            holding = self._held.pop(holder)
            held = holding.transient + holding.retained
            self.total -= held
            over = f"all connections hold more than {self._limit:,} bytes (buffered_bytes)"
            holder.evict("buffered_bytes", f"{over}, this one {held:,} of them")

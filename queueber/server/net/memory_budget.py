"""
What all connections together hold of messages that have begun and of replies that nobody takes.

Each connection has limits of its own, but ten thousand that all go to theirs
would fill any memory.  Refusing whoever comes last would let those who hold
the most hold it for ever.  So some have to go, and who that is goes by what a
peer can do something about:

- nobody who holds no more than an even share of the limit, however long: a
  worker that has asked for a few queues by name is never what is too much.
  (So a crowd whose every member keeps to that can crowd out large messages;
  how large a crowd may be is the business of other limits.)
- of the others whoever held the most of messages and replies over the last
  minute: who drips for minutes goes before a large message that is just
  coming in.  Open answers and capabilities count once, however old.
"""

from collections.abc import Callable
from heapq import heapify, heappop
from math import exp
from typing import Protocol

from attrs import define, field

MEMORY_SECONDS = 60.0
"""How far back it matters what somebody held; what was held longer ago than this weighs a third, and then less."""

ROOM = 16
"""One of so many parts of the limit is made free at a time: ranking all holders for each read would be an attack."""


class Holder(Protocol):
    """A connection."""

    def evict(self) -> None:
        """It holds more than its share of what is too much in all: it is to let go of everything."""


@define(eq=False)
class _Holding:
    """What one connection holds."""

    since: float
    moving: int = 0
    """Bytes of messages that have begun and of replies that are not taken."""

    kept: int = 0
    """Bytes of what is held for as long as the peer wants it."""

    byte_seconds: float = 0.0
    """Of `moving` up to `since`; what is long past fades."""

    def note(self, now: float) -> None:
        """Reckon `byte_seconds` up to *now*."""
        if now > self.since:
            left = exp((self.since - now) / MEMORY_SECONDS)
            self.byte_seconds = self.byte_seconds * left + self.moving * MEMORY_SECONDS * (1 - left)
            self.since = now

    @property
    def weight(self) -> float:
        # A second is given to everybody: those that have just begun are told apart by their size.
        return self.byte_seconds + self.moving + self.kept


@define(eq=False)
class MemoryBudget:
    """Who holds how many bytes."""

    _limit: int
    _seconds: Callable[[], float]
    _peers: Callable[[], int]
    """How many connections there are, those that hold nothing included: among so many the limit is shared."""

    _held: dict[Holder, _Holding] = field(factory=dict, init=False)
    total: int = field(default=0, init=False)
    """Bytes held by all."""

    def hold(self, holder: Holder, moving: int, kept: int = 0) -> None:
        """*holder* now holds *moving* bytes of messages and replies, and *kept* ones of what it has open."""
        holding = self._held.get(holder)
        if holding is None:
            if not moving and not kept:
                return
            holding = self._held[holder] = _Holding(self._seconds())
        self.total += moving + kept - holding.moving - holding.kept
        if not moving and not kept:
            del self._held[holder]
            return
        holding.note(self._seconds())
        holding.moving, holding.kept = moving, kept
        if not moving:
            holding.byte_seconds = 0.0
        if self.total > self._limit:
            self._make_room()

    def _make_room(self) -> None:
        room = self._limit - self._limit // ROOM
        share = room / max(self._peers(), len(self._held))
        now = self._seconds()
        # If all together hold more than there is room for, somebody holds more than an even share of that.
        ranked = []
        for number, (holder, holding) in enumerate(self._held.items()):
            if holding.moving + holding.kept > share:
                holding.note(now)
                ranked.append((-holding.weight, number, holder))
        heapify(ranked)
        while self.total > room:
            holder = heappop(ranked)[2]
            holding = self._held.pop(holder)
            self.total -= holding.moving + holding.kept
            holder.evict()

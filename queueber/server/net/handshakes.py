"""
Limits on unfinished TLS handshakes: their number, their duration, and their share of a reactor turn.

A ClientHello of half a kilobyte costs the server a signature, half a
millisecond, and 60 KiB until the connection closes.  A peer that has a client
certificate costs as much as any other until it has shown it.  So the number of
handshakes is bounded, the oldest is abandoned for the newest, and one reactor
turn spends a few milliseconds on them, whatever has arrived.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from attrs import define, field

from queueber.limits import Limits
from queueber.server.net.timeouts import FIRST_MESSAGE
from queueber.units import MS_PER_SECOND

HANDSHAKE_TURN_SECONDS: Final = 0.005
"""Time for handshakes in one reactor turn.  The step that exceeds it is the last of its turn."""

HANDSHAKES: Final = "handshakes"
"""The limit on their number."""


class Handshake(Protocol):
    """A connection whose handshake is not finished."""

    def proceed(self) -> None:
        """Process what the peer has sent."""

    def abandon(self, limit: str) -> None:
        """Close the connection because of *limit*."""


@define(eq=False)
class Handshakes:
    """All unfinished handshakes, oldest first."""

    _limits: Limits
    _seconds: Callable[[], float]
    _call_later: Callable[..., Any]
    _room: Callable[[], int]
    """Returns for how many more connections there is room in `Connections`, which these join with their first bytes."""

    _started: dict[Handshake, float] = field(factory=dict, init=False)
    """When each began.  Not in `PeerTimeouts`, whose oldest silent connection makes room for a new one."""

    _queue: deque[Handshake] = field(factory=deque, init=False)
    _spent: float = field(default=0.0, init=False)
    """Seconds used in this turn."""

    _scheduled: bool = field(default=False, init=False)
    """Whether the reactor will call `_turn`."""

    def __len__(self) -> int:
        return len(self._started)

    def add(self, handshake: Handshake) -> None:
        """Add *handshake*.  Abandon the oldest if there are too many, or as many connections as there may be."""
        if self._started and len(self._started) >= min(self._limits.handshakes, self._room()):
            self._abandon(next(iter(self._started)), HANDSHAKES)
        self._started[handshake] = self._seconds()

    def remove(self, handshake: Handshake) -> None:
        """Forget *handshake*, which has succeeded or whose connection is lost."""
        self._started.pop(handshake, None)

    def expire(self) -> None:
        """Abandon the handshakes that have lasted too long."""
        latest = self._seconds() - self._limits.first_message_ms / MS_PER_SECOND
        while self._started:
            oldest, started = next(iter(self._started.items()))
            if started > latest:
                return
            self._abandon(oldest, FIRST_MESSAGE)

    def _abandon(self, handshake: Handshake, limit: str) -> None:
        del self._started[handshake]
        handshake.abandon(limit)

    def schedule(self, handshake: Handshake) -> bool:
        """Let *handshake* proceed, now or in a later turn.  Return whether it was now."""
        now = not self._queue and self._spent < HANDSHAKE_TURN_SECONDS
        if now:
            self._proceed(handshake)
        else:
            self._queue.append(handshake)
        if not self._scheduled:
            self._scheduled = True
            self._call_later(0, self._turn)
        return now

    def _proceed(self, handshake: Handshake) -> None:
        began = self._seconds()
        handshake.proceed()
        self._spent += self._seconds() - began

    def _turn(self) -> None:
        self._scheduled = False
        self._spent = 0.0
        while self._queue and self._spent < HANDSHAKE_TURN_SECONDS:
            handshake = self._queue.popleft()
            if handshake in self._started:
                self._proceed(handshake)
        if self._queue:
            self._scheduled = True
            self._call_later(0, self._turn)

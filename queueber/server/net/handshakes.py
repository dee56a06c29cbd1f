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
from queueber.server.net.timeouts import FIRST_MESSAGE, PeerTimeouts, TimedPeer

HANDSHAKE_TURN_SECONDS: Final = 0.005
"""Time for handshakes in one reactor turn.  The step that exceeds it is the last of its turn."""

HANDSHAKES: Final = "handshakes"
"""The limit on their number."""


class Handshake(TimedPeer, Protocol):
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

    _timeouts: PeerTimeouts[Handshake] = field(init=False)
    """One timer for each handshake.  Not those of `Connections`, whose oldest silent connection is evicted for a new
    one."""

    _queue: deque[Handshake] = field(factory=deque, init=False)
    _spent: float = field(default=0.0, init=False)
    """Seconds used in this turn."""

    _scheduled: bool = field(default=False, init=False)
    """Whether the reactor will call `_turn`."""

    def __attrs_post_init__(self) -> None:
        """Make the timers."""
        self._timeouts = PeerTimeouts(self._seconds, self._limits)

    def __len__(self) -> int:
        return len(self._timeouts.running(FIRST_MESSAGE))

    def add(self, handshake: Handshake) -> None:
        """Add *handshake*.  Abandon the oldest if there are too many, or as many connections as there may be."""
        oldest = self._timeouts.oldest(FIRST_MESSAGE)
        if oldest is not None and len(self) >= min(self._limits.handshakes, self._room()):
            self.remove(oldest)
            oldest.abandon(HANDSHAKES)
        self._timeouts.start(handshake, FIRST_MESSAGE)

    def remove(self, handshake: Handshake) -> None:
        """Forget *handshake*, which has succeeded or whose connection is lost."""
        self._timeouts.clear(handshake, FIRST_MESSAGE)

    def expire(self) -> None:
        """Notify the handshakes that have lasted too long."""
        self._timeouts.expire()

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
            if handshake in self._timeouts.running(FIRST_MESSAGE):
                self._proceed(handshake)
        if self._queue:
            self._scheduled = True
            self._call_later(0, self._turn)

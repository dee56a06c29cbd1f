"""
TLS handshakes that are not finished: how many there may be, for how long, and what a turn spends on them.

A greeting of half a kilobyte costs a signature, half a millisecond, and 60 KiB
for as long as its connection stays; peers that have a certificate to show cost
as much as others until they have shown it.  So there are only so many, of
which the oldest gives way to the newest, and a turn of the reactor spends a
few milliseconds on them, whatever has come.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from attrs import define, field

from queueber.limits import Limits
from queueber.server.net.timeouts import FIRST_MESSAGE
from queueber.units import MS_PER_SECOND

TURN_SECONDS = 0.005
"""For how long one turn goes on with handshakes; the one that goes beyond it is the last."""

CROWDED = "handshakes"
"""The limit on how many there may be."""


class Handshake(Protocol):
    """A connection that is not secured yet."""

    def go_on(self) -> None:
        """It is its turn: what its peer has sent may be looked at."""

    def give_up(self, limit: str) -> None:
        """It has to end, because of *limit*."""


@define(eq=False)
class Handshakes:
    """All that have begun and are not over."""

    _limits: Limits
    _seconds: Callable[[], float]
    _call_later: Callable[..., Any]
    _connections: Callable[[], int]
    """How many connections there are beside."""

    _since: dict[Handshake, float] = field(factory=dict, init=False)
    _line: deque[Handshake] = field(factory=deque, init=False)
    _spent: float = field(default=0.0, init=False)
    _scheduled: bool = field(default=False, init=False)

    def __len__(self) -> int:
        return len(self._since)

    def begin(self, handshake: Handshake) -> None:
        """It has begun.  If there are too many, or no places left, the oldest gives way, but not this one."""
        limits = self._limits
        if self._since and (
            len(self._since) >= limits.handshakes or len(self._since) + self._connections() >= limits.connections
        ):
            self._give_up(next(iter(self._since)), CROWDED)
        self._since[handshake] = self._seconds()

    def end(self, handshake: Handshake) -> None:
        """It has succeeded, or its connection is gone."""
        self._since.pop(handshake, None)

    def look(self) -> None:
        """End those that have been going on for too long."""
        latest = self._seconds() - self._limits.first_message_ms / MS_PER_SECOND
        while self._since:
            oldest, since = next(iter(self._since.items()))
            if since > latest:
                return
            self._give_up(oldest, FIRST_MESSAGE)

    def _give_up(self, handshake: Handshake, limit: str) -> None:
        del self._since[handshake]
        handshake.give_up(limit)

    def step(self, handshake: Handshake) -> bool:
        """Let it `go_on` now, or when it is its turn; whether it was now."""
        now = not self._line and self._spent < TURN_SECONDS
        if now:
            self._go_on(handshake)
        else:
            self._line.append(handshake)
        if not self._scheduled:
            self._scheduled = True
            self._call_later(0, self._turn)
        return now

    def _go_on(self, handshake: Handshake) -> None:
        began = self._seconds()
        handshake.go_on()
        self._spent += self._seconds() - began

    def _turn(self) -> None:
        self._scheduled = False
        self._spent = 0.0
        while self._line and self._spent < TURN_SECONDS:
            handshake = self._line.popleft()
            if handshake in self._since:
                self._go_on(handshake)
        if self._line:
            self._scheduled = True
            self._call_later(0, self._turn)

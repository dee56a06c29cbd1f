"""
Fair sharing of the reactor's time, and of the disk's, among connections that send.

One read is up to 64 KiB, some six hundred calls, and a byte of one kind of
message costs ten times as much as a byte of another.  Fifty peers that send as
fast as they can, or thousands that send a little each, would each have all of
their input processed before any other peer gets a single call.  So one reactor
turn processes a bounded number of bytes for a bounded time.  The rest waits in
a queue, and each connection gets one share when its turn comes.

Connections that join the queue come before those that have had a share and
have more, so a peer with one call waits for one share of each other connection
at most, not for everything they have sent.  Every fourth share goes to a
connection that has had one, so that those advance too.  While the queue is
empty, input is processed as it is read: a peer that is alone never waits.

The request window bounds the bytes of calls that all connections have in
flight.  Commits are written in the order of decisions, so a call waits for the
bytes of all calls that were decided before it.  Producers that send without
waiting for replies could have `request_bytes` in flight each, and delay the
calls of every other peer by what the disk takes for the sum.  So no more is
read from a connection whose calls in flight exceed its share of
`REQUEST_WINDOW`, until half of that share is free.  Nothing is refused: the
peer's own transport stops.

The window is divided among the connections that have calls in flight.  A
connection that is alone may fill it, which keeps the disk busy.  A share is
`WINDOW_SHARE_MIN` at least, and one call of any length is always read.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from attrs import define, field

from queueber.broker import Peer
from queueber.units import KIB, MIB

TURN = 64 * KIB
"""Bytes processed in one reactor turn: one whole read."""

READ_TURN_SECONDS = 0.025
"""Time for them.  The share or read that exceeds it is the last of its turn."""

SHARE = 8 * KIB
"""Bytes of one connection processed at a time, unless they end within a message: some eighty calls, 3 ms."""

SHARE_MIN = 1 * KIB
"""The share if many connections wait: with `SHARE` each, the last would wait too long for its first."""

NEW_SHARES = 3
"""Shares for connections that have just joined the queue, for each share of those that have had one."""

REQUEST_WINDOW: Final = 4 * MIB
"""
Four producers at line rate delay another peer's call by 25 ms with it (p99), by 50 with twice as much, and by 500
without a window.  Halving it again would cost adds of many items some of their throughput.
"""

WINDOW_SHARE_MIN: Final = 8 * KIB


class Buffer(Protocol):
    """Bytes of one connection that wait."""

    def run_share(self, size: int) -> None:
        """Process the first *size* bytes, or as many as complete the message that has begun."""


@define(eq=False)
class ReadScheduler:
    """The queue of connections with input, and the budget of the current reactor turn."""

    _reactor: Any
    _seconds: Callable[[], float]
    """A monotonic clock."""

    _new: deque[Buffer] = field(factory=deque, init=False)
    """Connections that have just joined the queue."""

    _served: deque[Buffer] = field(factory=deque, init=False)
    """Connections that have had a share since they joined."""

    _shares: int = field(default=0, init=False)
    _left: int = field(default=TURN, init=False)
    """Bytes left of the turn's budget."""

    _spent: float = field(default=0.0, init=False)
    """Seconds of the turn's budget that are used up."""

    _scheduled: bool = field(default=False, init=False)
    """Whether the reactor will call `_turn`."""

    def run(self, data: bytes, process: Callable[[bytes], None], *, granted: bool = False) -> bool:
        """
        Process *data* and charge the turn's budget.  Return whether that was done.

        Not done, unless *granted* by the turn, while connections wait or when the budget is used up.
        """
        if not granted and (self._new or self._served or self._left <= 0 or self._spent >= READ_TURN_SECONDS):
            return False
        began = self._seconds()
        process(data)
        self._spent += self._seconds() - began
        self._left -= len(data)
        # A new turn for each short read would add its cost to every call of a server with little to do.
        if not self._scheduled and (self._left < TURN - SHARE or self._spent > READ_TURN_SECONDS / 4):
            self._schedule()
        return True

    def queue(self, buffer: Buffer, *, again: bool) -> None:
        """Let *buffer* run in a later turn; *again* if it has just had a share."""
        (self._served if again else self._new).append(buffer)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._reactor.callLater(0, self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._left, self._spent = TURN, 0.0
        share = min(SHARE, max(SHARE_MIN, TURN // max(1, len(self._new) + len(self._served))))
        while (self._new or self._served) and self._left > 0 and self._spent < READ_TURN_SECONDS:
            self._next().run_share(share)
        if self._new or self._served:
            self._schedule()

    def _next(self) -> Buffer:
        self._shares += 1
        if self._served and (not self._new or self._shares % (NEW_SHARES + 1) == 0):
            return self._served.popleft()
        return self._new.popleft()


def exceeds_share(peer: Peer, request_bytes: Mapping[Peer, int]) -> bool:
    """Whether the calls of *peer* are more than its share; *request_bytes* are those of all connections in flight."""
    own = request_bytes.get(peer, 0)
    return own > WINDOW_SHARE_MIN and own * len(request_bytes) > REQUEST_WINDOW


def has_room(peer: Peer, request_bytes: Mapping[Peer, int]) -> bool:
    """Whether *peer* uses at most half of its share."""
    own = request_bytes.get(peer, 0)
    return own <= WINDOW_SHARE_MIN or 2 * own * len(request_bytes) <= REQUEST_WINDOW

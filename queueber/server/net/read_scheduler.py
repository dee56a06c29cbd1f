"""
What peers send, carried out in shares.

A read is up to 64 KiB, some six hundred calls, and a byte of one kind of
message costs ten times as much as one of another.  Fifty peers that send as
fast as they can, or thousands that send a little each, would each get what
they sent carried out before anybody else gets a single call.  So a turn of the
reactor carries out only so many bytes, for only so long; the rest waits in
line, and a peer gets a share each time it is first in it.

Whoever joins the line comes before those who have had a share and want more,
so a peer with one call waits for one share of each of the others at most, and
not for all that they have sent.  Every fourth share is for those who want
more, so that they get on.  While nobody waits, what comes is carried out as it
is read: a peer that is alone never waits, and never for a turn.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from attrs import define, field

from queueber.units import KIB

TURN = 64 * KIB
"""Bytes that one turn carries out: a whole read."""

TURN_SECONDS = 0.025
"""For how long one turn carries them out; the share or the read that goes beyond it is the last one."""

SHARE = 8 * KIB
"""Bytes of one peer's that are carried out before it is somebody else's turn: some eighty calls, 3 ms."""

SHARE_LEAST = 1 * KIB
"""The same when many are in line, who would otherwise wait for too long for the first share."""

FRESH_SHARES = 3
"""Shares for those who have just joined the line, to one for those who have had one."""


@define(eq=False)
class ReadScheduler:
    """Whose turn it is."""

    _reactor: Any
    _seconds: Callable[[], float]
    """Monotonic."""

    _fresh: deque["InboundBuffer"] = field(factory=deque, init=False)
    _again: deque["InboundBuffer"] = field(factory=deque, init=False)
    """Those who have had a share since they joined the line."""

    _shares: int = field(default=0, init=False)
    _left: int = field(default=TURN, init=False)
    _spent: float = field(default=0.0, init=False)
    _scheduled: bool = field(default=False, init=False)

    def carry_out(self, data: bytes, carry_out: Callable[[bytes], None]) -> None:
        """Let *carry_out* have *data*, and reckon what that took."""
        began = self._seconds()
        carry_out(data)
        self._spent += self._seconds() - began
        self._left -= len(data)
        # Not for each short read: what a new turn costs would be added to every call of a server that has little to do.
        if not self._scheduled and (self._left < TURN - SHARE or self._spent > TURN_SECONDS / 4):
            self._schedule()

    @property
    def grants(self) -> bool:
        """Whether what has just come may be carried out right now: nobody waits, and the turn is not over."""
        return not (self._fresh or self._again or self._is_over)

    @property
    def _is_over(self) -> bool:
        return self._left <= 0 or self._spent >= TURN_SECONDS

    def queue(self, intake: "InboundBuffer", *, again: bool) -> None:
        """Let *intake* go on in a later turn; *again* if it has just had a share."""
        (self._again if again else self._fresh).append(intake)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._reactor.callLater(0, self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._left, self._spent = TURN, 0.0
        share = min(SHARE, max(SHARE_LEAST, TURN // max(1, len(self._fresh) + len(self._again))))
        while (self._fresh or self._again) and not self._is_over:
            self._next().go_on(share)
        if self._fresh or self._again:
            self._schedule()

    def _next(self) -> "InboundBuffer":
        self._shares += 1
        if self._again and (not self._fresh or self._shares % (FRESH_SHARES + 1) == 0):
            return self._again.popleft()
        return self._fresh.popleft()


class InboundBuffer:
    """What one peer has sent and nobody has carried out yet; its reading stops for that, or because it is held."""

    def __init__(self, transport: Any, turns: ReadScheduler, carry_out: Callable[[bytes], None]) -> None:  # noqa: ANN401
        """Give *carry_out* all that comes, in order, in as many pieces as are fair."""
        self._transport = transport
        self._turns = turns
        self._carry_out = carry_out
        self._behind = bytearray()
        self._in_line = self._held = self._stopped = False

    def __len__(self) -> int:
        """Bytes that wait to be carried out."""
        return len(self._behind)

    def received(self, data: bytes) -> None:
        """The stream's next bytes."""
        if not self._behind and not self._held and self._turns.grants:
            self._turns.carry_out(data, self._carry_out)
            return
        # TLS gives what it has already decrypted to who is not reading, too.
        self._behind += data
        self._wait()

    def go_on(self, share: int) -> None:
        """Carry out *share* bytes."""
        self._in_line = False
        piece = b"" if self._held else bytes(memoryview(self._behind)[:share])
        if piece:
            del self._behind[: len(piece)]
            self._turns.carry_out(piece, self._carry_out)
            self._wait(again=True)

    def hold(self) -> None:
        """Read no more and carry out no more, until `release`."""
        self._held = True
        self._read()

    def release(self) -> None:
        """Go on."""
        self._held = False
        self._wait()

    def forget(self) -> None:
        """The connection ends: what waits or still comes is not carried out, and nobody is held on to."""
        self._behind.clear()
        self._held = False
        self._carry_out = _nobody
        self._read()

    def _wait(self, *, again: bool = False) -> None:
        if self._behind and not self._in_line and not self._held:
            self._in_line = True
            self._turns.queue(self, again=again)
        self._read()

    def _read(self) -> None:
        # Whoever has sent a little is read on: to stop and to go on would cost more than what is kept meanwhile.
        stop = self._held or len(self._behind) > SHARE
        if stop != self._stopped:
            self._stopped = stop
            if stop:
                self._transport.pauseProducing()
            else:
                self._transport.resumeProducing()


def _nobody(data: bytes) -> None:
    """There is nobody to carry it out."""

"""
What peers send, carried out in shares.

A read is up to 64 KiB, some six hundred calls.  Fifty peers that send as fast
as they can would each get such a read carried out before anybody else gets a
single call.  So a turn of the reactor carries out only so much of long reads;
the rest waits in line, a share of each peer's in turn, and who waits is not
read meanwhile.  A short read, which is all that most peers ever send, is
carried out at once.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from attrs import define, field

from queueber.units import KIB

SHARE = 8 * KIB
"""Bytes of one peer's that are carried out before it is somebody else's turn: some eighty calls, 3 ms."""

TURN = 64 * KIB
"""Bytes of long reads that one turn carries out: a whole read, so that a peer that is busy alone never waits."""


@define(eq=False)
class Turns:
    """Whose turn it is."""

    _reactor: Any
    _line: deque["Intake"] = field(factory=deque, init=False)
    _left: int = field(default=TURN, init=False)
    _scheduled: bool = field(default=False, init=False)

    def grants(self, size: int) -> bool:
        """Whether *size* bytes of a long read may be carried out right now; if so they are counted."""
        if self._line or size > self._left:
            return False
        self._left -= size
        self._schedule()
        return True

    def queue(self, intake: "Intake") -> None:
        """Let *intake* go on in a later turn."""
        self._line.append(intake)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._reactor.callLater(0, self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._left = TURN
        while self._line and self._left > 0:
            self._left -= self._line.popleft().go_on()
        if self._line:
            self._schedule()


class Intake:
    """What one peer has sent and nobody has carried out yet; its reading stops for that, or because it is held."""

    def __init__(self, transport: Any, turns: Turns, carry_out: Callable[[bytes], None]) -> None:  # noqa: ANN401
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
        if not self._behind and not self._held and (len(data) <= SHARE or self._turns.grants(len(data))):
            self._carry_out(data)
            return
        # TLS gives what it has already decrypted to who is not reading, too.
        self._behind += data
        self._wait()

    def go_on(self) -> int:
        """Carry out a share; the bytes of it."""
        self._in_line = False
        piece = b"" if self._held else bytes(memoryview(self._behind)[:SHARE])
        if piece:
            del self._behind[: len(piece)]
            self._carry_out(piece)
            self._wait()
        return len(piece)

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

    def _wait(self) -> None:
        if self._behind and not self._in_line and not self._held:
            self._in_line = True
            self._turns.queue(self)
        self._read()

    def _read(self) -> None:
        stop = self._held or bool(self._behind)
        if stop != self._stopped:
            self._stopped = stop
            if stop:
                self._transport.pauseProducing()
            else:
                self._transport.resumeProducing()


def _nobody(data: bytes) -> None:
    """There is nobody to carry it out."""

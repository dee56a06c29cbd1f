"""
The time of a server under test, which moves only on request, and the work that is due.

What is due at once is run in the next turn of the reactor, so that a client gets
its reply without a move of the time.
"""

from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock

from queueber.server.core.clock import QueueClock
from queueber.testing.memory import StepPool
from queueber.units import MS_PER_SECOND, WallMs

P = ParamSpec("P")
T = TypeVar("T")


CREEP_MS: Final = 2
"""The most by which an item that comes back at once is due later than now."""


class _DueClock(Clock):
    """A `Clock` that reports each call that is due at once."""

    def __init__(self, on_due: Callable[[], None]) -> None:
        super().__init__()
        self._on_due = on_due

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> IDelayedCall:  # noqa: A002  (as Twisted has it)
        call = super().callLater(delay, callable, *args, **kw)
        if delay <= 0:
            self._on_due()
        return call


class _DuePool(StepPool):
    """A `StepPool` that reports each job."""

    def __init__(self, on_due: Callable[[], None]) -> None:
        super().__init__()
        self._on_due = on_due

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        done = super().run(function, *args, **kwargs)
        self._on_due()
        return done


class VirtualTime:
    """A clock, a storage pool and queue time of one server.  Belongs to the thread of *reactor*."""

    def __init__(self, reactor: Any, start: float) -> None:  # noqa: ANN401
        """Let queue time begin at *start*, in seconds since the epoch; run due work in turns of *reactor*."""
        self._reactor = reactor
        self._scheduled = False
        self.clock = _DueClock(self._schedule)
        self.pool = _DuePool(self._schedule)
        seconds = self.clock.seconds
        self.queue_clock = QueueClock(lambda: start + seconds(), seconds, seconds, b"t" * 16)
        self.queue_clock.begin(None)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._reactor.callLater(0, self.settle)

    def settle(self) -> None:
        """Run all that is due now, and all that becomes due by that."""
        # Work that this makes due is not reported: the loop finds it.
        self._scheduled = True
        try:
            while True:
                self.clock.advance(0)
                if not self.pool.jobs:
                    return
                while self.pool.jobs:
                    self.pool.step()
        finally:
            self._scheduled = False

    def next_call(self) -> float | None:
        """Return the time of the clock's next call, in its seconds; None if there is none."""
        return min((call.getTime() for call in self.clock.getDelayedCalls()), default=None)

    def seconds_of(self, moment: WallMs) -> float:
        """Return the clock's seconds at *moment* in queue time."""
        return self.clock.seconds() + (moment - self.queue_clock.now()) / MS_PER_SECOND

    def creep(self, moment: WallMs) -> None:
        """
        Move the time to *moment* if that is at most `CREEP_MS` away.

        An item that comes back becomes due later than before, by a millisecond if need be, which real time hides.
        """
        if 0 < moment - self.queue_clock.now() <= CREEP_MS:
            self.clock.rightNow = self.seconds_of(moment)

    def move_to(self, seconds: float) -> None:
        """Set the clock, which never goes back, to *seconds*, and run what is due then."""
        self.clock.rightNow = max(seconds, self.clock.rightNow)
        self.settle()

"""
Counters of the server's own work: calls, commits, and the reactor's lag.

Plain numbers, updated where the work is done.  The metrics and the console
read them on request.
"""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from attrs import define, field

from queueber.capnp.schema import schema
from queueber.errors import Kind
from queueber.server.core.histogram import BYTES, ROWS, SECONDS, Histogram

METHODS: Final = {
    (interface.id, number): method
    for interface in (schema().interfaces[name] for name in ("Queue", "Broker", "QueueControl"))
    for number, method in enumerate(interface.methods)
}
"""The names under which calls are counted, by interface and number: those in the schema.  No two are equal."""

OTHER_METHOD = "other"
"""The name under which calls of methods are counted that the server does not have."""

TIMED = ("add", "remove", "poll", "extend", "settle", "pollAny")
"""The methods that wait for a commit in ordinary work."""

ALL = (*METHODS.values(), OTHER_METHOD)

LAG_SECONDS = 0.1
"""Between two measurements of the reactor's lag."""

_LAGS_KEPT = 600
_COMMITS_KEPT = 256

_new: Final = tuple.__new__
"""Makes a named tuple out of a plain one, in a third of the time that its class takes."""


@define(eq=False)
class CallStats:
    """Calls by method: their number, the time until their replies, and refusals."""

    outstanding: int = 0
    """Calls that are not answered.  The handlers add, and the connections subtract with each reply."""

    begun: Counter[str] = field(factory=Counter, init=False)
    refused: Counter[tuple[str, Kind]] = field(factory=Counter, init=False)
    seconds: dict[str, Histogram] = field(factory=lambda: {name: Histogram(SECONDS) for name in TIMED}, init=False)
    """From reading a call to returning its reply.  The time of a poll includes its wait."""


class Commit(NamedTuple):
    """One commit that was made."""

    ended: float
    """When, in the reactor's seconds."""

    seconds: float
    """From its cut until it was durable; it may have waited for a storage thread."""

    plans: int
    rows: int
    """Written rows of items and leases."""

    bytes: int
    """Length of the written contents."""


@define(eq=False)
class CommitStats:
    """All commits of the process, and the last of them one by one."""

    seconds: Histogram = field(factory=lambda: Histogram(SECONDS), init=False)
    rows: Histogram = field(factory=lambda: Histogram(ROWS), init=False)
    bytes: Histogram = field(factory=lambda: Histogram(BYTES), init=False)
    syncs: Histogram = field(factory=lambda: Histogram(SECONDS), init=False)
    """Seconds that each sync of the log took; observed by the thread that made it."""

    stalls: int = field(default=0, init=False)
    """Attempts that the engine refused because it has to catch up."""

    last: deque[Commit] = field(factory=lambda: deque(maxlen=_COMMITS_KEPT), init=False)

    def made(self, ended: float, seconds: float, plans: int, rows: int, size: int) -> None:
        """Count a commit that is durable; the arguments are the fields of `Commit`."""
        # `Histogram.observe` three times, without the calls: this runs for each commit, lone calls' included.
        for histogram, value in ((self.seconds, seconds), (self.rows, rows), (self.bytes, size)):
            histogram.counts[bisect_left(histogram.bounds, value)] += 1
            histogram.total += value
        self.last.append(_new(Commit, (ended, seconds, plans, rows, size)))

    def stalled(self) -> None:
        """Count an attempt that the engine refused."""
        self.stalls += 1

    def since(self, moment: float) -> Iterator[Commit]:
        """Return the last commits that ended after *moment*, latest first."""
        for commit in reversed(self.last):
            if commit.ended <= moment:
                break
            yield commit


@define(eq=False)
class ReactorLag:
    """The time by which the reactor runs a timer too late."""

    _seconds: Callable[[], float]
    lateness: Histogram = field(factory=lambda: Histogram(SECONDS), init=False)
    _last: float | None = field(default=None, init=False)
    _recent: deque[float] = field(factory=lambda: deque(maxlen=_LAGS_KEPT), init=False)

    def measure(self) -> None:
        """Record the lag.  To be called every `LAG_SECONDS`."""
        now = self._seconds()
        if self._last is not None:
            late = max(0.0, now - self._last - LAG_SECONDS)
            self.lateness.observe(late)
            self._recent.append(late)
        self._last = now

    def worst(self, seconds: float) -> float:
        """Return the largest lag of the last *seconds*; the last minute is kept."""
        count = max(1, round(seconds / LAG_SECONDS))
        return max(list(self._recent)[-count:], default=0.0)

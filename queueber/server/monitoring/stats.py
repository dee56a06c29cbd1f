"""
What the server counts of its own work: calls, commits, and how late the reactor is.

Plain numbers, added to where the work is done.  Whoever wants to show them,
as metrics or at the console, reads them when asked.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator

from attrs import define, field, frozen

from queueber import api
from queueber.errors import Kind
from queueber.server.monitoring.histogram import BYTES, ROWS, SECONDS, Histogram

METHODS = {api.ADD: "add", api.REMOVE: "remove", api.POLL: "poll", api.EXTEND: "extend"}
QUEUE = "queue"
LIMITS = "limits"
OTHER = "other"
"""What stands for all methods that the server does not have."""

ALL = (*METHODS.values(), QUEUE, LIMITS, OTHER)

LAG_SECONDS = 0.1
"""Between two looks at how late the reactor is."""

_LAGS_KEPT = 600
_COMMITS_KEPT = 256


@define(eq=False)
class Calls:
    """Calls by method: how many, how long until their replies were given, and how many were refused."""

    begun: Counter[str] = field(factory=Counter, init=False)
    refused: Counter[tuple[str, Kind]] = field(factory=Counter, init=False)
    seconds: dict[str, Histogram] = field(
        factory=lambda: {name: Histogram(SECONDS) for name in METHODS.values()}, init=False
    )
    """From reading a call to giving its reply.  A poll's includes its wait."""


@frozen
class Commit:
    """One commit that was made."""

    ended: float
    """When, in the reactor's seconds."""

    seconds: float
    """From its cut, for which it may have waited, until it was durable."""

    plans: int
    rows: int
    bytes: int
    """Of contents."""


@define(eq=False)
class Commits:
    """All commits of the process, and the last of them one by one."""

    seconds: Histogram = field(factory=lambda: Histogram(SECONDS), init=False)
    rows: Histogram = field(factory=lambda: Histogram(ROWS), init=False)
    bytes: Histogram = field(factory=lambda: Histogram(BYTES), init=False)
    syncs: Histogram = field(factory=lambda: Histogram(SECONDS), init=False)
    """Seconds that each sync of the log took; observed by the thread that made it."""

    stalls: int = field(default=0, init=False)
    """Attempts that the engine put off because it has to catch up."""

    begun: float | None = field(default=None, init=False)
    """Since when the one under way is, in the reactor's seconds; None if there is none."""

    last: deque[Commit] = field(factory=lambda: deque(maxlen=_COMMITS_KEPT), init=False)

    def made(self, commit: Commit) -> None:
        """It is durable."""
        self.begun = None
        self.seconds.observe(commit.seconds)
        self.rows.observe(commit.rows)
        self.bytes.observe(commit.bytes)
        self.last.append(commit)

    def age(self, now: float) -> float:
        """Seconds for which a commit has been under way; 0 if none is."""
        return 0.0 if self.begun is None else now - self.begun

    def since(self, moment: float) -> Iterator[Commit]:
        """Those of the last ones that ended after *moment*, latest first."""
        for commit in reversed(self.last):
            if commit.ended <= moment:
                break
            yield commit


@define(eq=False)
class Lag:
    """How much later than it should the reactor comes to a timer."""

    _seconds: Callable[[], float]
    lateness: Histogram = field(factory=lambda: Histogram(SECONDS), init=False)
    _last: float | None = field(default=None, init=False)
    _recent: deque[float] = field(factory=lambda: deque(maxlen=_LAGS_KEPT), init=False)

    def look(self) -> None:
        """Note how late it is.  To be called every `LAG_SECONDS`."""
        now = self._seconds()
        if self._last is not None:
            late = max(0.0, now - self._last - LAG_SECONDS)
            self.lateness.observe(late)
            self._recent.append(late)
        self._last = now

    def worst(self, seconds: float) -> float:
        """The most of the last *seconds*, of which a minute is remembered."""
        count = max(1, round(seconds / LAG_SECONDS))
        return max(list(self._recent)[-count:], default=0.0)

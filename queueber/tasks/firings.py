"""
The firings of an app's periodic tasks, without I/O: time comes in, firings to add come out.

Each firing is an item that is added a little before it is due, with its time as
the moment at which it becomes due.  So a scheduler that is down for less than that misses nothing, and the server's
clock alone decides when the task runs.

Any number of schedulers may run.  All of them add each firing, and the server
keeps the first: the request id of the add is a function of task and firing, and
a server answers a second call with it from its record, for ten minutes.  The
firing has a deduplication key as well, which counts for the queue's
`dedup_window_ms`, five minutes unless configured, and longer than the request
id if that is longer.  A queue without a window is served by the request id.

A firing whose time has passed is added late, but only as long as these records
are sure to exist.  Of several such firings of a task only the last one is added.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from queueber.errors import InvalidRequest
from queueber.fixed_limits import DEDUP_KEY_BYTES_MAX, ID_BYTES
from queueber.tasks.periodic import Timing
from queueber.units import MINUTE, MS_PER_SECOND, SpanMs, WallMs

RECORD_MS: Final = SpanMs(10 * MINUTE)
"""The time for which a server answers an add with a request id from its record."""

SKEW_MS: Final = SpanMs(4 * MINUTE)
"""The most by which the clocks of schedulers may differ."""

AHEAD_MS: Final = SpanMs(MINUTE)
CATCH_UP_MS: Final = SpanMs(RECORD_MS - AHEAD_MS - SKEW_MS)
"""`AHEAD_MS` before its time a firing is added, and until `CATCH_UP_MS` after it."""

LOOK_MS: Final = SpanMs(30 * MS_PER_SECOND)
"""The longest time between two looks at the clock, which may be set."""

RETRY_MS: Final = SpanMs(5 * MS_PER_SECOND)
"""The time between two tries to add a firing that could not be added."""


class Firing(NamedTuple):
    """One firing of a periodic task."""

    task: str
    queue: str
    at: WallMs

    @property
    def request_id(self) -> bytes:
        """The request id of its add: the same in all schedulers."""
        # Imported here, because it loads OpenSSL, and few programs have periodic tasks.
        from hashlib import blake2b  # noqa: PLC0415

        return blake2b(f"{self.queue}\0{self.task}\0{self.at}".encode(), digest_size=ID_BYTES).digest()

    @property
    def key(self) -> bytes:
        """The deduplication key of its add."""
        found = f"{self.task}@{self.at}".encode()
        assert len(found) <= DEDUP_KEY_BYTES_MAX, "the name of a task is shorter"
        return found

    def __str__(self) -> str:
        return f"{self.task} at {datetime.fromtimestamp(self.at / MS_PER_SECOND, UTC).isoformat()}"


class Schedule:
    """The firings to add, of all periodic tasks."""

    def __init__(
        self, tasks: Mapping[tuple[str, str], Timing], ahead: SpanMs = AHEAD_MS, catch_up: SpanMs = CATCH_UP_MS
    ) -> None:
        """*tasks* has the timing of each task, by its name and queue."""
        self._tasks = tasks
        self.ahead = ahead
        self.catch_up = catch_up
        self._covered: dict[str, WallMs] = {}
        """For each task: the time up to which its firings have been found."""

        self._pending: list[Firing] = []

    def due(self, now: WallMs) -> Sequence[Firing]:
        """Return the firings to add now, those that could not be added before included, in the order of their times."""
        for (task, queue), timing in self._tasks.items():
            # A clock that was put back fires nothing twice.
            covered = max(self._covered.get(task, WallMs(0)), now - self.catch_up)
            late = timing.latest(WallMs(covered), now)
            if late is not None:
                self._pending.append(Firing(task, queue, late))
            covered = max(covered, now)
            while (at := timing.after(WallMs(covered))) is not None and at <= now + self.ahead:
                self._pending.append(Firing(task, queue, at))
                covered = at
            self._covered[task] = WallMs(covered)
        last = {each.task: each for each in self._pending if each.at <= now}
        self._pending = sorted(
            (each for each in self._pending if each.at > now or each is last[each.task]), key=lambda each: each.at
        )
        return tuple(self._pending)

    def added(self, firing: Firing) -> None:
        """Note that a firing is on the server's disk."""
        self._pending.remove(firing)

    def given_up(self, now: WallMs) -> Sequence[Firing]:
        """Return the firings for which it is too late, and forget them."""
        late = [each for each in self._pending if each.at < now - self.catch_up]
        self._pending = [each for each in self._pending if each not in late]
        return late

    def wait(self, now: WallMs) -> SpanMs:
        """Return the time until the next look."""
        if self._pending:
            return RETRY_MS
        nearest = LOOK_MS
        for (task, _), timing in self._tasks.items():
            at = timing.after(self._covered.get(task, now))
            if at is not None:
                nearest = SpanMs(min(nearest, at - self.ahead - now))
        return SpanMs(max(nearest, 1))

    def next_firing(self, after: WallMs) -> WallMs | None:
        """Return when a task fires first after *after*; None if none does in the next 50 years."""
        return min((at for timing in self._tasks.values() if (at := timing.after(after)) is not None), default=None)

    def firings_at(self, moment: WallMs) -> Sequence[Firing]:
        """Return the firings at *moment*."""
        before = WallMs(moment - 1)
        return [
            Firing(task, queue, moment) for (task, queue), each in self._tasks.items() if each.after(before) == moment
        ]

    def window_needed(self) -> SpanMs | None:
        """Return the deduplication window that the queues need; None if request ids suffice."""
        needed = SpanMs(self.ahead + self.catch_up + SKEW_MS)
        return needed if needed > RECORD_MS else None


def check_window(queue: str, window: SpanMs, needed: SpanMs) -> None:
    """
    Check that a queue remembers its firings for as long as they may be added late.

    Raises:
        InvalidRequest: it does not.
    """
    if window < needed:
        raise InvalidRequest(
            f"the queue {queue} has a dedup_window_ms of {window:,}; a scheduler with this catch_up needs {needed:,}, "
            f"or a firing could be added twice: queueber configure --queue {queue} dedup-window-ms={needed}"
        )

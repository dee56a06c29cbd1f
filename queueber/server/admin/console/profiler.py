"""Where the process spends its time, found out by looking at all its threads again and again."""

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred

from queueber.server.admin.console.tables import Table

INTERVAL_SECONDS = 0.01
SECONDS_MAX = 60.0
_SHOWN = 25
_DEPTH_MAX = 200

_TASKS = Path("/proc/self/task")
_CPU_FIELDS = slice(11, 13)
"""utime and stime, counted from behind the name."""


@define(eq=False)
class Samples:
    """How often each function was found at work, and how often anywhere below one that was."""

    looks: int = 0
    itself: Counter[str] = field(factory=Counter)
    below: Counter[str] = field(factory=Counter)

    def take(self, but: int) -> None:
        """Look once at all threads except that with the identity *but*."""
        self.looks += 1
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():  # noqa: SLF001  (there is no other way)
            if ident != but:
                self._count(names.get(ident, "?"), frame)

    def _count(self, thread: str, frame: FrameType) -> None:
        self.itself[f"{thread}: {place(frame)}"] += 1
        seen: set[str] = set()
        above: FrameType | None = frame
        while above is not None and len(seen) < _DEPTH_MAX:
            seen.add(f"{thread}: {place(above)}")
            above = above.f_back
        self.below.update(seen)

    def table(self) -> Table:
        """Those found most often."""
        looks = max(1, self.looks)
        rows = [
            (round(100 * count / looks), round(100 * self.below[where] / looks), where)
            for where, count in self.itself.most_common(_SHOWN)
        ]
        note = f"{self.looks} looks; % is of the looks at that thread: in the function itself, and with what it calls"
        return Table(("% itself", "% in all", "thread: function"), rows, note)


def place(frame: FrameType) -> str:
    """The function of *frame*, with its file and line."""
    code = frame.f_code
    return f"{code.co_qualname} ({'/'.join(Path(code.co_filename).parts[-2:])}:{code.co_firstlineno})"


class Sampler:
    """Takes samples in a thread of its own, one series at a time."""

    def __init__(self, reactor: Any) -> None:  # noqa: ANN401
        self._reactor = reactor
        self._busy = False

    def profile(self, seconds: float) -> Deferred[Table]:
        """
        Fires with a table after *seconds*, during which everything goes on.

        Raises:
            ValueError: another one is under way, or the span is of no use.
        """
        if self._busy:
            raise ValueError("another profile is being made")
        if not INTERVAL_SECONDS <= seconds <= SECONDS_MAX:
            raise ValueError(f"seconds is {seconds}; it must be {INTERVAL_SECONDS} to {SECONDS_MAX:.0f}")
        self._busy = True
        done: Deferred[Table] = Deferred()

        def sample() -> None:
            samples = Samples()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                samples.take(threading.get_ident())
                time.sleep(INTERVAL_SECONDS)
            self._reactor.callFromThread(self._done, done, samples)

        threading.Thread(target=sample, name="queueber-sample", daemon=True).start()
        return done

    def _done(self, done: Deferred[Table], samples: Samples) -> None:
        self._busy = False
        done.callback(samples.table())


@frozen
class ThreadState:
    """One thread."""

    number: int
    name: str
    """What `ps -L` and `top -H` show."""

    cpu_seconds: float
    at: str
    """The Python function it is in; nothing for RocksDB's own."""


def thread_states() -> Iterator[ThreadState]:
    """All threads of the process; none where the system does not tell."""
    python = {thread.native_id: thread.ident for thread in threading.enumerate()}
    frames = sys._current_frames()  # noqa: SLF001  (there is no other way)
    ticks = os.sysconf("SC_CLK_TCK")
    for task in sorted(_TASKS.glob("*"), key=lambda path: int(path.name)):
        try:
            name = (task / "comm").read_text().strip()
            fields = (task / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        frame = frames.get(python.get(int(task.name)) or 0)
        cpu = sum(map(int, fields[_CPU_FIELDS])) / ticks
        yield ThreadState(int(task.name), name, cpu, place(frame) if frame is not None else "")

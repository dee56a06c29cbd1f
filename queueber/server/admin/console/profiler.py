"""A sampling profiler, and a list of the process's threads."""

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

SAMPLE_SECONDS = 0.01
PROFILE_SECONDS_MAX = 60.0
_SHOWN = 25
_DEPTH_MAX = 200

_TASKS = Path("/proc/self/task")
_CPU_FIELDS = slice(11, 13)
"""utime and stime in ``/proc/PID/stat``, counted after the name."""


@define(eq=False)
class Samples:
    """Counts of functions in the samples: running, and running or calling others."""

    samples: int = 0
    running: Counter[str] = field(factory=Counter)
    in_stack: Counter[str] = field(factory=Counter)

    def take(self, but: int) -> None:
        """Take a sample of all threads except the one with the identity *but*."""
        self.samples += 1
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():  # noqa: SLF001  (no public function exists)
            if ident != but:
                self._count(names.get(ident, "?"), frame)

    def _count(self, thread: str, frame: FrameType) -> None:
        self.running[f"{thread}: {place(frame)}"] += 1
        seen: set[str] = set()
        above: FrameType | None = frame
        while above is not None and len(seen) < _DEPTH_MAX:
            seen.add(f"{thread}: {place(above)}")
            above = above.f_back
        self.in_stack.update(seen)

    def table(self) -> Table:
        """Return the functions that were found most often."""
        samples = max(1, self.samples)
        rows = [
            (round(100 * count / samples), round(100 * self.in_stack[where] / samples), where)
            for where, count in self.running.most_common(_SHOWN)
        ]
        note = f"{self.samples} samples; % of those of the thread: in the function itself, and with its callees"
        return Table(("% itself", "% in all", "thread: function"), rows, note)


def place(frame: FrameType) -> str:
    """Return the function of *frame*, with its file and line."""
    code = frame.f_code
    return f"{code.co_qualname} ({'/'.join(Path(code.co_filename).parts[-2:])}:{code.co_firstlineno})"


class Sampler:
    """The profiler, which samples in a thread of its own, one profile at a time."""

    def __init__(self, reactor: Any) -> None:  # noqa: ANN401
        self._reactor = reactor
        self._busy = False

    def profile(self, seconds: float) -> Deferred[Table]:
        """
        Sample all threads for *seconds*, while the server goes on, and return a table.

        Raises:
            ValueError: a profile is under way, or *seconds* is out of range.
        """
        if self._busy:
            raise ValueError("another profile is under way")
        if not SAMPLE_SECONDS <= seconds <= PROFILE_SECONDS_MAX:
            raise ValueError(f"seconds is {seconds}; it must be {SAMPLE_SECONDS} to {PROFILE_SECONDS_MAX:.0f}")
        self._busy = True
        done: Deferred[Table] = Deferred()

        def sample() -> None:
            samples = Samples()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                samples.take(threading.get_ident())
                time.sleep(SAMPLE_SECONDS)
            self._reactor.callFromThread(self._done, done, samples)

        threading.Thread(target=sample, name="queueber-sample", daemon=True).start()
        return done

    def _done(self, done: Deferred[Table], samples: Samples) -> None:
        self._busy = False
        done.callback(samples.table())


@frozen
class ThreadState:
    """The state of a thread."""

    number: int
    name: str
    """The name that `ps -L` and `top -H` show."""

    cpu_seconds: float
    at: str
    """The Python function that it executes; empty for RocksDB's threads."""


def thread_states() -> Iterator[ThreadState]:
    """Yield all threads of the process; none without ``/proc``."""
    python = {thread.native_id: thread.ident for thread in threading.enumerate()}
    frames = sys._current_frames()  # noqa: SLF001  (no public function exists)
    ticks = os.sysconf("SC_CLK_TCK")
    for task in sorted(_TASKS.glob("*"), key=lambda path: int(path.name)):
        try:
            name = (task / "comm").read_text().strip()
            fields = (task / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # the thread has ended meanwhile
        frame = frames.get(python.get(int(task.name)) or 0)
        cpu = sum(map(int, fields[_CPU_FIELDS])) / ticks
        yield ThreadState(int(task.name), name, cpu, place(frame) if frame is not None else "")

"""The process's threads, as the operating system and as Python sees them."""

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from queueber.server.admin.console.profiler import place

_TASKS = Path("/proc/self/task")
_CPU_FIELDS = slice(11, 13)
"""utime and stime, counted from behind the name."""


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

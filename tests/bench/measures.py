"""Measurements by the kernel of a process and all that it started: time, bytes written, memory."""

import contextlib
import os
from pathlib import Path

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def fields(pid):
    """Return the fields of `/proc/PID/stat` after the name, which may contain anything: the state is number 0."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def family(pid):
    """*pid* and all its descendants that are there."""
    children = {}
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            with contextlib.suppress(OSError):
                children.setdefault(int(fields(each.name)[1]), []).append(int(each.name))
    found, rest = [], [int(pid)]
    while rest:
        found.append(rest.pop())
        rest += children.get(found[-1], [])
    return found


def cpu_seconds(pid):
    """User and system time of all threads of a process, and of its children that have ended."""
    stat = fields(pid)
    return sum(map(int, stat[11:15])) / CLOCK_TICKS


def thread_seconds(pid):
    """The time of a process's first thread, to the nanosecond where the kernel has it: the reactor of our servers."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9
    stat = Path(f"/proc/{pid}/task/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / CLOCK_TICKS


def status(pid, name):
    """A line of `/proc/PID/status`, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0


def resident(pid):
    """Return the resident memory of one process, in bytes."""
    return status(pid, "VmRSS")


class Use:
    """The resources that a server used between two moments."""

    def __init__(self, pid):
        self.pid = pid
        self.begun = self.now()

    def now(self):
        cpu = written = peak = 0
        for each in family(self.pid):
            with contextlib.suppress(OSError):
                cpu += cpu_seconds(each)
                peak += status(each, "VmHWM")
                io = dict(line.split(": ") for line in Path(f"/proc/{each}/io").read_text().splitlines())
                written += int(io["write_bytes"]) - int(io["cancelled_write_bytes"])
        return cpu, written, peak, thread_seconds(self.pid)

    def so_far(self):
        """Seconds and bytes since the beginning; the peak memory is that of all its processes together."""
        cpu, written, peak, thread = self.now()
        return {
            "server_cpu": cpu - self.begun[0],
            "written": max(0, written - self.begun[1]),
            "peak": peak,
            "thread_cpu": thread - self.begun[3],
        }

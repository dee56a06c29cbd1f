"""
The task that every library runs: it notes that it was started, and nothing else.

Each start is one record in a file that all workers append to.  The clock is
the machine's monotonic one, which all its processes share.
"""

import os
import time
from struct import Struct

RECORD = Struct("<qqqq")
"""The number of the task, when it was added, when it was started, and the process that ran it."""

PAYLOAD = "x" * 100
_file = None


def started(number, added, pause=0.0):
    """Note the start of task *number*, *added* at that time, and take *pause* seconds."""
    global _file  # noqa: PLW0603  (each process opens it once)
    if _file is None:
        _file = os.open(os.environ["BENCH_RECORDS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(_file, RECORD.pack(number, added, time.monotonic_ns(), os.getpid()))
    if pause:
        time.sleep(pause)


def adding(arguments, add):
    """Call *add* as the command line says: how many tasks, the seconds between two, and how long each takes."""
    count, interval, pause = int(arguments[0]), float(arguments[1]), float(arguments[2])
    for number in range(count):
        add(number, time.monotonic_ns(), PAYLOAD, pause)
        if interval:
            time.sleep(interval)

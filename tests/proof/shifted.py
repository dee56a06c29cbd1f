"""
Sets the clocks of a running server, in its process.

Only Python reads the wall clock there, so a function in the place of `time.time`
has the effect of a clock that was set.  No program can set the boot clock of a
running machine, and a function can.
"""

import json
import time
from functools import partial

from queueber.server.app import startup
from queueber.server.core import clock

UNSHIFTED = {"wall": 0.0, "boot": 0.0}


def follow(path):
    """Let the wall clock and the boot clock differ from the machine's by the seconds in the file *path*, always."""
    really, since_boot = time.time, clock.read_boot_time
    time.time = lambda: really() + read(path)["wall"]
    startup.QueueClock = partial(
        clock.QueueClock, wall=time.time, boot_time=lambda: max(0.0, since_boot() + read(path)["boot"])
    )


def read(path):
    """Return the clocks that the file contains."""
    return json.loads(path.read_text())


def write(path, **shifts):
    """Set the clocks of the servers that follow the file, all at once."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps((read(path) if path.exists() else UNSHIFTED) | shifts))
    new.rename(path)

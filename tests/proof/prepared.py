"""
Prepares a process that becomes a server: failpoints, bounds, a boot id and clocks as a test wants them.

Imported by the new process alone, and so imports nothing that a server does not need.
"""

import re
import time
from functools import partial
from pathlib import Path

import failpoints
import shifted

from queueber.broker import sessions
from queueber.server.config import settings
from queueber.server.core import clock
from queueber.units import SpanMs

TRACER_SECONDS = 60.0
LOOK_SECONDS = 0.003

SESSION_GRACE_MS = 300
"""The least grace of a session: ten seconds would be longer than the lives of these servers."""

SESSION_RESTART_MS = 2_000
"""`tenure.SESSION_RESTART_SECONDS`"""


def wait_for_tracer():
    """Wait until this process is traced."""
    deadline = time.monotonic() + TRACER_SECONDS
    while re.search(r"^TracerPid:\t0$", Path("/proc/self/status").read_text(), re.MULTILINE):
        assert time.monotonic() < deadline, "no process traces this one"
        time.sleep(LOOK_SECONDS)


def prepare(limits, traced, failpoint=None, passes=None, boot=None, clocks=None):
    """Change what a test requests, in the process that becomes a server."""
    if traced:
        wait_for_tracer()
    sessions.GRACE_MIN, sessions.GRACE_DEFAULT = SpanMs(SESSION_GRACE_MS), SpanMs(SESSION_RESTART_MS)
    if limits is not None:
        made, options = settings.OPTION_TABLES["limits"]
        settings.OPTION_TABLES["limits"] = partial(made, **limits), options
    if boot is not None:
        clock.BOOT_ID = Path(boot)
    if clocks is not None:
        shifted.follow(Path(clocks))
    if failpoint is not None:
        failpoints.kill_at(*failpoint)
    elif passes is not None:
        failpoints.count_into(Path(passes))

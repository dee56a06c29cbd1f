"""
Room for connections among the files a process may have open.

Whoever can make connections could otherwise use up what the store needs for
its next file, and a store that cannot write ends the process.
"""

import contextlib
import resource

from attrs import evolve
from twisted.logger import Logger

from queueber.limits import Limits

STORE_FILES = 768
"""
What the store has open at most: its tables, its logs, its notes; and the process's own few.

A hundred are for connections that had to make room: Twisted accepts so many in
a turn, and what is cut off in that turn is closed in the next.
"""


def within_descriptors(limits: Limits, log: Logger) -> Limits:
    """
    *limits* with as many connections as there is room for beside the store.

    The process is first allowed as many open files as that takes, where the
    system lets it.  Says so in *log* when that is fewer connections than asked for.
    """
    wanted = limits.connections + STORE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # Some systems refuse what they said they would allow.
        with contextlib.suppress(ValueError, OSError):
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limits
    room = soft - min(STORE_FILES, soft // 2)
    if room >= limits.connections:
        return limits
    log.warn(
        "Connections: {room} at most instead of {wanted}, because the process may have only {files} files open",
        room=room,
        wanted=limits.connections,
        files=soft,
    )
    return evolve(limits, connections=room)

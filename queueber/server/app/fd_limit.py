"""
The files that a process may have open, shared out before any is opened.

Connections, the engine's tables and blobs, scrapes of metrics and the process's
own files together must not exceed what there is: a store that finds no
descriptor for its next file cannot write, and ends the process.  Where there are
too few for all that is wanted, all are lowered together.
"""

import contextlib
import os
import resource
from collections.abc import Callable
from typing import Any

from attrs import frozen

from queueber.errors import QueueberError
from queueber.units import counted

OWN_FILES = 48
"""
Standard streams, event loop, log, listeners, console, lock, note; the engine's logs, manifest and files under way.

About 30 after a start.
"""

OPEN_AT_FIRST = 16
"""Of these, the ones that are open when the rest is shared out: streams, event loop, log and some listeners."""

TURNED_AWAY = 100
"""
Connections that had to make room.

Twisted accepts so many in a turn, and what is cut off in that turn is closed in the next.
"""

STORE_FILES = 768
"""What there must be beside the connections so that nothing is lowered: the above, 512 tables and a hundred scrapes."""

TABLES_MIN = 40
"""A walk has all tables of the newest level open, of which there are 36 at most before writes wait for a merge."""

CONNECTIONS_MIN = 8
PAGES_MIN = 4

FILES_MIN = 128
"""The least with which all of this can be had."""


class TooFewDescriptors(QueueberError):
    """The process may not have as many files open as a server needs."""


@frozen
class Descriptors:
    """What may be open at the same time."""

    files: int | None
    """By all of the process; None for no bound."""

    connections: int
    tables: int
    """Tables and blobs of the engine."""

    pages: int
    """Connections to the metrics' port; 0 without one."""

    own: int = OWN_FILES
    """The server's own files, and those that it was started with."""

    def describe(self, wanted: "Descriptors") -> str:
        """What there is, and what was *wanted* where that is more."""
        parts = [
            counted(mine, *name) + (f" instead of {asked:,}" if mine < asked else "")
            for name, mine, asked in (
                (("connection",), self.connections, wanted.connections),
                (("table or blob", "tables and blobs"), self.tables, wanted.tables),
                (("connection for metrics", "connections for metrics"), self.pages, wanted.pages),
            )
            if asked
        ]
        files = "no bound" if self.files is None else f"{self.files:,}"
        return f"{files}, of which {self.own} are the server's own; at most {', '.join(parts)}"


Note = Callable[..., Any]
"""Writes a line to the log."""


def allocate(connections: int, tables: int, pages: int, warn: Note, info: Note) -> Descriptors:
    """
    What of *connections*, *tables* and *pages* can be had, each as wanted or less.

    The process is first allowed as many open files as all of it takes, where the
    system lets it.  The result goes to *info* in a line, or to *warn* where it is less than wanted.

    Raises:
        TooFewDescriptors: no server works with what there is.
    """
    own = _own_files()
    wanted = Descriptors(None, connections, tables, pages, own)
    found = _allocate(wanted, _allowed(connections + STORE_FILES + max(0, tables - 512) + own - OWN_FILES))
    less = (found.connections, found.tables, found.pages) != (connections, tables, pages)
    hint = "; raise LimitNOFILE or `ulimit -n` for more" if less else ""
    (warn if less else info)("Descriptors: {open_files}{hint}", open_files=found.describe(wanted), hint=hint)
    return found


def _own_files() -> int:
    """`OWN_FILES`, and what is open beyond the usual: inherited descriptors, and many listeners."""
    try:
        with os.scandir("/dev/fd") as found:
            now = sum(1 for _ in found)
    except OSError:
        now = 0
    return OWN_FILES + max(0, now - OPEN_AT_FIRST)


def _allowed(most: int) -> int | None:
    """Have the process allowed *most* files, or as many as the system lets it; how many it is allowed, if bounded."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < most:
        # Some systems refuse what they said they would allow.
        with contextlib.suppress(ValueError, OSError):
            now = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (now, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def _allocate(wanted: Descriptors, files: int | None) -> Descriptors:
    """Share out *files*: a third goes to the engine, if it wants so many, and the rest to connections."""
    if files is None:
        return wanted
    least = FILES_MIN + wanted.own - OWN_FILES
    if files < least:
        more = f", because more are open at the start than the usual {OPEN_AT_FIRST}" if least > FILES_MIN else ""
        raise TooFewDescriptors(
            f"the process may have {counted(files, 'file')} open, and a server needs {least:,} at least{more}:"
            " raise LimitNOFILE or `ulimit -n`"
        )
    room = files - wanted.own - min(TURNED_AWAY, files // 8)
    pages = min(wanted.pages, max(PAGES_MIN, room // 10))
    room -= pages
    tables = min(wanted.tables, max(TABLES_MIN, room // 3))
    connections = min(wanted.connections, room - tables)
    return Descriptors(files, connections, min(wanted.tables, room - connections), pages, wanted.own)

"""
Divide the limit of open files between connections, the storage engine, and the process's own files.

If the storage engine cannot open its next file, it cannot write, and the process
ends.  So connections, tables and blobs, scrapes of metrics and the process's own
files together must stay below the limit (RLIMIT_NOFILE).  If the limit is too low
for the configured numbers, all of them are lowered together.
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
Reserved for standard streams, event loop, log, listeners, console, lock, and the engine's logs and temporary files.

About 30 are open after a start.
"""

OPEN_AT_FIRST = 16
"""The part of `OWN_FILES` that is open when the rest is divided: streams, event loop, log and some listeners."""

BEING_CLOSED = 100
"""Evicted connections.  Twisted accepts up to 100 in one iteration, and closes those evicted for them in the next."""

STORE_FILES = 768
"""Needed in addition to the connections so that nothing is lowered: the above, 512 tables and 100 scrapes."""

TABLES_MIN = 40
"""An iterator keeps all tables of level 0 open.  Writes wait for a compaction when level 0 has 36 tables."""

PAGES_MIN = 4

FILES_MIN = 128
"""The lowest limit of open files at which a server starts."""


class TooFewDescriptors(QueueberError):
    """The limit of open files is too low for a server."""


@frozen
class Descriptors:
    """The numbers of files that may be open at the same time."""

    files: int | None
    """The limit of the process; None for no limit."""

    connections: int

    tables: int
    """Tables and blobs of the storage engine."""

    pages: int
    """Connections to the port of the metrics; 0 without one."""

    own: int = OWN_FILES
    """The server's own files, inherited ones included."""

    def describe(self, wanted: "Descriptors") -> str:
        """Return the numbers as text.  Where one is lower than in *wanted*, "instead of" and the wanted one follow."""
        parts = [
            counted(mine, *name) + (f" instead of {asked:,}" if mine < asked else "")
            for name, mine, asked in (
                (("connection",), self.connections, wanted.connections),
                (("table or blob", "tables and blobs"), self.tables, wanted.tables),
                (("connection for metrics", "connections for metrics"), self.pages, wanted.pages),
            )
            if asked
        ]
        files = "no limit" if self.files is None else f"{self.files:,}"
        return f"{files}, {self.own} of them the server's own; at most {', '.join(parts)}"


Note = Callable[..., Any]
"""Log a line."""


def allocate(connections: int, tables: int, pages: int, warn: Note, info: Note) -> Descriptors:
    """
    Return the numbers of files for *connections*, *tables* and *pages*, each as requested or lower.

    The soft limit of the process is raised first, as far as it is needed and permitted.  The result is logged with
    *info*, or with *warn* if any number is lower than requested.

    Raises:
        TooFewDescriptors: the limit is too low for a server.
    """
    own = _count_own_files()
    wanted = Descriptors(None, connections, tables, pages, own)
    found = _allocate(wanted, _raise_limit(connections + STORE_FILES + max(0, tables - 512) + own - OWN_FILES))
    less = (found.connections, found.tables, found.pages) != (connections, tables, pages)
    hint = "; raise LimitNOFILE or `ulimit -n` for more" if less else ""
    (warn if less else info)("Descriptors: {open_files}{hint}", open_files=found.describe(wanted), hint=hint)
    return found


def _count_own_files() -> int:
    """Return `OWN_FILES` plus the files that are open beyond the usual: inherited descriptors, and many listeners."""
    try:
        with os.scandir("/dev/fd") as found:
            now = sum(1 for _ in found)
    except OSError:
        now = 0
    return OWN_FILES + max(0, now - OPEN_AT_FIRST)


def _raise_limit(most: int) -> int | None:
    """Raise the soft limit to *most* files, or as far as permitted; return the limit, or None for no limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < most:
        # Some systems refuse a limit below the hard limit that they report.
        with contextlib.suppress(ValueError, OSError):
            now = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (now, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def _allocate(wanted: Descriptors, files: int | None) -> Descriptors:
    """Divide *files*: up to a third goes to the storage engine, and the rest to connections."""
    if files is None:
        return wanted
    least = FILES_MIN + wanted.own - OWN_FILES
    if files < least:
        more = f", because more than the usual {OPEN_AT_FIRST} are open at the start" if least > FILES_MIN else ""
        raise TooFewDescriptors(
            f"the process may have {counted(files, 'file')} open, and a server needs {least:,} at least{more}:"
            " raise LimitNOFILE or `ulimit -n`"
        )
    room = files - wanted.own - min(BEING_CLOSED, files // 8)
    pages = min(wanted.pages, max(PAGES_MIN, room // 10))
    room -= pages
    tables = min(wanted.tables, max(TABLES_MIN, room // 3))
    connections = min(wanted.connections, room - tables)
    return Descriptors(files, connections, min(wanted.tables, room - connections), pages, wanted.own)

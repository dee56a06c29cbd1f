"""
Puts many items through a server and removes them all: no row may be left, and memory and descriptors must be back.

They are compared with those after the first tenth, when buffers and caches have
their size.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from counts import Counts, from_command_line
from serverhost import Host
from through import put_through, rows_left, settled

RSS_GROWTH_MIB_MAX = 20.0
DESCRIPTORS_GROWTH_MAX = 8
"""Descriptors: the engine keeps a file open for each table it has."""

DISK_MIB_MAX = 200.0
"""Bytes: its log before it must be flushed (128 MiB), its own log files, and tables that are being deleted."""


async def load(server, data, items, seed, settle):
    """The measurements after the first tenth, and at the end."""
    port = server.port()
    await put_through(port, items // 10, f"{seed}-first")
    first = await settled(server.pid, data, settle)
    await put_through(port, items - items // 10, seed)
    return first, await settled(server.pid, data, settle)


def wrong_with(first, last, rows):
    """Return what has leaked."""
    wrong = [
        f"{count} rows of {name} are left" for name, count in rows.items() if name in {"items", "leases"} and count
    ]
    if last.rss_mib > first.rss_mib + RSS_GROWTH_MIB_MAX:
        wrong.append(f"memory went from {first.rss_mib:.0f} to {last.rss_mib:.0f} MiB")
    if last.descriptors > first.descriptors + DESCRIPTORS_GROWTH_MAX:
        wrong.append(f"descriptors went from {first.descriptors} to {last.descriptors}")
    if last.threads > first.threads:
        wrong.append(f"threads went from {first.threads} to {last.threads}")
    if last.disk_mib > DISK_MIB_MAX:
        wrong.append(f"{last.disk_mib:.0f} MiB are on the disk")
    if rows.get("queues") != 1:
        # A queue that is only polled must leave nothing.
        wrong.append(f"{rows.get('queues')} queues have a row")
    return wrong


def run(items, seed, settle=3.0):
    """Compare the memory and the rows before and after; return the counts."""
    counts = Counts("leaks", "runs")
    with Host() as host, tempfile.TemporaryDirectory(prefix="queueber-leaks-") as scratch:
        data = Path(scratch) / "data"
        server = host.start(data, Path(scratch) / "log")
        began = time.monotonic()
        first, last = asyncio.run(load(server, data, items, seed, settle))
        seconds = time.monotonic() - began
        server.stop()
        rows = rows_left(data)
    print(f"{items:,} items in {seconds:.0f} s; rows left: {rows}")
    for name, each in (("after a tenth", first), ("at the end", last)):
        print(
            f"  {name}: {each.rss_mib:.0f} MiB, {each.descriptors} descriptors, {each.threads} threads,"
            f" {each.disk_mib:.0f} MiB on disk"
        )
    counts.count(wrong_with(first, last, rows))
    return counts


if __name__ == "__main__":
    sys.exit(from_command_line(__doc__, run, items=200_000))

"""Puts items through a server (added in batches, taken, extended, expired, removed), and measures the server."""

import asyncio
import os
from pathlib import Path

from attrs import frozen
from history import History, Poll
from wireclient import Client

from queueber.store.datadir.copying import read_only_view
from queueber.store.rows.keys import TABLES

BUNDLE = 100
SHORT_SPAN = 0.3
ITEMS_PER_CONNECTION = 10_000
CONTENTS_BYTES = 200
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20


@frozen
class Measures:
    """The memory, descriptors and disk that a server uses."""

    rss_mib: float
    descriptors: int
    threads: int
    disk_mib: float

    @classmethod
    def of(cls, pid, data):
        """Measure the process *pid* with its data in *data*."""
        proc = Path(f"/proc/{pid}")
        return cls(
            rss_mib=int((proc / "statm").read_text().split()[1]) * PAGE_BYTES / MIB,
            descriptors=len(list((proc / "fd").iterdir())),
            threads=len(list((proc / "task").iterdir())),
            disk_mib=disk_bytes(data) / MIB,
        )


def disk_bytes(path):
    """Return the bytes of the files below *path*; some may go meanwhile."""
    size = 0
    for each in path.rglob("*"):
        try:
            size += each.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return size


def rows_left(data):
    """Return the number of rows in each table of a stopped server's data."""
    with read_only_view(data) as db:
        left = {}
        for prefix, name in TABLES.items():
            with db.iterator(prefix=prefix) as rows:
                left[name] = sum(1 for _ in rows)
        return left


async def put_through(port, items, seed):
    """Add and remove *count* items; return the seconds that each poll with a reply took."""
    took = []
    for at in range(0, items, ITEMS_PER_CONNECTION):
        count = min(ITEMS_PER_CONNECTION, items - at)
        history = History()
        producer, worker = [await Client.connect(port, history, "default") for _ in range(2)]
        waiting = await Client.connect(port, history, "nothing")
        waiting.poll(1, 1.0, 60.0)
        adding = asyncio.create_task(_add(producer, count, f"{seed}-{at}-"))
        await _take(worker, count)
        await adding
        took += [each.ended - each.invoked for each in history.of(Poll) if each.items]
        if history.breaks:
            raise AssertionError(f"the server ended a connection: {history.breaks[0].why}")
        for client in (producer, worker, waiting):
            client.abort()
    return took


async def _add(client, count, name):
    calls = []
    for at in range(0, count, BUNDLE):
        contents = [f"{name}{each}".encode().ljust(CONTENTS_BYTES) for each in range(at, min(at + BUNDLE, count))]
        calls.append(client.add(contents, [0.0] * len(contents)))
        if len(calls) == 4:
            await asyncio.gather(*calls)
            calls.clear()
    await asyncio.gather(*calls)


async def _take(client, count):
    removed, turn = 0, 0
    while removed < count:
        turn += 1
        lapses = turn % 20 == 0
        taken = await client.poll(BUNDLE, SHORT_SPAN if lapses else 30.0, 5.0)
        if not taken.items:
            raise AssertionError(f"{count - removed} items do not come")
        if lapses:
            continue
        if turn % 7 == 0:
            await client.extend(taken.lease, 60.0)
        calls = await asyncio.gather(*[client.remove(each.id, taken.lease) for each in taken.items])
        removed += sum(call.done for call in calls)


async def settled(pid, data, seconds):
    """Measure after *seconds* without load."""
    await asyncio.sleep(seconds)
    return Measures.of(pid, data)

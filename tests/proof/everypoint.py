"""
Kills a server at every failpoint of `failpoints.py` once, under load.

A few points share a data directory, whose history is then drained and judged.
A point that is not reached is a failure, because a seam that was renamed, or a
load that no longer leads there, proves nothing.  After the last point of a
directory comes one more life under load.  If too few calls were answered in a
life that was not killed at a point, all points of the directory are void and
tried again.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from checker import check
from counts import TRIES_PER_TARGET, Counts, command_line
from evidence import CONNECTING_SECONDS, LONGEST_SECONDS, enough_for
from failpoints import CONVERTING, CREATING, POINTS, RECOVERING, SELDOM, STOPPING
from generator import Generator
from history import Crash
from kill import over
from older import set_back
from serverhost import Failed, Host
from setups import TINY_WINDOWS

POINTS_PER_EPOCH = 8
REACHED_SECONDS = 60.0
LIFE_SECONDS = 0.4
LONG_SPAN = 1.0
PASSES_MAX = 25
KILLED = -9
NOTICED_SECONDS = 0.1
"""The end of a server is noticed this much later than it may have cut off its clients."""


class Epoch:
    """Some failpoints on one data directory."""

    def __init__(self, host, folder, random):
        self.host = host
        self.folder = folder
        self.random = random
        self.generator = Generator(random, long_span=LONG_SPAN)
        self.down = None
        self.idle = 0
        """Lives with too little load."""

    def start(self, point=None, number=1):
        """Start a server that is killed at *point*."""
        failpoint = None if point is None else (point, number)
        return self.host.start(self.folder / "data", self.folder / "log", limits=TINY_WINDOWS, failpoint=failpoint)

    def came_up(self):
        """Note the end of a time without a server."""
        if self.down is not None:
            self.generator.history.crashes.append(Crash(self.down, time.monotonic()))

    async def life(self, server, seconds, *, stop=False):
        """Load the server until it ends or the time is over; then kill it, or send it SIGTERM."""
        port = server.port()
        if port is None:
            return server.end()
        self.came_up()
        up = time.monotonic()
        load = asyncio.create_task(self.generator.load(port))
        gone, enough = await server.gone(seconds), min(seconds, 1.0)
        history = self.generator.history
        while not (gone or load.done() or enough_for(history, up, enough)) and time.monotonic() < up + LONGEST_SECONDS:
            gone = await server.gone(CONNECTING_SECONDS)
        now = time.monotonic()
        self.down = self.generator.history.end_noticed(now, NOTICED_SECONDS) if gone else now
        if not gone and not stop:
            server.kill()
        status = server.stop() if stop else server.end()
        await over(load)
        self.idle += not gone and not enough_for(history, up, enough)
        return status

    async def reach(self, point):
        """Let a server be killed at *point*; return the error if it was not."""
        seam = point.partition(" ")[2]
        # What is read from the disk, or recovered from, must be there; of the recoveries, every second one is that of a
        # crash in a recovery.
        first = self.down is None and seam not in CREATING
        if first or (seam in RECOVERING and self.random.random() < 0.5):
            await self.life(self.start(), LIFE_SECONDS)
        if seam in CONVERTING:
            set_back(self.folder / "data")
        if seam in (*RECOVERING, *CONVERTING):
            status = await self.life(self.start(point), 1.0)
        elif seam in STOPPING:
            status = await self.life(self.start(point), LIFE_SECONDS, stop=True)
        else:
            number = 1 if seam in {*SELDOM, *CREATING} else 1 + self.random.randrange(PASSES_MAX)
            server = self.start(point, number)
            began = time.monotonic()
            status = await self.life(server, REACHED_SECONDS)
            if time.monotonic() - began > REACHED_SECONDS:
                return f"{point}: not reached in {REACHED_SECONDS:g} s"
        return None if status == KILLED else f"{point}: not reached, the server ended with {status}"

    async def run(self, points):
        """Return the errors of each of *points*.  Those in the history are attributed to the first."""
        wrong = [await self.reach(each) for each in points]
        await self.life(self.start(), LIFE_SECONDS)
        server = self.start()
        port = server.port_or_fail(f"the server does not come up after {points}")
        self.came_up()
        await self.generator.drain(port)
        server.stop()
        findings = check(self.generator.history)
        return [[each] if each else [] for each in wrong], findings


def epochs(points, random):
    """Return which points share a directory: those of the first start each have one of their own."""
    fresh = [each for each in points if each.partition(" ")[2] in CREATING]
    rest = [each for each in points if each not in fresh]
    random.shuffle(rest)
    return [[each] for each in fresh] + [
        rest[at : at + POINTS_PER_EPOCH] for at in range(0, len(rest), POINTS_PER_EPOCH)
    ]


def run(points, seed, keep):
    """Kill a server at each of these points; return the counts."""
    counts, random, calls = Counts("failpoints", "points", target=len(points)), Random(seed), 0
    with Host() as host, tempfile.TemporaryDirectory(prefix="queueber-points-") as scratch:
        left = [(each, 1) for each in epochs(points, random)]
        for number, (together, tries) in enumerate(left):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            epoch = Epoch(host, folder, Random(f"{seed}-{number}"))
            try:
                wrong, findings = asyncio.run(epoch.run(together))
            except Failed as why:
                counts.count([f"{', '.join(together)}: {why}"])
                continue
            calls += epoch.generator.history.acked_between(0, time.monotonic())
            if findings.wrong:
                keep.mkdir(exist_ok=True)
                epoch.generator.history.save(keep / f"failpoints-{seed}-{number}")
                wrong.append([f"{', '.join(together)}: {'; '.join(findings.examples)}"])
            counts.settle(len(together), len(together) if epoch.idle else 0, [why for each in wrong for why in each])
            if epoch.idle and tries < TRIES_PER_TARGET:
                left.append((together, tries + 1))
    print(f"{calls:,} calls answered")
    return counts


def main():
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--point", action="append", choices=POINTS, help="only this one; repeatable")
    parser.add_argument("--keep", type=Path, default=Path("proof-findings"), help="where histories that fail go")
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    return run(asked.point or POINTS, asked.seed, asked.keep).end(command_line())


if __name__ == "__main__":
    sys.exit(main())

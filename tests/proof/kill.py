"""
kill -9 under load, again and again: each history of some lives of a server is drained and judged.

A cycle is one start, load with all habits of `generator.py`, and one SIGKILL
at a random moment.  It is void if fewer than 100 calls a second were answered
before the kill; an epoch of twenty is, if the kills caught next to nothing in
flight.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from checker import check
from generator import Generator, enough, unknown_since
from history import Crash
from serverhost import Failed, Host
from tally import Tally, command_line

CYCLES_PER_EPOCH = 20
SHORTEST_SECONDS, LONGEST_SECONDS = 0.2, 0.9
KILLS_PER_UNKNOWN = 5


async def live(generator, server, seconds):
    """Load for so long, and the kill; how the history goes on, and whether there was enough before it."""
    port = server.port()
    if port is None:
        raise Failed("the server ended by itself:\n" + server.lines()[-3_000:])
    up = time.monotonic()
    load = asyncio.create_task(generator.load(port))
    await asyncio.wait([load], timeout=seconds)
    if server.ended():
        raise Failed("the server ended by itself:\n" + server.lines()[-3_000:])
    down = time.monotonic()
    server.kill()
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(load, 5.0)
    return up, down


async def epoch(host, folder, random, cycles, tally, options=(), **habits):
    """Some lives on one data directory, the drain, and the verdict; the findings and the history."""
    generator = Generator(random, polite=random.random() < 0.3, **habits)
    history, void, down = generator.history, 0, None
    began = time.monotonic()
    for _ in range(cycles):
        server = host.start(folder / "data", folder / "log", *options)
        up, killed = await live(generator, server, random.uniform(SHORTEST_SECONDS, LONGEST_SECONDS))
        if down is not None:
            history.crashes.append(Crash(down, up))
        # The clients' first moments go into connecting.
        void += not enough(history, max(up + 0.1, killed - 1.0), killed)
        down = killed
    unknown = unknown_since(history, began)
    if unknown * KILLS_PER_UNKNOWN < cycles:
        void = cycles
    server = host.start(folder / "data", folder / "log", *options)
    port = server.port()
    if port is None:
        raise Failed("the server does not come up again:\n" + server.lines()[-3_000:])
    history.crashes.append(Crash(down, time.monotonic()))
    await generator.drain(port)
    status = server.stop()
    findings = check(history)
    if status not in {0, -15}:
        findings.found("status", f"a clean stop ended with {status}")
    for each in range(cycles):
        if each < void:
            tally.void()
        else:
            tally.count(findings.examples if each == void else ())
    return findings, history, unknown


def parsed():
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("proof-findings"), help="where histories that fail go")
    return parser.parse_args()


def run(cycles, seed, keep, options=(), **habits):
    """The tally of so many cycles of servers with these options."""
    tally, calls, items, unknown_calls, recovered, duplicates = Tally("kill"), 0, 0, 0, 0, 0
    with Host() as host, tempfile.TemporaryDirectory(prefix="queueber-kill-") as scratch:
        for number, at in enumerate(range(0, cycles, CYCLES_PER_EPOCH)):
            place = Path(scratch) / str(number)
            place.mkdir()
            count = min(CYCLES_PER_EPOCH, cycles - at)
            try:
                findings, history, unknown = asyncio.run(
                    epoch(host, place, Random(f"{seed}-{number}"), count, tally, options, **habits)
                )
            except Failed as why:
                tally.count([f"epoch {number}: {why}"])
                continue
            calls += history.acked_between(0, time.monotonic())
            items, unknown_calls = items + findings.items, unknown_calls + unknown
            recovered, duplicates = recovered + findings.recovered, duplicates + findings.duplicates
            if findings.wrong:
                keep.mkdir(exist_ok=True)
                history.save(keep / f"kill-{seed}-{number}")
                print(f"epoch {number}: {dict(findings.wrong)}; history in {keep}/kill-{seed}-{number}", flush=True)
    print(
        f"{calls:,} calls answered, {items:,} items handed out, {unknown_calls:,} adds, removes and extends unknown,"
        f" {recovered:,} items recovered, {duplicates:,} handed out again"
    )
    return tally


def main():
    """The status."""
    asked = parsed()
    print(f"seed {asked.seed}", flush=True)
    return run(asked.cycles, asked.seed, asked.keep).end(command_line())


if __name__ == "__main__":
    sys.exit(main())

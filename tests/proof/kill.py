"""
Kills servers under load with SIGKILL; each history of some lives is drained and judged.

A cycle is one start, load with all habits of `generator.py`, and one SIGKILL at
a random moment.  It is void if fewer than 100 calls a second were answered
before the kill.  An epoch of twenty is void if the kills met hardly any call in
flight, or if there was too little of any kind of call.  An error in a void cycle
still counts.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from checker import check
from counts import Counts, command_line
from evidence import effects, enough_for, lacking_in, too_few_unknown, under, unknown_since
from generator import Generator
from history import Crash
from serverhost import Failed, Host
from setups import drawn

CYCLES_PER_EPOCH = 20
SHORTEST_SECONDS, LONGEST_SECONDS = 0.2, 0.9
GIVE_UP_SECONDS = 5.0


async def live(generator, server, seconds, lives, end):
    """Load for *seconds*, or until there was enough, and await *end* of the server; return when each happened."""
    port = server.port_or_fail()
    up = time.monotonic()
    load = asyncio.create_task(generator.load(port))
    await under(load, generator.history, seconds, lives)
    if server.ended():
        raise server.failed("the server ended by itself")
    down = time.monotonic()
    await end(server)
    await over(load)
    return up, down


async def sigkill(server):
    """Kill *server*."""
    server.kill()


async def over(load):
    """End the load on a server that has ended, and raise its error."""
    try:
        await asyncio.wait_for(load, GIVE_UP_SECONDS)
    except TimeoutError:
        raise Failed("the load does not end with its server") from None


async def drained(generator, server, down):
    """Drain *server*, the first one since *down*, and stop it; return the findings of the whole history."""
    port = server.port_or_fail()
    generator.history.crashes.append(Crash(down, time.monotonic()))
    await generator.drain(port)
    status = server.stop()
    findings = check(generator.history)
    if status not in {0, -15}:
        findings.found("status", f"a clean stop ended with {status}")
    return findings


def save(findings, history, place):
    """Save a history with errors at *place*, for inspection."""
    if findings.wrong:
        place.parent.mkdir(exist_ok=True)
        history.save(place)
        print(f"{dict(findings.wrong)}; history in {place}", flush=True)


async def epoch(host, folder, random, cycles, counts, shape, **habits):
    """Run some lives on one data directory, the drain, and the verdict; return the findings and the history."""
    generator = Generator(random, polite=random.random() < 0.3, **habits)
    history, void, down = generator.history, 0, None
    for number in range(cycles):
        server = host.start(folder / "data", folder / "log", *shape.options, limits=shape.limits)
        seconds = random.uniform(SHORTEST_SECONDS, LONGEST_SECONDS)
        up, killed = await live(generator, server, seconds, number + 1, sigkill)
        if down is not None:
            history.crashes.append(Crash(down, up))
        void += not enough_for(history, up, seconds)
        down = killed
    unknown = unknown_since(history, 0.0)
    if too_few_unknown(history, cycles) or lacking_in(history, cycles):
        void = cycles
    server = host.start(folder / "data", folder / "log", *shape.options, limits=shape.limits)
    findings = await drained(generator, server, down)
    counts.settle(cycles, void, findings.examples)
    return findings, history, unknown


def parsed():
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("proof-findings"), help="where histories that fail go")
    return parser.parse_args()


def run(cycles, seed, keep, options=(), **habits):
    """Kill servers with these options as often as asked; return the counts."""
    counts, calls, items, unknown_calls, recovered = Counts("kill", target=cycles), 0, 0, 0, 0
    done = Counter()
    with Host() as host, tempfile.TemporaryDirectory(prefix="queueber-kill-") as scratch:
        for number, count in enumerate(counts.rounds(CYCLES_PER_EPOCH)):
            place = Path(scratch) / str(number)
            place.mkdir()
            random = Random(f"{seed}-{number}")
            shape = drawn(random).with_options(options)
            print(f"epoch {number}: {shape}", flush=True)
            try:
                findings, history, unknown = asyncio.run(epoch(host, place, random, count, counts, shape, **habits))
            except Failed as why:
                counts.count([f"epoch {number}: {why}"])
                for server in host.servers:
                    server.kill()
                continue
            calls += history.acked_between(0, time.monotonic())
            items, unknown_calls = items + findings.items, unknown_calls + unknown
            recovered += findings.recovered
            done += Counter(effects(history))
            save(findings, history, keep / f"kill-{seed}-{number}")
    print(
        f"{calls:,} calls answered, {items:,} items handed out, {unknown_calls:,} adds, removes and extends unknown,"
        f" {recovered:,} items recovered; " + ", ".join(f"{count:,} {kind}" for kind, count in done.items())
    )
    return counts


def main():
    """Run the command line; return the exit status."""
    asked = parsed()
    print(f"seed {asked.seed}", flush=True)
    return run(asked.cycles, asked.seed, asked.keep).end(command_line())


if __name__ == "__main__":
    sys.exit(main())

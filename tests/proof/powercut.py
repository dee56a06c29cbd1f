"""
Cuts the power under load, again and again, on an ext4 of our own; each history is drained and judged.

A cycle is one start, load with all habits of `generator.py`, and one cut: the
server's threads are stopped, even in the middle of an fdatasync, from then on the
kernel writes nothing more to the file system, which is mounted again, and the
next server has another boot id.  Every seventh cycle cuts while the server starts
or recovers.  A cycle is void for the same reasons as in `kill.py`.

The threads are stopped because a processor loses its power too.  An fdatasync
that is under way when ext4 is shut down may return success for data that are not
on the disk, and the server could send a reply that no real machine would send.
"""

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
import uuid
from functools import partial
from pathlib import Path
from random import Random

import kill
from counts import Counts, command_line
from evidence import enough_for, lacking_in, too_few_unknown, unknown_since
from generator import Generator
from history import Crash
from loopdisk import FLUSHED, JOURNAL_FLUSHED, NOTHING_FLUSHED, LoopDisk, lacking, place_for_images
from serverhost import Failed, Host
from setups import drawn

CYCLES_PER_EPOCH = 20
SHORTEST_SECONDS, LONGEST_SECONDS = 0.2, 0.8
CUTS = (NOTHING_FLUSHED,) * 8 + (JOURNAL_FLUSHED, FLUSHED)
MOUNTS = ("", "", "data=writeback", "nodelalloc")


class Machine:
    """Servers on a disk, which all lose their power together."""

    def __init__(self, host, disk, folder, random, shape):
        self.host, self.disk, self.folder, self.random, self.shape = host, disk, folder, random, shape
        self.boot = folder / "boot"
        self.dropped = 0
        self._new_boot()

    def _new_boot(self):
        self.boot.write_text(f"{uuid.UUID(int=self.random.getrandbits(128), version=4)}\n")

    def start(self):
        """Start a server."""
        data, log, shape = self.disk.path / "data", self.folder / "log", self.shape
        return self.host.start(data, log, *shape.options, limits=shape.limits, boot=self.boot)

    def cut(self, server):
        """Cut the power and restore it."""
        halt(server.pid)
        self.disk.cut(self.random.choice(CUTS))
        server.kill()
        self.dropped += "Cut off the damaged end of the log" in server.lines()
        self.disk.unmount()
        self.disk.mount()
        self._new_boot()


def halt(pid):
    """Stop all threads of a process, except those that are in an uninterruptible call."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 1.0
    while {state_of(thread) for thread in Path(f"/proc/{pid}/task").iterdir()} - set("TtDZX"):
        if time.monotonic() > deadline:
            raise Failed("the server cannot be stopped")


def state_of(thread):
    """Return the state of the process as the kernel's letter."""
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


async def live(machine, generator, seconds, lives):
    """Run one life under load for *seconds*, or until there was enough; return its begin and end, or None."""
    server = machine.start()
    if seconds is None:
        await asyncio.sleep(machine.random.random() * 0.15)
        now = time.monotonic()
        machine.cut(server)
        return now, now
    return await kill.live(generator, server, seconds, lives, partial(asyncio.to_thread, machine.cut))


async def epoch(machine, cycles, counts, **habits):
    """Run some lives on one disk, the drain, and the verdict; return the findings and the history."""
    generator = Generator(machine.random, polite=machine.random.random() < 0.3, **habits)
    history, void, loaded, down = generator.history, 0, 0, None
    for number in range(cycles):
        early = number % 7 == 6
        loaded += not early
        seconds = None if early else machine.random.uniform(SHORTEST_SECONDS, LONGEST_SECONDS)
        up, cut = await live(machine, generator, seconds, loaded)
        if down is not None:
            history.crashes.append(Crash(down, up))
        void += not early and not enough_for(history, up, seconds)
        down = cut
    if too_few_unknown(history, loaded) or lacking_in(history, loaded):
        void = cycles
    findings = await kill.drained(generator, machine.start(), down)
    counts.settle(cycles, void, findings.examples)
    return findings, history


def keep_files(data, target):
    """Copy *data*, on which no server starts, to *target* for inspection."""
    shutil.copytree(data, target, ignore=lambda folder, names: [each for each in names if each.endswith(".sock")])


def run(cycles, seed, keep, options=(), **habits):
    """Cut the power as often as requested; return the counts."""
    counts, calls, items, unknown, recovered, dropped = Counts("powercut", target=cycles), 0, 0, 0, 0, 0
    with Host() as host, tempfile.TemporaryDirectory(prefix="queueber-power-", dir=place_for_images()) as scratch:
        for number, count in enumerate(counts.rounds(CYCLES_PER_EPOCH)):
            random = Random(f"{seed}-{number}")
            folder = Path(scratch) / str(number)
            folder.mkdir()
            shape = drawn(random, power=True).with_options(options)
            with LoopDisk(folder, options=random.choice(MOUNTS)) as disk:
                print(f"epoch {number}: mounted {disk.options!r}; {shape}", flush=True)
                machine = Machine(host, disk, folder, random, shape)
                try:
                    findings, history = asyncio.run(epoch(machine, count, counts, **habits))
                except Failed as why:
                    counts.count([f"epoch {number}, mounted {disk.options!r}: {why}"])
                    for server in host.servers:
                        server.kill()
                    keep_files(disk.path / "data", keep / f"powercut-{seed}-{number}-data")
                    continue
            dropped += machine.dropped
            calls += history.acked_between(0, time.monotonic())
            items, recovered = items + findings.items, recovered + findings.recovered
            unknown += unknown_since(history, 0.0)
            kill.save(findings, history, keep / f"powercut-{seed}-{number}")
    print(
        f"{calls:,} calls answered, {items:,} items handed out, {unknown:,} adds, removes and extends unknown,"
        f" {recovered:,} items recovered, {dropped:,} torn ends cut off"
    )
    return counts


def main():
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--unsynced", action="store_true", help="serve with --durability os: this must be found to lose"
    )
    parser.add_argument("--keep", type=Path, default=Path("proof-findings"), help="where histories that fail go")
    asked = parser.parse_args()
    why = lacking()
    if why is not None:
        return Counts("powercut").skip(why)
    options = ("--durability=os",) if asked.unsynced else ()
    return run(asked.cycles, asked.seed, asked.keep, options).end(command_line())


if __name__ == "__main__":
    sys.exit(main())

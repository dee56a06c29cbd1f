"""
A disk that takes what is written, and cannot keep it: errors that come when the system writes back, and only once.

The data lies on an ext4 in a sparse file on a small file system in memory.
Under load that is filled, so that what the server writes gets as far as the
page cache and no further.  The first sync fails, and a second one would
succeed, without the data.  So the server must end with status 74 at the first;
with room again, and mounted anew, everything acknowledged is there.
"""

import argparse
import asyncio
import contextlib
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from diskerrors import OPTIONS, Fault, judged, settle
from generator import Generator
from history import Outcome
from loopdisk import LoopDisk, lacking
from serverhost import Failed, Host
from tally import Tally, command_line

ROOM_MEGABYTES = 160
DISK_MEGABYTES = 1_024
SECONDS = 30


class FailingDisk:
    """A `LoopDisk` on a file system that is smaller than it; use it in a `with`."""

    def __init__(self, folder):
        self._room = folder / "room"
        self._filler = self._room / "filler"
        self.disk = None

    def __enter__(self):
        self._room.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={ROOM_MEGABYTES}m", "none", str(self._room)],
            check=True,
            capture_output=True,
        )
        self.disk = LoopDisk(self._room, megabytes=DISK_MEGABYTES)
        try:
            self.disk.__enter__()
        except BaseException:
            self._unmount()
            raise
        return self

    def __exit__(self, *exc_info):
        try:
            self.disk.__exit__(*exc_info)
        finally:
            self._unmount()

    def _unmount(self):
        subprocess.run(["umount", str(self._room)], capture_output=True, check=False)

    def fill(self):
        """From now on nothing is kept that has no place yet."""
        with self._filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))

    def mend(self):
        """There is room again, and what the system remembers of the disk is what is on it."""
        self._filler.unlink()
        self.disk.unmount()
        self.disk.mount()


async def attempt(host, folder, random, tally):
    """One server that loses its disk, and the next on what is left."""
    with FailingDisk(folder) as failing:
        generator = Generator(random, long_span=0.5)
        data, log = failing.disk.path / "data", folder / "log"
        server = host.start(data, log, *OPTIONS)
        port = server.port()
        if port is None:
            raise Failed(f"no start:\n{server.lines()[-3_000:]}")
        load = asyncio.create_task(generator.load(port))
        await asyncio.sleep(0.3 + random.random())
        failing.fill()
        by_itself = await asyncio.to_thread(server.ended, SECONDS)
        down, status = time.monotonic(), server.kill()
        await load
        fault = Fault("fdatasync", "EIO", 1, starting=False)
        why = re.findall(r"so the server ends: (.{,60})", server.lines())
        answered = sum(call.outcome is Outcome.OK for call in generator.history.calls)
        print(f"{why[0] if why else 'no word'}; {answered:,} calls answered before")
        wrong = [f"write-back: {each}" for each in judged(fault, server, status, None, by_itself, generator.history)]
        failing.mend()
        tally.count(wrong)
        await settle(host, data, log, generator, down, tally)


def run(cases, seed):
    """The tally of so many."""
    tally = Tally("writeback", "disks")
    with Host() as host, tempfile.TemporaryDirectory(prefix="queueber-writeback-") as scratch:
        for number in range(cases):
            folder = Path(scratch, str(number))
            folder.mkdir()
            try:
                asyncio.run(attempt(host, folder, Random(f"{seed}-{number}"), tally))
            except Failed as why:
                tally.count([f"{number}: {why}"])
                for server in host.servers:
                    server.kill()
    return tally


def main():
    """The status."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--cases", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    why = lacking()
    if why is not None:
        print(f"skipped: {why}")
        print(Tally("writeback", "disks"))
        return 0
    return run(asked.cases, asked.seed).end(command_line())


if __name__ == "__main__":
    sys.exit(main())

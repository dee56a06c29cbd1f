"""
A disk that accepts writes and cannot keep them: errors that occur at write-back, and only once.

The data lies on an ext4 in a sparse file on a small file system in memory.  Under
load that file system is filled, so that the server's writes reach the page cache
and no further.  The first sync fails, and a second one would succeed without the
data.  So the server must end with status 74 at the first.  Once there is room and
the file system is mounted again, everything acknowledged must be there.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random

from counts import Counts, command_line
from diskerrors import Epoch, fill
from loopdisk import LoopDisk, lacking, unmount
from serverhost import Failed, Host

ROOM_MEGABYTES = 160
DISK_MEGABYTES = 1_024


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
        unmount(self._room)

    def fill(self):
        """From now on keep nothing that has no place yet."""
        fill(self._filler)

    def mend(self):
        """Make room again, and let the system forget what is not on the disk."""
        self._filler.unlink()
        self.disk.unmount()
        self.disk.mount()


def run(disks, seed):
    """Lose the write-back cache of the given number of disks; return the counts."""
    counts, kinds = Counts("writeback", "disks", target=disks), Counter()
    with Host() as host, tempfile.TemporaryDirectory(prefix="queueber-writeback-") as scratch:
        for number in range(disks):
            folder = Path(scratch, str(number))
            folder.mkdir()
            epoch = Epoch(host, folder, Random(f"{seed}-{number}"), counts, kinds)
            try:
                with FailingDisk(folder) as failing:
                    data = failing.disk.path / "data"
                    asyncio.run(epoch.without_room(data, failing.fill, failing.mend, "disk that keeps nothing"))
            except Failed as why:
                counts.count([f"{number}: {why}"])
                for server in host.servers:
                    server.kill()
    for (_, how), times in sorted(kinds.items()):
        print(f"{times:>6,} servers {how}")
    return counts


def main():
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--cases", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    why = lacking()
    if why is not None:
        return Counts("writeback", "disks").skip(why)
    return run(asked.cases, asked.seed).end(command_line())


if __name__ == "__main__":
    sys.exit(main())

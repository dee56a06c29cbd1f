"""
Lets the disk fail at one system call of the server under load, and fills a disk.

strace lets the k-th call of a kind fail with a disk error, under load or while a
server starts: first each kind with each error, then at random until enough have
counted.  The server must end with status 74 and a line with the reason, and send
no further reply.  Where RocksDB can do without the call the server may go on.
That proves nothing, so the try is void, as is one whose fault did not occur or
that had no load before it.  Some lives on one directory make a history, which is
drained and judged.
"""

import argparse
import asyncio
import contextlib
import re
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from itertools import product
from pathlib import Path
from random import Random

from counts import SKIPPED, Counts, command_line
from generator import Generator
from history import Crash, Extend, Outcome, Poll, Remove
from injection import Fault, Injection, why_not
from kill import drained, over
from loopdisk import LoopDisk, lacking, place_for_images
from serverhost import Failed, Host

EX_IOERR = 74
CASES_PER_EPOCH = 10
TRIES_PER_CASE = 4
LOAD_SECONDS = 2.0
ACKED_SECONDS = 20.0
"""The time in which `ACKED_MIN` must be reached."""

END_SECONDS = 1.0
ACKED_MIN = 30
"""The acknowledged calls before a fault, at least: a server that has nothing to lose proves nothing."""

SENT_SECONDS = 0.5
"""
The time after the fault within which bytes that were sent before it may be read.

A process that is traced, and other work on the cores: 0.04 s are common, and 0.18 s were seen.  What was asked after
the fault is judged without such a time.
"""

CLOCKS_SECONDS = 0.003
"""The possible difference between strace's clock and ours."""

NOTICED_SECONDS = 0.25
"""The end of a traced process is noticed this much later than it may have cut off its clients."""

# Small buffers, so that tables are made and logs changed all the time.
OPTIONS = ("--storage-write-buffer-bytes=65536", "--free-space-reserve=0")
ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EROFS")

# Calls, the highest k, and whether the server must end.
CALLS = {
    "fdatasync": (40, True),
    "write": (40, True),  # to the log
    "fsync": (4, True),  # of tables, manifest and directories
    "pwrite64": (2, True),  # the note of what is synced, and tables
    "openat": (20, False),
    "rename": (1, False),
    "ftruncate": (4, False),
}
UNDER_LOAD = tuple(call for call in CALLS if call != "rename")
DURING_START = ("fdatasync", "fsync", "write", "rename", "ftruncate", "pwrite64")


def grid(random):
    """Return each kind of call with each error, under load and during a start, in any order."""
    faults = [Fault(call, error, 1, starting=False) for call, error in product(UNDER_LOAD, ERRORS)]
    faults += [Fault(call, error, 1, starting=True) for call, error in product(DURING_START, ERRORS)]
    return random.sample(faults, len(faults))


def drawn(random):
    """Return a fault at random, mostly at calls that every server needs."""
    starting = random.random() < 0.25
    call = random.choice(DURING_START if starting else (*UNDER_LOAD, "fdatasync", "fdatasync", "write", "write"))
    return Fault(call, random.choice(ERRORS), 1 + random.randrange(6 if starting else CALLS[call][0]), starting)


def must_end(fault, came, data):
    """Return whether the server must end.  A start may do without calls on some of RocksDB's files, such as LOG."""
    if came is None or not CALLS[fault.call][1]:
        return False
    return not fault.starting or (
        fault.call in {"fsync", "fdatasync"} and Path(came.path).is_relative_to(data) and "/db/LOG" not in came.path
    )


def late_answers(fault, came, history):
    """Return the answers that came after the last permitted moment."""
    known = [call for call in history.calls if call.outcome is Outcome.OK]
    yield from (call for call in known if call.ended > came.at + SENT_SECONDS and call.invoked <= came.at)
    # A commit is over with the log's first error.  After one of a table or the manifest a commit that does not touch
    # those may still come to its end.
    if came.path.endswith(".log") and fault.call in {"write", "fdatasync"}:
        yield from (call for call in known if call.invoked > came.at + CLOCKS_SECONDS and is_change(call))


def is_change(call):
    """Return whether an answer confirms something that had to be made durable."""
    if isinstance(call, Poll):
        return bool(call.items)
    return call.done if isinstance(call, Remove | Extend) else True


def judged(fault, server, status, came, by_itself, history, data):
    """Return the errors in a server's reaction to a fault."""
    if not by_itself:
        if must_end(fault, came, data):
            yield f"the server went on after an error of {came.path}"
        return
    said = server.lines()
    if status != EX_IOERR:
        yield f"status {status}:\n{said[-1_500:]}"
    if not re.search(r"so the server ends: .+|Cannot start: .+", said):
        yield f"no line says why:\n{said[-1_500:]}"
    if came is not None and must_end(fault, came, data):
        late = list(late_answers(fault, came, history))
        if late:
            after = ", ".join(f"{type(each).__name__} {each.ended - came.at:.3f} s" for each in late[:5])
            yield f"{len(late)} calls were answered after the error of {came.path}: {after}"


class Epoch:
    """Some faults on one directory."""

    def __init__(self, host, folder, random, counts, kinds):
        self.host, self.folder, self.counts, self.kinds = host, folder, counts, kinds
        self.data = folder / "data"
        self.generator = Generator(random, polite=random.random() < 0.3, long_span=0.5)
        self.history = self.generator.history
        self.down = None

    def start(self, *, traced=False):
        """Start a server."""
        return self.host.start(self.data, self.folder / "log", *OPTIONS, traced=traced)

    async def serving(self, server):
        """Load *server*; return the load and its begin, after a few answers; None if the server does not start."""
        port = await asyncio.to_thread(server.port)
        if port is None:
            return None, time.monotonic()
        up = time.monotonic()
        if self.down is not None:
            self.history.crashes.append(Crash(self.down, up))
            self.down = None
        load = asyncio.create_task(self.generator.load(port))
        while self.acked(up) < ACKED_MIN and time.monotonic() < up + ACKED_SECONDS:
            if load.done() or server.ended():
                break
            await asyncio.sleep(0.01)
        return load, up

    def acked(self, begin):
        """Return the number of calls answered since *begin*."""
        return self.history.acked_between(begin, time.monotonic())

    async def first(self):
        """Run the first life, which makes the database.  Faults in it are tested by the failpoints."""
        server = self.start()
        load, _ = await self.serving(server)
        self.down = time.monotonic()
        server.kill()
        await over(load)

    async def life(self, fault):
        """Run one life with one fault."""
        server = self.start(traced=fault.starting)
        load = None
        if not fault.starting:
            load, up = await self.serving(server)
            if load is None:
                raise server.failed("no start after a fault")
        with Injection(fault, server.pid, self.data, self.folder / "strace") as injection:
            await asyncio.to_thread(injection.attached, server.pid)
            if fault.starting:
                load, up = await self.serving(server)
            deadline = time.monotonic() + LOAD_SECONDS
            while load and not server.ended() and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
                if (came := injection.came()) is not None:
                    deadline = min(deadline, came.at + END_SECONDS)
            by_itself = server.ended(0.0 if load else 5.0)
            now = time.monotonic()
            down = now - NOTICED_SECONDS if by_itself else now
            # Under strace an end takes longer.
        status, came = server.kill(), injection.came()
        if came is not None:
            self.history.faults.append(came.at - CLOCKS_SECONDS)
        if load:
            await over(load)
        if self.down is None:
            self.down = down
        acked = self.acked(0.0 if fault.starting else up)
        wrong = [f"{fault}: {each}" for each in judged(fault, server, status, came, by_itself, self.history, self.data)]
        self.note(fault, wrong, came, by_itself=by_itself, acked=acked)

    def note(self, fault, wrong, came, *, by_itself, acked):
        """Count a life, as void if it proves nothing."""
        name = f"{fault.call}, {'start' if fault.starting else 'load'}"
        if wrong:
            self.counts.count(wrong)
            self.kinds[name, "WRONG"] += 1
        elif came is None and not by_itself:
            self.counts.void()
            self.kinds[name, "never reached"] += 1
        elif not by_itself:
            self.counts.void()
            self.kinds[name, "went on"] += 1
        elif acked < ACKED_MIN:
            self.counts.void()
            self.kinds[name, "ended, without load"] += 1
        else:
            self.counts.count()
            self.kinds[name, "ended"] += 1

    async def run(self, faults):
        """Run all of *faults*, the drain, and the verdict."""
        await self.first()
        for fault in faults:
            await self.life(fault)
        await self.settle()

    async def settle(self):
        """Start without a fault, drain, and judge all lives since the last drain."""
        findings = await drained(self.generator, self.start(), self.down)
        self.counts.failures += findings.examples

    async def full(self, disk):
        """Fill the disk under load, without a reserve, then make room again."""
        filler = disk.path / "filler"
        await self.without_room(disk.path / "data", partial(fill, filler), filler.unlink, "full disk")

    async def without_room(self, data, fill, mend, name):
        """Let *fill* take resources that the server on *data* needs, and then *mend* give them back."""
        self.data = data
        server = self.start()
        load, up = await self.serving(server)
        acked, began = self.acked(up), time.monotonic()
        fill()
        by_itself = await server.gone(began + 30 - time.monotonic())
        now = time.monotonic()
        self.down = now - NOTICED_SECONDS if by_itself else now
        status = server.kill()
        await over(load)
        fault = Fault(name, "ENOSPC", 1, starting=False)
        wrong = list(judged(fault, server, status, None, by_itself, self.history, self.data))
        if not by_itself:
            wrong.append(f"a {name} did not end the server in 30 s")
        mend()
        self.note(fault, wrong, None, by_itself=True, acked=acked)
        await self.settle()


def fill(path):
    """Let the file *path* take all the room of its file system."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))


def run(cases, fills, seed):
    """Inject this number of faults, each kind if there are enough, and fill disks; return the counts."""
    no_fills = lacking() if fills else None
    counts, kinds, random = Counts("diskerrors", "faults", target=cases), Counter(), Random(seed)
    with Host() as host, tempfile.TemporaryDirectory(prefix="queueber-errors-", dir=place_for_images()) as scratch:

        def attempt(name, work):
            folder = Path(scratch) / name
            folder.mkdir()
            try:
                asyncio.run(work(Epoch(host, folder, Random(f"{seed}-{name}"), counts, kinds)))
            except Failed as why:
                counts.count([f"{name}: {why}"])
                for server in host.servers:
                    server.kill()

        tried, planned = 0, grid(random)
        whole_grid = cases >= len(planned)
        while tried < TRIES_PER_CASE * cases:
            count = min(CASES_PER_EPOCH, max(cases - counts.n, len(planned) if whole_grid else 0))
            if count <= 0:
                break
            faults = [planned.pop() if planned else drawn(random) for _ in range(count)]
            attempt(f"faults-{tried}", lambda epoch, faults=faults: epoch.run(faults))
            tried += count
        for number in range(0 if no_fills else fills):

            async def filled(epoch):
                with LoopDisk(epoch.folder, megabytes=48) as disk:
                    await epoch.full(disk)

            counts.target += 1
            attempt(f"full-{number}", filled)
    for (kind, how), times in sorted(kinds.items()):
        print(f"{times:>6,} {kind}: {how}")
    if no_fills:
        print(f"{SKIPPED}full disks: {no_fills}")
    return counts


def main():
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--cases", type=int, default=60, help="faults that count [60]")
    parser.add_argument("--fills", type=int, default=3, help="full disks [3]")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    why = why_not()
    if why is not None:
        return Counts("diskerrors", "faults").skip(why)
    return run(asked.cases, asked.fills, asked.seed).end(command_line())


if __name__ == "__main__":
    sys.exit(main())

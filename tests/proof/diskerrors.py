"""
A disk that fails at one call of the server's, under load; and one that is full.

strace lets the k-th call of a kind fail with an error of the disk's, from the
moment the server serves, or while it starts.  Then the server must have ended
with status 74 and a line that says why, and answered nothing more; or, where
RocksDB can do without the call, have gone on as if nothing were.  Some such
lives on one directory make a history, which is drained and judged.
"""

import argparse
import asyncio
import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from attrs import frozen
from checker import check
from generator import Generator
from history import Crash, Outcome
from loopdisk import LoopDisk, lacking, place_for_images
from serverhost import Failed, Host
from tally import Tally, command_line

EX_IOERR = 74
CASES_PER_EPOCH = 10
LOAD_SECONDS = 2.0
END_SECONDS = 1.0
SENT_SECONDS = 0.1
"""What was sent before the fault may be read so much later."""

# Small buffers, so that tables are made and logs changed all the time.
OPTIONS = ("--storage-write-buffer-bytes=65536", "--free-space-reserve=0")
ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EROFS")

# Calls, how far to count, and whether the server must end.
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


@frozen
class Fault:
    """What fails, and when."""

    call: str
    error: str
    at: int
    starting: bool

    def __str__(self):
        return f"{self.error} at {self.call} {self.at} {'of a start' if self.starting else 'under load'}"


def drawn(random):
    """A fault."""
    starting = random.random() < 0.25
    call = random.choice(DURING_START if starting else (*UNDER_LOAD, "fdatasync", "write"))
    return Fault(call, random.choice(ERRORS), 1 + random.randrange(6 if starting else CALLS[call][0]), starting)


class Injection:
    """strace, attached; use it in a `with`."""

    def __init__(self, fault, pid, data, told):
        self.told = told
        told.write_text("")
        paths = [f"-P{log}" for log in sorted((data / "db").glob("*.log"))] if fault.call == "write" else []
        self.process = subprocess.Popen(
            [
                *("strace", "-f", "-qq", "-ttt", "-o", str(told), "-p", str(pid), *paths),
                *("-e", f"trace={fault.call}", "-e", f"inject={fault.call}:error={fault.error}:when={fault.at}"),
                *("-e", "signal=none"),
            ],
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.process.terminate()
        self.process.wait()

    def attached(self, pid):
        """Wait until it is."""
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if not re.search(r"^TracerPid:\t0$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE):
                    return
            time.sleep(0.005)

    @property
    def moment(self):
        """When the first fault was, by the monotonic clock; None while there was none."""
        found = re.search(r"^\d+ +([\d.]+) .*\(INJECTED\)", self.told.read_text(errors="replace"), re.MULTILINE)
        return float(found[1]) - time.time() + time.monotonic() if found else None


async def live(server, generator, fault, data, told):
    """One life with one fault; what is wrong with it, None if the fault never came, and when it was over."""
    with Injection(fault, server.pid, data, told) as injection:
        if not fault.starting:
            injection.attached(server.pid)
        port = await asyncio.to_thread(server.port)
        up = time.monotonic()
        load = asyncio.create_task(generator.load(port)) if port is not None else None
        deadline = up + LOAD_SECONDS
        while load and not server.ended() and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
            if injection.moment is not None:
                deadline = min(deadline, injection.moment + END_SECONDS)
        moment, by_itself = injection.moment, server.ended(0.0 if load else 5.0)
        down = time.monotonic()
        # Under strace an end takes longer.
    status = server.kill()
    if load:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(load, 5.0)
    if moment is None and not by_itself:
        return None, up, down
    return (
        [f"{fault}: {each}" for each in judged(fault, server, status, moment, by_itself, generator.history)],
        up,
        down,
    )


def judged(fault, server, status, moment, by_itself, history):
    """What is wrong with how a server took a fault."""
    if not by_itself:
        # A start may do without one of its calls as well: RocksDB's own log, for instance.
        if CALLS[fault.call][1] and not fault.starting:
            yield "the server went on"
        return
    said = server.lines()
    if status != EX_IOERR:
        yield f"status {status}:\n{said[-1_500:]}"
    if not re.search(r"so the server ends: .+|Cannot start: .+", said):
        yield f"no line says why:\n{said[-1_500:]}"
    if moment is not None and CALLS[fault.call][1]:
        late = sum(
            1
            for call in history.calls
            if call.outcome is Outcome.OK and moment + SENT_SECONDS < call.ended < moment + 10
        )
        if late:
            yield f"{late} calls were answered after the fault"


async def epoch(host, folder, random, count, tally, kinds):
    """Some faults on one directory, the drain, and the verdict."""
    generator = Generator(random, polite=random.random() < 0.3, long_span=0.5)
    history, down = generator.history, None
    data = folder / "data"
    # The first start makes the database; what goes wrong with that is the failpoints' business.
    server = host.start(data, folder / "log", *OPTIONS)
    server.port()
    server.stop()
    for _ in range(count):
        fault = drawn(random)
        server = host.start(data, folder / "log", *OPTIONS)
        if not fault.starting and server.port() is None:
            raise Failed(f"no start after a fault:\n{server.lines()[-3_000:]}")
        wrong, up, ended = await live(server, generator, fault, data, folder / "strace")
        if down is not None:
            history.crashes.append(Crash(down, up))
        down = ended
        if wrong is None:
            tally.void()
            kinds["never reached"] += 1
        else:
            tally.count(wrong)
            kinds[
                f"{fault.call}, {'start' if fault.starting else 'load'}",
                "ended" if server.status == EX_IOERR else "went on",
            ] += 1
    await settle(host, data, folder / "log", generator, down, tally)


async def settle(host, data, log, generator, down, tally):
    """A clean start, the drain and the verdict on all lives since."""
    server = host.start(data, log, *OPTIONS)
    port = server.port()
    if port is None:
        raise Failed(f"no clean start:\n{server.lines()[-3_000:]}")
    generator.history.crashes.append(Crash(down, time.monotonic()))
    await generator.drain(port)
    if server.stop() not in {0, -15}:
        raise Failed(f"no clean stop:\n{server.lines()[-3_000:]}")
    tally.failures += check(generator.history).examples


async def full(host, disk, folder, random, tally):
    """The disk becomes full under load, while nothing is held in reserve; then there is room again."""
    generator = Generator(random, long_span=0.5)
    place = disk.path
    server = host.start(place / "data", folder / "log", *OPTIONS)
    port = server.port()
    load = asyncio.create_task(generator.load(port))
    await asyncio.sleep(0.5)
    filler, began = place / "filler", time.monotonic()
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    await asyncio.to_thread(server.ended, began + 30 - time.monotonic())
    down, status = time.monotonic(), server.kill()
    await load
    wrong = list(
        judged(Fault("openat", "ENOSPC", 0, starting=False), server, status, None, status != -9, generator.history)
    )
    if status == -9:
        wrong.append("a full disk did not end the server in 30 s")
    filler.unlink()
    tally.count(wrong)
    await settle(host, place / "data", folder / "log", generator, down, tally)


def run(cases, fills, seed):
    """The tally of so many faults and full disks."""
    tally, kinds = Tally("diskerrors", "faults"), Counter()
    with Host() as host, tempfile.TemporaryDirectory(prefix="queueber-errors-", dir=place_for_images()) as scratch:

        def attempt(name, work):
            folder = Path(scratch) / name
            folder.mkdir()
            try:
                asyncio.run(work(folder, Random(f"{seed}-{name}")))
            except Failed as why:
                tally.count([f"{name}: {why}"])
                for server in host.servers:
                    server.kill()

        for number, at in enumerate(range(0, cases, CASES_PER_EPOCH)):
            count = min(CASES_PER_EPOCH, cases - at)
            attempt(
                f"faults-{number}", lambda folder, random, count=count: epoch(host, folder, random, count, tally, kinds)
            )
        for number in range(fills if lacking() is None else 0):

            async def filled(folder, random):
                with LoopDisk(folder, megabytes=48) as disk:
                    await full(host, disk, folder, random, tally)

            attempt(f"full-{number}", filled)
    for kind, times in sorted(kinds.items(), key=str):
        print(f"{times:>6,} {kind if isinstance(kind, str) else ': '.join(kind)}")
    return tally


def why_not():
    """Why there can be no faults here; None if there can."""
    if shutil.which("strace") is None:
        return "no strace"
    done = subprocess.run(
        ["strace", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"strace may not trace: {done.stderr.strip()}" if done.returncode else None


def main():
    """The status."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--cases", type=int, default=60, help="faults [60]")
    parser.add_argument("--fills", type=int, default=3, help="full disks [3]")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    why = why_not()
    if why is not None:
        print(f"skipped: {why}")
        print(Tally("diskerrors", "faults"))
        return 0
    return run(asked.cases, asked.fills, asked.seed).end(command_line())


if __name__ == "__main__":
    sys.exit(main())

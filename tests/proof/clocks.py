"""
Sets the clocks under a real server.

In each cycle the wall clock jumps while an item is leased and another is
delayed: by seconds, hours or years, back or forth, while the server runs and
often while it is down too.  The server may be restarted on the same boot, on
another one, or with a boot clock that went back.  Leases and delays must last
as long as requested and hardly longer, by the client's monotonic clock, which
is never set.  After another boot, a clock that was set forward while the server
was down may end them early, by at most JUMP_MAX_SECONDS; if it was set back, the
time that the server was down does not count.
"""

import asyncio
import sys
import tempfile
import time
import uuid
from pathlib import Path
from random import Random

import shifted
from attrs import define, field
from counts import Counts, from_command_line
from history import History
from serverhost import Host
from wireclient import Client

from queueber.server.core.clock import JUMP_MAX_SECONDS

YEAR = 366 * 86_400.0
JUMPS = tuple(sign * each for sign in (1, -1) for each in (1.0, 90.0, 3_600.0, YEAR, 10 * YEAR))
KINDS = ("stays up", "killed", "stopped", "boot clock back", "other boot")
LATE_SECONDS = 1.0
"""G7 and G9: how soon after its end a lease or delay is over."""

ROUNDING_SECONDS = 0.002
TIMEOUT_SECONDS = 10.0


@define(eq=False)
class Cycle:
    """One server, one leased item and one delayed."""

    host: Host
    folder: Path
    rng: Random
    wrong: list = field(factory=list)
    description: str = ""
    server: object = None
    up: float = 0.0
    attempts: dict = field(factory=dict)

    async def run(self):
        """Return the errors."""
        rng = self.rng
        kind, during, down = rng.choice(KINDS), rng.choice(JUMPS), rng.choice((0.0, *JUMPS))
        span, delay, extended = rng.uniform(0.4, 1.2), rng.uniform(0.4, 1.2), rng.random() < 0.4
        self.description = f"{kind}, {during:+.0f} s, then {down:+.0f} s; lease {span:.3f} s, delay {delay:.3f} s"
        shifted.write(self.folder / "clocks", **shifted.UNSHIFTED)
        self.new_boot()
        client = await self.start()
        added = time.monotonic()
        await client.add([b"delayed"], [delay])
        due = added + delay, time.monotonic() + delay
        await client.add([b"held"], [0.0])
        began = time.monotonic()
        old = await client.poll(1, span, 0)
        ends = began + span, time.monotonic() + span
        await asyncio.sleep(rng.uniform(0.0, 0.2))
        shifted.write(self.folder / "clocks", wall=during)
        if extended:
            self.description += ", extended"
            began = time.monotonic()
            if not (await client.extend(old.lease, span)).done:
                self.wrong.append("a live lease was not extended")
            ends = began + span, time.monotonic() + span
        if kind != "stays up":
            await asyncio.sleep(rng.uniform(0.0, 0.2))
            client = await self.restart(kind, during + down)
        # What the wall clock says of the time between the mark and the start.  The step may not be marked yet, unless a
        # commit came after it.
        moved = [0.0]
        if kind == "other boot":
            moved = [min(during + down, each) for each in ((down,) if extended else (down, during + down))]
            moved = [0.0 if each > JUMP_MAX_SECONDS else each for each in moved] + [
                -1.0 for each in moved if each > JUMP_MAX_SECONDS
            ]
        self.judge(await self.collect(client, old), kind, moved, ends, due, span, delay)
        self.server.kill()
        return self.wrong

    def new_boot(self):
        (self.folder / "boot").write_text(f"{uuid.UUID(int=self.rng.getrandbits(128))}\n")

    async def start(self):
        folder = self.folder
        self.server = self.host.start(folder / "data", folder / "log", boot=folder / "boot", clocks=folder / "clocks")
        port = self.server.port()
        self.up = time.monotonic()
        return await Client.connect(port, History())

    async def restart(self, kind, wall):
        if kind == "stopped":
            self.server.stop()
        else:
            self.server.kill()
        shifted.write(self.folder / "clocks", wall=wall, boot=-1e6 if kind == "boot clock back" else 0.0)
        if kind == "other boot":
            self.new_boot()
        return await self.start()

    async def collect(self, client, old):
        """Return when each of the two arrived; both are removed then."""
        came, deadline = {}, time.monotonic() + TIMEOUT_SECONDS
        while len(came) < 2 and time.monotonic() < deadline:
            call = await client.poll(2, 60.0, 0.5)
            for item in call.items:
                if item.contents in came:
                    self.wrong.append(f"{item.contents} came twice")
                came[item.contents] = time.monotonic()
                self.attempts[item.contents] = item.attempt
                if item.contents == b"held":
                    stale = await client.extend(old.lease, 60.0), await client.remove(item.id, old.lease)
                    if any(each.done for each in stale):
                        self.wrong.append("a lease that ended was of use")
                if not (await client.remove(item.id, call.lease)).done:
                    self.wrong.append(f"{item.contents} could not be removed")
        return came

    def judge(self, came, kind, moved, ends, due, span, delay):
        # A lease that ended while the server was down counts no attempt.
        if self.attempts not in ({b"held": 2, b"delayed": 1}, {b"held": 1, b"delayed": 1}):
            self.wrong.append(f"attempts were {self.attempts}")
        for name, (asked, passed), length in ((b"held", ends, span), (b"delayed", due, delay)):
            if name not in came:
                self.wrong.append(f"lost: {name} did not come within {TIMEOUT_SECONDS} s")
                continue
            # If the clocks do not show it, time advanced only while a server ran.
            stood_still = kind == "boot clock back" or min(moved) < 0
            high = self.up + length if stood_still else passed
            low = 0.0 if max(moved) > 0 else asked
            if came[name] < low - ROUNDING_SECONDS:
                self.wrong.append(f"{name} came {low - came[name]:.3f} s too early")
            if came[name] > max(high, self.up) + LATE_SECONDS:
                self.wrong.append(f"{name} came {came[name] - max(high, self.up):.3f} s late")


def play(cycles, seed):
    """Run the given number of cycles; return the counts."""
    counts, rng = Counts("clocks", target=cycles), Random(seed)
    with Host() as host:
        for number in range(cycles):
            with tempfile.TemporaryDirectory(prefix="queueber-clocks-") as folder:
                cycle = Cycle(host, Path(folder), rng)
                wrong = asyncio.run(cycle.run())
            counts.count([f"cycle {number} ({cycle.description}): {'; '.join(wrong)}"] if wrong else [])
    return counts


if __name__ == "__main__":
    sys.exit(from_command_line(__doc__, play, cycles=25))

"""Thousands of hostile sessions with a real server, while another client must not notice."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from contextlib import suppress
from pathlib import Path
from random import Random

from attrs import define, field
from live_sessions import session

HERE = Path(__file__).parent
TWISTD = "from twisted.scripts.twistd import run; run()"
PATIENCE_SECONDS = 120
AT_ONCE = 12
QUIET_SECONDS = 3.0
SPOILS = 8

RSS_GROWTH_MIB_MAX = 160
"""The memory of windows (64 MiB), the engine's buffers and a heap full of holes; the items themselves stay few."""

FDS_GROWTH_MAX = 24
"""The engine opens a file for each table it writes."""

BAD_LINES = re.compile("Traceback|Unhandled|critical", re.IGNORECASE)


class Server:
    """A server process on a port of its own choice."""

    def __init__(self, data, log):
        self.log = log
        command = [sys.executable, "-c", TWISTD, "--nodaemon", "--pidfile=", "queueber", f"--data-dir={data}"]
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [*command, "--listen=127.0.0.1:0"],
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=data.parent,
                env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
            )

    def port(self):
        """The port, once it listens."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and self.alive:
            if found := re.findall(r"Listening on .*:(\d+)", self.log.read_text()):
                return int(found[-1])
            time.sleep(0.02)
        raise RuntimeError("the server did not start:\n" + self.log.read_text()[-2_000:])

    @property
    def alive(self):
        return self.process.poll() is None

    def rss_mib(self):
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[1]) / 1024

    def descriptors(self):
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def stop(self):
        """Stop it as an operator would; its exit status."""
        if self.alive:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Good:
    """The good client's process."""

    def __init__(self, port):
        self.process = subprocess.Popen(
            [sys.executable, HERE / "live_worker.py", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
        )

    def ask(self, command):
        """Its answer to *command*; a mapping with `wrong` if it has ended."""
        with suppress(BrokenPipeError):
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"wrong": "the good client's process has ended"}

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        with suppress(BrokenPipeError):
            self.process.stdin.close()


@define
class Report:
    """How a live run went."""

    sessions: int = 0
    kinds: Counter = field(factory=Counter)
    seconds: float = 0.0
    quiet: dict = field(factory=dict)
    hostile: dict = field(factory=dict)
    rss_mib: tuple = ()
    """At the start, the most seen, and at the end."""

    descriptors: tuple = ()
    """At the start and at the end."""

    kept: int = 0
    """Items that were acknowledged, left alone, and found again after the server was stopped and started."""

    findings: list = field(factory=list)

    def must(self, true, what):
        if not true:
            self.findings.append(what)

    def take(self, answer):
        """An answer of the good client, or its complaint."""
        if "wrong" in answer:
            self.findings.append(f"the good client: {answer['wrong']}")
        return answer


async def attack(port, server, sessions, seed, report, progress):
    """Run *sessions* hostile sessions, a few at a time; the most memory seen meanwhile."""
    spoils, numbers, peak = deque(maxlen=SPOILS), iter(range(sessions)), server.rss_mib()

    async def some():
        nonlocal peak
        for number in numbers:
            try:
                report.kinds[await session(port, Random(seed + number), spoils)] += 1
            except (OSError, TimeoutError) as why:
                report.findings.append(f"session {number} could not be held: {type(why).__name__} {why}")
                if not server.alive or len(report.findings) > 20:
                    return
            report.sessions += 1
            if not report.sessions % 50:
                peak = max(peak, server.rss_mib())
                progress(report)

    await asyncio.gather(*[some() for _ in range(AT_ONCE)])
    return peak


def settled(server, before):
    """Descriptors once they are back near what they were *before*, waited for."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while server.descriptors() > before + FDS_GROWTH_MAX and time.monotonic() < deadline:
        time.sleep(0.1)
    return server.descriptors()


def run(folder, sessions, seed, progress=lambda _: None, quiet_seconds=QUIET_SECONDS):
    """Attack a server whose data and log are in *folder*."""
    report, data, log = Report(), folder / "data", folder / "server.log"
    data.mkdir()
    server = Server(data, log)
    good = None
    try:
        port = server.port()
        good = Good(port)
        time.sleep(quiet_seconds / 3)
        report.take(good.ask("report"))
        time.sleep(quiet_seconds)
        report.quiet = report.take(good.ask("report"))
        rss, descriptors, began = server.rss_mib(), server.descriptors(), time.monotonic()
        peak = asyncio.run(attack(port, server, sessions, seed, report, progress))
        report.seconds = time.monotonic() - began
        report.hostile = report.take(good.ask("report"))
        if server.alive:
            report.descriptors = (descriptors, settled(server, descriptors))
            report.rss_mib = (rss, peak, server.rss_mib())
            check_resources(report)
            server = check_data(report, server, good, data, log)
        report.must(server.alive, f"the server has ended with {server.process.poll()}")
        status = server.stop()
        report.must(status in {0, -signal.SIGTERM}, f"the server ended with {status} when it was stopped")
        bad = [line for line in log.read_text(errors="replace").splitlines() if BAD_LINES.search(line)]
        report.must(not bad, f"in the log: {bad[:5]}")
    finally:
        server.stop()
        if good is not None:
            good.close()
    return report


def check_resources(report):
    """The server must have given back what the sessions cost."""
    (before, after), (small, _, large) = report.descriptors, report.rss_mib
    report.must(after <= before + FDS_GROWTH_MAX, f"{before} descriptors became {after}")
    report.must(large <= small + RSS_GROWTH_MIB_MAX, f"{small:.0f} MiB became {large:.0f}")


def check_data(report, server, good, data, log):
    """Stop and start the server, and have the good client look for all that is its own; the server that runs then."""
    report.take(good.ask("hold"))
    server.stop()
    log.write_text(log.read_text(errors="replace").replace("Listening on", "Listened on"))
    server = Server(data, log)
    report.take(good.ask(f"reconnect {server.port()}"))
    report.kept = report.take(good.ask("account")).get("kept", 0)
    report.must(report.kept > 0, "nothing was kept, so nothing was proved")
    return server

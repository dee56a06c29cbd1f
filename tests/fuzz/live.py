"""Runs thousands of hostile sessions with a real server, while another client must not notice."""

import asyncio
import re
import signal
import time
from collections import Counter, deque
from pathlib import Path
from random import Random

from attrs import define, field
from live_sessions import session

from tests.support.healthy_client import HealthyProcess
from tests.support.server_process import Server

HERE = Path(__file__).parent
TIMEOUT_SECONDS = 120
AT_ONCE = 12
QUIET_SECONDS, QUIET_SECONDS_OF_A_SESSION = 3.0, 0.02
"""The time that the good client is alone before an attack: the first at most, and the second for each session."""
PAUSE_SECONDS = 0.004
SPOILS = 8

RSS_GROWTH_MIB_MAX = 160
"""The memory of windows (64 MiB), the engine's buffers and a heap full of holes; the items themselves stay few."""

FDS_GROWTH_MAX = 24
"""The engine opens a file for each table it writes."""

BAD_LINES = re.compile("Traceback|Unhandled|critical", re.IGNORECASE)


@define
class Report:
    """The result of a live run."""

    sessions: int = 0
    kinds: Counter = field(factory=Counter)
    seconds: float = 0.0
    quiet: dict = field(factory=dict)
    hostile: dict = field(factory=dict)
    rss_mib: tuple = ()
    """At the start, the most, and at the end."""

    descriptors: tuple = ()
    """At the start and at the end."""

    kept: int = 0
    """Items that were acknowledged, not removed, and found again after a restart."""

    findings: list = field(factory=list)

    def must(self, true, what):
        if not true:
            self.findings.append(what)

    def take(self, answer):
        """Return an answer of the healthy client, or raise its complaint."""
        if "wrong" in answer:
            self.findings.append(f"the healthy client: {answer['wrong']}")
        return answer


async def attack(port, server, sessions, seed, report, progress):
    """Run *sessions* hostile sessions, a few at a time; return the most memory seen meanwhile."""
    spoils, numbers, peak = deque(maxlen=SPOILS), iter(range(sessions)), server.memory()

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
                peak = max(peak, server.memory())
                progress(report)

    await asyncio.gather(*[some() for _ in range(AT_ONCE)])
    return peak


def settled(server, before):
    """Wait for descriptors to return to about *before*, and return their number."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while server.descriptors() > before + FDS_GROWTH_MAX and time.monotonic() < deadline:
        time.sleep(0.1)
    return server.descriptors()


def run(folder, sessions, seed, progress=lambda _: None):
    """Attack a server whose data are in *folder*."""
    report, quiet_seconds = Report(), min(QUIET_SECONDS, sessions * QUIET_SECONDS_OF_A_SESSION)
    servers = [Server(folder / "data")]
    server, healthy = servers[0], None
    try:
        port = server.port
        healthy = HealthyProcess(port, PAUSE_SECONDS)
        time.sleep(quiet_seconds / 3)
        report.take(healthy.ask("report"))
        time.sleep(quiet_seconds)
        report.quiet = report.take(healthy.ask("report"))
        rss, descriptors, began = server.memory(), server.descriptors(), time.monotonic()
        peak = asyncio.run(attack(port, server, sessions, seed, report, progress))
        report.seconds = time.monotonic() - began
        report.hostile = report.take(healthy.ask("report"))
        if server.alive:
            report.descriptors = (descriptors, settled(server, descriptors))
            report.rss_mib = (rss, peak, server.memory())
            check_resources(report)
            report.take(healthy.ask("hold"))
            server.stop()
            server = Server(server.data_dir)
            servers.append(server)
            check_data(report, server, healthy)
        report.must(server.alive, f"the server has ended with {server.process.poll()}")
        status = server.stop()
        report.must(status in {0, -signal.SIGTERM}, f"the server ended with {status} when it was stopped")
        bad = [line for each in servers for line in each.lines if BAD_LINES.search(line)]
        report.must(not bad, f"in the log: {bad[:5]}")
    finally:
        for each in servers:
            each.stop()
            each.process.stdout.close()
        if healthy is not None:
            healthy.close()
    return report


def check_resources(report):
    """Check that the server has given back what the sessions cost."""
    (before, after), (small, _, large) = report.descriptors, report.rss_mib
    report.must(after <= before + FDS_GROWTH_MAX, f"{before} descriptors became {after}")
    report.must(large <= small + RSS_GROWTH_MIB_MAX, f"{small:.0f} MiB became {large:.0f}")


def check_data(report, server, healthy):
    """Let the healthy client look for its items, on the server that was started after the attack."""
    report.take(healthy.ask(f"reconnect {server.port}"))
    report.kept = report.take(healthy.ask("account")).get("kept", 0)
    report.must(report.kept > 0, "nothing was kept, so nothing was proved")

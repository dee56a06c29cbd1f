"""A real server, the healthy client that uses it, and what an attack costs the two."""

import os
import re
import resource
import time
from pathlib import Path

from attrs import define, field

from queueber.limits import PEER_LIMITS
from tests.process.certificates import Authority
from tests.support.healthy_client import HealthyProcess
from tests.support.peer import TIMEOUT_SECONDS, Peer
from tests.support.server_process import Server

ROOT = Path(__file__).parents[2]
PAUSE_SECONDS = 0.02
"""The pause between its calls: some hundred calls a second, because others share these cores."""

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class Disturbed(AssertionError):
    """The healthy client got a wrong answer, or none."""


def limits(**values):
    """Return command line options for the limits of these names."""
    assert not values.keys() - {limit.name for limit in PEER_LIMITS}
    return [f"--limit-{name.replace('_', '-')}={value}" for name, value in values.items()]


class Healthy:
    """The healthy client of an attack."""

    def __init__(self, port, pause=PAUSE_SECONDS):
        self._process = HealthyProcess(port, pause)

    def report(self):
        """Return its calls since the last report; raises Disturbed after a wrong answer."""
        answer = self._process.ask("report")
        if "wrong" in answer:
            raise Disturbed(answer["wrong"])
        return answer

    def end(self):
        """End it."""
        self._process.close()


def serve(attack, directory):
    """Start a server for *attack*."""
    options = attack.options
    if attack.tls:
        certificate, key = Authority(directory / "ca").sign("server", alternative="IP:127.0.0.1")
        options += ("--listen=127.0.0.1:0", "--listen-tls=127.0.0.1:0")
        options += (f"--tls-certificate={certificate}", f"--tls-key={key}")
    server = Server(directory / "data", *options)
    if attack.files:
        # Long before it looks: it is still being loaded.
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (attack.files, attack.files))
    return server


@define
class Arena:
    """The server and the peers of one attack."""

    server: Server
    port: int
    seconds: float
    """The duration, in seconds, of an attack without an end of its own."""

    full: bool
    """Whether to use the catalogue's own figures, however long that takes."""

    peers: list = field(factory=list)

    @property
    def pid(self):
        return self.server.process.pid

    @property
    def ports(self):
        """Return the ports of the server, in the order of its options; those with TLS last."""
        found = [re.search(r"Listening on .*:(\d+)", line) for line in self.server.lines]
        return [int(each[1]) for each in found if each]

    def connect(self, **how):
        """Return a peer that is closed when the attack is over."""
        self.peers.append(Peer(self.port, **how))
        return self.peers[-1]

    def close(self):
        """Close all peers."""
        peers, self.peers = self.peers, []
        for peer in peers:
            peer.close()

    # What the server's process is like

    def sockets(self):
        """Return the number of sockets that the server holds."""
        count = 0
        for each in Path(f"/proc/{self.pid}/fd").iterdir():
            try:
                count += str(each.readlink()).startswith("socket:")
            except FileNotFoundError:
                continue
        return count

    def settled(self, most=0):
        """Return the number of sockets once it does not change any more, or is at most *most*."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        before, now = -1, self.sockets()
        while now > most and (most or now != before) and time.monotonic() < deadline:
            time.sleep(0.1)
            before, now = now, self.sockets()
        return now

    def forget_peak(self):
        """Let `VmHWM` begin anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def cpu_seconds(self):
        """Return user and system time of the server's threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS

    def lines(self):
        """Return the number of lines that the server has logged."""
        return len(self.server.lines)

"""Runs every live attack briefly: attackers see the promised outcome, the healthy client notices nothing."""

import pytest

from tests.hostile.arena import Arena, Healthy
from tests.hostile.arena import serve as start
from tests.hostile.attacks import ATTACKS

pytestmark = pytest.mark.slow

SECONDS = 0.2
PAUSE_SECONDS = 0.05


class Servers:
    """One server at a time, with a healthy client: an idle one would take a twentieth of a core until the end."""

    def __init__(self, directories):
        self._directories = directories
        self._kind = self._server = self._healthy = None

    def serve(self, attack):
        """Return a server for *attack* and its healthy client, those of the attack before if they can be used."""
        if self._kind != attack.server:
            self.end()
            self._kind, self._server = attack.server, start(attack, self._directories.mktemp("data"))
            self._healthy = Healthy(self._server.port, PAUSE_SECONDS)
        return self._server, self._healthy

    def end(self):
        """End the server and its client."""
        if self._healthy is not None:
            self._healthy.end()
        if self._server is not None:
            self._server.kill()
            self._server.process.stdout.close()
        self._kind = self._server = self._healthy = None


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    servers = Servers(tmp_path_factory)
    yield servers
    servers.end()


@pytest.mark.parametrize(
    "attack", sorted(ATTACKS.values(), key=lambda attack: attack.server), ids=lambda attack: attack.id
)
def test_attackers_do_not_disturb_others(servers, attack):
    if attack.why_not or attack.full_only:
        pytest.skip(attack.why_not or "takes minutes: `make hostile` runs it")
    server, healthy = servers.serve(attack)
    arena = Arena(server, server.port, SECONDS, full=False)
    healthy.report()
    sockets = arena.settled()

    try:
        assert attack.run(arena)
    finally:
        arena.close()

    assert healthy.report()["calls"]
    # Fewer, if some of the attack before were still there.
    assert arena.settled(sockets) <= sockets
    assert not [line for line in server.lines if "Traceback" in line or "Unhandled" in line]
    if attack.alone:
        servers.end()

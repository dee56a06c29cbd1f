"""Every live attack, briefly: attackers see what was promised, the healthy client sees nothing of it."""

import pytest

from tests.hostile.arena import Arena, Healthy
from tests.hostile.arena import serve as start
from tests.hostile.attacks import ATTACKS

pytestmark = pytest.mark.slow

SECONDS = 0.4


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """A server for each set of options, with a healthy client of its own; they end with the module."""
    running = {}

    def serve(attack):
        if attack.server not in running:
            server = start(attack, tmp_path_factory.mktemp("data"))
            running[attack.server] = server, None
            running[attack.server] = server, Healthy(server.port)
        return running[attack.server]

    def end(attack):
        server, healthy = running.pop(attack.server)
        if healthy is not None:
            healthy.end()
        server.kill()
        server.process.stdout.close()

    yield serve, end
    for attack in [each for each in ATTACKS.values() if each.server in running]:
        if attack.server in running:
            end(attack)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=lambda attack: attack.id)
def test_attackers_do_not_disturb_others(servers, attack):
    if attack.why_not or attack.full_only:
        pytest.skip(attack.why_not or "takes minutes: `make hostile` runs it")
    serve, end = servers
    server, healthy = serve(attack)
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
        end(attack)

"""Every live attack, briefly: attackers see what was promised, the healthy client sees nothing of it."""

import time

import pytest

from tests.hostile.arena import Arena, Healthy
from tests.hostile.attacks import ATTACKS, OPTIONS
from tests.hostile.peer import PATIENCE
from tests.process.conftest import Server

pytestmark = pytest.mark.slow

SECONDS = 0.4


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """A server for each set of options, with the healthy client beside it; they end with the module."""
    running = {}

    def serve(options):
        if options not in running:
            server = Server(tmp_path_factory.mktemp("data") / "data", *options)
            running[options] = server, None
            running[options] = server, Healthy(server.port)
        return running[options]

    yield serve
    for server, healthy in running.values():
        if healthy is not None and healthy.process.poll() is None:
            healthy.end()
        server.kill()
        server.process.stdout.close()


def settled(arena, sockets):
    """Wait until the server holds no more than so many sockets."""
    deadline = time.monotonic() + PATIENCE
    while arena.sockets() > sockets and time.monotonic() < deadline:
        time.sleep(0.02)
    return arena.sockets()


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=lambda attack: attack.name.replace(" ", "_"))
def test_attackers_disturb_nobody(servers, attack):
    server, healthy = servers(attack.options or tuple(OPTIONS))
    arena = Arena(server, server.port, SECONDS, full=False)
    healthy.report()
    sockets = arena.sockets()

    try:
        assert attack.run(arena)
    finally:
        arena.close()

    assert healthy.report()["calls"]
    assert settled(arena, sockets) == sockets
    assert not [line for line in server.lines if "Traceback" in line or "Unhandled" in line]

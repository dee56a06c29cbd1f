"""pycapnp's RPC client, in a process of its own, against a real server."""

import pytest

from tests.process.conftest import foreign

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("scenario", ["calls", "waits", "queues", "forget", "large"])
def test_foreign_client_is_served(start, scenario):
    server = start()

    foreign(scenario, server.port)

    assert server.stop() is not None
    assert not [line for line in server.lines if "Traceback" in line or "Unhandled" in line]


@pytest.mark.parametrize("scenario", ["facts", "options", "settled", "once", "sessions", "controlled", "several"])
def test_foreign_client_is_served_by_the_newer_methods(start, scenario):
    server = start()

    foreign(scenario, server.port, script="foreign_operations.py")

    assert server.stop() is not None
    assert not [line for line in server.lines if "Traceback" in line or "Unhandled" in line]


def test_packed_and_unpacked_values_are_read_alike(start):
    server = start("--storage-encoding=packed")
    foreign("large", server.port)
    server.stop()

    server = start("--storage-encoding=unpacked")
    foreign("drain", server.port)


@pytest.mark.parametrize("durability", ["os", "none"])
def test_other_durabilities_serve_the_same(start, durability):
    foreign("calls", start(f"--durability={durability}").port)

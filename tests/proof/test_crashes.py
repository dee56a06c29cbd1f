"""A small slice of `kill.py` and `everypoint.py`, and that every failpoint still leads somewhere."""

import asyncio
import json
import random
import time

import everypoint
import failpoints
import kill
import pytest
from generator import Generator
from serverhost import Host

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seam", failpoints.SEAMS)
def test_a_seam_is_there(seam):
    owner, name = failpoints.place_of(failpoints.SEAMS[seam])
    assert callable(getattr(owner, name))


def test_the_groups_name_seams():
    named = (*failpoints.CREATING, *failpoints.RECOVERING, *failpoints.STOPPING, *failpoints.SELDOM)
    assert set(named) <= set(failpoints.SEAMS)
    assert len(failpoints.POINTS) >= 25


async def lives(host, folder, passes):
    """A first start under load, a kill, and a second start under load that is stopped once all was passed."""
    generator = Generator(random.Random(1), long_span=0.5)
    for stop in (False, True):
        server = host.start(folder / "data", folder / "log", passes=passes)
        load = asyncio.create_task(generator.load(server.port()))
        deadline = time.monotonic() + (20.0 if stop else 1.0)
        while time.monotonic() < deadline and len(not_passed(passes)) > 2 * len(failpoints.STOPPING):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        assert (server.stop() if stop else server.kill()) in {0, -15, -9}
        await load


def not_passed(passes):
    passed = {json.loads(line) for line in passes.read_text().splitlines()} if passes.exists() else set()
    return set(failpoints.POINTS) - passed


def test_every_failpoint_is_reached(tmp_path):
    passes = tmp_path / "passes"
    with Host() as host:
        asyncio.run(lives(host, tmp_path, passes))
    # Behind it there is no server any more to note it.
    assert not_passed(passes) <= {"after release"}


def test_nothing_is_lost_when_the_server_is_killed(tmp_path):
    tally = kill.run(3, 11, tmp_path / "keep", long_span=0.6)
    assert (tally.failures, tally.n + tally.voids) == ([], 3)


def test_a_server_that_forgets_is_found_out(tmp_path):
    tally = kill.run(2, 12, tmp_path / "keep", ["--durability=none"], long_span=0.5)
    assert "lost: item" in str(tally.failures)


def test_nothing_is_lost_when_it_is_killed_at_a_point(tmp_path):
    tally = everypoint.run(["after write", "before speak", "after remove clean mark"], 5, tmp_path / "keep")
    assert (tally.failures, tally.n) == ([], 3)

"""A small slice of `kill.py` and `everypoint.py`, and a check that every failpoint is still reached."""

import asyncio
import json
import random
import time

import checker
import counts
import everypoint
import failpoints
import kill
import pytest
import tenure
from generator import Generator
from history import Add, Outcome
from older import set_back
from serverhost import Host
from setups import TINY_BUFFERS, TINY_WINDOWS
from wireclient import Client, Refused

from queueber.errors import Kind

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def busy(monkeypatch):
    """Accept lateness, of sweeps too, which other work on the machine can cause."""
    monkeypatch.setattr(checker, "LATE_SECONDS", 60.0)
    monkeypatch.setattr(tenure, "SWEPT_SECONDS", 60.0)


@pytest.mark.parametrize("seam", failpoints.SEAMS)
def test_a_seam_is_there(seam):
    owner, name = failpoints.place_of(failpoints.SEAMS[seam])
    assert callable(getattr(owner, name))


def test_the_groups_name_seams():
    named = (*failpoints.CREATING, *failpoints.CONVERTING, *failpoints.RECOVERING, *failpoints.STOPPING)
    named = (*named, *failpoints.SELDOM)
    assert set(named) <= set(failpoints.SEAMS)
    assert len(failpoints.POINTS) >= 25


async def lives(host, folder, passes):
    """Start under load, kill, start again under load, and stop once all points were passed."""
    generator = Generator(random.Random(1), long_span=0.5)
    for stop in (False, True):
        if stop:
            assert set_back(folder / "data") > 0
        server = host.start(folder / "data", folder / "log", passes=passes, limits=TINY_WINDOWS)
        load = asyncio.create_task(generator.load(server.port()))
        deadline = time.monotonic() + (100.0 if stop else 1.0)
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
    # After it there is no server any more to note it.
    assert not_passed(passes) <= {"after release"}


def test_nothing_is_lost_when_the_server_is_killed(tmp_path):
    found = kill.run(3, 11, tmp_path / "keep", long_span=0.6)
    assert (found.failures, found.n) == ([], 3)


def test_a_server_that_forgets_is_found_out(tmp_path):
    found = kill.run(2, 12, tmp_path / "keep", ["--durability=none"], long_span=0.5)
    assert "lost: item" in str(found.failures)


def test_a_server_that_forgets_is_found_out_where_nothing_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(counts, "TRIES_PER_TARGET", 1)
    monkeypatch.setattr(kill, "too_few_unknown", lambda history, faults: True)
    found = kill.run(1, 12, tmp_path / "keep", ["--durability=none"], long_span=0.5)
    assert (found.n, found.voids) == (0, 1)
    assert "lost: item" in str(found.failures)


def test_nothing_is_lost_when_it_is_killed_at_a_point(tmp_path):
    found = everypoint.run(["after write", "before send replies", "after remove clean mark"], 5, tmp_path / "keep")
    assert (found.failures, found.n) == ([], 3)


async def nothing(self, port):
    """A load without calls."""


async def breaks(self, port):
    """A load that has a bug."""
    raise ZeroDivisionError


def test_without_load_nothing_is_proved(tmp_path, monkeypatch):
    monkeypatch.setattr(everypoint, "TRIES_PER_TARGET", 1)
    monkeypatch.setattr(counts, "TRIES_PER_TARGET", 1)
    monkeypatch.setattr(Generator, "load", nothing)
    points = everypoint.run(["before recover", "after listen"], 5, tmp_path / "keep")
    assert (points.n, points.voids, points.failures) == (0, 2, [])
    kills = kill.run(1, 5, tmp_path / "keep")
    assert (kills.n, kills.failures) == (0, [])


def test_a_load_that_breaks_is_no_load(tmp_path, monkeypatch):
    monkeypatch.setattr(Generator, "load", breaks)
    with pytest.raises(ZeroDivisionError):
        everypoint.run(["before recover"], 5, tmp_path / "keep")
    with pytest.raises(ZeroDivisionError):
        kill.run(1, 5, tmp_path / "keep")


async def setting_out(host, folder):
    """Load a server whose configuration makes rare events common; its connections and refusals are logged."""
    generator = Generator(random.Random(3), polite=True)
    passes = folder / "passes"
    server = host.start(folder / "data", folder / "log", *TINY_BUFFERS, limits=TINY_WINDOWS, passes=passes)
    port = server.port()
    load = asyncio.create_task(generator.load(port))
    await asyncio.wait([load], timeout=1.5)
    client = await Client.connect(port, generator.history)
    with pytest.raises(Refused):
        await client.add([b"too late"], [1e9])
    lived = [each for each in generator.history.breaks if "attached over another connection" not in each.why]
    server.kill()
    await load
    return generator.history, lived, not_passed(passes)


def test_servers_are_set_up_so_that_much_happens(tmp_path):
    with Host() as host:
        history, lived, not_passed = asyncio.run(setting_out(host, tmp_path))
    assert {"before refill scan", "after refilled"}.isdisjoint(not_passed), "windows are trimmed and refilled"
    assert list((tmp_path / "data" / "db").glob("*.sst")), "tables are made"
    assert min(int(log.stem) for log in (tmp_path / "data" / "db").glob("*.log")) > 10, "logs change"
    (refused,) = [each for each in history.of(Add) if b"too late" in each.contents]
    assert refused.outcome is Outcome.REFUSED
    assert (refused.kind, "limit" in refused.why) == (Kind.FAILED, True)
    assert lived == []
    assert len(history.breaks) > 8, "each client's connection was cut by the kill"

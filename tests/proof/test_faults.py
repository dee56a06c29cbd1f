"""Small slices of `filedamage.py`, `tornpages.py`, `powercut.py`, `diskerrors.py` and `writeback.py`."""

import asyncio
import re
import subprocess
import sys
from collections import Counter

import checker
import counts
import diskerrors
import filedamage
import loopdisk
import powercut
import pytest
import tornpages
import writeback
from generator import Generator

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def busy(monkeypatch):
    """Accept lateness, which other work on the machine can cause."""
    monkeypatch.setattr(checker, "LATE_SECONDS", 60.0)
    monkeypatch.setattr(diskerrors, "SENT_SECONDS", 10.0)


def of_its_own(script, *arguments):
    """Run *script* in a process of its own, because it forks and a fork lacks RocksDB's threads; return its output."""
    command = [sys.executable, script.__file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_damage_is_refused_or_does_no_harm():
    said = of_its_own(
        filedamage, "--seed=2", "--no-files", "--flips=60", "--small-flips=20", "--zeros=15", "--cut-step=40"
    )
    counted = Counter()
    for kind, count in re.findall(r"^ *bit in ([^,]*?) +(?:opened|refused) +(\d+)$", said, flags=re.MULTILINE):
        counted[kind] += int(count)
    where = {kind: counted.pop(kind) for kind in filedamage.SHARES}
    assert where == {"log": 24, "table": 15, "blob file": 9, "manifest": 12}
    assert sum(counted.values()) == 20, "the small files are counted apart"


def test_torn_ends_are_cut_off_and_reported_and_nothing_else():
    assert "60 images, 0 failures" in of_its_own(tornpages, "--seed=2", "--images=60")


@pytest.mark.skipif(loopdisk.lacking() is not None, reason=f"no power to cut: {loopdisk.lacking()}")
def test_nothing_is_lost_when_the_power_is_cut(tmp_path):
    found = powercut.run(3, 12, tmp_path / "keep", long_span=1.0)
    assert (found.failures, found.n) == ([], 3)


@pytest.mark.skipif(loopdisk.lacking() is not None, reason=f"no power to cut: {loopdisk.lacking()}")
def test_cuts_that_lose_are_found_out_where_nothing_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(counts, "TRIES_PER_TARGET", 1)
    monkeypatch.setattr(powercut, "too_few_unknown", lambda history, faults: True)
    # The system may have written all by itself just before a cut.
    for seed in range(12, 20):
        found = powercut.run(2, seed, tmp_path / "keep", ["--durability=os"], long_span=0.5)
        assert (found.n, found.voids) == (0, 2)
        if found.failures:
            break
    assert "lost: item" in str(found.failures)


@pytest.mark.skipif(diskerrors.why_not() is not None, reason=f"no faults: {diskerrors.why_not()}")
def test_an_error_of_the_disk_ends_the_server_and_nothing_is_lost():
    found = diskerrors.run(4, 0, 3)
    assert found.failures == []
    assert found.n >= 4


@pytest.mark.skipif(loopdisk.lacking() is not None, reason=f"no disk to fail: {loopdisk.lacking()}")
def test_an_error_that_comes_when_the_system_writes_back_ends_the_server_and_nothing_is_lost():
    found = writeback.run(1, 2)
    assert (found.failures, found.n) == ([], 1)


@pytest.mark.skipif(diskerrors.why_not() is not None, reason=f"no faults: {diskerrors.why_not()}")
def test_without_load_an_error_of_the_disk_proves_nothing(monkeypatch):
    async def nothing(self, port):
        await asyncio.sleep(0)

    monkeypatch.setattr(Generator, "load", nothing)
    monkeypatch.setattr(diskerrors, "LOAD_SECONDS", 0.2)
    monkeypatch.setattr(diskerrors, "TRIES_PER_CASE", 1)
    found = diskerrors.run(1, 0, 3)
    assert (found.failures, found.n) == ([], 0)


@pytest.mark.skipif(loopdisk.lacking() is not None, reason=f"no disk to fill: {loopdisk.lacking()}")
def test_a_full_disk_ends_the_server_and_nothing_is_lost():
    found = diskerrors.run(0, 1, 3)
    assert (found.failures, found.n) == ([], 1)

"""Small slices of `filedamage.py`, `tornpages.py`, `powercut.py`, `diskerrors.py` and `writeback.py`."""

import subprocess
import sys

import diskerrors
import filedamage
import loopdisk
import powercut
import pytest
import tornpages
import writeback

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        (filedamage, ["--seed=2", "--no-files", "--flips=60", "--zeros=15", "--cut-step=40"]),
        (tornpages, ["--seed=2", "--images=60"]),
    ],
)
def test_damage_and_torn_ends_are_refused_or_do_no_harm(script, arguments):
    """In a process of its own: it forks, and a fork lacks the threads of a RocksDB that was used before it."""
    done = subprocess.run(
        [sys.executable, script.__file__, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(loopdisk.lacking() is not None, reason=f"no power to cut: {loopdisk.lacking()}")
def test_nothing_is_lost_when_the_power_is_cut(tmp_path):
    tally = powercut.run(3, 12, tmp_path / "keep", long_span=1.0)
    assert (tally.failures, tally.n + tally.voids) == ([], 3)


@pytest.mark.skipif(diskerrors.why_not() is not None, reason=f"no faults: {diskerrors.why_not()}")
def test_an_error_of_the_disk_ends_the_server_and_nothing_is_lost():
    tally = diskerrors.run(4, 0, 3)
    assert (tally.failures, tally.n + tally.voids) == ([], 4)


@pytest.mark.skipif(loopdisk.lacking() is not None, reason=f"no disk to fail: {loopdisk.lacking()}")
def test_an_error_that_comes_when_the_system_writes_back_ends_the_server_and_nothing_is_lost():
    tally = writeback.run(1, 2)
    assert (tally.failures, tally.n) == ([], 1)

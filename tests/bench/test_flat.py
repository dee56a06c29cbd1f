"""The checks of what must not grow run, and print their figures; what those are is not looked at."""

import json
import sys
from pathlib import Path

import pytest

from tests.support.processes import completed

FLAT = Path(__file__).with_name("flat.py")
IMPATIENT = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); import flat\n"
    "flat.SETTLE_SECONDS = flat.IDLE_SECONDS = 0.5; sys.exit(flat.main())"
)
"""Waits less for a quiet server."""

SMALL = {
    "waiters": ["--waiters", "500", "--adds", "20"],
    "backlog": ["--items", "1000", "--rounds", "20"],
    "idlers": ["--queues", "500", "--connections", "20"],
    "million": ["--items", "2000", "--rounds", "20"],
    "many": ["--queues", "50", "--rounds", "20"],
    "steady": ["--hours", "0.0001"],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("check", "figures"),
    [("waiters", 1), ("backlog", 4), ("idlers", 1), ("million", 9), ("many", 9), ("steady", 1)],
)
def test_a_small_check_gives_its_figures(check, figures, request, tmp_path):
    found = tmp_path / "found.json"
    command = [sys.executable, "-c", IMPATIENT, FLAT.parent, check, *SMALL[check], "--json", found]
    done = completed(command, cwd=request.config.rootpath)
    assert done.returncode in {0, 1}, done.stderr
    values = json.loads(found.read_text())
    assert len(values) == figures
    assert [each["met"] for each in values] == [line.startswith("met") for line in done.stdout.splitlines()]


def test_an_unknown_check_is_named(request):
    done = completed([sys.executable, FLAT, "round"])
    assert done.returncode == 2
    assert "no such check: round" in done.stderr

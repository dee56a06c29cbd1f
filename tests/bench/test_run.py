"""The benchmark runs and prints its tables; how fast anything was is not looked at."""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.support.processes import completed

RUN = Path(__file__).with_name("run.py")


SOME = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); import run, targets\n"
    "names = sys.argv.pop(1).split()\n"
    "targets.TARGETS = [each for each in targets.TARGETS if each.scenario.name in names]\n"
    "sys.exit(run.main(sys.argv[1:]))"
)
"""Measures the targets of some loads."""

EACH_PEER = "add-64x1x1-mixed add-4x64x1 take-16x16x10-mixed"
ONE_OF_A_PEER = "take-16x16x10-mixed"

BRIEF = ["--quick", "--seconds", "0.15", "--warmup", "0.05"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "loads", "number"),
    [(os.environ["PATH"], EACH_PEER, 6), ("/nowhere", ONE_OF_A_PEER, 1)],
    ids=["with the peers there are", "without peers"],
)
def test_the_targets_are_all_measured_in_one_run(path, loads, number, request, tmp_path):
    figures = tmp_path / "figures.json"
    finished = completed(
        [sys.executable, "-c", SOME, RUN.parent, loads, "--targets", *BRIEF, "--json", figures],
        cwd=request.config.rootpath,
        env={**os.environ, "PATH": path},
    )
    assert finished.returncode == 0, finished.stderr
    targets = json.loads(figures.read_text())
    assert len(targets) == number
    assert all("met" in each or "missing" in each for each in targets)
    assert [each["target"] for each in targets if "missing" not in each and each["value"] <= 0] == []


@pytest.mark.slow
def test_a_table_has_a_row_for_each_server_and_missing_ones_say_so(request, tmp_path):
    names = ["fsync", "pycapnp", "beanstalkd-f0", "rabbitmq"]
    peers = [word for name in names for word in ("--peer", name)]
    finished = completed(
        [sys.executable, RUN, *BRIEF, *peers, "--scenario", "cycle-2x4x2", "--out", tmp_path],
        cwd=request.config.rootpath,
        env={**os.environ, "PATH": "/nowhere"},
    )
    assert finished.returncode == 0, finished.stderr
    rows = json.loads((tmp_path / "peers.json").read_text())["rows"]
    assert [row["server"] for row in rows] == names
    assert all(row["rate"] > 0 and row["p50_ms"] <= row["p99_ms"] for row in rows[:2])
    assert all("missing" in row or row["rate"] > 0 for row in rows)
    page = (tmp_path / "peers.md").read_text()
    assert page.startswith("# Queueber next to its peers")
    assert "| beanstalkd-f0 | missing |" in page or rows[2].get("rate")
    assert (tmp_path / "peers.svg").read_text().startswith("<svg")


def test_a_commit_that_is_not_there_is_named(request):
    finished = completed([sys.executable, RUN, "--baseline-commit", "nothing"], cwd=request.config.rootpath)
    assert finished.returncode == 1
    assert "the server of commit nothing cannot be installed" in finished.stderr


@pytest.mark.slow
def test_plain_loads_are_compared_with_an_earlier_server(request, tmp_path):
    """The earlier server is the present one: what is compared is not looked at."""
    figures = tmp_path / "figures.json"
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import run, unused; from peers import PEERS\n"
        "unused.install = lambda _: None; type(PEERS['baseline']).program = sys.executable\n"
        "type(PEERS['baseline']).folder = type(PEERS['fsync']).folder; sys.exit(run.main(sys.argv[1:]))"
    )
    loads = ["--scenario", "add-1x4x1"]
    times = [*BRIEF, "--repeats", "1"]
    finished = completed(
        [sys.executable, "-c", program, RUN.parent, "--baseline-commit", "any", *times, *loads, "--json", figures],
        cwd=request.config.rootpath,
    )
    assert finished.returncode == 0, finished.stderr
    rows = json.loads(figures.read_text())
    assert [row["load"] for row in rows] == ["add-1x4x1"]
    assert all(row["ratio"] > 0 and row["ours"]["rate"] > 0 for row in rows)

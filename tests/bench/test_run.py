"""The benchmark runs and prints its table; how fast anything was is not looked at."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["add-64x1", "take-1x10"])
def test_a_short_run_gives_a_row_for_each_server(scenario, request, tmp_path):
    figures = tmp_path / "figures.json"
    times = ["--quick", "--seconds", "0.2", "--warmup", "0.1"]
    finished = subprocess.run(
        [sys.executable, RUN, *times, "--scenario", scenario, "--durability", "fsync", "--json", figures],
        cwd=request.config.rootpath,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    about, heading, *lines = finished.stdout.splitlines()
    assert about.startswith("4 connections")
    assert " ".join(heading.split()) == "calls fly items server rate p50 ms p99 ms us/call ratio client"
    assert [" pycapnp " in line for line in lines] == [True, False]
    assert [" fsync " in line for line in lines] == [False, True]
    rows = json.loads(figures.read_text())
    assert [row["server"] for row in rows] == ["pycapnp", "fsync"]
    assert all(row["rate"] > 0 and row["p50_ms"] <= row["p99_ms"] and len(row["repeats"]) == 1 for row in rows)
    assert rows[0]["ratio"] == 1

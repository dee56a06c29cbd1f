"""The benchmark runs and prints its tables; how fast anything was is not looked at."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")


@pytest.mark.slow
def test_the_targets_are_all_measured_in_one_run(request, tmp_path):
    figures = tmp_path / "figures.json"
    times = ["--quick", "--seconds", "0.2", "--warmup", "0.1"]
    finished = subprocess.run(
        [sys.executable, RUN, "--targets", *times, "--json", figures],
        cwd=request.config.rootpath,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    told = json.loads(figures.read_text())
    assert len(told) == 7
    assert all("met" in each or "missing" in each for each in told)
    assert [each["target"] for each in told if "missing" not in each and each["value"] <= 0] == []

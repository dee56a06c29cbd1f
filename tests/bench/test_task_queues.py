"""Task libraries next to each other: our own is run in full, the others are named when they are not installed."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).with_name("task_queues")
RUN = FOLDER / "run.py"


def run(tmp_path, *arguments):
    return subprocess.run(
        [sys.executable, RUN, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ
    )


@pytest.mark.slow
def test_our_tasks_are_run_and_measured(tmp_path):
    figures = tmp_path / "figures.json"
    finished = run(tmp_path, "--only", "queueber tasks", "--tasks", "40", "--without-kill", "--json", figures)
    assert finished.returncode == 0, finished.stderr
    (found,) = json.loads(figures.read_text())
    for processes in ("throughput1", "throughput4"):
        assert found[processes]["run"] > 0
        assert found[processes]["unfinished"] == 0
    assert found["latency"]["p50"] > 0
    assert found["latency"]["memory"] > 1 << 20
    assert len(finished.stdout.splitlines()) == 3


def test_every_app_can_be_parsed_and_has_its_library():
    apps = {path.stem.removesuffix("_app") for path in (FOLDER / "apps").glob("*_app.py")}
    listed = subprocess.run(
        [sys.executable, FOLDER / "libraries.py"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert {line.split()[0] for line in listed} | {"queueber"} == apps
    for app in apps:
        assert ast.get_docstring(ast.parse((FOLDER / "apps" / f"{app}_app.py").read_text()))

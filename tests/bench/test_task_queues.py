"""Task libraries next to each other: our own is run in full, the others are named when they are not installed."""

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import completed

FOLDER = Path(__file__).with_name("task_queues")
RUN = FOLDER / "run.py"


def run(tmp_path, *arguments):
    return completed([sys.executable, RUN, *arguments], cwd=tmp_path, env=os.environ)


@pytest.mark.slow
def test_our_tasks_are_run_and_measured(tmp_path):
    figures = tmp_path / "figures.json"
    few = ["--tasks", "20", "--run-seconds", "0", "--without-kill"]
    finished = run(tmp_path, "--only", "queueber tasks", *few, "--json", figures)
    assert finished.returncode == 0, finished.stderr
    (found,) = json.loads(figures.read_text())
    for processes in ("throughput1", "throughput4"):
        assert found[processes]["run"] > 0
        assert found[processes]["unfinished"] == 0
    assert found["one by one"]["add"] > 0
    assert found["latency"]["p50"] > 0
    assert found["latency"]["memory"] > 1 << 20
    assert len(finished.stdout.splitlines()) == 3


@pytest.fixture(scope="module")
def task_queues():
    # By its place: other harnesses have a module of that name.
    spec = importlib.util.spec_from_file_location("task_queues_run", RUN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def starts(*pids):
    """Return records of tasks that start one second apart, in these processes."""
    return [(number, 0, number * 10**9, pid) for number, pid in enumerate(pids)]


def test_a_rate_begins_when_each_process_has_started_a_task(task_queues):
    slow_start = [(number, 0, number * 10**6, 1) for number in range(5)]
    found = [*slow_start, *((number, 0, number * 10**9, 2 - number % 2) for number in range(1, 10))]
    assert task_queues.rate(found, 2) == pytest.approx(1.0)
    assert task_queues.rate(starts(*[1] * 100), 1) == pytest.approx(1.0)
    assert task_queues.rate(starts(*range(100)), 4) == pytest.approx(1.0)
    assert task_queues.rate(starts(*[1] * 20), 4) == pytest.approx(1.0), "the others start none"


def test_repeats_become_medians_of_the_runs_that_have_them(task_queues):
    runs = [
        {"library": "a", "throughput1": {"run": 3.0}, "killed": {"seconds": None, "lost": 1}},
        {"library": "a", "throughput1": {"run": 1.0}},
        {"library": "a", "throughput1": {"run": 2.0}},
    ]
    expected = {"library": "a", "throughput1": {"run": 2.0}, "killed": {"seconds": None, "lost": 1}}
    assert task_queues.median(runs) == expected


def test_every_app_can_be_parsed_and_has_its_library():
    apps = {path.stem.removesuffix("_app") for path in (FOLDER / "apps").glob("*_app.py")}
    listed = subprocess.run(
        [sys.executable, FOLDER / "libraries.py"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert {line.split()[0] for line in listed} | {"queueber"} == apps
    for app in apps:
        assert ast.get_docstring(ast.parse((FOLDER / "apps" / f"{app}_app.py").read_text()))

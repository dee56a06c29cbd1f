"""The number of Python calls that one call of a client takes; `call_counts.py` lists them."""

import json
import sys
from pathlib import Path

import pytest

from tests.support.processes import completed

PROGRAM = Path(__file__).with_name("call_counts.py")

# Calls of `queueber` and of libraries. Both only go down; those of libraries vary by fifteen.
BOUNDS = {"add": (60, 65), "poll": (90, 65), "remove": (60, 65)}


@pytest.mark.slow
def test_a_lone_call_takes_few_python_calls():
    done = completed([sys.executable, PROGRAM])
    assert done.returncode == 0, done.stderr
    counts = {kind: (found["ours"], found["others"]) for kind, found in json.loads(done.stdout).items()}
    assert counts.keys() == BOUNDS.keys()
    above = {kind for kind, (ours, others) in counts.items() if ours > BOUNDS[kind][0] or others > BOUNDS[kind][1]}
    assert not above, counts

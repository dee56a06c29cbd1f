"""The number of Python calls that one task takes in its worker; `call_counts.py` lists them."""

import json
import sys
from pathlib import Path

import pytest

from tests.support.processes import completed

PROGRAM = Path(__file__).with_name("call_counts.py")

# Both only go down; they vary by three, with the sizes of batches.
BOUNDS = {"ours": 52, "others": 23}


@pytest.mark.slow
def test_a_task_takes_few_python_calls():
    done = completed([sys.executable, PROGRAM])
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts.keys() == BOUNDS.keys()
    assert not {kind for kind, calls in counts.items() if calls > BOUNDS[kind]}, counts

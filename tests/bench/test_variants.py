"""Variants of the benchmark: the names that they patch exist."""

import sys
from pathlib import Path

import pytest

from tests.support.processes import completed

HERE = Path(__file__).parent


def run(program):
    """Run *program* next to the benchmark's modules; its status and what it wrote to standard error."""
    whole = f"import sys; sys.path.insert(0, {str(HERE)!r})\nfrom variants import VARIANTS, Patch\n{program}"
    finished = completed([sys.executable, "-c", whole])
    return finished.returncode, finished.stderr


@pytest.mark.slow
def test_every_patch_applies():
    """All in one process: each changes a name of its own."""
    assert run("for each in VARIANTS:\n    if each.patch: exec(each.patch.program)") == (0, "")


@pytest.mark.slow
def test_a_patch_of_something_that_is_not_there_fails():
    status, error = run("exec(Patch('queueber.rpc.fastpath', 'FastPath.took', 'None').program)")
    assert status != 0
    assert "has no attribute 'took'" in error

"""Type checkers see the parameters of a task through all that it offers."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).parent / "typed_program.py"


@pytest.mark.slow
def test_mypy_accepts_right_calls_and_rejects_each_wrong_one():
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False
    )
    found = set(re.findall(r"^\S+typed_program\.py:(\d+): error: .*\[([\w-]+)\]$", done.stdout, flags=re.MULTILINE))
    lines = enumerate(PROGRAM.read_text().splitlines(), start=1)
    assert found == {(str(number), error[1]) for number, line in lines if (error := re.search(r"# error: (\S+)", line))}
    assert len(re.findall("error: ", done.stdout)) == len(found), done.stdout

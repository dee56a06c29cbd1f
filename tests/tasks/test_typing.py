"""Type checkers see the parameters of a task through all that it offers."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).parent / "typed_program.py"


WRONG = {
    number: found[1]
    for number, line in enumerate(PROGRAM.read_text().splitlines(), start=1)
    if (found := re.search(r"# error: (\S+)", line))
}


def errors_of(checker, *options, pattern):
    command = [sys.executable, "-m", checker, *options, PROGRAM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = re.findall(rf"^ *\S+\.py:(\d+){pattern}", done.stdout, flags=re.MULTILINE)
    assert len(found) == len(re.findall(r"\berror: ", done.stdout)) > 0, done.stdout
    return found


@pytest.mark.slow
def test_mypy_accepts_right_calls_and_rejects_each_wrong_one():
    found = errors_of("mypy", "--strict", pattern=r": error: .*\[([\w-]+)\]$")
    assert {int(number): code for number, code in found} == WRONG


@pytest.mark.slow
def test_pyright_accepts_right_calls_and_rejects_each_wrong_one():
    pytest.importorskip("pyright")
    found = errors_of("pyright", "--pythonpath", sys.executable, pattern=r":\d+ - error: ")
    assert sorted(int(number) for number in found) == sorted(WRONG)

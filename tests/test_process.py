"""Standard streams that were closed before Python started."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, sys
from queueber.process import fill_standard_streams
fill_standard_streams()
sys.stdout.write("x")
sys.stderr.write("x")
with open(sys.argv[1], "w") as seen:
    seen.write(" ".join(os.readlink(f"/proc/self/fd/{fd}") for fd in map(int, sys.argv[2:])))
"""


@pytest.mark.parametrize("closed", [["0"], ["1"], ["2"], ["0", "1", "2"]])
def test_streams_that_were_closed_are_the_null_device(tmp_path, closed):
    shell = f'exec "$@" {" ".join(f"{number}>&-" for number in closed)}'
    done = subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-c", SCRIPT, str(tmp_path / "seen"), *closed],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert (tmp_path / "seen").read_text().split() == [os.devnull] * len(closed)

"""The commands that put load on a server, and one that looks at them."""

import json
import os
import pty
import re
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest

from queueber.loadgen.scenarios import TRIALS
from tests.process.conftest import PATIENCE

pytestmark = pytest.mark.slow


@pytest.fixture
def command(start):
    port = start().port
    return (sys.executable, "-m", "queueber.cli", "--addr", f"127.0.0.1:{port}")


@pytest.fixture
def run(command):
    def run(*arguments):
        done = subprocess.run((*command, *arguments), capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stderr + done.stdout
        return done

    return run


def test_all_three_commands_against_a_server(run, tmp_path):
    """Plain text and JSON; no bar, because nobody looks."""
    plot = tmp_path / "figures.svg"
    text = run("bench", "--seconds", "0.3", "--plot", str(plot)).stdout
    assert text.splitlines()[0].split()[:2] == ["scenario", "items/s"]
    assert len(text.splitlines()) == 1 + len(TRIALS)
    assert ET.fromstring(plot.read_text()).tag.endswith("svg")
    figures = json.loads(run("bench", "--duration", "0.3", "--json").stdout)
    assert all(each["items_per_second"] > 0 for each in figures)

    found = json.loads(run("stress", "--duration", "1", "--rate", "300", "--batch", "3", "--json").stdout)
    assert found["left"] == 0
    # How much of the rate it reaches is the machine's; that it keeps to one is tried with a clock that can be moved.
    assert 0 < found["totals"]["removes"] <= found["totals"]["adds"] <= 303
    assert found["sharing"]["polls_per_commit"] >= 1
    assert "polls brought items" in run("stress", "--duration", "1", "--rate", "100").stdout

    options = ["--workers", "300", "--duration", "2", "--lease-validity", "1", "--max-exec-time", "1.5"]
    found = json.loads(run("simulate", *options, "--seed", "1", "--json").stdout)
    assert (found["balanced"], found["faults"]) == (True, {})
    assert 0 < found["account"]["produced"] <= 102


def test_whoever_looks_sees_a_bar_and_the_time_left(command):
    ours, theirs = pty.openpty()
    arguments = ("stress", "--duration", "3", "--rate", "50")
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen((*command, *arguments), stdout=subprocess.PIPE, stderr=theirs, env=environment) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                seen += os.read(ours, 65_536)
            except OSError:
                break
        out, _ = process.communicate(timeout=PATIENCE)
    os.close(ours)
    assert process.returncode == 0
    assert b"stress" in seen
    assert b"0:00:0" in seen
    assert re.search(rb"in \d+\.\d s: ", out)

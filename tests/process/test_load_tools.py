"""The load tools against a server: their results, their progress bars, and their clean-up after a signal."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest

from queueber.loadgen.scenarios import SCENARIOS
from queueber.store import inspect
from tests.process.conftest import TIMEOUT_SECONDS
from tests.support.processes import completed
from tests.support.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture
def command(start):
    port = start().port
    return (sys.executable, "-m", "queueber.cli", "--addr", f"127.0.0.1:{port}")


@pytest.fixture
def run(command):
    def run(*arguments):
        done = completed((*command, *arguments))
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stderr + done.stdout
        return done

    return run


def test_all_three_commands_against_a_server(run, tmp_path):
    """The output is text or JSON, without a progress bar if it is not a terminal."""
    plot = tmp_path / "figures.svg"
    text = run("bench", "--seconds", "0.2", "--plot", str(plot)).stdout
    assert text.splitlines()[0].split()[:2] == ["scenario", "items/s"]
    assert len(text.splitlines()) == 1 + len(SCENARIOS)
    assert ET.fromstring(plot.read_text()).tag.endswith("svg")
    figures = json.loads(run("bench", "--duration", "0.2", "--json").stdout)
    assert all(each["items_per_second"] > 0 for each in figures)

    found = json.loads(run("stress", "--duration", "0.5", "--rate", "300", "--batch", "3", "--json").stdout)
    assert found["left"] == 0
    # The rate that is reached depends on the machine; the limit of the rate is tested with a simulated clock.
    assert 0 < found["totals"]["removes"] <= found["totals"]["adds"] <= 153
    assert found["sharing"]["polls_per_commit"] >= 1
    assert "polls returned items" in run("stress", "--duration", "0.2", "--rate", "100").stdout

    options = ["--workers", "300", "--duration", "1", "--lease-validity", "0.5", "--max-exec-time", "0.7"]
    found = json.loads(run("simulate", *options, "--seed", "1", "--json").stdout)
    assert (found["balanced"], found["faults"]) == (True, {})
    assert 0 < found["account"]["produced"] <= 52


def test_a_terminal_shows_a_bar_and_the_time_left(command):
    ours, theirs = pty.openpty()
    arguments = ("stress", "--duration", "2.1", "--rate", "50")
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen((*command, *arguments), stdout=subprocess.PIPE, stderr=theirs, env=environment) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                seen += os.read(ours, 65_536)
            except OSError:
                break
        out, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    os.close(ours)
    assert process.returncode == 0
    assert b"stress" in seen
    assert b"0:00:0" in seen
    assert re.search(rb"in \d+\.\d s: ", out)


@pytest.mark.parametrize("tool", ["bench", "stress", "simulate"])
def test_a_signal_ends_a_load_and_its_items_are_removed(start, tool):
    server = start()
    command = [sys.executable, "-m", "queueber.cli", "--addr", f"127.0.0.1:{server.port}", "--queue", "load", tool]
    limits = ["--polling-clients", "0", "--rate", "200"] if tool == "stress" else []
    with subprocess.Popen(
        [*command, *limits, "--duration", "60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for_adds(server.data_dir)
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 130
    assert "left in the queue" not in out + errors
    assert "Traceback" not in errors
    found = {queue.record.name: queue.items for queue in inspect(server.data_dir, lambda _: 0).queues}
    assert found == {"load-0" if tool == "bench" else "load": 0}


def wait_for_adds(data_dir):
    """Return once the server on *data_dir* has a queue with items."""
    until(lambda: any(queue.items for queue in inspect(data_dir, lambda _: 0).queues))

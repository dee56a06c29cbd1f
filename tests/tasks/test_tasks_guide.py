"""Run every program and snippet of docs/tasks.md with a real server and real workers."""

import ast
import inspect
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from queueber.tasks import Backoff, Tasks
from queueber.tasks.options import WEIGHTS
from queueber.tasks.task import Adder
from tests.support.server_process import TIMEOUT_SECONDS, Server

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "tasks.md").read_text()

BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)
PYTHON = [block for language, block in BLOCKS if language == "python"]
PROGRAMS = {found[1]: block for block in PYTHON if (found := re.match(r"# (\w+\.py)\n", block))}
SNIPPETS = [block for block in PYTHON if block not in PROGRAMS.values()]

MORE_ADDS = """
from report import report
from steps import pack

report.options(headers={"user": "ann"}).add("sales")
report.options(headers={"user": "bob"}).add("")
pack.add(7)
"""

WORKERS = """
import sys, threading
import report, shop, steps, upkeep


def whole_lines(*words, **options):
    # In one piece: several threads print.
    sys.stdout.write(" ".join(map(str, words)) + "\\n")
    sys.stdout.flush()


for module in (report, shop, steps, upkeep):
    module.print = whole_lines
    threading.Thread(target=module.app.worker().run, daemon=True).start()
with upkeep.app.scheduler():
    input()
"""


DEAD_REPORTS = """
from report import app
from queueber.sync import connect

with connect(app.url) as client:
    batch = client.queue().dead_letters().poll(10, wait_ms=0)
    print([(each.last_error, each.death.reason.name) for each in batch])
"""


def test_every_block_is_a_program_a_snippet_or_a_command():
    assert {language for language, _ in BLOCKS} == {"python", "console"}
    assert list(PROGRAMS) == ["shop.py", "order.py", "report.py", "steps.py", "upkeep.py"]
    assert len(SNIPPETS) == 2
    for each in PYTHON:
        ast.parse(each)
    assert [block for language, block in BLOCKS if language == "console"] == ["$ queueber work shop:app\n"]


def test_the_page_names_every_option_and_weight():
    options = {*inspect.signature(Tasks.task).parameters, *inspect.signature(Adder.options).parameters}
    assert [each for each in options - {"self", "function", "name"} if f"{each}=" not in GUIDE] == []
    assert f"{WEIGHTS['high']}, {WEIGHTS['normal']} and {WEIGHTS['low']}" in GUIDE
    assert Backoff(10).delay(1, 1.0) == 10
    assert Backoff(10).delay(100, 1.0) == 3_600


@pytest.fixture
def folder(tmp_path):
    """A folder with the programs of the page, for a server that listens."""
    server = Server(tmp_path / "data")
    try:
        for name, source in PROGRAMS.items():
            (tmp_path / name).write_text(source.replace("127.0.0.1:9090", f"127.0.0.1:{server.port}"))
        yield tmp_path
    finally:
        server.kill()
        server.process.stdout.close()


def run(folder, source):
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


@pytest.mark.slow
def test_the_programs_and_the_snippets_do_what_is_said(folder):
    assert re.fullmatch(r"added [0-9a-f]{32} to shop\n", run(folder, PROGRAMS["order.py"]))
    for each in SNIPPETS:
        assert run(folder, each) == ""
    run(folder, MORE_ADDS)
    workers = subprocess.Popen(
        [sys.executable, "-c", WORKERS],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    overdue = threading.Timer(TIMEOUT_SECONDS, workers.kill)
    overdue.start()
    wanted = {
        "invoice for ann of 29.11.2026": 2,
        "invoice for bob of 29.11.2026": 1,
        "invoice for eve of 29.11.2026": 1,
        "attempt 1 for ann": 1,
        "attempt 2 for ann": 1,
        "attempt 1 for bob": 1,
        "order 7 by bike": 1,
        "tick": 2,
    }
    try:
        while wanted:
            line = workers.stdout.readline().rstrip("\n")
            assert line == "tick" or line in wanted
            if line in wanted:
                wanted[line] -= 1
                wanted = {each: count for each, count in wanted.items() if count}
        workers.send_signal(signal.SIGTERM)
    finally:
        overdue.cancel()
        workers.kill()
        workers.communicate()
    dead = run(folder, DEAD_REPORTS)
    assert dead == "[('a report needs a name', 'REJECTED')]\n"

"""Run every program and snippet of docs/tasks.md with a real server and real workers."""

import ast
import inspect
import os
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
from tests.support.processes import completed
from tests.support.server_process import TIMEOUT_SECONDS, Server

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "tasks.md").read_text()

BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)
PYTHON = [block for language, block in BLOCKS if language == "python"]
PROGRAMS = {found[1]: block for block in PYTHON if (found := re.match(r"# (\w+\.py)\n", block))}
SNIPPETS = [block for block in PYTHON if block not in PROGRAMS.values()]

(COMMAND,) = [block.strip().removeprefix("$ ") for language, block in BLOCKS if language == "console"]

MORE_ADDS = """
from report import report
from steps import pack

report.options(headers={"user": "ann"}).add("sales")
report.options(headers={"user": "bob"}).add("")
pack.add(7)
"""

WORKERS = ["shop", "report", "steps", "upkeep"]

DEAD_REPORTS = """
from report import app
from queueber.sync import connect

with connect(app.url) as client:
    batch = client.queue().dead_letters().poll(10, wait_ms=0)
    print([(each.last_error, each.death.reason.name) for each in batch])
"""


def test_every_block_is_a_program_a_snippet_or_a_command():
    assert {language for language, _ in BLOCKS} == {"python", "console"}
    assert list(PROGRAMS) == ["shop.py", "order.py", "report.py", "steps.py", "upkeep.py", "test_shop.py"]
    assert len(SNIPPETS) == 3
    for each in PYTHON:
        ast.parse(each)
    assert COMMAND == "queueber work shop:app"


def test_the_page_names_every_option_and_weight():
    options = {*inspect.signature(Tasks.task).parameters, *inspect.signature(Adder.options).parameters}
    assert [each for each in options - {"self", "function", "name"} if f"{each}=" not in GUIDE] == []
    assert f"{WEIGHTS['high']}, {WEIGHTS['normal']} and {WEIGHTS['low']}" in GUIDE
    assert Backoff(10).delay(1, 1.0) == 10
    assert Backoff(10).delay(100, 1.0) == 3_600


@pytest.fixture
def folder(tmp_path):
    """A folder with the programs of the page, for a server that listens."""
    with Server(tmp_path / "data") as server:
        for name, source in PROGRAMS.items():
            (tmp_path / name).write_text(source.replace("127.0.0.1:9090", f"127.0.0.1:{server.port}"))
        yield tmp_path


def run(folder, source):
    done = completed([sys.executable, "-c", source], cwd=folder)
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


def start_workers(folder):
    """Start the command of the page for each app; return the processes, and their lines."""
    ours, theirs = os.pipe()
    command = [sys.executable, "-m", "queueber.cli", *COMMAND.split()[1:-1], "--quiet", "--concurrency=1"]
    workers = [
        subprocess.Popen([*command, f"{module}:app"], cwd=folder, stdout=theirs, stderr=subprocess.DEVNULL)
        for module in WORKERS
    ]
    os.close(theirs)
    return workers, os.fdopen(ours)


def test_the_test_of_the_page_passes(tmp_path, monkeypatch, capsys):
    (tmp_path / "shop.py").write_text(PROGRAMS["shop.py"])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    names = {}
    exec(PROGRAMS["test_shop.py"], names)
    monkeypatch.delitem(sys.modules, "shop")
    names["test_an_invoice_is_written_after_an_hour"](capsys)


@pytest.mark.slow
def test_the_programs_and_the_snippets_do_what_is_said(folder):
    assert re.fullmatch(r"added [0-9a-f]{32} to shop\n", run(folder, PROGRAMS["order.py"]))
    for each in SNIPPETS:
        assert run(folder, each) == ""
    run(folder, MORE_ADDS)
    workers, lines = start_workers(folder)
    overdue = threading.Timer(TIMEOUT_SECONDS, lambda: [each.kill() for each in workers])
    overdue.start()
    wanted = {
        "invoice for ann of 29.11.2026": 2,
        "invoice for bob of 29.11.2026": 1,
        "invoice for eve of 29.11.2026": 1,
        "invoice for joe of 30.11.2026": 1,
        "invoice for kim of 30.11.2026": 1,
        "invoice for lee of 30.11.2026": 1,
        "attempt 1 for ann": 1,
        "attempt 2 for ann": 1,
        "attempt 1 for bob": 1,
        "order 7 by bike": 1,
        "tick": 2,
    }
    try:
        while wanted:
            line = lines.readline().rstrip("\n")
            assert line
            if line in wanted:
                wanted[line] -= 1
                wanted = {each: count for each, count in wanted.items() if count}
        for each in workers:
            each.send_signal(signal.SIGTERM)
        assert [each.wait() for each in workers] == [0] * len(workers)
    finally:
        overdue.cancel()
        lines.close()
        for each in workers:
            each.kill()
            each.wait()
    dead = run(folder, DEAD_REPORTS)
    assert dead == "[('a report needs a name', 'REJECTED')]\n"

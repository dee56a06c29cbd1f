"""The README's session, and the tables of options and statuses, compared with the programs."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from queueber.server.config.settings import OPTION_TABLES, OPTIONS, SERVICE_OPTIONS
from tests.support.processes import free_port

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent

UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
# A point in time, as text or as milliseconds.
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00|\b1\d{12}\b")
TIMEOUT_SECONDS = 120
"""For whatever takes a moment: only what would never come is to be found out."""


def wait_for(port, process, log):
    """Return once a process listens at *port*."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS).close()
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def address(tmp_path):
    """Where a real server listens."""
    port = free_port()
    log = tmp_path / "log"
    command = [BIN / "twistd", "--nodaemon", "--pidfile=", "queueber", "--listen", f"127.0.0.1:{port}"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        wait_for(port, process, log)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def session():
    """The commands of the README, each with the output it shows."""
    (block,) = re.findall(r"<!-- session -->\n```console\n(.*?)```", README, flags=re.DOTALL)
    shown = []
    for line in block.splitlines(keepends=True):
        if line.startswith("$ "):
            shown.append((line[2:].rstrip("\n"), ""))
        else:
            command, output = shown[-1]
            shown[-1] = (command, output + line)
    return shown


def without_moments(text):
    return MOMENT.sub("(a moment)", text)


class Ids:
    """The README's ids and those that a real server gave instead, in the order in which they appeared."""

    def __init__(self):
        self._real = {}

    def learn(self, shown, output):
        for name, real in zip(UUID.findall(shown), UUID.findall(output), strict=False):
            self._real.setdefault(name, real)
        assert len(set(self._real.values())) == len(self._real), "two of the README's ids stand for the same"

    def real(self, text):
        return UUID.sub(lambda found: self._real.get(found[0], found[0]), text)


def test_the_options_table_says_what_is_in_force():
    table = README.partition("<!-- options -->\n| Option | Default | Meaning |\n|---|---|---|\n")[2].partition("\n\n")[
        0
    ]
    known = [f"| `--{option.name}` | {option.default_text} | {option.help}. |" for option in OPTIONS]
    assert len(table.splitlines()) >= 5
    assert set(table.splitlines()) <= set(known)


def test_the_configuration_page_has_every_option():
    page = (ROOT / "docs" / "configuration.md").read_text()
    for option in SERVICE_OPTIONS:
        accepts = option.accepts or "text"
        assert f"| `{option.name}` | {option.default_text} | {option.help}. | {accepts} |\n" in page
    assert len(re.findall(r"^\| `[a-z-]+` \|", page, re.MULTILINE)) == len(SERVICE_OPTIONS)
    _, defaults = OPTION_TABLES["queue_defaults"]
    for option in defaults:
        description = option.help.removeprefix("Default of queues: ")
        assert f"| `[queue] {option.key}` | {option.default_text} | {description}. | {option.accepts} |\n" in page


@pytest.mark.slow
@pytest.mark.parametrize(("command", "status"), [("twist", 64), ("twistd", 64)])
def test_a_wrong_command_line_ends_with_the_status_that_is_promised(command, status, tmp_path):
    done = subprocess.run(
        [BIN / command, "queueber", "--nonsense"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert done.returncode == status
    assert b"nonsense" in done.stdout + done.stderr


@pytest.mark.slow
def test_the_session_goes_as_shown(address, tmp_path):
    ids = Ids()
    elsewhere = f'queueber() {{ command queueber --addr {address} "$@"; }}\n'
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    for command, shown in session():
        done = subprocess.run(
            ["bash", "-c", elsewhere + ids.real(command)],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        ids.learn(shown, done.stdout)
        assert without_moments(done.stdout) == without_moments(ids.real(shown)), command

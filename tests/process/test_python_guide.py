"""Run every program, snippet and command line of docs/python.md."""

import ast
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from uuid import UUID

import pytest

import queueber.client
from queueber.errors import QueueberError
from queueber.testing import TestServer
from tests.process.conftest import TIMEOUT_SECONDS
from tests.support.processes import completed, run_command

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "python.md").read_text()
PLAIN, SECURED = "127.0.0.1:9090", "127.0.0.1:9091"

BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)
PROGRAMS = {
    found[1]: block
    for language, block in BLOCKS
    if language == "python" and (found := re.match(r"# (\w+\.py)\n", block))
}
SNIPPETS = [block for language, block in BLOCKS if language == "python" and block not in PROGRAMS.values()]
COMMANDS = [line[2:] for language, block in BLOCKS if language == "console" for line in block.splitlines()]

IN_A_PROGRAM = """
from twisted.internet.task import react

from queueber.client import connect


async def snippet(client, queue):
{snippet}

async def main(reactor):
    client = connect(reactor, "127.0.0.1:9090", attempts=1)
    try:
        await snippet(client, client.queue("snippets"))
    finally:
        await client.close()


react(main)
"""


def start_program(folder, name, source, *arguments, address):
    (folder / name).write_text(source.replace(PLAIN, address))
    return subprocess.Popen(
        [sys.executable, name, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run_program(*arguments, **options):
    """Run a program, and return its output.  It must not print errors."""
    out, err = start_program(*arguments, **options).communicate(timeout=TIMEOUT_SECONDS)
    assert err == ""
    return out


def test_every_block_is_a_program_a_snippet_or_a_command():
    assert {language for language, _ in BLOCKS} == {"python", "console"}
    assert list(PROGRAMS) == ["producer.py", "worker.py", "secured.py"]
    assert len(SNIPPETS) == 11
    for each in SNIPPETS:
        ast.parse("async def snippet():\n" + textwrap.indent(each, " "))
    assert [command.split()[0] for command in COMMANDS].count("openssl") == 5


def test_every_error_has_its_row():
    """Return all errors of a call."""
    rows = set(re.findall(r"^\| `(\w+)` \|", GUIDE, flags=re.MULTILINE))
    exported = {name for name in queueber.client.__all__ if isinstance(getattr(queueber.client, name), type)}
    errors = {name for name in exported if issubclass(getattr(queueber.client, name), QueueberError)}
    assert rows == errors | {"InvalidRequest", "Overloaded", "Stopping", "Unimplemented"}


def test_the_readme_leads_to_it():
    readme = (ROOT / "README.md").read_text()
    assert "](docs/clients.md)" in readme.partition("\n## ")[0]
    assert "](docs/python.md)" in readme


@pytest.mark.slow
def test_the_producer_and_the_worker_do_what_is_said(start, tmp_path):
    address = f"127.0.0.1:{start().port}"
    added = run_program(tmp_path, "producer.py", PROGRAMS["producer.py"], "cat.jpg", "notes.txt", address=address)
    ids = [UUID(line.split()[0]) for line in added.splitlines()]
    assert [line.split()[1] for line in added.splitlines()] == ["cat.jpg", "notes.txt"]
    assert ids == sorted(ids)

    # Shorter durations than in the guide.
    source = PROGRAMS["worker.py"].replace("self.extend(lease, 1_000)", "self.extend(lease, 1)")
    worker = start_program(tmp_path, "worker.py", source, address=address)
    try:
        assert worker.stdout.readline() == "resized cat.jpg\n"
        failures = [worker.stderr.readline() for _ in range(5)]
        assert failures == [f"attempt {each} at {ids[1]} failed: notes.txt is not a picture\n" for each in range(1, 6)]
        given_up = command(address, "--queue", "pictures-given-up", "poll", "--wait", "10")
        assert "attempt 1: notes.txt" in given_up
        assert command(address, "--queue", "pictures", "poll", "--no-wait") == "no items\n"
        worker.send_signal(signal.SIGTERM)
        assert worker.communicate(timeout=TIMEOUT_SECONDS) == ("", "")
        assert worker.returncode == 0
    finally:
        worker.kill()
        worker.communicate()


@pytest.mark.slow
def test_the_snippets_do_what_is_said(tmp_path):
    together = "".join(f"    if True:\n{textwrap.indent(each, ' ' * 8)}\n" for each in SNIPPETS)
    with TestServer(tcp=True) as server:
        address = f"127.0.0.1:{server.port}"
        out = run_program(tmp_path, "snippets.py", IN_A_PROGRAM.format(snippet=together), address=address)
    entered = "b'cat.jpg' 1 {}\nb'1.jpg'\nb'2.jpg'\nb'last'\n"
    assert re.fullmatch(entered + r"1 items, 1 to 1 of them ready\nadded [0-9a-f-]{36}\n", out)


def command(address, *arguments):
    return run_command("--addr", address, *arguments).stdout


@pytest.mark.slow
def test_a_producer_without_a_server_says_so_in_one_line(tmp_path):
    program = start_program(tmp_path, "producer.py", PROGRAMS["producer.py"], "x.jpg", address="127.0.0.1:1")
    out, err = program.communicate(timeout=TIMEOUT_SECONDS)
    assert (program.returncode, out) == (1, "")
    assert re.fullmatch(r"no picture is queued: cannot connect to 127\.0\.0\.1:1: .*\n", err)


@pytest.mark.slow
def test_the_certificates_the_server_and_the_client_fit_together(start, tmp_path):
    made = [each for each in COMMANDS if not each.startswith("twistd")]
    subprocess.run(["bash", "-ec", "\n".join(made)], cwd=tmp_path, check=True, capture_output=True)
    (serving,) = [shlex.split(each) for each in COMMANDS if each.startswith("twistd")]
    assert serving[:3] == ["twistd", "-n", "queueber"]
    options = [tmp_path / each if each.endswith((".pem", ".key")) else each for each in serving[3:]]
    server = start(*[str(each).replace(SECURED, "127.0.0.1:0") for each in options])
    port = int(server.line(r"Listening on 127\.0\.0\.1:(\d+) with TLS")[1])
    source = PROGRAMS["secured.py"].replace("localhost:9091", f"localhost:{port}")
    assert re.fullmatch(r"\[b(['\"]).*\1\]\n", run_program(tmp_path, "secured.py", source, address=PLAIN))

    (shown,) = re.findall(r"`queueber (--addr localhost:9091 .*?) add cat\.jpg`", GUIDE)
    arguments = shlex.split(shown.replace("9091", str(port)))
    done = completed(
        [sys.executable, "-m", "queueber.cli", *arguments, "--queue", "pictures", "poll", "--no-wait"], cwd=tmp_path
    )
    assert "attempt 1: cat.jpg" in done.stdout, done.stderr

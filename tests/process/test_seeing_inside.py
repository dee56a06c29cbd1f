"""Metrics, health pages and console of a real server."""

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.process.conftest import TIMEOUT_SECONDS, foreign
from tests.process.pseudo_terminal import PseudoTerminal, plain
from tests.support.processes import completed

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "seeing-inside.md"
COMMAND = [sys.executable, "-m", "queueber.cli"]
PROMPT = "queueber> "
SECRET = "a long enough secret"


def pages_of(server):
    return server.line(r"Pages on (\S+)")[1]


def get(address, path, **headers):
    with urlopen(Request(f"http://{address}{path}", headers=headers), timeout=TIMEOUT_SECONDS) as answer:
        return answer.read().decode()


def scraped(address):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(get(address, "/metrics"))
        for sample in family.samples
    }


def test_a_scrape_shows_the_calls_of_clients(start):
    server = start("--http=127.0.0.1:0")
    foreign("calls", server.port)

    found = scraped(pages_of(server))
    # The lag is measured each second, and a commit may be between its sync and its end.
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline and not (
        found[("queueber_reactor_lag_seconds_count",)]
        and found[("queueber_sync_seconds_count",)] == found[("queueber_commit_seconds_count",)]
    ):
        found = scraped(pages_of(server))

    assert found["queueber_calls_total", "add"] >= 1
    assert found[("queueber_items_added_total",)] >= 1
    assert found[("queueber_sync_seconds_count",)] == found[("queueber_commit_seconds_count",)] >= 1
    assert found[("queueber_engine_rows",)] >= 1
    assert found[("queueber_disk_free_bytes",)] > 0
    assert found[("queueber_reactor_lag_seconds_count",)] >= 1
    assert found[("process_resident_memory_bytes",)] > 0


def test_health_pages(start):
    server = start("--http=127.0.0.1:0")
    assert server.port
    address = pages_of(server)
    assert get(address, "/livez") == "ok\n"
    assert get(address, "/readyz").startswith("ready\n")
    assert server.stop() in (0, -signal.SIGTERM)


def test_pages_for_other_machines_need_insecure_plaintext(start):
    refused = start("--http=0.0.0.0:0")
    assert refused.wait() == 64
    assert refused.lines[-1] == "queueber: --http 0.0.0.0:0: plaintext beyond this machine needs --insecure-plaintext"
    allowed = start("--http=0.0.0.0:0", "--insecure-plaintext")
    port = pages_of(allowed).rpartition(":")[2]
    assert get(f"127.0.0.1:{port}", "/livez") == "ok\n"


def test_a_missing_library_is_reported_in_one_line(tmp_path):
    """Without the extra."""
    script = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'prometheus_client' else find(name, *more)\n"
        "from twisted.scripts.twistd import run; run()"
    )
    options = ("--nodaemon", "--pidfile=", "queueber", f"--data-dir={tmp_path}/d", "--http=127.0.0.1:0")
    server = completed([sys.executable, "-c", script, *options])
    assert server.returncode == 64
    assert server.stderr == "queueber: --http needs the extra `http`: pip install 'queueber[http]'\n"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--manhole=0.0.0.0:0"], "it must be unix:PATH, or an address of this machine"),
        (["--manhole=127.0.0.1:0"], "needs --manhole-password-file"),
        (["--manhole=unix:/tmp/q:mode=666"], "its mode is always 600"),
        (["--manhole-password-file=/etc/passwd"], "--manhole-password-file needs --manhole"),
        (["--manhole=127.0.0.1:0", "--manhole-password-file=/etc/passwd"], "/etc/passwd"),
    ],
)
def test_a_console_that_other_users_can_reach_is_refused(start, options, why):
    server = start(*options)
    assert server.wait() == 64
    assert server.lines[-1].startswith("queueber: --manhole")
    assert why in server.lines[-1]


def test_console_and_pages_are_off_by_default(start):
    server = start()
    assert server.port
    foreign("calls", server.port)
    assert not [line for line in server.lines if "Pages on" in line or "Debugging console" in line]


def test_the_console_s_socket_has_mode_600_and_is_replaced_after_a_kill(start, tmp_path):
    path = tmp_path / "m.sock"
    server = start(f"--manhole=unix:{path}")
    server.line("Debugging console on")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    server.kill()
    assert path.exists()
    again = start(f"--manhole=unix:{path}")
    again.line("Debugging console on")
    again.stop()
    assert not path.exists()


class Console(PseudoTerminal):
    """A user of `queueber manhole`."""

    def __init__(self, address):
        super().__init__("manhole", address)

    def ask(self, question, later=False):
        """Type a command, and return its output; with *later*, only the late result."""
        self.type(question)
        shown = self.read(PROMPT, 2 if later else 1).removeprefix(question)
        if later:
            shown = shown.replace(f"(a moment)\n{PROMPT}", "")
        return shown.removesuffix(PROMPT).strip("\n")


def normal(text):
    """Return the lines of a transcript, without figures, ids, positions and widths of columns, which vary."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", text)
    text = re.sub(r"\b\d[\d,.]*(?: (?:ms|s|min|h|d|GiB)\b)?", "N", text)
    return [re.sub(r"-+", "-", re.sub(r"\s+", " ", line)).strip() for line in text.splitlines()]


def transcript():
    """Return the session of the page: its greeting, and each command with its output."""
    (block,) = re.findall(r"<!-- session -->\n```console\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    greeting, *parts = re.split(r"^queueber> (.*)\n", block, flags=re.MULTILINE)
    return greeting, list(zip(parts[::2], parts[1::2], strict=True))


def add_and_lease(port):
    """Create the state of the session of the page: three items, one of them leased, and a waiting poll."""
    address = f"127.0.0.1:{port}"
    subprocess.run([*COMMAND, "--addr", address, "add", "one", "two", "three"], check=True, capture_output=True)
    subprocess.run([*COMMAND, "--addr", address, "poll", "--lease", "600"], check=True, capture_output=True)
    return subprocess.Popen([*COMMAND, "--addr", address, "--queue", "mail", "poll"], stdout=subprocess.DEVNULL)


@pytest.fixture
def console(start, tmp_path):
    """Start a server with some items, and return it with the address of its console."""
    server = start("--workers=2", f"--manhole=unix:{tmp_path}/m.sock")
    waiting = add_and_lease(server.port)
    server.line("Debugging console on")
    yield server, f"unix:{tmp_path}/m.sock"
    waiting.terminate()
    waiting.wait()


def test_the_session_is_as_documented(console):
    server, address = console
    terminal = Console(address)
    greeting, session = transcript()
    assert normal(terminal.read(PROMPT).removesuffix(PROMPT)) == normal(greeting)
    while "mail" not in terminal.ask("waiters()"):
        time.sleep(0.1)
    assert len(session) >= 6
    for question, shown in session:
        answer = terminal.ask(question, later=question.startswith(("stats", "profile")))
        if question.startswith("profile"):
            assert normal(answer)[:2] == normal(shown)[:2]
            assert "MainThread" in answer
        elif question.startswith("threads"):
            assert set(normal(shown)) & set(normal(answer))
            assert [line for line in normal(answer) if "queueber-w0" in line]
        else:
            assert normal(answer) == normal(shown), question
    assert terminal.leave() == 0
    server.line(r"Console session 1 begins: process \d+ of user \d+")
    server.line(r"Console session 1: 'queues\(\)'")
    server.line("Console session 1 has ended")
    assert not [line for line in server.lines if "Traceback" in line]


def test_a_script_can_send_commands(console):
    _, address = console
    done = subprocess.run(
        [*COMMAND, "manhole", address],
        input="leases()\nlen('z\u00fcrich')\nstats()".encode(),
        capture_output=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = plain(done.stdout)
    assert re.search(r"live +(10\.0|[1-9]\.[0-9]) min", shown)
    assert "\n6\n" in shown
    assert "free space" in shown, "the end of the input, which has no newline, waits for the last answer"


@pytest.mark.parametrize(
    ("output", "ended"), [("/dev/full", (1, b"standard output: No space left on device")), (None, (141, b""))]
)
def test_a_script_ends_when_its_output_is_closed(console, output, ended):
    """The output is a full device, or a pipe that is not read any more."""
    _, address = console
    read, write = os.pipe()
    os.close(read)
    with open(output or write, "wb", closefd=output is not None) as full:
        done = subprocess.run(
            [*COMMAND, "manhole", address],
            input=b"leases()\n",
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    os.close(write)
    assert (done.returncode, done.stderr.strip().removeprefix(b"queueber: ")) == ended


def test_ctrl_right_bracket_leaves_a_server_that_hangs(console):
    server, address = console
    terminal = Console(address)
    terminal.read(PROMPT)
    server.process.send_signal(signal.SIGSTOP)
    try:
        terminal.type("1 + 1")
        assert terminal.leave(b"\x1d") == 0
    finally:
        server.process.send_signal(signal.SIGCONT)


def test_on_loopback_the_console_asks_for_the_password(start, tmp_path):
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text(f"ada:{SECRET}\n")
    server = start("--manhole=127.0.0.1:0", f"--manhole-password-file={password}")
    terminal = Console(server.line(r"Debugging console on (\S+)")[1])
    terminal.read("User: ")
    terminal.type("ada")
    assert terminal.read("Password: ").startswith("ada\n")
    terminal.type("wrong")
    assert "Wrong user or password" in terminal.read("User: ")
    terminal.type("ada")
    terminal.read("Password: ")
    terminal.type(SECRET)
    greeting = terminal.read(PROMPT)
    assert "help() queues() leases() waiters() connections() stats() threads() commits() limits()" in greeting
    assert terminal.leave() == 0
    assert SECRET not in "".join(server.lines)
    server.line("Console: a login failed")


def test_an_address_without_a_server_is_reported_in_one_line():
    done = completed([*COMMAND, "manhole", "unix:/nowhere/m.sock"])
    assert done.returncode == 1
    assert done.stderr == "queueber: cannot connect to unix:/nowhere/m.sock: No such file or directory\n"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_accepts_the_alerts_and_the_metrics(start):
    rules = ROOT / "deploy" / "prometheus" / "alerts.yml"
    subprocess.run(["promtool", "check", "rules", rules], check=True)
    server = start("--http=127.0.0.1:0")
    assert server.port
    text = get(pages_of(server), "/metrics")
    subprocess.run(["promtool", "check", "metrics"], input=text, text=True, check=True)


def test_an_unknown_page_is_not_found(start):
    server = start("--http=127.0.0.1:0")
    with pytest.raises(HTTPError, match="404"):
        get(pages_of(server), "/nothing")

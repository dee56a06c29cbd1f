"""`queueber top` on a pseudo-terminal with a real server: its screen, its keys, and the terminal afterwards."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
from click.testing import CliRunner

from queueber.cli.__main__ import queueber
from tests.support.processes import run_command
from tests.support.server_process import Server
from tests.support.waiting import until

pytestmark = pytest.mark.slow

TIMEOUT_SECONDS = 30.0
"""For what takes a moment, however busy the machine is."""

ENTER_SCREEN, LEAVE_SCREEN = b"\x1b[?1049h", b"\x1b[?1049l"
CURSOR_OFF, CURSOR_ON = b"\x1b[?25l", b"\x1b[?25h"


class Screen:
    """`queueber top` on a terminal of *columns* and *rows*."""

    def __init__(self, port, *options, columns=110, rows=16, terminal="xterm", program=("-m", "queueber.cli")):
        self.keyboard, self.device = pty.openpty()
        self.resize(columns, rows, tell=False)
        self.before = termios.tcgetattr(self.device)
        self.output = b""
        environment = {**os.environ, "TERM": terminal, "PYTHONDONTWRITEBYTECODE": ""}
        environment = {key: value for key, value in environment.items() if key not in {"COLUMNS", "LINES", "NO_COLOR"}}
        command = [sys.executable, *program, "top", "--addr", f"127.0.0.1:{port}", "--interval", "0.1"]
        self.process = subprocess.Popen(
            [*command, *options],
            stdin=self.device,
            stdout=self.device,
            stderr=self.device,
            env=environment,
            # A group that is in the session of its parent: the kernel does not stop others.
            process_group=0,
        )

    def resize(self, columns, rows, *, tell=True):
        fcntl.ioctl(self.keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if tell:
            # The kernel sends it to the terminal's foreground group only, and this one controls no session.
            self.process.send_signal(signal.SIGWINCH)

    def read(self):
        while select.select([self.keyboard], [], [], 0.02)[0]:
            self.output += os.read(self.keyboard, 65_536)

    @property
    def lines(self):
        """The lines of the last whole picture."""
        pictures = self.output.split(b"\x1b[H")
        last = next((each for each in reversed(pictures[1:-1])), b"")
        text = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", last).decode()
        return [line.rstrip() for line in text.replace("\r", "").split("\n")]

    def wait_for(self, *texts, without=()):
        """Return the lines once the picture has all *texts* and none of those *without*."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            self.read()
            shown = "\n".join(self.lines)
            if all(text in shown for text in texts) and not any(text in shown for text in without):
                return self.lines
            assert self.process.poll() is None, self.output.decode()
        raise AssertionError("\n".join(self.lines))

    def press(self, keys):
        os.write(self.keyboard, keys.encode())

    def end(self):
        """Return the exit status; check that the terminal is as before."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            self.read()
        self.read()
        assert self.output.count(ENTER_SCREEN) == self.output.count(LEAVE_SCREEN)
        assert self.output.count(CURSOR_OFF) == self.output.count(CURSOR_ON)
        assert termios.tcgetattr(self.device) == self.before
        os.close(self.keyboard)
        os.close(self.device)
        return self.process.wait(1)

    @property
    def left(self):
        """Return the output after the other screen."""
        return self.output.rpartition(CURSOR_ON)[2].decode()


@pytest.fixture
def run(server):
    def run(*arguments):
        done = CliRunner().invoke(queueber, ["--addr", f"127.0.0.1:{server.port}", *arguments])
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


@pytest.fixture
def screen(server):
    screens = []

    def start(*options, **more):
        screens.append(Screen(server.port, *options, **more))
        return screens[-1]

    yield start
    for each in screens:
        each.process.kill()
        each.process.wait()


def test_a_session_at_the_terminal(run, screen):
    run("add", "--queue", "shown-mail", "one", "two", "three")
    run("add", "--queue", "shown-evil\x1b[2J", "x")
    run("configure", "--queue", "shown-mail", "max-attempts=5")
    run("poll", "--queue", "shown-mail", "--lease", "600")
    top = screen("shown-")
    lines = top.wait_for("shown-mail", '"shown-evil\\u001b[2J"', "in 0.0/s")
    assert [line.split()[0] for line in lines if line.startswith("shown-mail")]
    run("add", "--queue", "shown-mail", *map(str, range(50)))
    top.wait_for("52", "in ", without=["in 0.0/s"])
    # The deepest queue is the first, and under the cursor.
    top.press("\r")
    lines = top.wait_for("max-attempts 5", "next items", "worker")
    assert any(line.startswith("two ") for line in lines)
    top.press("p")
    top.wait_for("Pause the polls of shown-mail?", "[y/N]")
    top.press("n")
    top.wait_for("max-attempts 5", without=["[y/N]"])
    top.press("py")
    top.wait_for("paused shown-mail", "polls paused")
    assert json.loads(run("settings", "shown-mail", "--json"))["settings"]["pollsPaused"]
    top.press("py")
    top.wait_for("resumed shown-mail", without=["polls paused"])
    top.press("w")
    top.wait_for("kept by", "not known any more")
    top.press("\x1b")
    top.wait_for("by ready")
    top.press("/evil\r")
    top.wait_for("only names with evil", without=["shown-mail"])
    top.press("h")
    top.wait_for("any key goes back")
    top.press("xq")
    assert top.end() == 0
    assert top.left == ""


def test_the_size_of_the_terminal(run, screen):
    run("add", "--queue", "sized", "one")
    top = screen("sized", columns=120)
    top.wait_for("notes", "sized")
    top.resize(30, 5)
    lines = top.wait_for("sized", without=["notes"])
    assert len(lines) == 5
    assert all(len(line) <= 30 for line in lines)
    top.resize(120, 40)
    assert len(top.wait_for("notes")) == 40
    top.press("q")
    assert top.end() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_terminal_as_it_was(screen, number):
    top = screen()
    top.wait_for("queueber")
    top.process.send_signal(number)
    assert (top.end(), top.left) == (130, "")


def test_an_error_of_ours_leaves_the_terminal_as_it_was(server):
    """The traceback comes after the screen, where it can be read."""
    broken = (
        "import queueber.cli.top_loop as loop\n"
        "def broken(*_): raise RuntimeError('cannot draw')\n"
        "loop.picture = broken\n"
        "from queueber.cli.__main__ import main; main()\n"
    )
    top = Screen(server.port, program=("-c", broken))
    assert top.end() == 1
    assert "RuntimeError: cannot draw" in top.left


def test_it_stops_and_goes_on(screen):
    top = screen()
    top.wait_for("queueber")
    top.process.send_signal(signal.SIGTSTP)
    until(lambda: os.waitid(os.P_PID, top.process.pid, os.WSTOPPED | os.WNOWAIT | os.WNOHANG))
    top.read()
    assert top.output.endswith(CURSOR_ON)
    assert top.output.count(ENTER_SCREEN) == 1
    assert termios.tcgetattr(top.device) == top.before
    top.output = b""
    top.process.send_signal(signal.SIGCONT)
    top.wait_for("queueber")
    assert top.output.startswith(ENTER_SCREEN)
    top.press("q")
    assert top.end() == 0


def test_a_server_that_is_away_and_comes_back(tmp_path):
    server = Server(tmp_path / "data")
    server.control()
    port = server.port
    top = Screen(port)
    top.wait_for("by ready")
    server.stop()
    server.process.stdout.close()
    top.wait_for("no answer for", "cannot connect")
    with Server(tmp_path / "data", f"--listen=127.0.0.1:{port}") as again:
        again.control()
        top.wait_for("by ready", without=["cannot connect"])
        again.suspend()
        top.press("q")
        assert top.end() == 0


def test_without_a_terminal_it_names_the_command_to_use(server):
    done = run_command("top", "--addr", f"127.0.0.1:{server.port}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "`queueber queues --watch`" in done.stderr


def test_a_terminal_that_cannot_be_drawn_on(screen):
    top = screen(terminal="dumb")
    assert top.end() == 1
    assert "'dumb'" in top.output.decode()


def test_a_server_that_is_not_there_is_one_line():
    top = Screen(1)
    assert top.end() == 1
    assert top.output.decode().replace("\r\n", "\n") == "queueber: cannot connect to 127.0.0.1:1: Connection refused\n"


def test_samples_as_json(run, server):
    run("add", "--queue", "sampled", "one")
    command = [sys.executable, "-m", "queueber.cli", "top", "sampled", "--json", "--interval", "0.05"]
    with subprocess.Popen(
        [*command, "--addr", f"127.0.0.1:{server.port}"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        first, second = (json.loads(process.stdout.readline()) for _ in range(2))
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_SECONDS) == 130
    assert [each["queues"][0]["name"] for each in (first, second)] == ["sampled", "sampled"]
    assert [each["queues"][0]["addedPerSecond"] for each in (first, second)] == [None, 0.0]
    assert second["atMs"] > first["atMs"]

"""Real servers, real sockets, and a foreign client in a process of its own."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from warm_start import WarmProcess

HERE = Path(__file__).parent
PATIENCE = 120.0
"""For whatever takes a moment: only what would never come is to be found out, however busy the machine is."""

# What the `twistd` script does, found by any interpreter.
ALLOWED = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files})); "
"""May have so many files open, and no more."""

TWISTD = "from twisted.scripts.twistd import run; run()"


class Server:
    """A server process on a free port of this machine."""

    def __init__(self, data_dir: Path, *options: str, runner: str = "twistd", files: int | None = None) -> None:
        self.data_dir = data_dir
        self.lines: list[str] = []
        listen = () if any(each.startswith("--listen") for each in options) else ("--listen=127.0.0.1:0",)
        arguments = ["queueber", f"--data-dir={data_dir}", *listen, *options]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if runner == "twistd" and files is None:
            self.process = WarmProcess(["--nodaemon", "--pidfile=", *arguments], environment)
        else:
            command = {
                "twistd": [sys.executable, "-c", ALLOWED.format(files=files) + TWISTD, "--nodaemon", "--pidfile="],
                "twist": [sys.executable, "-m", "twisted", "--log-format=text"],
            }[runner]
            self.process = subprocess.Popen(
                [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def line(self, pattern: str) -> re.Match:
        """The first line of the log that matches, waited for."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for line in list(self.lines):
                if found := re.search(pattern, line):
                    return found
            if self.process.poll() is not None and not self._reader.is_alive():
                break
            time.sleep(0.01)
        raise AssertionError(f"no line matches {pattern!r} in:\n" + "\n".join(self.lines))

    @property
    def port(self) -> int:
        return int(self.line(r"Listening on .*:(\d+)")[1])

    def control(self) -> Path:
        """Return the path of its control socket once it accepts connections: the log names it before it is there."""
        path, deadline = self.data_dir / "control.sock", time.monotonic() + PATIENCE
        with socket.socket(socket.AF_UNIX) as peer:
            while peer.connect_ex(str(path)):
                assert time.monotonic() < deadline and self.process.poll() is None, "\n".join(self.lines)
                time.sleep(0.01)
        return path

    def suspend(self) -> None:
        """Stop it with SIGSTOP; wait until all of its threads stand still."""
        self.process.send_signal(signal.SIGSTOP)
        tasks, deadline = Path(f"/proc/{self.process.pid}/task"), time.monotonic() + PATIENCE
        while not all(" T " in (task / "stat").read_text() for task in tasks.iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)

    def stop(self) -> int:
        """Stop it as an operator would; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status


@pytest.fixture
def start(tmp_path):
    """Start servers; they end with the test."""
    servers: list[Server] = []

    def start(*options: str, data_dir: Path | None = None, runner: str = "twistd", files: int | None = None) -> Server:
        servers.append(Server(data_dir or tmp_path / "data", *options, runner=runner, files=files))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.kill()
        server.process.stdout.close()


def foreign(scenario: str, port: int, *args: str) -> str:
    """Run a scenario of `foreign_peer.py`, pycapnp's own RPC client; return its output."""
    done = subprocess.run(
        [sys.executable, str(HERE / "foreign_peer.py"), scenario, str(port), *args],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Traffic:
    """pycapnp's own client that adds and removes until its server is gone; what it says is read as it comes."""

    def __init__(self, port: int, *label: str) -> None:
        self.lines: list[str] = []
        command = [sys.executable, str(HERE / "foreign_peer.py"), "traffic", str(port), *label]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    def until(self, **least: int) -> None:
        """Return once it has said each of these words so many times."""
        deadline = time.monotonic() + PATIENCE
        while missing := [word for word, count in least.items() if self.said(word) < count]:
            assert time.monotonic() < deadline and self._reader.is_alive(), f"too little was {missing}: {self.lines}"
            time.sleep(0.01)

    def said(self, word: str) -> int:
        """How many lines begin with *word*."""
        return sum(line.startswith(f"{word} ") for line in list(self.lines))

    def end(self) -> list[str]:
        """All it has said, once it has ended with its server."""
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self._process.stdout.close()
        return self.lines

"""Real servers, real sockets, and a foreign client in a process of its own."""

import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.processes import completed
from tests.support.server_process import TIMEOUT_SECONDS, TWISTD, Server

__all__ = ["HERE", "TIMEOUT_SECONDS", "TWISTD", "Server", "Traffic", "foreign", "start"]

HERE = Path(__file__).parent


@pytest.fixture
def start(tmp_path):
    """Start servers, which are killed at the end of the test."""
    with ExitStack() as servers:
        yield lambda *options, data_dir=None, **how: servers.enter_context(
            Server(data_dir or tmp_path / "data", *options, **how)
        )


def foreign(scenario: str, port: int, *args: str, script: str = "foreign_peer.py") -> str:
    """Run a scenario of *script*, with pycapnp's own RPC client; return its output."""
    done = completed([sys.executable, str(HERE / script), scenario, str(port), *args])
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Traffic:
    """A client with pycapnp that adds and removes until its server ends.  A thread reads its output."""

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
        """Wait until each of the words has appeared that many times."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while missing := [word for word, count in least.items() if self.said(word) < count]:
            assert time.monotonic() < deadline and self._reader.is_alive(), f"too little was {missing}: {self.lines}"
            time.sleep(0.01)

    def said(self, word: str) -> int:
        """Return the number of lines that begin with *word*."""
        return sum(line.startswith(f"{word} ") for line in list(self.lines))

    def end(self) -> list[str]:
        """Wait for the end of the client, and return its output."""
        self._process.wait(TIMEOUT_SECONDS)
        self._reader.join(TIMEOUT_SECONDS)
        self._process.stdout.close()
        return self.lines

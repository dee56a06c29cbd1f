"""A server in a process of its own, for the tests of all folders: `Server`."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

from tests.support.processes import TIMEOUT_SECONDS
from tests.support.waiting import until
from tests.support.warm_start import WarmProcess

# What the `twistd` script does, found by any interpreter.
ALLOWED = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files})); "
"""The most files that a server may have open."""

KIB_PER_MIB = 1024

TWISTD = "from twisted.scripts.twistd import run; run()"


class Server:
    """A server process on a free port of this machine.  As a context manager it is killed at the end."""

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
        deadline = time.monotonic() + TIMEOUT_SECONDS
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
        path, deadline = self.data_dir / "control.sock", time.monotonic() + TIMEOUT_SECONDS
        with socket.socket(socket.AF_UNIX) as peer:
            while peer.connect_ex(str(path)):
                assert time.monotonic() < deadline and self.process.poll() is None, "\n".join(self.lines)
                time.sleep(0.01)
        return path

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def memory(self, which: str = "VmRSS") -> float:
        """Return MiB: `VmRSS` is the memory now, `VmHWM` the most since the start or since it was reset."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{which}:\s+(\d+) kB", status, re.MULTILINE)[1]) / KIB_PER_MIB

    def descriptors(self) -> int:
        """Return the number of open descriptors."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def suspend(self) -> None:
        """Stop it with SIGSTOP; wait until all of its threads stand still."""
        self.process.send_signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self.process.pid}/task")
        until(lambda: all(" T " in (task / "stat").read_text() for task in tasks.iterdir()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.kill()
        self.process.stdout.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(TIMEOUT_SECONDS)

    def stop(self) -> int:
        """Stop it as an operator would; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        status = self.process.wait(TIMEOUT_SECONDS)
        self._reader.join(TIMEOUT_SECONDS)
        return status

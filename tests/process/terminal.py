"""A pseudo-terminal with a person at it, for whatever asks only people."""

import os
import pty
import re
import select
import signal
import sys
import time
from pathlib import Path

from tests.process.conftest import PATIENCE

CTRL_C, CTRL_D = b"\x03", b"\x04"


class Terminal:
    """Somebody at a terminal who has started `queueber` with these arguments; only what it shows can be seen."""

    def __init__(self, *arguments):
        self.pid, self._end = pty.fork()
        if self.pid == 0:
            os.execv(sys.executable, [sys.executable, "-m", "queueber.cli", *map(str, arguments)])

    def read(self, until, times=1):
        """What is shown up to and with *until*, which comes so many times."""
        shown = ""
        deadline = time.monotonic() + PATIENCE
        while shown.count(until) < times:
            assert time.monotonic() < deadline, shown
            if select.select([self._end], [], [], 0.1)[0]:
                shown += plain(os.read(self._end, 65_536))
        return shown

    def type(self, line):
        os.write(self._end, line.encode() + b"\r")

    def press(self, key):
        if key == CTRL_C:
            self._until_it_waits()
        os.write(self._end, key)

    def _until_it_waits(self):
        """
        Return once the command sleeps.

        Python forgets a Ctrl-C that comes when it is just about to wait for a line.
        """
        deadline, seen = time.monotonic() + PATIENCE, ""
        while not seen.endswith("SSS"):
            assert time.monotonic() < deadline, "it never sleeps"
            time.sleep(0.02)
            seen += Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def end(self):
        """The exit status of a command that ends, and what it still shows."""
        shown = b""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if not select.select([self._end], [], [], 0.5)[0]:
                continue
            try:
                shown += os.read(self._end, 65_536)
            except OSError:
                # So says Linux when nobody has the other side open any more.
                break
        else:
            os.kill(self.pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._end)
        return status, plain(shown)

    def leave(self, key=CTRL_D):
        """The exit status after *key*."""
        self.press(key)
        return self.end()[0]


def plain(data):
    """Without what moves the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode()).replace("\r", "")

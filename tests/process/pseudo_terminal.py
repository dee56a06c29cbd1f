"""A command on a pseudo-terminal, for questions and bars that appear only on a terminal."""

import os
import platform
import pty
import re
import select
import signal
import sys
import time
from pathlib import Path

from tests.process.conftest import TIMEOUT_SECONDS

CTRL_C, CTRL_D = b"\x03", b"\x04"

INPUT_WAITS = {"x86_64": {"0": "0x0", "23": None, "270": None}, "aarch64": {"63": "0x0", "72": None, "73": None}}
"""System calls in which a process waits for input: read of descriptor 0, or select and poll of any descriptors."""


class PseudoTerminal:
    """`queueber` with *arguments* on a terminal of its own.  A test sees what it shows, and types."""

    def __init__(self, *arguments):
        self.pid, self._end = pty.fork()
        if self.pid == 0:
            os.execv(sys.executable, [sys.executable, "-m", "queueber.cli", *map(str, arguments)])

    def read(self, until, times=1):
        """Return the output up to *until* and with it, which appears that many times."""
        shown = ""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while shown.count(until) < times:
            assert time.monotonic() < deadline, shown
            if select.select([self._end], [], [], 0.1)[0]:
                shown += plain(os.read(self._end, 65_536))
        return shown

    def type(self, line):
        os.write(self._end, line.encode() + b"\r")

    def press(self, key):
        if key == CTRL_C:
            self._await_input_wait()
        os.write(self._end, key)

    def _await_input_wait(self):
        """
        Return once the command is in the system call that waits for input.

        Python handles a Ctrl-C that arrives just before that call only after the call, which it does not end.
        """
        calls = INPUT_WAITS[platform.machine()]
        deadline, seen = time.monotonic() + TIMEOUT_SECONDS, ""
        while not (seen and seen[0] in calls and calls[seen[0]] in (None, seen[1])):
            assert time.monotonic() < deadline, f"the command does not wait for input: {seen}"
            time.sleep(0.01)
            seen = Path(f"/proc/{self.pid}/syscall").read_text().split()

    def end(self):
        """Return the exit status of the command, and the rest of its output."""
        shown = b""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            if not select.select([self._end], [], [], 0.5)[0]:
                continue
            try:
                shown += os.read(self._end, 65_536)
            except OSError:
                # Linux reports EIO once the other end is closed.
                break
        else:
            os.kill(self.pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._end)
        return status, plain(shown)

    def leave(self, key=CTRL_D):
        """Press *key* and return the exit status."""
        self.press(key)
        return self.end()[0]


def plain(data):
    """Return *data* as text, without escape sequences that move the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode()).replace("\r", "")

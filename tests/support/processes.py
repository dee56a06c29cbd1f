"""Processes of tests that run to their end, and ports for those that do not."""

import socket
import subprocess
import sys

TIMEOUT_SECONDS = 120.0
"""For whatever takes a moment: only what would never come is to be found out, however busy the machine is."""

LONGEST_SECONDS = 600.0
"""For programs that do much, such as building a package."""

COMMAND = (sys.executable, "-m", "queueber.cli")


def completed(command, **how) -> subprocess.CompletedProcess:
    """Run *command*, by default without an input, and return the process that has ended, with its output as text."""
    how = {"stdin": subprocess.DEVNULL, "timeout": LONGEST_SECONDS} | how
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **how)


def run_command(*arguments: object, **how) -> subprocess.CompletedProcess:
    """Run `queueber` with *arguments*."""
    return completed([*COMMAND, *arguments], **how)


def free_port() -> int:
    """Return a port that no process listens at now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]

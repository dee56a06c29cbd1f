"""Lets system calls of a process fail, with strace."""

import contextlib
import re
import shutil
import subprocess
import time
from pathlib import Path

from attrs import frozen

ATTACH_SECONDS = 5.0
INJECTED = re.compile(r"^(?P<pid>\d+) +(?P<at>[\d.]+) (?P<said>.*)\(INJECTED\)", re.MULTILINE)
FILE = re.compile(r"\(\d+<(?P<path>[^>]*)>")


@frozen
class Fault:
    """A system call that is to fail, and when."""

    call: str
    error: str
    at: int
    """The number of the call among those of its kind."""

    starting: bool
    """Whether it fails during a start, and not under load."""

    def __str__(self):
        return f"{self.error} at {self.call} {self.at} {'of a start' if self.starting else 'under load'}"


@frozen
class Came:
    """A fault that occurred."""

    at: float
    """When, by the monotonic clock."""

    path: str
    """The path of the file, if the call had a descriptor."""


class Injection:
    """strace, attached to a process; use it in a `with`."""

    def __init__(self, fault, pid, data, output):
        self.output = output
        output.write_text("")
        paths = [f"-P{log}" for log in sorted((data / "db").glob("*.log"))] if fault.call == "write" else []
        self.process = subprocess.Popen(
            [
                *("strace", "-f", "-y", "-qq", "-ttt", "-o", str(output), "-p", str(pid), *paths),
                *("-e", f"trace={fault.call}", "-e", f"inject={fault.call}:error={fault.error}:when={fault.at}"),
                *("-e", "signal=none"),
            ],
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.process.terminate()
        self.process.wait()

    def attached(self, pid):
        """Wait until it is attached."""
        deadline = time.monotonic() + ATTACH_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if not re.search(r"^TracerPid:\t0$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE):
                    return
            time.sleep(0.005)

    def came(self):
        """Return the first fault; None before that."""
        return first_in(self.output.read_text(errors="replace"), between_clocks())


def between_clocks():
    """
    Return how far the monotonic clock is ahead of the other one.

    A process may be interrupted between two readings, for longer than two clocks may differ in a verdict.  So the
    closest of some readings counts.
    """

    def reading():
        before, wall, after = time.monotonic(), time.time(), time.monotonic()
        return after - before, (before + after) / 2 - wall

    return min(reading() for _ in range(20))[1]


def first_in(output, clocks):
    """Return the first fault in strace's *output*; *clocks* is how far the monotonic clock is ahead of strace's."""
    found = INJECTED.search(output)
    if found is None:
        return None
    said = found["said"]
    if "resumed>" in said:
        # The line of the call's begin names the file.
        begun = [line for line in output[: found.start()].splitlines() if line.startswith(f"{found['pid']} ")]
        said = begun[-1] if begun else ""
    file = FILE.search(said)
    return Came(float(found["at"]) + clocks, file["path"] if file else "")


def why_not():
    """Return the reason why no fault can be injected here; None if one can."""
    if shutil.which("strace") is None:
        return "no strace"
    done = subprocess.run(
        ["strace", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"strace may not trace: {done.stderr.strip()}" if done.returncode else None

"""
A page whose programs and commands are run in the order in which a reader meets them.

A block that begins with a comment that is a file's name is written to that file.  In a
`console` block each line after `$ ` is a command, and the lines after it are its output.  A
command whose output ends with `^C` goes on until it has printed the rest, and is then interrupted.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.support.server_process import TIMEOUT_SECONDS

ROOT = Path(__file__).parents[2]
ADDRESS = "127.0.0.1:9090"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
CHANGING = (
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(\+00:00|Z)?", "TIME"),
    (r"\b\d\d:\d\d:\d\d\b", "TIME"),
    (r"\b127\.0\.0\.1:\d+", "ADDRESS"),
    (r'"/[^"]*/', '"/FOLDER/'),
    (r"\b\d+(\.\d+)? ?m?s\b", "SPAN"),
    (r" +", " "),
)
"""Patterns of text that differs from one run to the next, with the replacements."""


def steps(page, section=""):
    """Return the blocks of *page*, or of the *section* with this heading: kind and text."""
    text = (ROOT / page).read_text()
    if section:
        text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return BLOCK.findall(text)


def same(text):
    """Return *text* without what differs from one run to the next."""
    for pattern, word in CHANGING:
        text = re.sub(pattern, word, text)
    return text.strip()


class Reader:
    """Does what a page says, in a directory of its own, with a server at *address*."""

    def __init__(self, folder, address):
        self.folder = folder
        self.address = address
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "QUEUEBER": str(ROOT),
            "QUEUEBER_ADDR": address,
            "PYTHONDONTWRITEBYTECODE": "1",
            # Of plugins of pytest that are here and not with a reader.
            "PYTHONWARNINGS": "ignore",
            # As on a terminal that is wide enough.
            "COLUMNS": "200",
        }

    def follow(self, page, section=""):
        """
        Do all steps of *page*, or of the *section* with this heading.

        Return the names of the files that were written, and the number of commands.
        """
        files, commands = [], 0
        for kind, text in steps(page, section):
            if kind == "console":
                for found in re.finditer(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, flags=re.MULTILINE):
                    self.run(found[1], found[2])
                    commands += 1
            elif name := re.match(r"(?:#|//) (\S+\.\w+)\n", text):
                (self.folder / name[1]).parent.mkdir(exist_ok=True)
                (self.folder / name[1]).write_text(text.replace(ADDRESS, self.address))
                files.append(name[1])
        return files, commands

    def run(self, command, expected):
        """Run *command*, and compare what it prints."""
        process = subprocess.Popen(
            command.replace(ADDRESS, self.address),
            shell=True,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        printed = []
        reading = threading.Thread(target=lambda: printed.extend(process.stdout), daemon=True)
        reading.start()
        wanted, _, rest = expected.partition("^C\n")
        if rest or expected.endswith("^C\n"):
            give_up = time.monotonic() + TIMEOUT_SECONDS
            while len(printed) < wanted.count("\n") and process.poll() is None and time.monotonic() < give_up:
                time.sleep(0.02)
            os.killpg(process.pid, signal.SIGINT)
        process.wait(TIMEOUT_SECONDS)
        reading.join(TIMEOUT_SECONDS)
        process.stdout.close()
        # Threads of a worker print in any order.
        assert sorted(same("".join(printed)).splitlines()) == sorted(same(wanted + rest).splitlines()), (
            f"{command}:\n{''.join(printed)}"
        )

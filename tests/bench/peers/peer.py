"""The facts about a server that are needed to start it."""

import os
import shutil
import socket
import sys
from pathlib import Path
from typing import ClassVar

from scenarios import MIXED


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Peer:
    """One server with one setting of its durability; subclasses say how it is started and spoken to."""

    name: ClassVar = ""
    says: ClassVar = ""
    """The durability of an acknowledged add, in a few words."""

    program: ClassVar = ""
    """The program that has to be installed; empty if it is Python alone."""

    connection_class: ClassVar = None
    """The class of connections to it."""

    kinds: ClassVar = ("add", "take", "cycle")
    mixed: ClassVar = False
    """Whether its connections send contents of mixed length."""

    user: ClassVar = None
    """The user that it runs as if root starts it."""

    start_seconds: ClassVar = 30

    def found(self):
        """Where the program is, or None."""
        if not self.program:
            return sys.executable
        return shutil.which(self.program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

    def command(self, port, directory):
        """Return the command that starts it: it listens on *port*, and all that it writes is in *directory*."""
        raise NotImplementedError

    def can(self, scenario):
        """Whether there is a client for *scenario*."""
        return scenario.kind in self.kinds and (self.mixed or scenario.size != MIXED)

    def environment(self, port, directory):  # what is to be added
        return {}

    def prepare(self, port, directory):
        """Before it is started."""

    def ready(self, port):
        """Once it listens: make what a load needs."""

    def cleanup(self, port, directory):
        """After it has ended."""

    def folder(self, directory):
        """Where to start it."""
        return directory if self.account() else ROOT

    def account(self):
        """The user to run it as, if it is not this one."""
        return self.user if os.geteuid() == 0 else None


HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]

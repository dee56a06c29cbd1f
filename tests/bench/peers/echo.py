"""
A bare Twisted server that returns the bytes it gets: the floor of this framework.

It reads no message and keeps nothing, so no server on Twisted's reactor can be
faster with calls and replies of these sizes.
"""

import sys
from itertools import cycle

from load_connection import InOrder

from peers.peer import HERE, Peer

CALL_BYTES = 200
"""An add's message without its contents."""


class Connection(InOrder):
    """Each call is as long as an add, and so is its answer."""

    def __init__(self, port, role, load):
        super().__init__(port, role, load)
        self.calls = cycle([b"\0" * CALL_BYTES + b"".join(batch) for batch in load.batches])
        self.lengths = cycle([CALL_BYTES + sum(map(len, batch)) for batch in load.batches])
        self.next = next(self.lengths)

    def request(self):
        return next(self.calls)

    def answers(self, data):
        completed, at = [], 0
        while len(data) - at >= self.next:
            at += self.next
            self.next = next(self.lengths)
            completed.append(self.per_call)
        return completed, data[at:]


class Echo(Peer):
    """In memory, and not even there for long."""

    name = "twisted-echo"
    says = "none: the bytes are sent back"
    connection_class = Connection
    kinds = ("add",)
    mixed = True

    def command(self, port, directory):
        return [sys.executable, str(HERE.parent / "echo.py"), str(port)]

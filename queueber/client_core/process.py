"""
The process of the program, without a system call: items are compared with it as they are delivered, run and settled.

A call of `os.getpid` takes as long as a tenth of all that a worker does for an item.
"""

import os
from typing import Final


class Process:
    """The process in which its reader runs."""

    def __init__(self) -> None:
        self.id = os.getpid()

    def forked(self) -> None:
        """Become the child of the process that this has been."""
        self.id = os.getpid()


HERE: Final = Process()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=HERE.forked)

"""
The test kit, for programs that use Queueber and for Queueber's own tests.

Runs the server's own composition root on a clock and a store in memory.  Opens no
socket and no file.  Start at `InProcessServer`.
"""

from queueber.testing.server import InProcessServer, StepPool

__all__ = ["InProcessServer", "StepPool"]

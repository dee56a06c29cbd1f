"""
The test kit, for programs that use Queueber and for Queueber's own tests.

Runs the server's own composition root on a store in memory and a clock that the
test moves.  `TestServer` is for users: it has sockets, faults and assertions, and
start reading there.  `InProcessServer` is for tests of Queueber itself: without
sockets, step by step.  Nothing is imported before it is used, because pytest
imports this package in every run.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from queueber.testing.draining import Run
    from queueber.testing.faults import Fault
    from queueber.testing.in_process import InProcessServer
    from queueber.testing.inline_tasks import inline
    from queueber.testing.inspection import StoredItem
    from queueber.testing.memory import StepPool
    from queueber.testing.server import TestServer

__all__ = ["Fault", "InProcessServer", "Run", "StepPool", "StoredItem", "TestServer", "inline"]

_PLACES = {
    "Fault": "faults",
    "InProcessServer": "in_process",
    "Run": "draining",
    "StepPool": "memory",
    "StoredItem": "inspection",
    "TestServer": "server",
    "inline": "inline_tasks",
}


def __getattr__(name: str) -> object:
    """Import the module that has *name*."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415

    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return __all__

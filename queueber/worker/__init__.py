"""
Workers: take items, call a handler with each, settle it when the handler ends, and keep its lease meanwhile.

    from queueber.worker import Worker

    def resize(item):
        ...

    Worker("queueber://127.0.0.1:9090/pictures", resize).run()

Knows the sans-IO client and the I/O thread of `queueber.sync`, and nothing of tasks
or of the command line.  Start at `worker` for the surface, then `rules`, which do
no I/O, and `keeper` for the thread that carries them out.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from queueber.values import AddTo
from queueber.worker.items import WorkItem
from queueber.worker.telemetry import context_headers, publishing
from queueber.worker.verdicts import Defer, Done, Fail, Reject, Verdict

if TYPE_CHECKING:
    from queueber.worker.liveness import Health
    from queueber.worker.worker import Worker

__all__ = [
    "AddTo",
    "Defer",
    "Done",
    "Fail",
    "Health",
    "Reject",
    "Verdict",
    "WorkItem",
    "Worker",
    "context_headers",
    "publishing",
]

if not TYPE_CHECKING:
    # Type checkers would take every name for one that a module with `__getattr__` has.

    _MODULES = {"Health": "queueber.worker.liveness", "Worker": "queueber.worker.worker"}
    """The modules of classes that programs which only add tasks, and import this package for it, do not use."""

    def __getattr__(name: str) -> type:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found: type = getattr(import_module(_MODULES[name]), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *_MODULES})

"""
Tasks: functions whose calls are added to a queue, and run by a worker.

    app = Tasks("queueber://127.0.0.1:9090/mail")

    @app.task(max_attempts=5)
    def greet(name: str) -> None: ...

    greet.add("ann")

Knows functions, their arguments as contents of items, attempts, and the times
of periodic tasks.  Leases and the connections of workers are `queueber.worker`'s;
adds go over the clients that `connections` has.  Results are not kept.  Start at
`app`, then `task` for the adding side, `running` for the worker's, and for periodic
tasks `periodic` for their times, `firings` and `scheduler`.
"""

from queueber.tasks.app import Tasks
from queueber.tasks.options import Backoff
from queueber.tasks.parameters import Parameters, Unrunnable
from queueber.tasks.running import current_item
from queueber.tasks.scheduler import Scheduler
from queueber.tasks.serializer import JsonSerializer, Serializer
from queueber.tasks.task import Added, Next, Task, ToAdd

__all__ = [
    "Added",
    "Backoff",
    "JsonSerializer",
    "Next",
    "Parameters",
    "Scheduler",
    "Serializer",
    "Task",
    "Tasks",
    "ToAdd",
    "Unrunnable",
    "current_item",
]

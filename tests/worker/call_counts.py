"""
Counts the Python calls of a worker for one task that does nothing, from the answer of its poll to that of its settle.

The worker is one of `queueber.tasks` in this process, with an asyncio loop and the thread of its connection; the calls
of the server, in a thread of its own, are not counted. All tasks are added before the worker starts, so that polls and
settles carry many of them, and the calls of a batch hardly count.

Prints a JSON object: the calls per task of `queueber`, and those of libraries. With any argument, it also prints the
functions that are called for most tasks, to standard error.
"""

import json
import os
import sys
import threading
from collections import Counter
from pathlib import Path

import queueber
from queueber.tasks import Tasks
from queueber.testing import TestServer

OURS = f"{Path(queueber.__file__).parent}{os.sep}"
TASKS = 2_000
BATCH = 500


class Count:
    """The calls of the threads in which it is a profiler, by their code."""

    def __init__(self):
        self.calls = Counter()

    def profile(self, frame, event, _):
        """Be a profiler for `sys.setprofile`."""
        if event == "call":
            self.calls[frame.f_code] += 1

    def begin(self, *_):
        """Be the profiler of a new thread, which counts if it is that of a connection."""
        sys.setprofile(self.profile if threading.current_thread().name == "queueber" else None)


def measure(server):
    """Return the calls of a worker that runs all tasks."""
    app, count, left = Tasks(server.url("work")), Count(), TASKS

    @app.task
    async def nothing(number: int, name: str, ratio: float) -> None:
        nonlocal left
        left -= 1
        if not left:
            worker.stop()

    for first in range(0, TASKS, BATCH):
        app.add_many([nothing.call(number, "x" * 100, 0.5) for number in range(first, first + BATCH)])
    app.close()
    worker = app.worker(telemetry=False)
    threading.setprofile(count.begin)
    sys.setprofile(count.profile)
    worker.run()
    sys.setprofile(None)
    threading.setprofile(None)
    return count.calls


def main():
    with TestServer() as server:
        calls = measure(server)
    ours = sum(times for code, times in calls.items() if code.co_filename.startswith(OURS))
    for code, times in calls.most_common() if sys.argv[1:] else ():
        if times > TASKS // 2:
            file = code.co_filename.removeprefix(OURS)
            print(f"{times / TASKS:6.2f} {file} {code.co_qualname}", file=sys.stderr)
    print(json.dumps({"ours": ours / TASKS, "others": (calls.total() - ours) / TASKS}))


if __name__ == "__main__":
    main()

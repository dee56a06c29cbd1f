"""Queueber: the tasks, and the same work as a plain handler."""

import json
import os
import sys

from record import adding, started

from queueber import sync
from queueber.tasks import Tasks

URL = os.environ["BENCH_BROKER"]
app = Tasks(URL)


@app.task
def run(number: int, added: int, payload: str, pause: float) -> None:
    started(number, added, pause)


def handle(item):
    number, added, _, pause = json.loads(item.contents)
    started(number, added, pause)


if __name__ == "__main__":
    if sys.argv[4:] == ["handler"]:
        with sync.connect(URL) as client:
            queue = client.queue()
            adding(sys.argv[1:], lambda *arguments: queue.add(json.dumps(arguments).encode()))
    else:
        adding(sys.argv[1:], run.add)

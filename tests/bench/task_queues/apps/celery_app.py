"""Celery: a task is acknowledged after it ran, as its documentation advises for tasks that must not be lost."""

import os
import sys

from celery import Celery
from record import adding, started

app = Celery(broker=os.environ["BENCH_BROKER"])
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    broker_connection_retry_on_startup=True,
    # Redis has no leases: what a dead worker held comes back after this time, an hour by default.
    broker_transport_options={"visibility_timeout": 3600} if os.environ["BENCH_BROKER"].startswith("redis") else {},
)


@app.task(name="run")
def run(number, added, payload, pause):
    started(number, added, pause)


if __name__ == "__main__":
    adding(sys.argv[1:], run.delay)

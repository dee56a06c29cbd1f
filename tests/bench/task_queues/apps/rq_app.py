"""RQ: a worker forks a process for each job."""

import os
import sys

from record import adding, started
from redis import Redis
from rq import Queue


def run(number, added, payload, pause):
    started(number, added, pause)


if __name__ == "__main__":
    import rq_app

    queue = Queue(connection=Redis.from_url(os.environ["BENCH_BROKER"]))
    adding(sys.argv[1:], lambda *arguments: queue.enqueue(rq_app.run, *arguments, result_ttl=0))

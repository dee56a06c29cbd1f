"""The log of a worker in a program that configures `logging` after it has imported the worker, as with Django."""

import sys

from tests.support.processes import completed

SCRIPT = """
import logging, logging.config
from queueber.sync import connect
from queueber.testing import TestServer
from queueber.worker import Reject, Worker

logging.config.dictConfig({
    "version": 1,
    "handlers": {"console": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}},
    "root": {"handlers": ["console"], "level": "INFO"},
})
assert logging.getLogger("queueber.worker").disabled

def handle(item):
    worker.stop()
    raise Reject("no picture")

with TestServer() as server:
    with connect(server.url("work")) as client:
        client.queue().add(b"a")
    worker = Worker(server.url("work"), handle, telemetry=False)
    worker.run()
"""


def test_a_configuration_that_disables_existing_loggers_does_not_silence_a_worker_that_starts_later():
    done = completed([sys.executable, "-c", SCRIPT])
    assert done.returncode == 0, done.stderr
    assert "attempt 1: reject no picture" in done.stdout

"""A test server, and workers of it in threads of this process."""

import threading
from contextlib import contextmanager

import pytest
from attrs import evolve

from queueber.limits import DEFAULTS
from queueber.sync import connect
from queueber.testing import TestServer
from queueber.worker import Worker

TIMEOUT_SECONDS = 30.0
"""For what takes a moment, however busy the machine is."""


@pytest.fixture
def server():
    """A server to which a worker pings four times a second."""
    with TestServer(limits=evolve(DEFAULTS, session_silence_ms=1_000)) as made:
        yield made


@pytest.fixture
def add(server):
    with connect(server.url()) as client:
        yield lambda *contents, queue="work", **options: client.queue(queue).add(*contents, **options)


class Running:
    """A worker in a thread."""

    def __init__(self, worker):
        self.worker = worker
        self.error = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            self.worker.run()
        except Exception as why:  # noqa: BLE001
            self.error = why

    def ended(self):
        """Wait for its end."""
        self.thread.join(TIMEOUT_SECONDS)
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error


@pytest.fixture
def work(server):
    """Run a worker of the queue `work` in a thread; it is stopped at the end of the block."""

    @contextmanager
    def working(handler, queue="work", **options):
        options = {"telemetry": False, "session_grace": 10, "grace": 0.1, **options}
        where = server.url(queue) if isinstance(queue, str) else queue
        running = Running(Worker(where, handler, **options))
        try:
            yield running.worker
        finally:
            running.worker.stop()
            running.ended()

    return working

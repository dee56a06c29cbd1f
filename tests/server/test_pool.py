"""The counts of the storage threads."""

import threading
import time
from contextlib import closing
from types import SimpleNamespace

from queueber.server.core.pool import StoragePool

TIMEOUT_SECONDS = 120


def until(true):
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not true() and time.monotonic() < deadline:
        time.sleep(0.001)
    return true()


def test_only_jobs_that_no_thread_has_begun_are_waiting():
    """A finished job does not count, even before the reactor has its result."""
    heard = []
    pool = StoragePool(SimpleNamespace(callFromThread=lambda *call: heard.append(call)), 2)
    pool.start()
    go_on = threading.Event()
    with closing(SimpleNamespace(close=pool.stop)):
        for _ in range(5):
            pool.run(go_on.wait, TIMEOUT_SECONDS)
        assert until(lambda: pool.busy == 2)
        assert pool.waiting == 3
        go_on.set()
        assert until(lambda: pool.busy == 0)
        assert pool.waiting == 0
        assert until(lambda: len(heard) == 5)

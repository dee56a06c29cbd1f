"""What can be seen of the storage threads."""

import threading
import time
from contextlib import closing
from types import SimpleNamespace

from queueber.server.core.pool import StoragePool

PATIENCE = 120


def until(true):
    deadline = time.monotonic() + PATIENCE
    while not true() and time.monotonic() < deadline:
        time.sleep(0.001)
    return true()


def test_calls_that_no_thread_has_come_to_are_those_that_wait_and_no_others():
    """What is done waits for nothing any more, however long the reactor takes to hear of it."""
    heard = []
    pool = StoragePool(SimpleNamespace(callFromThread=lambda *call: heard.append(call)), 2)
    pool.start()
    go_on = threading.Event()
    with closing(SimpleNamespace(close=pool.stop)):
        for _ in range(5):
            pool.run(go_on.wait, PATIENCE)
        assert until(lambda: pool.busy == 2)
        assert pool.waiting == 3
        go_on.set()
        assert until(lambda: pool.busy == 0)
        assert pool.waiting == 0
        assert until(lambda: len(heard) == 5)

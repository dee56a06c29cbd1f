"""Calls that block, in a thread, and the moment at which a test server has them."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic

TIMEOUT_SECONDS = 20


@contextmanager
def in_thread(function):
    """Call *function* in a thread; yield the future of its result, and wait for that at the end."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(function)
        yield future
        future.result(TIMEOUT_SECONDS)


def wait_for_poll(server):
    """Wait until a poll of another thread has arrived: only calls of this one are sure to have."""
    deadline = monotonic() + TIMEOUT_SECONDS
    while not server._core.broker.polls.waiting:  # noqa: SLF001
        assert monotonic() < deadline

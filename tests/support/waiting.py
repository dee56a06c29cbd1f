"""Waiting: for a condition, and for the moment at which a test server has a call that blocks a thread."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic, sleep

from queueber import sync

TIMEOUT_SECONDS = 20


def until(condition, seconds=120.0):
    """Wait until *condition* returns something true, and return it."""
    deadline = monotonic() + seconds
    while not (found := condition()):
        assert monotonic() < deadline, condition
        sleep(0.002)
    return found


async def until_in_loop(condition):
    """Wait for something that another thread does, while the loop goes on."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


@contextmanager
def in_thread(function):
    """Call *function* in a thread; yield the future of its result, and wait for that at the end."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(function)
        yield future
        future.result(TIMEOUT_SECONDS)


def wait_for_poll(server):
    """Wait until a poll of *mail* in another thread has arrived: only calls of this thread are sure to have."""
    with sync.connect(server.url()) as client:
        until(lambda: client.control("mail").stats().waiting_polls, TIMEOUT_SECONDS)

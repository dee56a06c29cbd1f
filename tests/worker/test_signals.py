"""Handlers of signals, in the process that has set them and in one that is forked from it."""

import os
import signal

import pytest

from queueber.worker.signals import take


@pytest.fixture
def taken():
    # Other tests of this process may have left a handler.
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    seen = []
    take(signal.SIGTERM, seen.append)
    yield seen
    signal.signal(signal.SIGTERM, before)


def test_the_process_that_set_it_gets_the_signal(taken):
    os.kill(os.getpid(), signal.SIGTERM)
    assert taken == [signal.SIGTERM]


def test_a_forked_child_has_the_handler_that_was_there_before(taken):
    child = os.fork()
    if not child:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os._exit(7)
    _, status = os.waitpid(child, 0)
    assert (os.WIFSIGNALED(status) and os.WTERMSIG(status), taken) == (signal.SIGTERM, [])

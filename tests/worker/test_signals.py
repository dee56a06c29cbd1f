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


def forked(act):
    """Call *act* in a forked child; return the child's wait status."""
    child = os.fork()
    if not child:
        try:
            act()
        finally:
            os._exit(7)
    return os.waitpid(child, 0)[1]


def test_the_process_that_set_it_gets_the_signal(taken):
    os.kill(os.getpid(), signal.SIGTERM)
    assert taken == [signal.SIGTERM]


def test_a_forked_child_has_the_handler_that_was_there_before(taken):
    status = forked(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert (os.WIFSIGNALED(status) and os.WTERMSIG(status), taken) == (signal.SIGTERM, [])


@pytest.fixture
def handler_in_c(monkeypatch):
    """Let the handler of SIGTERM be one that was not set from Python."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("handler_in_c")
def test_after_a_handler_that_was_not_set_from_python_comes_the_default_action():
    before = take(signal.SIGTERM, lambda number: None)
    assert signal.signal(signal.SIGTERM, before) is not None
    status = forked(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM


@pytest.mark.usefixtures("handler_in_c")
def test_a_forked_child_has_the_default_action_in_place_of_a_handler_that_was_not_set_from_python():
    take(signal.SIGTERM, lambda number: None)
    status = forked(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM

"""Handlers of signals, in the process that has set them and in one that is forked from it."""

import os
import signal
import sys

import pytest

from queueber.worker.signals import take
from tests.support.processes import completed


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


CHILD_OF_A_SIGNAL = """
import os, signal

armed = False
os.register_at_fork(after_in_child=lambda: armed and signal.raise_signal(signal.SIGTERM))

from queueber.worker.signals import take

take(signal.SIGTERM, lambda number: None)
armed = True
child = os.fork()
if not child:
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_signal_may_come_before_a_forked_child_has_run_a_line():
    """`os.register_at_fork` calls functions in the order in which they came; those of queueber are not the first."""
    done = completed([sys.executable, "-c", CHILD_OF_A_SIGNAL])
    assert (done.stdout, done.stderr) == (f"{-signal.SIGTERM}\n", "")


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

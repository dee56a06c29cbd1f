"""Children that a handler forks, and that end the handler as their parent does."""

import asyncio
import logging
import os
import warnings

import pytest

from queueber import api
from queueber.worker.handling import FORKED_STATUS, LOG, Handling, exit_child
from queueber.worker.items import WorkItem

LOGGED, HOOKED = 1, 2


class OfParent(logging.Handler):
    """A handler whose stream another thread of the parent had locked: a child that logs would wait for ever."""

    def __init__(self, parent):
        super().__init__()
        self.parent = parent

    def emit(self, record):
        if os.getpid() != self.parent:
            os._exit(LOGGED)


@pytest.fixture
def forking():
    """Return a handling whose handler forks and raises in the child, and the list of its children."""
    parent, children = os.getpid(), []

    def handler(item):
        with warnings.catch_warnings(action="ignore"):
            child = os.fork()
        if not child:
            raise ValueError("in the child")
        children.append(child)

    def hook(item, verdict, error):
        if os.getpid() != parent:
            os._exit(HOOKED)

    log = OfParent(parent)
    LOG.addHandler(log)
    yield Handling(handler, after=[hook]), children
    LOG.removeHandler(log)


@pytest.mark.parametrize("run", [Handling.run, lambda handling, item: asyncio.run(handling.run_async(item))])
def test_a_child_in_which_the_handler_raises_ends_without_log_or_hook(forking, run):
    handling, children = forking
    assert run(handling, WorkItem("q", bytes(16), api.PolledItem(b"x", bytes(16), 1, 0)))
    (child,) = children
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == FORKED_STATUS


def test_a_child_ends_though_its_standard_error_is_closed(monkeypatch):
    ends = []

    def closed(number, text):
        raise OSError(text)

    monkeypatch.setattr(os, "write", closed)
    monkeypatch.setattr(os, "_exit", ends.append)
    exit_child()
    assert ends == [FORKED_STATUS]

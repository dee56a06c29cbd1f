"""Settings and fixtures of all tests."""

import functools
import gc
import importlib.metadata
import inspect
import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# What tests of several folders share.
sys.path.insert(0, str(Path(__file__).parent / "support"))
pytest_plugins = ["capnp_fixtures"]

# Where a change is judged, the same examples every time; at a developer's, others each time.  How long one takes says
# more about the machine than about the code.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("others", deadline=None)
# For `make fast`.
settings.register_profile("quick", max_examples=25, deadline=None)
settings.load_profile("same" if os.environ.get("CI") else "others")

# Tests start hundreds of processes, each of which would compile our modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell has what it starts in the background ignore Ctrl-C, and `nohup` a hangup, and so do all that starts
# from there.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


# pytest reads Twisted's metadata at each test, to see which version it is: a third of what a short test costs.
importlib.metadata.version = functools.cache(importlib.metadata.version)

# A collection of garbage finds none among the modules and the tests that are being loaded.
gc.disable()


def pytest_collection_finish():
    """Let no later collection of garbage look at the modules and the tests, which stay to the end."""
    gc.collect()
    gc.freeze()
    # With Python's threshold of 700, a tenth of the time of most tests would be spent on collections.
    gc.set_threshold(10_000)
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """
    Call each test that is no coroutine.

    pytest-twisted would run it, and each example of hypothesis, in a turn of the reactor of its own.
    """
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    result = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
    assert result is None, f"{pyfuncitem.nodeid} returns {result!r}, which nothing waits for"
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Run without coverage's tracer what is marked `untraced`, and what hypothesis runs and is not marked `traced`."""
    tracer = sys.gettrace()
    random = item.get_closest_marker("hypothesis") and not item.get_closest_marker("traced")
    if random or item.get_closest_marker("untraced"):
        sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)

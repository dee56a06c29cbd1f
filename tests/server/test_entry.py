"""Signals before the reactor runs."""

import signal
import sys

import pytest

from tests.support.processes import completed


def run(script):
    """Run *script* in a process that has imported only the entry point."""
    return completed(
        [sys.executable, "-c", f"import os, signal, sys\nfrom queueber.server.app.entry import *\n{script}"]
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_early_stop_ends_the_process_with_a_line(number):
    done = run(f"SIGNALS.begin(); os.kill(os.getpid(), {int(number)})")

    assert done.returncode == -number
    assert done.stderr == f"queueber: stopped by {number.name} before it began; nothing was opened\n"


def test_a_blocked_stop_is_not_lost():
    script = "signal.pthread_sigmask(signal.SIG_BLOCK, STOPS); os.kill(os.getpid(), 15); print('still', flush=True)"
    done = run(f"{script}; SIGNALS.begin(); print('here')")

    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "still\n")


def test_a_stop_before_the_reactor_runs_reaches_the_reactor():
    # SIGHUP is ignored by what `nohup` starts, this test run perhaps.
    script = """
signal.signal(1, signal.SIG_DFL)
SIGNALS.begin(); SIGNALS.hold()
for number in (15, 2, 1): os.kill(os.getpid(), number)
print("kept", flush=True)
for number in (15, 1): signal.signal(number, lambda number, _: print(number, flush=True))
SIGNALS.release(lambda number, _: print(number, flush=True))
"""
    assert sorted(run(script).stdout.split()) == ["1", "15", "2", "kept"]


def test_signals_end_the_parent_that_waits_for_a_start():
    done = run("SIGNALS.begin(); SIGNALS.hold()\nif os.fork(): os.wait(); os.kill(os.getpid(), 2)")

    assert done.returncode == -signal.SIGINT
    assert done.stderr == ""

"""The exit of a process in which something does not end, in processes of their own."""

import os
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.slow

HEAD = """
import atexit, sys, threading, time
from queueber.worker.exit_guard import ExitGuard

guard = ExitGuard("a thread does not end")
atexit.register(lambda: print("first registered, last called"))
stuck = threading.Event()
"""

BUFFERED = {**os.environ, "PYTHONUNBUFFERED": ""}


def ends(program, seconds=60):
    """Run a program, whose standard output is a pipe; return its status, its lines, those of errors, and its time."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", HEAD + program],
        capture_output=True,
        text=True,
        timeout=seconds,
        env=BUFFERED,
        check=False,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines(), time.monotonic() - began


def test_a_process_that_ends_by_itself_is_not_touched():
    status, printed, errors, _ = ends("""
threading.Thread(target=time.sleep, args=(0.2,)).start()
atexit.register(print, "called once")
guard.arm(7, threads=60)
print("buffered")
sys.exit(3)
""")
    assert (status, errors) == (3, [])
    assert printed == ["buffered", "called once", "first registered, last called"]


def test_under_a_thread_that_goes_on_exit_handlers_run_and_output_is_flushed():
    status, printed, errors, _ = ends("""
threading.Thread(target=stuck.wait).start()
atexit.register(print, "called once")
guard.arm(7, threads=0.2)
print("buffered")
""")
    assert (status, errors) == (7, ["a thread does not end"])
    assert printed == ["buffered", "called once", "first registered, last called"]


def test_the_main_thread_runs_no_exit_handler_a_second_time():
    """The thread for which it waits ends while another one runs the exit handlers."""
    status, printed, errors, _ = ends("""
begun = threading.Event()
threading.Thread(target=begun.wait).start()

def handler():
    print("called")
    begun.set()
    time.sleep(0.5)

atexit.register(handler)
guard.arm(7, threads=0.2)
""")
    assert (status, errors) == (7, ["a thread does not end"])
    assert printed == ["called", "first registered, last called"]


@pytest.mark.parametrize("thread", ["", "threading.Thread(target=stuck.wait).start()"], ids=["alone", "thread"])
def test_an_exit_handler_that_never_ends_costs_only_its_time(thread):
    status, printed, errors, seconds = ends(f"""
{thread}
atexit.register(stuck.wait)
atexit.register(print, "before it")
guard.arm(7, threads=0.2, handlers=0.2)
print("buffered")
""")
    assert (status, printed) == (7, ["buffered", "before it"])
    assert errors[-1] == "an exit handler does not end, so the process is ended"
    assert seconds < 30


def test_an_output_that_is_not_read_does_not_hold_the_process():
    program = """
threading.Thread(target=stuck.wait).start()
guard.arm(7, threads=0.2, handlers=0.2)
print("x" * 1_000_000)
"""
    with subprocess.Popen([sys.executable, "-c", HEAD + program], stdout=subprocess.PIPE, env=BUFFERED) as process:
        try:
            assert process.wait(60) == 7
        finally:
            process.kill()


FULL = """
import os

def fill(descriptor):
    os.set_blocking(descriptor, False)
    try:
        while True:
            os.write(descriptor, b"x")
    except BlockingIOError:
        os.set_blocking(descriptor, True)
"""


def test_an_output_that_is_not_read_does_not_hold_the_last_flush():
    """Python's own comes after the exit handlers, and no thread runs then."""
    program = f"""
{FULL}
fill(1)
guard.arm(7, threads=0.2, handlers=0.2)
print("small")
"""
    with subprocess.Popen([sys.executable, "-c", HEAD + program], stdout=subprocess.PIPE, env=BUFFERED) as process:
        try:
            assert process.wait(60) == 7
        finally:
            process.kill()


def test_errors_that_are_not_read_do_not_hold_exit_handlers():
    program = f"""
{FULL}
fill(2)
threading.Thread(target=stuck.wait).start()
guard.arm(7, threads=0.2, handlers=0.2)
print("buffered")
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HEAD + program], stdout=pipe, stderr=pipe, env=BUFFERED) as process:
        try:
            assert process.wait(60) == 7
            assert process.stdout.read().splitlines() == [b"buffered", b"first registered, last called"]
        finally:
            process.kill()


def test_it_cannot_be_called_off_once_exit_handlers_have_begun():
    """The main thread does not run them a second time, and the process ends."""
    status, printed, errors, _ = ends("""
begun = threading.Event()

def handler():
    print("called")
    begun.set()
    time.sleep(0.5)

atexit.register(handler)
guard.arm(7, threads=0.1)
begun.wait()
guard.cancel()
""")
    assert (status, errors) == (7, ["a thread does not end"])
    assert printed == ["called", "first registered, last called"]


def test_an_exit_handler_that_never_ends_costs_only_its_time_after_a_late_cancel():
    status, printed, errors, seconds = ends("""
begun = threading.Event()
atexit.register(stuck.wait)
atexit.register(begun.set)
guard.arm(7, threads=0.1, handlers=0.2)
begun.wait()
guard.cancel()
stuck.wait()
""")
    assert (status, printed) == (7, [])
    assert errors[-1] == "an exit handler does not end, so the process is ended"
    assert seconds < 30


@pytest.mark.parametrize("armed", ["guard.arm(7, threads=0.2)", ""], ids=["armed", "idle"])
def test_it_can_be_called_off(armed):
    status, printed, errors, _ = ends(f"""
{armed}
guard.cancel()
guard.arm(7, threads=0)
time.sleep(0.4)
print("goes on")
""")
    assert (status, errors) == (0, [])
    assert printed == ["goes on", "first registered, last called"]


NO_THREADS = """
def start(thread):
    raise RuntimeError("can't start new thread")

threading.Thread.start = start
"""


def test_without_another_thread_a_process_ends_as_it_would():
    status, printed, errors, _ = ends(f"""
{NO_THREADS}
guard.arm(7, threads=60)
guard.arm(7, threads=60)
print("buffered")
sys.exit(3)
""")
    assert (status, errors) == (3, ["the end of the process is not watched: can't start new thread"])
    assert printed == ["buffered", "first registered, last called"]


@pytest.mark.parametrize("threads", [0.1, 60], ids=["own", "main"])
def test_the_time_of_exit_handlers_can_be_ended(threads):
    """Also while a thread of the guard runs them, because another thread of the program goes on."""
    status, printed, errors, seconds = ends(f"""
import os, signal
signal.signal(signal.SIGTERM, lambda *_: guard.exit_now())

def handler():
    print("called")
    os.kill(os.getpid(), signal.SIGTERM)
    stuck.wait()

atexit.register(handler)
if {threads} < 1:
    threading.Thread(target=stuck.wait).start()
guard.arm(7, threads={threads}, handlers=60)
""")
    assert (status, printed) == (7, ["called"])
    assert errors == []
    assert seconds < 30


@pytest.mark.parametrize("before", ["", "guard.arm(7, threads=60); guard.cancel()"], ids=["idle", "cancelled"])
def test_a_process_whose_exit_has_not_begun_does_not_exit(before):
    status, printed, errors, _ = ends(f"""
{before}
guard.exit_now()
print("goes on")
""")
    assert (status, errors) == (0, [])
    assert printed == ["goes on", "first registered, last called"]

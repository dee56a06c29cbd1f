"""The end of a worker by signals, with a worker that records its stops."""

import logging
import signal
import socket
from queue import SimpleQueue

import pytest

from queueber.cli.work_channel import WorkerEnd
from queueber.cli.work_stop import END_SECONDS, FORCED_SECONDS, Stopper

GRACE = 20.0


class Fake:
    """A worker, a clock, and calls for later."""

    def __init__(self, *, supervised=False):
        self.now = 100.0
        self.ended = False
        self.stops = []
        self.calls = []
        self.left = self.exited = False
        self.stopper = Stopper(
            self,
            GRACE,
            supervised=supervised,
            later=lambda seconds, act: self.calls.append((self.now + seconds, act)),
            seconds=lambda: self.now,
            leave=self.leave,
            exit_now=self.exit_now,
        )

    def stop(self, grace=None):
        self.stops.append(grace)

    def leave(self):
        self.left = True

    def exit_now(self):
        """Exit, as a guard does that is armed: when the worker has ended."""
        self.exited = self.ended

    def end(self):
        self.ended = True
        self.stopper.worker_ended()

    def signal(self, after=1.0):
        self.now += after
        self.stopper.signal("SIGTERM")

    def advance(self, seconds):
        self.now += seconds
        due = [act for at, act in self.calls if at <= self.now]
        self.calls = [(at, act) for at, act in self.calls if at > self.now]
        for act in due:
            act()


@pytest.fixture
def alone():
    return Fake()


@pytest.fixture
def supervised():
    return Fake(supervised=True)


def test_a_signal_gives_handlers_their_grace(alone):
    alone.signal()
    assert alone.stops == [GRACE]
    alone.advance(GRACE + END_SECONDS - 1)
    assert not alone.left
    alone.advance(1)
    assert alone.left


def test_a_second_signal_ends_the_worker_at_once(alone):
    alone.signal()
    alone.signal()
    assert alone.stops == [GRACE, 0]
    alone.advance(FORCED_SECONDS)
    assert alone.left


def test_a_third_signal_changes_nothing(alone):
    for _ in range(3):
        alone.signal()
    assert alone.stops == [GRACE, 0]


def test_signals_in_quick_succession_are_one(alone):
    alone.signal()
    alone.signal(after=0.2)
    alone.signal(after=0.4)
    assert alone.stops == [GRACE]
    alone.signal(after=0.5)
    assert alone.stops == [GRACE, 0]


def test_only_the_supervisor_forces_its_processes(supervised):
    """A service manager signals all processes of a service at once, and the supervisor signals them as well."""
    supervised.signal()
    supervised.signal()
    supervised.signal()
    assert supervised.stops == [GRACE]
    supervised.stopper.force()
    supervised.stopper.force()
    assert supervised.stops == [GRACE, 0]
    # The supervisor kills one that does not end.
    assert supervised.calls == []


def test_a_signal_shortens_the_time_of_a_process_that_is_replaced(supervised):
    supervised.stopper.drain(600.0)
    assert supervised.stops == [600.0]
    supervised.signal()
    supervised.advance(GRACE - 1)
    assert supervised.stops == [600.0]
    supervised.advance(1)
    assert supervised.stops == [600.0, 0]


def test_a_second_signal_after_the_worker_has_ended_ends_the_process(alone):
    """Threads and exit handlers of the program may go on for seconds."""
    alone.signal()
    assert not alone.exited
    alone.end()
    alone.signal(after=0.2)
    assert not alone.exited
    alone.signal(after=0.5)
    assert alone.exited


def test_a_third_signal_ends_a_process_whose_worker_was_ended_at_once(alone):
    alone.signal()
    alone.signal()
    alone.end()
    assert not alone.exited
    alone.signal()
    assert alone.exited


def test_the_first_signal_after_a_worker_has_ended_by_itself_leaves_exit_handlers_their_time(alone, caplog):
    caplog.set_level(logging.INFO)
    alone.end()
    alone.signal()
    assert (alone.stops, alone.exited, caplog.messages) == ([], False, [])
    alone.signal()
    assert (alone.exited, caplog.messages) == (True, [])


def test_only_the_supervisor_ends_a_process_whose_worker_has_ended(supervised):
    supervised.signal()
    supervised.end()
    supervised.signal()
    assert not supervised.exited
    supervised.stopper.force()
    assert supervised.exited


class Broken(logging.Handler):
    def emit(self, _):
        """Raise, as a stream does whose own write the signal has interrupted."""
        raise RuntimeError("reentrant call")


def test_a_log_that_raises_does_not_keep_the_worker_from_its_end(alone):
    log, broken = logging.getLogger("queueber.work"), Broken()
    log.addHandler(broken)
    level, log.level = log.level, logging.INFO
    try:
        alone.signal()
        alone.signal()
    finally:
        log.removeHandler(broken)
        log.setLevel(level)
    assert alone.stops == [GRACE, 0]
    assert len(alone.calls) == 2


@pytest.fixture
def handlers():
    """Restore the handlers of signals."""
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_worker_without_a_supervisor_stops_at_these_signals(alone, handlers, number):
    """SIGHUP is what a terminal sends that is closed, and would end the process with its items leased."""
    alone.stopper.take_charge()
    signal.raise_signal(number)
    assert alone.stops == [GRACE]


def test_a_worker_with_a_supervisor_leaves_sighup_to_that(supervised, handlers):
    """A service manager may send it to all processes of a service."""
    supervised.stopper.take_charge()
    signal.raise_signal(signal.SIGHUP)
    assert supervised.stops == []
    signal.raise_signal(signal.SIGTERM)
    assert supervised.stops == [GRACE]


def test_a_signal_that_nohup_has_ignored_stays_ignored(alone, handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    alone.stopper.take_charge()
    signal.raise_signal(signal.SIGHUP)
    assert alone.stops == []


def test_a_worker_whose_supervisor_is_gone_stops_and_ends_in_time(supervised, handlers):
    supervised.stopper.take_charge()
    supervised.stopper.supervisor_gone()
    assert supervised.stops == [GRACE]
    supervised.advance(GRACE + END_SECONDS - 1)
    assert not supervised.left
    supervised.advance(1)
    assert supervised.left


def test_a_supervisor_that_is_gone_leaves_handlers_that_have_to_end_their_grace(supervised, handlers):
    supervised.stopper.take_charge()
    supervised.signal()
    supervised.advance(1)
    supervised.stopper.supervisor_gone()
    assert supervised.stops == [GRACE]
    supervised.advance(GRACE + END_SECONDS)
    assert supervised.left


def test_a_second_signal_counts_once_the_supervisor_is_gone(supervised, handlers):
    supervised.stopper.take_charge()
    supervised.stopper.supervisor_gone()
    supervised.signal()
    assert supervised.stops == [GRACE, 0]
    supervised.advance(FORCED_SECONDS)
    assert supervised.left


def test_the_channel_reports_the_end_of_the_supervisor():
    theirs, ours = socket.socketpair()
    heard = SimpleQueue()
    with ours:
        WorkerEnd(0, ours, bytes(16)).watch(lambda: heard.put("force"), lambda: heard.put("gone"))
        with theirs:
            theirs.send(b"now\n")
            assert heard.get(timeout=30) == "force"
        assert heard.get(timeout=30) == "gone"

"""The rules of the supervisor of `queueber work`: what it does with its processes, without any."""

import signal

import pytest

from queueber.cli.work_supervisor import (
    BACKOFF_SECONDS,
    EXIT_REFUSED,
    FORCED_SECONDS,
    End,
    Force,
    Say,
    Send,
    Spawn,
    State,
    Supervisor,
)

STOP_SECONDS = 40.0


class Driver:
    """A supervisor with its clock."""

    def __init__(self, processes, *, reload=False):
        self.supervisor = Supervisor(processes=processes, stop_seconds=STOP_SECONDS, reload=reload)
        self.now = 100.0
        self.pids = 1_000
        self.said = []
        self.supervisor.start(self.now)

    def actions(self):
        """Return what it asked for, but for the lines, which are kept in `said`."""
        found, self.supervisor.actions = self.supervisor.actions, []
        for each in found:
            if isinstance(each, Spawn):
                self.pids += 1
                self.supervisor.started(each.slot, self.pids)
        self.said += [each.text for each in found if isinstance(each, Say)]
        return [each for each in found if not isinstance(each, Say)]

    def ready(self, *slots):
        for slot in slots:
            self.supervisor.ready(slot, self.now)
        return self.actions()

    def exited(self, slot, status=0, how="exit status 0"):
        self.supervisor.exited(slot, status, how, self.now)
        return self.actions()

    def signalled(self, number):
        self.now += 1
        self.supervisor.signalled(number, self.now)
        return self.actions()

    def after(self, seconds):
        self.now += seconds
        self.supervisor.tick(self.now)
        return self.actions()

    def states(self):
        return [slot.state for slot in self.supervisor.slots]


def running(processes, **more):
    """Return a driver all of whose processes are ready."""
    driver = Driver(processes, **more)
    driver.actions()
    driver.ready(0)
    driver.ready(*range(1, processes))
    assert driver.states() == [State.RUNNING] * processes
    return driver


def test_the_first_process_starts_alone_and_the_others_when_it_is_ready():
    driver = Driver(3)
    assert driver.actions() == [Spawn(0)]
    assert driver.after(1_000) == []
    assert driver.ready(0) == [Spawn(1), Spawn(2)]
    assert driver.ready(1, 2) == []


def test_a_module_that_cannot_be_imported_ends_everything_once():
    driver = Driver(3)
    driver.actions()
    assert driver.exited(0, 1, "exit status 1") == [End(1)]
    # The process has printed the reason.
    assert driver.said == []


def test_a_process_that_dies_is_started_again_after_a_growing_wait():
    driver = running(2)
    waits = []
    for _ in range(8):
        assert driver.exited(1, -11, "killed by SIGSEGV") == []
        begin = driver.now
        assert driver.supervisor.wake_at() > begin
        assert driver.after(driver.supervisor.wake_at() - begin - 0.01) == []
        assert driver.after(0.01) == [Spawn(1)]
        waits.append(round(driver.now - begin, 6))
        driver.ready(1)
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert driver.said[0] == "worker 2 (process 1002) ended: killed by SIGSEGV; another starts in 0.5 s"
    assert driver.states() == [State.RUNNING] * 2


def test_a_death_after_a_long_time_is_the_first_again():
    driver = running(1)
    for _ in range(3):
        driver.exited(0, 1, "exit status 1")
        driver.after(BACKOFF_SECONDS[1])
        driver.ready(0)
    driver.after(60.0)
    driver.exited(0, 1, "exit status 1")
    assert driver.supervisor.wake_at() == driver.now + BACKOFF_SECONDS[0]


def test_a_process_that_ended_by_itself_or_was_stopped_by_hand_is_started_again():
    driver = running(1)
    driver.exited(0, 0, "exit status 0")
    assert driver.after(0.5) == [Spawn(0)]


def test_a_status_of_1_before_it_is_ready_is_no_end_once_another_was_ready():
    """A deployment that is half done: the module is broken for a moment."""
    driver = running(2)
    driver.exited(1, -9, "killed by SIGKILL")
    assert driver.after(1) == [Spawn(1)]
    assert driver.exited(1, 1, "exit status 1") == []
    assert driver.after(1) == [Spawn(1)]


def test_a_crash_while_it_starts_is_tried_again():
    driver = Driver(1)
    driver.actions()
    assert driver.exited(0, -11, "killed by SIGSEGV") == []
    assert driver.after(0.5) == [Spawn(0)]


def test_a_process_that_has_done_its_share_is_replaced_at_once():
    driver = running(2)
    driver.supervisor.ending(0, "1,000 items", 600.0, driver.now)
    assert driver.actions() == []
    assert driver.exited(0) == [Spawn(0)]
    assert driver.said == ["worker 1 (process 1001) is replaced: 1,000 items"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all_and_the_status_is_0(number):
    driver = running(3)
    assert driver.signalled(number) == [Send(slot, signal.SIGTERM) for slot in range(3)]
    assert driver.exited(1) == []
    assert driver.after(STOP_SECONDS - 1) == []
    assert driver.exited(0) == []
    assert driver.exited(2, -15, "killed by SIGTERM") == [End(0)]


def test_a_process_that_ends_to_be_replaced_ends_sooner_at_a_stop():
    """The process's running items have the grace from the stop on."""
    driver = running(2)
    driver.supervisor.ending(0, "1,000 items", 600.0, driver.now)
    driver.actions()
    assert driver.signalled(signal.SIGTERM) == [Send(0, signal.SIGTERM), Send(1, signal.SIGTERM)]
    assert driver.exited(0) == []
    assert driver.exited(1) == [End(0)]


def test_a_stop_while_a_process_waits_for_its_start():
    driver = running(2)
    driver.exited(1, -9, "killed by SIGKILL")
    assert driver.signalled(signal.SIGTERM) == [Send(0, signal.SIGTERM)]
    assert driver.after(30) == []
    assert driver.exited(0) == [End(0)]


def test_a_stop_before_the_first_is_ready():
    driver = Driver(4)
    driver.actions()
    assert driver.signalled(signal.SIGINT) == [Send(0, signal.SIGTERM)]
    assert driver.ready(0) == []
    assert driver.exited(0) == [End(0)]


def test_a_second_signal_ends_all_at_once():
    driver = running(2)
    driver.signalled(signal.SIGINT)
    assert driver.signalled(signal.SIGINT) == [Force(0), Force(1)]
    assert driver.exited(0) == []
    assert driver.after(FORCED_SECONDS - 1) == []
    assert driver.exited(1) == [End(0)]


def test_signals_in_quick_succession_are_one():
    """The command `timeout` signals its child and then the whole group."""
    driver = running(1)
    driver.signalled(signal.SIGTERM)
    driver.supervisor.signalled(signal.SIGTERM, driver.now + 0.1)
    driver.supervisor.signalled(signal.SIGINT, driver.now + 0.4)
    assert driver.actions() == []
    driver.now += 0.4
    assert driver.signalled(signal.SIGTERM) == [Force(0)]


def test_a_process_that_does_not_end_at_a_second_signal_is_killed():
    driver = running(2)
    driver.signalled(signal.SIGINT)
    driver.signalled(signal.SIGINT)
    driver.exited(0)
    assert driver.after(FORCED_SECONDS) == [Send(1, signal.SIGKILL)]
    assert driver.exited(1, -9, "killed by SIGKILL") == [End(1)]


def test_a_third_signal_kills():
    driver = running(1)
    driver.signalled(signal.SIGINT)
    driver.signalled(signal.SIGINT)
    assert driver.signalled(signal.SIGINT) == [Send(0, signal.SIGKILL)]
    assert driver.exited(0, -9, "killed by SIGKILL") == [End(1)]


def test_a_process_that_does_not_end_is_killed_and_the_status_says_so():
    driver = running(2)
    driver.signalled(signal.SIGTERM)
    driver.exited(0)
    assert driver.after(STOP_SECONDS) == [Force(1)]
    assert driver.after(FORCED_SECONDS) == [Send(1, signal.SIGKILL)]
    assert driver.said[-1] == "worker 2 (process 1002) does not end; it is killed"
    assert driver.after(STOP_SECONDS) == []
    assert driver.exited(1, -9, "killed by SIGKILL") == [End(1)]


def test_other_signals_are_passed_on():
    driver = running(2)
    driver.exited(1, -9, "killed by SIGKILL")
    assert driver.signalled(signal.SIGUSR1) == [Send(0, signal.SIGUSR1)]
    assert driver.states()[0] is State.RUNNING


def test_sighup_replaces_all():
    driver = running(2)
    driver.exited(1, -9, "killed by SIGKILL")
    assert driver.signalled(signal.SIGHUP) == [Send(0, signal.SIGTERM), Spawn(1)]
    # One that ends is not signalled again.
    assert driver.signalled(signal.SIGHUP) == [Send(1, signal.SIGTERM)]
    assert driver.exited(0) == [Spawn(0)]
    assert driver.ready(0) == []
    assert driver.states() == [State.RUNNING, State.ENDING]


def test_a_replaced_process_that_does_not_end_is_killed_and_replaced():
    driver = running(1)
    driver.signalled(signal.SIGHUP)
    assert driver.after(STOP_SECONDS) == [Force(0)]
    assert driver.after(FORCED_SECONDS) == [Send(0, signal.SIGKILL)]
    assert driver.exited(0, -9, "killed by SIGKILL") == [Spawn(0)]
    # Its successor has all of its time again.
    driver.ready(0)
    driver.signalled(signal.SIGHUP)
    assert driver.after(STOP_SECONDS) == [Force(0)]


def test_a_process_that_ends_by_itself_has_its_own_time_until_a_stop():
    driver = running(1)
    driver.supervisor.ending(0, "1,000 items", 600.0, driver.now)
    assert driver.after(599) == []
    driver.signalled(signal.SIGTERM)
    assert driver.after(1) == [Force(0)]
    driver = running(1)
    driver.supervisor.ending(0, "1,000 items", 600.0, driver.now)
    assert driver.signalled(signal.SIGTERM) == [Send(0, signal.SIGTERM)]
    assert driver.after(STOP_SECONDS) == [Force(0)]
    assert driver.exited(0) == [End(0)]


def test_reload_waits_for_the_next_change_when_the_module_is_broken():
    driver = Driver(2, reload=True)
    driver.actions()
    assert driver.exited(0, 1, "exit status 1") == []
    assert driver.said == ["waiting for a change of a file"]
    assert driver.after(1_000) == []
    driver.supervisor.changed(["shop/tasks.py"], driver.now)
    assert driver.actions() == [Spawn(0)]
    assert driver.ready(0) == [Spawn(1)]
    driver.supervisor.changed(["a.py", "b.py", "c.py"], driver.now)
    assert driver.actions() == [Send(0, signal.SIGTERM), Send(1, signal.SIGTERM)]
    assert driver.said[1:] == ["shop/tasks.py changed; reloading", "a.py and 2 others changed; reloading"]
    assert driver.exited(0) == [Spawn(0)]
    assert driver.exited(0, 1, "exit status 1") == []
    # One that was signalled before takes both for one.
    assert driver.signalled(signal.SIGINT) == [Send(1, signal.SIGTERM)]
    assert driver.exited(1) == [End(0)]


def test_reload_with_only_broken_processes_ends_at_a_signal():
    driver = Driver(1, reload=True)
    driver.actions()
    driver.exited(0, 1, "exit status 1")
    assert driver.signalled(signal.SIGINT) == [End(0)]


TAKEN = "http_port 8001 of 127.0.0.1 cannot be opened: Address already in use"


def not_begun(driver, slot):
    """End a process that was never ready and has said why."""
    driver.supervisor.refused(slot, TAKEN)
    return driver.exited(slot, 1, "exit status 1")


def test_a_port_that_is_taken_ends_everything_with_the_reason():
    """Each process has a port of its own: the first may be ready, and have polled."""
    driver = Driver(3)
    driver.actions()
    driver.ready(0)
    driver.supervisor.polled()
    assert not_begun(driver, 1) == [Send(0, signal.SIGTERM), Send(2, signal.SIGTERM)]
    assert driver.exited(0) == []
    assert driver.exited(2, -15, "killed by SIGTERM") == [End(1)]
    assert driver.said == [TAKEN]


def test_the_port_of_the_only_process_ends_everything_too():
    driver = Driver(1)
    driver.actions()
    assert not_begun(driver, 0) == [End(1)]
    assert driver.said == [TAKEN]


@pytest.mark.parametrize("reload", [False, True])
def test_a_port_that_was_taken_while_its_process_was_replaced_may_become_free(reload):
    driver = running(2, reload=reload)
    driver.exited(1, -9, "killed by SIGKILL")
    assert driver.after(0.5) == [Spawn(1)]
    assert not_begun(driver, 1) == []
    assert driver.said[1:] == [f"worker 2 (process 1003) ended: {TAKEN}; another starts in 1 s"]
    assert driver.after(1) == [Spawn(1)]
    assert driver.ready(1) == []


def test_a_port_that_is_taken_while_a_program_is_written_waits_for_its_next_change():
    driver = Driver(1, reload=True)
    driver.actions()
    assert not_begun(driver, 0) == []
    assert driver.said == [f"{TAKEN}; waiting for a change of a file"]
    driver.supervisor.changed(["shop.py"], driver.now)
    assert driver.actions() == [Spawn(0)]


REFUSAL = "lease is 8 d; the limit is 7 d"


def refused(driver, slot, why=REFUSAL):
    driver.supervisor.refused(slot, why)
    return driver.exited(slot, EXIT_REFUSED, "exit status 78")


def test_a_server_that_refuses_the_first_poll_ends_everything_with_a_status_of_its_own():
    driver = running(3)
    assert refused(driver, 1) == [Send(0, signal.SIGTERM), Send(2, signal.SIGTERM)]
    # The others are refused, too, or stopped before.
    assert refused(driver, 0, "something else") == []
    assert driver.exited(2, 0) == [End(EXIT_REFUSED)]
    assert driver.said == [f"no worker can poll: {REFUSAL}"]


def test_a_process_that_does_not_end_after_a_refusal_of_another_is_killed():
    driver = running(2)
    refused(driver, 0)
    assert driver.after(STOP_SECONDS) == [Force(1)]
    assert driver.after(FORCED_SECONDS) == [Send(1, signal.SIGKILL)]
    assert driver.exited(1, -9, "killed by SIGKILL") == [End(EXIT_REFUSED)]


def test_a_refusal_after_a_process_has_polled_may_pass():
    """A limit of the server was lowered, and may be raised again: processes that run go on meanwhile, too."""
    driver = running(2)
    driver.supervisor.polled()
    assert refused(driver, 1) == []
    assert driver.said == [f"worker 2 (process 1002) ended: {REFUSAL}; another starts in 0.5 s"]
    assert driver.after(0.5) == [Spawn(1)]
    # The reason is that of one process.
    driver.ready(1)
    driver.exited(1, -9, "killed by SIGKILL")
    assert driver.said[1:] == ["worker 2 (process 1003) ended: killed by SIGKILL; another starts in 1 s"]


def test_a_refusal_while_a_program_is_written_waits_for_its_next_change():
    driver = running(2, reload=True)
    assert refused(driver, 0) == []
    assert refused(driver, 1) == []
    assert driver.said == [f"no worker can poll: {REFUSAL}; waiting for a change of a file"]
    driver.supervisor.changed(["shop.py"], driver.now)
    assert driver.actions() == [Spawn(0), Spawn(1)]


def test_a_refusal_after_a_poll_is_tried_again_while_a_program_is_written_too():
    driver = running(2, reload=True)
    driver.supervisor.polled()
    assert refused(driver, 0) == []
    assert driver.said == [f"worker 1 (process 1001) ended: {REFUSAL}; another starts in 0.5 s"]
    assert driver.after(0.5) == [Spawn(0)]
    driver.ready(0)
    # A change of a file does not wait.
    refused(driver, 0)
    driver.supervisor.changed(["shop.py"], driver.now)
    assert driver.actions() == [Spawn(0), Send(1, signal.SIGTERM)]

"""Queue time over steps of the wall clock, restarts and reboots."""

import subprocess
import sys
from itertools import product

import pytest

from queueber.broker import TimeMark
from queueber.server.core.clock import JUMP_MAX_SECONDS, QueueClock
from queueber.units import WallMs

BOOT, OTHER_BOOT = b"b" * 16, b"o" * 16


class Machine:
    """A machine whose three clocks are set by the test."""

    wall, monotonic, boot = 1_000.0, 50.0, 70.0

    def clock(self, boot_id=BOOT) -> QueueClock:
        return QueueClock(lambda: self.wall, lambda: self.monotonic, lambda: self.boot, boot_id)

    def later(self, seconds) -> None:
        self.wall += seconds
        self.monotonic += seconds
        self.boot += seconds


def test_begins_with_the_wall_clock():
    clock = Machine().clock()
    clock.begin(None)

    assert clock.now() == 1_000_000


def test_ignores_steps_of_the_wall_clock():
    machine = Machine()
    clock = machine.clock()
    clock.begin(None)
    for step in (3_600, -86_400 * 365):
        machine.wall += step
        machine.later(1)

    assert clock.now() == 1_002_000


def test_is_exact_over_a_restart_on_the_same_boot_whatever_the_wall_clock_did():
    machine = Machine()
    clock = machine.clock()
    clock.begin(None)
    mark = clock.mark()
    machine.later(12.5)
    machine.wall -= 5_000

    again = machine.clock()
    again.begin(mark)

    assert again.now() == mark.queue_time + 12_500


def test_is_at_least_the_mark_after_a_reboot():
    machine = Machine()
    ahead = TimeMark(OTHER_BOOT, 99, WallMs(2_000_000))
    earlier = TimeMark(OTHER_BOOT, 99, WallMs(500_000))

    clock = machine.clock()
    clock.begin(ahead)
    assert clock.now() == 2_000_000
    clock.begin(earlier)
    assert clock.now() == 1_000_000


HOUR, YEAR = 3_600.0, 366 * 86_400.0
WRONG = [-20 * YEAR, -YEAR, -HOUR, -5.0, 0.0, 5.0, HOUR, YEAR, 80 * YEAR]
"""Errors of the wall clock."""


def test_after_a_reboot_nothing_ends_early_or_later_than_by_the_downtime():
    """For every clock at the start, at the mark and after the reboot, as far as the three readings reveal it."""
    for before, during, after, down in product(WRONG, WRONG, WRONG, (0.0, 60.0, 30 * 86_400.0)):
        machine = Machine()
        machine.wall = 1_800_000_000.0 + before
        clock = machine.clock(OTHER_BOOT)
        clock.begin(None)
        machine.later(100)
        machine.wall += during - before
        mark = clock.mark()
        machine.later(down)
        machine.wall += after - during
        again = machine.clock()
        again.begin(mark)

        passed = (again.now() - mark.queue_time) / 1_000
        moved = min(after - during, after - before)
        case = before, during, after, down
        assert 0 <= passed <= JUMP_MAX_SECONDS, case
        # A clock that is ahead of both readings is only noticed by the size of the jump.
        assert passed <= down + max(0.0, moved) + 0.002, case
        if moved == 0:
            assert passed == pytest.approx(down, abs=0.002), case


def test_a_clock_that_is_wrong_at_start_and_set_right_while_running_ends_no_lease_at_the_next_reboot():
    machine = Machine()
    clock = machine.clock(OTHER_BOOT)
    clock.begin(None)
    lease = clock.now() + 3_600_000
    machine.later(10)
    machine.wall += 6 * YEAR
    mark = clock.mark()
    machine.later(60)
    machine.boot = 5.0

    again = machine.clock()
    warning = again.begin(mark)

    assert lease - again.now() == 3_600_000 - 70_000
    assert (
        warning == f"queue time is {6 * YEAR:,.0f} s earlier than the wall clock; leases and delays keep their length"
    )


def test_a_clock_that_was_never_corrected_is_not_trusted_after_the_next_reboot():
    """Such a clock began near the epoch.  After a real downtime of that length, delays continue, with a warning."""
    machine = Machine()
    clock = machine.clock(OTHER_BOOT)
    clock.begin(None)
    mark = clock.mark()
    machine.wall += JUMP_MAX_SECONDS + 1

    again = machine.clock()
    warning = again.begin(mark)

    assert again.now() == mark.queue_time
    assert warning.startswith("the wall clock has moved by 400 days since the last commit, which is not believed")


def test_a_mark_of_an_older_version_is_read_as_before():
    machine = Machine()
    clock = machine.clock()
    warning = clock.begin(TimeMark(OTHER_BOOT, 99, WallMs(990_000)))
    assert (clock.now(), warning) == (1_000_000, "")


def test_the_clock_was_set_when_it_moves_against_the_boot_clock():
    machine = Machine()
    clock = machine.clock()
    clock.begin(None)
    machine.later(HOUR)
    assert not clock.stepped()
    machine.wall -= 1.5
    assert clock.stepped()
    mark = clock.mark()
    assert not clock.stepped()

    again = machine.clock()
    again.begin(mark)
    assert not again.stepped()
    # On another boot a mark of this one is wanted.
    again = machine.clock(OTHER_BOOT)
    again.begin(mark)
    assert again.stepped()


def test_a_clock_before_the_epoch_is_recognized():
    machine = Machine()
    clock = machine.clock()
    clock.begin(None)
    machine.wall = -5.0
    assert clock.mark().wall == 1


def test_does_not_trust_an_unknown_boot():
    clock = Machine().clock(bytes(16))
    clock.begin(TimeMark(bytes(16), 0, WallMs(5_000_000)))

    assert clock.now() == 5_000_000


@pytest.mark.slow
def test_the_reactor_schedules_by_the_monotonic_clock():
    """In a process of its own: a reactor is installed once for good."""
    program = """
import time
from queueber.server.app.plugin import Options, makeService
options = Options()
options.parseOptions([])
makeService(options)
from twisted.internet import reactor
assert reactor.seconds is time.monotonic
call = reactor.callLater(5, print)
assert 4 < call.getTime() - time.monotonic() <= 5
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)

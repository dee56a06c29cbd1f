"""Queue time over steps of the wall clock, restarts and reboots."""

import subprocess
import sys

from queueber.broker import TimeMark
from queueber.server.clock import QueueClock
from queueber.units import WallMs

BOOT, OTHER_BOOT = b"b" * 16, b"o" * 16


class Machine:
    """Its three clocks, moved by hand."""

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
    behind = TimeMark(OTHER_BOOT, 99, WallMs(500_000))

    clock = machine.clock()
    clock.begin(ahead)
    assert clock.now() == 2_000_000
    clock.begin(behind)
    assert clock.now() == 1_000_000


def test_does_not_trust_a_boot_that_cannot_be_told():
    clock = Machine().clock(bytes(16))
    clock.begin(TimeMark(bytes(16), 0, WallMs(5_000_000)))

    assert clock.now() == 5_000_000


def test_the_reactor_schedules_by_the_monotonic_clock():
    """In a process of its own: a reactor is installed once for good."""
    program = """
import time
from queueber.server.plugin import Options, makeService
options = Options()
options.parseOptions([])
makeService(options)
from twisted.internet import reactor
assert reactor.seconds is time.monotonic
call = reactor.callLater(5, print)
assert 4 < call.getTime() - time.monotonic() <= 5
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)

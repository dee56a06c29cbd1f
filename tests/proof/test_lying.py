"""A slice of the lying disk, and a check that a lie is detected."""

import itertools
from contextlib import suppress
from random import Random

import lying
import pytest
from simclients import Facts, ItemFact, LeaseFact
from simdisk import Dead
from simworld import Machine, on

from queueber.api import Action
from queueber.limits import Limits

pytestmark = pytest.mark.slow


def test_nothing_is_lost_whatever_the_disk_may_do():
    wrong = {number: lying.play(f"slice {number}", lying.steps_of("slice", number))[0] for number in range(80)}
    assert {number: why for number, why in wrong.items() if why} == {}


def test_a_disk_that_says_it_has_synced_and_has_not_is_found_out():
    wrong = [lying.play(f"lie {number}", lying.steps_of("lie", number), lies=1.0)[0] for number in range(10)]
    assert sum(why is not None for why in wrong) >= 3


def test_an_example_is_the_same_again():
    steps = lying.steps_of("same", 1)
    first, again = (lying.play("same 1", steps)[1].counts for _ in range(2))
    assert first == again
    assert first["added"] > 0


def test_a_failing_example_is_made_smaller():
    number = next(n for n in range(50) if lying.play(f"lie {n}", lying.steps_of("lie", n), lies=1.0)[0])
    steps = lying.steps_of("lie", number)
    few = lying.smaller(f"lie {number}", steps, lies=1.0)
    assert len(few) < len(steps) // 2
    assert lying.play(f"lie {number}", few, lies=1.0)[0]


READS_OF_A_START = 5
"""Queues, leases, settings, retired numbers and marks.  The cleanup reads later, and tries again after a failure."""


@pytest.mark.parametrize("kind", ["file", "write", "sync", "read"])
def test_whatever_fails_during_a_start_ends_it(kind):
    for number in range(1, READS_OF_A_START + 1) if kind == "read" else itertools.count(1):
        machine = Machine(Random(number), Limits())
        machine.disk.fail_nth = {kind: number}
        with on(machine):
            for _ in range(2):
                machine.boot()
                with suppress(Dead):
                    machine.settle()
                if machine.disk.failed:
                    break
                machine.disk.restart(power=False)
        if not machine.disk.failed:
            break
        assert machine.up is None or machine.dead, f"operation {number} failed"
    assert number > 1


@pytest.mark.parametrize("crash_in", range(1, 26))
def test_what_is_acknowledged_after_a_crash_of_the_first_start_is_there_for_good(crash_in):
    """The next server makes durable what the first one had only made, the directory's own name included."""

    class Obstructed(lying.Example):
        times = 0

        def obstruct(self):
            if not self.times:
                self.machine.disk.crash_in = crash_in
            self.times += 1

    for number in range(4):
        example = Obstructed(f"first start {number}")
        with on(example.machine):
            example.start(power=False)
            example.add()
            example.settle()
            assert example.counts["added"] >= 1
            example.end(power=True)


def without_reply(*entries, now=5_000):
    """Settle one item under an ended and a live lease, each entry a lease and an action; return the item and leases."""
    facts, item = Facts(lambda: now), ItemFact(b"0", "default", 0, 0, added="acked", id=b"0" * 16)
    leases = {
        name: LeaseFact(name.encode(), "default", end, end, [item]) for name, end in (("ended", 400), ("live", 9_000))
    }
    item.leases.extend(leases.values())
    call = facts.settling(
        "default", [(leases[name], item, action, None) for name, action in entries], (), all_or_nothing=False
    )
    facts.unknown(call)
    return item, leases


@pytest.mark.parametrize("first", [Action.DEFER, Action.FAIL])
def test_a_settle_without_a_reply_may_have_been_done_under_the_second_lease_of_an_item(first):
    item, leases = without_reply(("ended", first), ("live", Action.FAIL))
    assert leases["live"].doubtful == [item]
    assert (item.doubted, item.may_die, item.moving) == (1, False, set())
    item, _ = without_reply(("ended", first), ("live", Action.REJECT))
    assert (item.doubted, item.may_die) == (1, True)


def test_a_settle_without_a_reply_fails_nothing_under_a_lease_that_had_ended():
    item, leases = without_reply(("live", Action.DEFER), ("ended", Action.REJECT))
    assert leases["live"].doubtful == [item]
    assert (item.doubted, item.may_die) == (0, False)

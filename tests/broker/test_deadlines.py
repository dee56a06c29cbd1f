"""`Deadlines`, compared with a dictionary."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from queueber.broker.deadlines import Deadlines
from tests.support.examples import examples

THINGS = st.integers(0, 9)
MOMENTS = st.integers(0, 20)


class DeadlinesMachine(RuleBasedStateMachine):
    """The earliest deadline comes first, and of equal ones the one that was set first."""

    def __init__(self):
        super().__init__()
        self.deadlines = Deadlines()
        self.model: dict[int, tuple[int, int]] = {}
        self.count = 0

    @rule(thing=THINGS, at=MOMENTS, times=st.sampled_from([1, 1, 1, 50]))
    def set(self, thing, at, times):
        for _ in range(times):
            self.count += 1
            self.deadlines.set(thing, at)
        self.model[thing] = (at, self.count)

    @rule(thing=THINGS)
    def discard(self, thing):
        self.deadlines.discard(thing)
        self.model.pop(thing, None)

    @rule(count=st.integers(0, 12))
    def soonest(self, count):
        expected = [thing for _, thing in sorted((entry, thing) for thing, entry in self.model.items())]
        assert self.deadlines.soonest(count) == expected[:count]

    @rule(now=MOMENTS)
    def pop_due(self, now):
        expected = min((entry, thing) for thing, entry in self.model.items())[1] if self.model else None
        if expected is not None and self.model[expected][0] > now:
            expected = None
        assert self.deadlines.pop_due(now) == expected
        self.model.pop(expected, None)

    @rule()
    def next(self):
        assert self.deadlines.next() == min((at for at, _ in self.model.values()), default=None)

    @invariant()
    def agrees(self):
        self.deadlines.check()
        assert len(self.deadlines) == len(self.model)
        assert len(self.deadlines.heap) <= 3 * len(self.model) + 64


TestDeadlines = DeadlinesMachine.TestCase
TestDeadlines.settings = settings(max_examples=examples(50), stateful_step_count=30, deadline=None)


def test_superseded_entries_are_counted_against_live_ones():
    """Found by the machine above: superseded entries were compared with the number of things already removed."""
    deadlines = Deadlines()
    for thing in range(30):
        deadlines.set(thing, 0)
    for _ in range(3):
        for thing in range(30, 60):
            deadlines.set(thing, 9)
    for _ in range(30):
        deadlines.pop_due(0)
    assert len(deadlines.heap) <= 3 * 30 + 64
    for thing in range(30, 60):
        deadlines.set(thing, 1)
    while deadlines.pop_due(5) is not None:
        assert len(deadlines.heap) <= 3 * len(deadlines) + 64


def test_memory_depends_on_live_deadlines_and_not_on_changes():
    deadlines = Deadlines()
    for at in range(10_000):
        deadlines.set("a", at)
    assert len(deadlines.heap) <= 67

    for thing in range(1_000):
        deadlines.set(thing, 5)
    for thing in range(1_000):
        deadlines.discard(thing)
    assert len(deadlines.heap) <= 67
    assert deadlines.pop_due(10_000) == "a"
    assert deadlines.next() is None


def test_the_next_deadline_is_none_that_was_superseded_or_removed():
    deadlines = Deadlines()
    for thing, at in (("a", 1), ("b", 2), ("c", 3), ("a", 9)):
        deadlines.set(thing, at)
    deadlines.discard("b")

    assert deadlines.next() == 3


def test_the_soonest_are_in_order_and_each_with_its_last_deadline():
    deadlines = Deadlines()
    for thing, at in (("a", 1), ("b", 2), ("c", 3), ("a", 9)):
        deadlines.set(thing, at)

    assert deadlines.soonest(2) == ["b", "c"]
    assert deadlines.soonest(9) == ["b", "c", "a"]


def test_things_are_never_compared():
    one, two = object(), object()
    deadlines = Deadlines()
    deadlines.set(one, 1)
    deadlines.set(two, 1)

    assert deadlines.pop_due(1) is one
    assert deadlines.pop_due(1) is two


def test_check_finds_a_deadline_missing_from_the_heap():
    deadlines = Deadlines()
    deadlines.set("a", 1)
    deadlines.heap.clear()

    with pytest.raises(AssertionError, match="missing from the heap"):
        deadlines.check()

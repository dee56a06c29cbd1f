"""Exports: references and pins against plain counters."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from queueber.errors import Overloaded, RemoteProtocolError
from queueber.rpc.exports import Exports


class Counted(RuleBasedStateMachine):
    """Exports against two counters for each object."""

    objects = st.integers(0, 3)

    def __init__(self):
        super().__init__()
        self.things = [object() for _ in range(4)]
        self.exports = Exports(limit=3)
        self.references = [0] * 4
        self.pins = [0] * 4
        self.numbers = {}

    def alive(self, which):
        return self.references[which] + self.pins[which] > 0

    @rule(which=objects)
    def send(self, which):
        thing = self.things[which]
        if sum(self.alive(each) for each in range(4)) == 3 and not self.alive(which):
            with pytest.raises(Overloaded):
                self.exports.admit([thing])
            return
        self.exports.admit([thing, thing])
        self.numbers[which] = self.exports.send(thing).id
        self.references[which] += 1
        self.pins[which] += 1

    @rule(which=objects, count=st.integers(0, 3))
    def release(self, which, count):
        if not self.references[which]:
            return
        export = self.exports.find(self.numbers[which])
        assert export.object is self.things[which]
        if count > self.references[which]:
            with pytest.raises(RemoteProtocolError):
                self.exports.release(export, count)
            return
        self.references[which] -= count
        assert self.exports.release(export, count) == (not self.alive(which))

    @rule(which=objects)
    def unpin(self, which):
        if self.pins[which]:
            export = next(each for each in self.exports.items() if each.object is self.things[which])
            self.pins[which] -= 1
            assert self.exports.unpin(export) == (not self.alive(which))

    @invariant()
    def agree(self):
        self.exports.check()
        assert len(self.exports) == sum(self.alive(each) for each in range(4))
        for which, thing in enumerate(self.things):
            assert self.exports.knows(thing) == self.alive(which)
        numbers = {export.object: export.id for export in self.exports.items() if export.id is not None}
        assert numbers.keys() == {self.things[each] for each in range(4) if self.references[each]}
        assert len(set(numbers.values())) == len(numbers)


TestExports = pytest.mark.traced(Counted.TestCase)
TestExports.settings = settings(derandomize=True)


def test_an_unknown_export_id_is_an_error():
    with pytest.raises(RemoteProtocolError, match="5 is not an export"):
        Exports(1).find(5)


def test_an_export_without_references_cannot_be_released():
    """The object may be pinned still, but the peer does not hold it."""
    exports = Exports(1)
    export = exports.send(object())
    assert exports.release(export, 1) is False
    for count in (0, 1):
        with pytest.raises(RemoteProtocolError):
            exports.release(export, count)


def test_equal_objects_are_different_exports():
    exports = Exports(2)
    assert exports.send([1]) is not exports.send([1])

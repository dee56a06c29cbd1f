"""While many calls are in flight, a commit waits for those that come right away; a lone call waits for nobody."""

import pytest

from queueber.server.core.committer import GATHER_CALLS, GATHER_SECONDS
from queueber.testing import InProcessServer


class Crowded(InProcessServer):
    """A server on a reactor each turn of which takes a moment."""

    def __init__(self):
        super().__init__()
        self.said = []

    def turn(self, seconds=0.0):
        """As a reactor's, and not as the clock's: what is put off in it is for the next one."""
        self.reactor.rightNow += seconds
        for call in self.reactor.getDelayedCalls():
            if call.active() and call.getTime() <= self.reactor.seconds():
                function, arguments, more = call.func, call.args, call.kw
                call.cancel()
                function(*arguments, **more)

    def adds(self, count):
        queue = self.broker.queue("default")
        for _ in range(count):
            plan = self.broker.add(queue, [[(b"x", 0)]], self.clock.now())
            self.committer.submit(plan, self.said.append)

    def commit(self):
        """Let the commit that was cut come to its end; how many calls it answered."""
        before = len(self.said)
        while self.pool.jobs:
            self.pool.step()
        return len(self.said) - before


@pytest.fixture
def crowded():
    server = Crowded()
    server.adds(GATHER_CALLS)
    server.turn()
    assert server.commit() == GATHER_CALLS
    return server


def test_a_turn_that_brings_more_is_followed_by_another(crowded):
    for _ in range(3):
        crowded.adds(5)
        crowded.turn()
        assert not crowded.pool.jobs
    crowded.turn()
    assert crowded.commit() == 15


def test_a_turn_that_brings_none_is_the_last(crowded):
    crowded.adds(1)
    crowded.turn()
    assert not crowded.pool.jobs
    crowded.turn()
    assert crowded.commit() == 1


def test_no_call_waits_for_longer_than_a_moment(crowded):
    turns = 0
    while not crowded.pool.jobs:
        crowded.adds(1)
        crowded.turn(GATHER_SECONDS / 4)
        turns += 1
    assert turns == 4


def test_what_came_while_a_commit_was_under_way_waits_for_one_more_turn(crowded):
    crowded.adds(GATHER_CALLS)
    crowded.turn()
    crowded.turn()
    assert crowded.pool.jobs
    crowded.adds(3)
    assert crowded.commit() == GATHER_CALLS
    crowded.turn()
    assert not crowded.pool.jobs
    crowded.turn()
    assert crowded.commit() == 3


def test_a_lone_call_is_not_put_off(crowded):
    for _ in range(2):
        crowded.adds(1)
        crowded.turn()
        crowded.turn()
        crowded.commit()
    crowded.adds(1)
    crowded.turn()
    assert crowded.commit() == 1


def test_calls_that_share_a_plan_count_each(crowded):
    queue = crowded.broker.queue("default")
    for _ in range(2):
        plan = crowded.broker.add(queue, [[(b"x", 0)]] * GATHER_CALLS, crowded.clock.now())
        crowded.committer.submit(plan, crowded.said.append, calls=GATHER_CALLS)
        crowded.turn()
        assert not crowded.pool.jobs
        crowded.turn()
        assert crowded.commit() == 1

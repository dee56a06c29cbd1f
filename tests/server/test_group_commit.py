"""After a commit of many calls the next cut waits while calls arrive; a lone call does not wait."""

import pytest

from queueber.server.core.committer import GATHER_CALLS, GATHER_SECONDS
from queueber.testing import InProcessServer
from queueber.values import NewItem


class GatheringServer(InProcessServer):
    """A server on a reactor whose turns take some time."""

    def __init__(self):
        super().__init__()
        self.replies = []

    def turn(self, seconds=0.0):
        """Run one turn as a reactor does: calls that are scheduled in it run in the next one."""
        self.reactor.rightNow += seconds
        for call in self.reactor.getDelayedCalls():
            if call.active() and call.getTime() <= self.reactor.seconds():
                function, arguments, more = call.func, call.args, call.kw
                call.cancel()
                function(*arguments, **more)

    def adds(self, count):
        queue = self.broker.queue("default")
        for _ in range(count):
            plan = self.broker.add(queue, [[NewItem(b"x", 0)]], self.clock.now())
            self.committer.submit(plan, self.replies.append)

    def commit(self):
        """Finish the commit in flight; return the number of plans it made durable."""
        before = len(self.replies)
        while self.pool.jobs:
            self.pool.step()
        return len(self.replies) - before


@pytest.fixture
def server():
    server = GatheringServer()
    server.adds(GATHER_CALLS)
    server.turn()
    assert server.commit() == GATHER_CALLS
    return server


def test_a_turn_with_new_calls_is_followed_by_another(server):
    for _ in range(3):
        server.adds(5)
        server.turn()
        assert not server.pool.jobs
    server.turn()
    assert server.commit() == 15


def test_a_turn_without_new_calls_is_the_last(server):
    server.adds(1)
    server.turn()
    assert not server.pool.jobs
    server.turn()
    assert server.commit() == 1


def test_the_wait_is_at_most_gather_seconds(server):
    turns = 0
    while not server.pool.jobs:
        server.adds(1)
        server.turn(GATHER_SECONDS / 4)
        turns += 1
    assert turns == 4


def test_calls_that_arrived_during_a_commit_wait_one_more_turn(server):
    server.adds(GATHER_CALLS)
    server.turn()
    server.turn()
    assert server.pool.jobs
    server.adds(3)
    assert server.commit() == GATHER_CALLS
    server.turn()
    assert not server.pool.jobs
    server.turn()
    assert server.commit() == 3


def test_a_lone_call_does_not_wait(server):
    for _ in range(2):
        server.adds(1)
        server.turn()
        server.turn()
        server.commit()
    server.adds(1)
    server.turn()
    assert server.commit() == 1


def test_each_call_of_a_shared_plan_counts(server):
    queue = server.broker.queue("default")
    for _ in range(2):
        plan = server.broker.add(queue, [[NewItem(b"x", 0)]] * GATHER_CALLS, server.clock.now())
        server.committer.submit(plan, server.replies.append, calls=GATHER_CALLS)
        server.turn()
        assert not server.pool.jobs
        server.turn()
        assert server.commit() == 1

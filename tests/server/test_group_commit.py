"""After a commit of many calls the next cut waits while calls arrive; a lone call does not wait."""

import pytest

from queueber.server.core import commit_states
from queueber.server.core.commit_states import COMMIT_TRANSITIONS, CommitInput, CommitState
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


def name(each):
    return each.name.replace("_", " ").lower()


def test_the_states_are_drawn_as_they_are():
    drawn = commit_states.__doc__.partition("    state     |")[2].splitlines()
    assert [cell.strip() for cell in drawn[0].split("|")] == list(map(name, CommitInput))
    rows = {state: [COMMIT_TRANSITIONS.get((state, cause)) for cause in CommitInput] for state in CommitState}
    expected = [[state.name, *(after.name if after else "-" for after in row)] for state, row in rows.items()]
    assert [[cell.strip() for cell in line.split("|")] for line in drawn[2:]] == expected


@pytest.fixture
def quiet_server():
    """A server whose last commit answered one call."""
    server = GatheringServer()
    server.adds(1)
    server.turn()
    assert server.commit() == 1
    return server


def test_a_call_after_a_lone_one_is_committed_at_the_end_of_its_read(quiet_server):
    quiet_server.committer.begin_read()
    quiet_server.adds(1)
    assert not quiet_server.committer.committing
    quiet_server.committer.end_read()
    assert quiet_server.committer.committing
    assert quiet_server.commit() == 1


def test_a_read_without_calls_leaves_the_next_cut_to_the_reactor(quiet_server):
    quiet_server.committer.begin_read()
    quiet_server.committer.end_read()
    quiet_server.adds(1)
    quiet_server.committer.end_read()
    assert not quiet_server.committer.committing
    quiet_server.turn()
    assert quiet_server.commit() == 1


def test_a_read_during_a_commit_changes_nothing(quiet_server):
    quiet_server.adds(1)
    quiet_server.turn()
    quiet_server.committer.begin_read()
    quiet_server.adds(1)
    quiet_server.committer.end_read()
    assert quiet_server.commit() == 1
    quiet_server.turn()
    assert quiet_server.commit() == 1

"""Every move a poll can make, and who stands where in line."""

from itertools import product

import pytest

from queueber.broker.wait_queue import TRANSITIONS, Line, PollInput, PollState, Waiter

MOVES = {
    PollState.WAITING: {PollInput.CLAIMED: PollState.CLAIMED, PollInput.CANCELLED: PollState.DONE},
    PollState.CLAIMED: {PollInput.CANCELLED: PollState.GONE, PollInput.SETTLED: PollState.DONE},
    PollState.GONE: {PollInput.CANCELLED: PollState.GONE, PollInput.SETTLED: PollState.DONE},
    PollState.DONE: {PollInput.CANCELLED: PollState.DONE},
}


@pytest.fixture
def make_waiter(bench):
    def make(state=PollState.WAITING):
        return Waiter(bench.queue, 1, 1, None, None, state)

    return make


@pytest.mark.parametrize(("state", "happened"), list(product(PollState, PollInput)))
def test_a_poll_makes_the_moves_of_the_table_and_no_other(make_waiter, state, happened):
    waiter = make_waiter(state)
    expected = MOVES[state].get(happened)

    assert ((state, happened) in TRANSITIONS) == (expected is not None)
    if expected is None:
        with pytest.raises(KeyError):
            waiter.advance(happened)
        assert waiter.state is state
    else:
        assert waiter.advance(happened) is expected
        assert waiter.state is expected
    assert waiter.done == (waiter.state is PollState.DONE)


def test_a_poll_is_claimed_at_most_once_on_every_path():
    """From a state behind a claim no path leads to another claim."""
    behind = {TRANSITIONS[PollState.WAITING, PollInput.CLAIMED]}
    while True:
        further = behind | {after for (before, _), after in TRANSITIONS.items() if before in behind}
        if further == behind:
            break
        behind = further

    assert all((state, PollInput.CLAIMED) not in TRANSITIONS for state in behind)


class TestLine:
    def test_serves_from_the_front_and_is_joined_at_the_back(self, make_waiter):
        line, one, two = Line(), make_waiter(), make_waiter()
        assert line.first() is None
        assert not line

        line.join(one)
        line.join(two)

        assert line.first() is one
        assert list(line) == [one, two]
        assert len(line) == 2

    def test_is_left_from_anywhere_and_more_than_once(self, make_waiter):
        line, one, two = Line(), make_waiter(), make_waiter()
        line.join(one)
        line.join(two)

        line.leave(one)
        line.leave(one)

        assert list(line) == [two]

    def test_is_rejoined_at_the_front(self, make_waiter):
        line, one, two = Line(), make_waiter(), make_waiter()
        line.join(two)

        line.rejoin(one)

        assert list(line) == [one, two]

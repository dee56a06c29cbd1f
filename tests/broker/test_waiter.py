"""Every transition of a poll."""

from itertools import product

import pytest

from queueber.broker.waiter import POLL_TRANSITIONS, PollInput, PollState, Waiter

MOVES = {
    PollState.WAITING: {PollInput.CLAIMED: PollState.CLAIMED, PollInput.CANCELLED: PollState.DONE},
    PollState.CLAIMED: {PollInput.CANCELLED: PollState.ABANDONED, PollInput.CONFIRMED: PollState.DONE},
    PollState.ABANDONED: {PollInput.CANCELLED: PollState.ABANDONED, PollInput.CONFIRMED: PollState.DONE},
    PollState.DONE: {PollInput.CANCELLED: PollState.DONE},
}


@pytest.fixture
def make_waiter(harness):
    def make(state=PollState.WAITING):
        return Waiter(harness.queue, 1, 1, None, None, state)

    return make


@pytest.mark.parametrize(("state", "happened"), list(product(PollState, PollInput)))
def test_a_poll_makes_the_transitions_of_the_table_and_no_other(make_waiter, state, happened):
    waiter = make_waiter(state)
    expected = MOVES[state].get(happened)

    assert ((state, happened) in POLL_TRANSITIONS) == (expected is not None)
    if expected is None:
        with pytest.raises(KeyError):
            waiter.advance(happened)
        assert waiter.state is state
    else:
        assert waiter.advance(happened) is expected
        assert waiter.state is expected
    assert waiter.done == (waiter.state is PollState.DONE)


def test_a_poll_is_claimed_at_most_once_on_every_path():
    """No path leads from a state after a claim to another claim."""
    after_claim = {POLL_TRANSITIONS[PollState.WAITING, PollInput.CLAIMED]}
    while True:
        further = after_claim | {after for (before, _), after in POLL_TRANSITIONS.items() if before in after_claim}
        if further == after_claim:
            break
        after_claim = further

    assert all((state, PollInput.CLAIMED) not in POLL_TRANSITIONS for state in after_claim)

"""The state model of our own calls, whole."""

from itertools import product

import pytest

from queueber.errors import LocalProtocolError, RemoteProtocolError
from queueber.rpc.questions import TRANSITIONS, Input, Questions, State

WAYS_THERE = {
    State.WAITING: [],
    State.FINISHED: [Input.SEND_FINISH],
    State.RETURNED: [Input.RECEIVE_RETURN],
}
BLAME = {Input.RECEIVE_RETURN: RemoteProtocolError, Input.SEND_FINISH: LocalProtocolError}


def happen(questions, number, happened):
    step = questions.receive_return if happened is Input.RECEIVE_RETURN else questions.send_finish
    question = step(number)
    questions.check()
    return question


@pytest.mark.parametrize(("state", "happened"), [*product(State, Input)])
def test_every_pair_leads_where_the_table_says_or_is_an_error(state, happened):
    questions = Questions()
    number = questions.ask()
    for step in WAYS_THERE[state]:
        happen(questions, number, step)
    if (state, happened) in TRANSITIONS:
        question = happen(questions, number, happened)
        assert question.state is TRANSITIONS[state, happened]
        assert len(questions) == (question.state is not None)
    else:
        with pytest.raises(BLAME[happened]):
            happen(questions, number, happened)
        assert dict(questions.items())[number].state is state


@pytest.mark.parametrize("happened", Input)
def test_what_was_never_asked_has_no_answer(happened):
    with pytest.raises(BLAME[happened]):
        happen(Questions(), 0, happened)


def test_a_number_is_not_used_again_before_both_have_crossed():
    questions = Questions()
    assert questions.ask() == 0
    questions.send_finish(0)
    assert questions.ask() == 1
    questions.receive_return(0)
    assert questions.ask() == 0
    questions.check()


def test_calls_can_be_made_to_what_was_asked_and_not_finished():
    questions = Questions()
    questions.ask()
    assert questions.open(0)
    assert not questions.open(1)
    questions.send_finish(0)
    assert not questions.open(0)
    questions.ask()
    questions.receive_return(1)
    assert questions.open(1)

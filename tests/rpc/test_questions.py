"""The whole state model of questions."""

from itertools import product

import pytest

from queueber.errors import LocalProtocolError, RemoteProtocolError
from queueber.rpc.questions import QUESTION_TRANSITIONS, QuestionInput, Questions, QuestionState

WAYS_THERE = {
    QuestionState.WAITING: [],
    QuestionState.FINISHED: [QuestionInput.SEND_FINISH],
    QuestionState.RETURNED: [QuestionInput.RECEIVE_RETURN],
}
BLAME = {QuestionInput.RECEIVE_RETURN: RemoteProtocolError, QuestionInput.SEND_FINISH: LocalProtocolError}


def happen(questions, number, happened):
    step = questions.receive_return if happened is QuestionInput.RECEIVE_RETURN else questions.send_finish
    question = step(number)
    questions.check()
    return question


@pytest.mark.parametrize(("state", "happened"), [*product(QuestionState, QuestionInput)])
def test_every_transition_is_in_the_table_or_an_error(state, happened):
    questions = Questions()
    number = questions.ask()
    for step in WAYS_THERE[state]:
        happen(questions, number, step)
    if (state, happened) in QUESTION_TRANSITIONS:
        question = happen(questions, number, happened)
        assert question.state is QUESTION_TRANSITIONS[state, happened]
        assert len(questions) == (question.state is not None)
    else:
        with pytest.raises(BLAME[happened]):
            happen(questions, number, happened)
        assert dict(questions.items())[number].state is state


@pytest.mark.parametrize("happened", QuestionInput)
def test_an_unknown_question_is_an_error(happened):
    with pytest.raises(BLAME[happened]):
        happen(Questions(), 0, happened)


def test_a_number_is_free_after_return_and_finish():
    questions = Questions()
    assert questions.ask() == 0
    questions.send_finish(0)
    assert questions.ask() == 1
    questions.receive_return(0)
    assert questions.ask() == 0
    questions.check()


def test_calls_can_be_made_to_questions_that_are_not_finished():
    questions = Questions()
    questions.ask()
    assert questions.open(0)
    assert not questions.open(1)
    questions.send_finish(0)
    assert not questions.open(0)
    questions.ask()
    questions.receive_return(1)
    assert questions.open(1)

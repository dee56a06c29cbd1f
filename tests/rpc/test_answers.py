"""The whole state model of answers."""

from itertools import product

import pytest

from queueber.capnp.builder import CAPABILITY, Body, data_body, segment, struct_body
from queueber.errors import Kind, LocalProtocolError, RemoteProtocolError
from queueber.rpc import answers as answers_module
from queueber.rpc.answers import ANSWER_TRANSITIONS, AnswerInput, Answers, AnswerState, HeldResults
from queueber.rpc.exports import Export

WAYS_THERE = {
    AnswerState.RUNNING: [],
    AnswerState.ABANDONED: [AnswerInput.RECEIVE_FINISH],
    AnswerState.RETURNED: [AnswerInput.SEND_RETURN],
}


def happen(answers, happened):
    if happened is AnswerInput.SEND_RETURN:
        answers.send_returns([1])
    else:
        answers.receive_finish(1)
    answers.check()


@pytest.mark.parametrize(("state", "happened"), [*product(AnswerState, AnswerInput)])
def test_every_transition_is_in_the_table_or_ignored(state, happened):
    answers = Answers(100, 100)
    answers.begin(1)
    for step in WAYS_THERE[state]:
        happen(answers, step)
    if (state, happened) in ANSWER_TRANSITIONS:
        happen(answers, happened)
        assert dict(answers.items()).get(1) is ANSWER_TRANSITIONS[state, happened]
    elif happened is AnswerInput.SEND_RETURN:
        with pytest.raises(LocalProtocolError):
            happen(answers, happened)
        assert dict(answers.items())[1] is state
    else:
        happen(answers, happened)  # a Finish that says nothing new is let pass
        assert dict(answers.items())[1] is state


def test_every_path_has_one_return_and_one_finish():
    ways = [(first, second) for first, second in product(AnswerInput, AnswerInput) if _ends(first, second)]
    assert {frozenset(way) for way in ways} == {frozenset(AnswerInput)}
    assert len(ways) == 2


def _ends(first, second):
    between = ANSWER_TRANSITIONS.get((AnswerState.RUNNING, first))
    return between is not None and ANSWER_TRANSITIONS.get((between, second), AnswerState.RUNNING) is None


def test_an_open_question_id_cannot_be_used_again():
    answers = Answers(100, 100)
    answers.begin(7)
    with pytest.raises(RemoteProtocolError, match="question 7"):
        answers.begin(7)
    answers.send_returns([7])
    with pytest.raises(RemoteProtocolError, match="question 7"):
        answers.begin(7)
    answers.receive_finish(7)
    answers.begin(7)
    assert len(answers) == answers.unanswered == 1


def test_open_answers_are_bounded():
    answers = Answers(3, 3)
    for number in range(3):
        answers.begin(number)
        answers.send_returns([number])
    with pytest.raises(RemoteProtocolError, match="3 answers are open"):
        answers.begin(3)


def test_a_return_without_a_call_is_a_local_error():
    with pytest.raises(LocalProtocolError):
        Answers(100, 100).send_returns([0])


def test_results_are_wanted_until_finish():
    answers = Answers(100, 100)
    answers.begin(1)
    answers.begin(2)
    assert answers.receive_finish(1) == (AnswerState.RUNNING, None)
    assert answers.send_returns([1]) == 0
    assert answers.send_returns([2]) == 1
    assert answers.receive_finish(3) == (None, None)


first, second = Export("first"), Export("second")


def held(body):
    return HeldResults(segment(body), [first, second])


def test_capabilities_are_found_by_the_pointer_path():
    deep = struct_body([1], [None, struct_body([2, 3], [data_body(b"x"), Body(CAPABILITY | 1 << 32, [], 0)])])
    results = held(deep)
    assert results.find((1, 1)) is second
    for path in [(), (0,), (1,), (2,), (1, 0), (1, 0, 0), (1, 1, 0), (1, 2), (0, 0), (1, 65_535)]:
        assert results.find(path) is None


def test_content_that_is_a_capability_has_an_empty_path():
    results = held(Body(CAPABILITY, [], 0))
    assert results.find(()) is first
    assert results.find((0,)) is None


def test_a_capability_outside_the_table_is_none():
    assert held(Body(CAPABILITY | 2 << 32, [], 0)).find(()) is None


def test_errors_are_kept_for_calls_to_their_answers_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(answers_module, "FAILURES_MAX", 1)
    answers = Answers(100, 100)
    for number in (1, 2):
        answers.begin(number)
        answers.send_returns([number])
        answers.fail(number, Kind.OVERLOADED, "later")
    assert answers.failure(1) == (Kind.OVERLOADED, "later")
    assert answers.failure(2) is None
    answers.check()
    answers.receive_finish(1)
    assert answers.failure(1) is None


def test_held_results_are_kept_until_finish():
    answers = Answers(100, 100)
    answers.begin(1)
    assert answers.find(1, ()) is None
    answers.send_returns([1])
    results = held(Body(CAPABILITY, [], 0))
    answers.hold(1, results)
    answers.check()
    assert answers.find(1, ()) is first
    assert list(answers.pinned()) == [first, second]
    assert answers.receive_finish(1) == (AnswerState.RETURNED, results)
    assert answers.find(1, ()) is None
    assert list(answers.pinned()) == []


def test_the_call_after_the_last_that_may_wait_is_refused():
    answers = Answers(5, 1)
    answers.begin(1)
    assert answers.why_busy() is None
    answers.begin(2)
    assert "are 1 already; the limit is 1 (outstanding_calls)" in str(answers.why_busy())

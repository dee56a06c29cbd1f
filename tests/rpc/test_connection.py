"""Conversations between two of our ends, and connections that a broken rule ends."""

import re

import pytest

from queueber.api import read_bootstrap
from queueber.capnp import layout
from queueber.capnp.builder import CAPABILITY, Body, segment, struct_body
from queueber.capnp.framing import framed
from queueber.errors import Kind, LocalProtocolError, RemoteProtocolError
from queueber.limits import Limits
from queueber.rpc import (
    Aborted,
    Calls,
    Canceled,
    Connection,
    Finished,
    ImportedCap,
    PromisedAnswer,
    Released,
    RemoteException,
    Results,
    Returned,
)

EMPTY = bytes(8)
ONE_CAPABILITY = segment(Body(CAPABILITY, [], 0))
TWO_CAPABILITIES = segment(struct_body([], [Body(CAPABILITY, [], 0), Body(CAPABILITY | 1 << 32, [], 0)]))


def message(**member):
    """Encode a message as a peer may send it."""
    return framed(layout("Message").build(**member))


def given_up(connection, stream):
    """Send a message that ends the connection, and return the reason."""
    with pytest.raises(RemoteProtocolError) as caught:
        list(connection.receive_data(stream))
    assert connection.closed
    return str(caught.value)


# The ordinary course of things.


def test_a_call_is_returned(pair):
    root = pair.bootstrap()
    question = pair.client.call(root, 0x1234, 5, EMPTY)
    call = pair.called()
    assert (call.target, call.interface_id, call.method_id) == (pair.root, 0x1234, 5)
    assert pair.server.stats().unanswered == 1
    pair.server.return_results([call.answer], [EMPTY])
    (event,) = pair.to_client()
    assert isinstance(event, Returned)
    assert event.question == question
    assert isinstance(event.outcome, Results)
    pair.client.finish(question)
    assert pair.to_server() == []
    pair.client.release(root.id)
    (released,) = pair.to_server()
    assert released.object is pair.root
    pair.check_finished()


def test_an_exception_is_returned_with_its_kind(pair):
    question = pair.client.call(pair.bootstrap(), 1, 2, EMPTY)
    pair.server.return_exception(pair.called().answer, Kind.DISCONNECTED, "stopping")
    assert pair.returned() == RemoteException("stopping", Kind.DISCONNECTED)
    pair.client.finish(question)
    assert pair.to_server() == []


def test_calls_are_returned_in_any_order(pair):
    root = pair.bootstrap()
    questions = [pair.client.call(root, 1, number, EMPTY) for number in range(3)]
    calls = pair.to_server()
    assert [call.method_id for call in calls] == [0, 1, 2]
    for call in reversed(calls):
        pair.server.return_results([call.answer], [EMPTY])
    assert [event.question for event in pair.to_client()] == questions[::-1]


def test_data_to_send_returns_all_messages_once(pair):
    root = pair.bootstrap()
    for _ in range(3):
        pair.client.call(root, 1, 0, EMPTY)
    for call in pair.to_server():
        pair.server.return_results([call.answer], [EMPTY])
    assert len(pair.server.data_to_send()) % 3 == 0
    assert pair.server.data_to_send() == b""


def test_bootstrap_twice_is_one_export_with_two_references(pair):
    first, second = pair.bootstrap(), pair.bootstrap()
    assert first == second
    assert pair.server.stats().exports == 1
    pair.client.release(first.id)
    assert pair.to_server() == []
    pair.client.release(second.id)
    assert [event.object for event in pair.to_server()] == [pair.root]
    pair.check_finished()
    assert pair.bootstrap() == first


def test_bootstrap_without_an_object_fails(limits, pair):
    pair.server = Connection(limits=limits)
    question = pair.client.bootstrap()
    assert pair.to_server() == []
    assert pair.returned().kind == Kind.FAILED
    pair.client.finish(question)
    pair.to_server()
    pair.check_finished()


# Finish and Return cross.


def test_finish_before_return(pair):
    """The peer sends Finish first; it still gets one Return, and no event for it."""
    question = pair.client.call(pair.bootstrap(), 1, 2, EMPTY)
    pair.client.finish(question)
    call, finished = pair.to_server()
    assert isinstance(finished, Finished)
    assert finished.answer == call.answer
    pair.server.return_canceled(call.answer)
    assert pair.to_client() == []
    assert pair.server.stats().answers == pair.client.stats().questions == 0


def test_a_call_that_is_not_awaited_still_takes_effect(pair):
    """Fire and forget: both messages come together, and the call comes first."""
    question = pair.client.call(pair.bootstrap(), 1, 2, EMPTY)
    pair.client.finish(question)
    call, _ = pair.to_server()
    assert isinstance(call, Calls)
    pair.server.return_results([call.answer], [EMPTY])
    assert pair.to_client() == []
    assert pair.server.stats().answers == 0


def test_some_calls_of_a_batch_are_selected(pair):
    batch = Calls([1, 2, 3], "queue", 7, 8, ["a", "b", "c"], [40, 50, 60])
    assert batch.select([0, 2]) == Calls([1, 3], "queue", 7, 8, ["a", "c"], [40, 60])
    pair.client.call(pair.bootstrap(), 1, 2, EMPTY)
    call = pair.called()
    assert call.select([0]) == call
    assert call.select([]) == call._replace(answers=[], requests=[], sizes=[])


def test_finish_that_crosses_the_return_is_no_event(pair):
    question = pair.client.call(pair.bootstrap(), 1, 2, EMPTY)
    call = pair.called()
    pair.server.return_results([call.answer], [EMPTY])
    pair.client.finish(question)
    assert pair.to_server() == []
    assert pair.to_client() == []
    assert pair.server.stats().answers == pair.client.stats().questions == 0


def test_a_canceled_call_is_returned_as_canceled(pair):
    pair.client.call(pair.bootstrap(), 1, 2, EMPTY)
    pair.server.return_canceled(pair.called().answer)
    assert pair.returned() == Canceled()


def test_a_finish_of_an_unknown_question_is_ignored(pair):
    assert list(pair.server.receive_data(message(finish={"questionId": 77}))) == []
    assert not pair.server.closed


def test_a_return_may_need_no_finish(pair):
    root = pair.bootstrap()
    question = pair.client.call(root, 1, 2, EMPTY)
    answer = message(**{"return": {"answerId": question, "noFinishNeeded": True, "results": {}}})
    assert len(list(pair.client.receive_data(answer))) == 1
    pair.client.data_to_send()
    pair.client.finish(question)
    assert pair.client.data_to_send() == b""
    assert pair.client.stats().questions == 0


# Capabilities in results.


def returned_capabilities(pair, thing, root):
    """Return two capabilities to a call; give its question and the objects."""
    question = pair.client.call(root, 1, 2, EMPTY)
    objects = [thing("first"), thing("second")]
    pair.server.return_capabilities(pair.called().answer, TWO_CAPABILITIES, objects)
    return question, objects


def test_capabilities_are_called_and_released_one_by_one(pair, thing):
    question, (first, second) = returned_capabilities(pair, thing, pair.bootstrap())
    numbers = pair.returned().capabilities
    pair.client.call(ImportedCap(numbers[1]), 1, 2, EMPTY)
    assert pair.called().target is second
    pair.client.finish(question, release_result_caps=False)
    assert pair.to_server() == []
    pair.client.release(numbers[0])
    assert [event.object for event in pair.to_server()] == [first]
    pair.client.release(numbers[1])
    assert [event.object for event in pair.to_server()] == [second]


@pytest.mark.parametrize("report", [False, True])
def test_a_return_that_crosses_its_finish_is_an_event_only_if_it_is_to_be_reported(pair, thing, report):
    """The Finish releases the Return's capabilities either way."""
    question, objects = returned_capabilities(pair, thing, pair.bootstrap())
    pair.client.finish(question, report=report)
    assert [event.question for event in pair.to_client()] == [question] * report
    assert [event.object for event in pair.to_server()] == objects
    assert pair.client.stats().imports == 1


def test_finish_releases_capabilities(pair, thing):
    question, objects = returned_capabilities(pair, thing, pair.bootstrap())
    pair.returned()
    pair.client.finish(question)
    assert [event.object for event in pair.to_server()] == objects
    assert pair.client.stats().imports == 1


def test_a_released_capability_stays_callable_through_its_answer(pair, thing):
    question, (first, _) = returned_capabilities(pair, thing, pair.bootstrap())
    numbers = pair.returned().capabilities
    pair.client.release(numbers[0])
    pair.client.call(PromisedAnswer(question, (0,)), 1, 2, EMPTY)
    assert pair.called().target is first
    pair.client.finish(question, release_result_caps=False)
    assert [event.object for event in pair.to_server()] == [first]


def test_an_object_that_only_an_answer_holds_gets_a_new_export_id(pair, thing):
    root = pair.bootstrap()
    question, (first, _) = returned_capabilities(pair, thing, root)
    numbers = pair.returned().capabilities
    pair.client.release(numbers[0])
    pair.to_server()
    pair.client.call(root, 1, 2, EMPTY)
    pair.server.return_capabilities(pair.called().answer, ONE_CAPABILITY, [first])
    (number,) = pair.returned().capabilities
    pair.client.finish(question, release_result_caps=False)
    assert pair.to_server() == []
    pair.client.call(ImportedCap(number), 1, 2, EMPTY)
    assert pair.called().target is first


def test_finish_releases_capabilities_only_if_the_peer_asks(pair, thing):
    """Our own end releases references one by one; other peers release them with the Finish."""
    question, objects = returned_capabilities(pair, thing, pair.bootstrap())
    events = list(pair.server.receive_data(message(finish={"questionId": question, "releaseResultCaps": True})))
    assert [event.object for event in events] == objects
    pair.server.check()


def test_capabilities_of_a_finished_call_are_not_sent(pair, thing):
    root = pair.bootstrap()
    pair.client.finish(pair.client.call(root, 1, 2, EMPTY))
    call, _ = pair.to_server()
    kept, dropped = pair.root, thing("dropped")
    pair.server.return_capabilities(call.answer, TWO_CAPABILITIES, [kept, dropped, dropped])
    assert pair.to_client() == []
    assert pair.server.stats().exports == 1
    events = list(pair.server.receive_data(message(finish={"questionId": 99})))
    assert [event.object for event in events] == [dropped]


def test_a_peer_with_too_many_exports_is_refused_as_overloaded(pair_with, thing):
    pair = pair_with(exports=2)
    root = pair.bootstrap()
    pair.client.call(root, 1, 2, EMPTY)
    extra = [thing("one"), thing("two")]
    pair.server.return_capabilities(pair.called().answer, TWO_CAPABILITIES, extra)
    outcome = pair.returned()
    assert outcome.kind == Kind.OVERLOADED
    assert outcome.reason == "capabilities of this connection would be 3; the limit is 2 (exports)"
    assert pair.hits == {"exports": 1}
    events = list(pair.server.receive_data(message(finish={"questionId": 99})))
    assert [event.object for event in events] == extra
    pair.client.call(root, 1, 2, EMPTY)
    pair.server.return_capabilities(pair.called().answer, ONE_CAPABILITY, [thing("three")])
    assert pair.returned().capabilities == (1,)


def test_capabilities_of_a_return_after_finish_are_not_kept(pair, thing):
    question, _ = returned_capabilities(pair, thing, pair.bootstrap())
    pair.client.finish(question)
    assert pair.to_client() == []
    assert pair.client.stats().imports == 1
    assert len(pair.to_server()) == 2


# Pipelining.


def test_calls_may_be_pipelined(pair, thing):
    """Bootstrap, a call to its result, and a call to the result of that, in one read."""
    root = pair.client.bootstrap()
    first = pair.client.call(PromisedAnswer(root), 1, 1, EMPTY)
    pair.client.call(PromisedAnswer(first, (1,)), 1, 2, EMPTY)
    inner = thing("inner")
    events = pair.server.receive_data(pair.client.data_to_send())
    call = next(events)
    assert call.target is pair.root
    pair.server.return_capabilities(call.answer, TWO_CAPABILITIES, [thing("other"), inner])
    call = next(events)
    assert call.target is inner
    assert list(events) == []
    pair.server.check()


@pytest.mark.parametrize("path", [(), (0,), (2,), (1, 0), (0,) * 17])
def test_a_call_to_no_capability_fails_alone(pair, path):
    root = pair.bootstrap()
    first = pair.client.call(root, 1, 1, EMPTY)
    pair.server.return_results([pair.called().answer], [EMPTY])
    pair.returned()
    pair.client.call(PromisedAnswer(first, path), 1, 2, EMPTY)
    assert pair.to_server() == []
    assert pair.returned().kind == Kind.FAILED
    pair.client.call(root, 1, 1, EMPTY)
    pair.called()


def test_a_call_to_results_that_were_not_returned_fails(pair):
    """Calls are never queued: the promised answer must have been returned."""
    first = pair.client.call(pair.bootstrap(), 1, 1, EMPTY)
    pair.client.call(PromisedAnswer(first, (0,)), 1, 2, EMPTY)
    (call,) = pair.to_server()
    assert call.method_id == 1
    assert "not yet" in pair.returned().reason


def test_a_call_to_a_failed_answer_fails_with_its_error(pair):
    """Like in C++: calls to a broken promise fail with the error that broke it."""
    first = pair.client.call(pair.bootstrap(), 1, 1, EMPTY)
    pair.server.return_exception(pair.called().answer, Kind.OVERLOADED, "try later")
    pair.returned()
    pair.client.call(PromisedAnswer(first, (0,)), 1, 2, EMPTY)
    assert pair.to_server() == []
    outcome = pair.returned()
    assert (outcome.kind, outcome.reason) == (Kind.OVERLOADED, "try later")


def test_an_error_of_a_finished_call_is_sent_and_not_kept(pair):
    question = pair.client.call(pair.bootstrap(), 1, 1, EMPTY)
    answer = pair.called().answer
    pair.client.finish(question)
    pair.to_server()
    pair.server.return_exception(answer, Kind.FAILED, "no")
    pair.to_client()
    assert pair.server.stats().answers == 0
    pair.server.check()


def test_a_call_to_a_finished_answer_fails(pair):
    call = {"questionId": 5, "target": {"promisedAnswer": {"questionId": 44}}}
    assert list(pair.server.receive_data(message(call=call))) == []
    assert b"no capability" in pair.server.data_to_send()


# Limits.


def test_calls_beyond_the_limit_are_overloaded_and_others_continue(pair_with):
    pair = pair_with(outstanding_calls=2)
    root = pair.bootstrap()
    questions = [pair.client.call(root, 1, number, EMPTY) for number in range(4)]
    first, _ = pair.to_server()
    assert [event.question for event in pair.to_client()] == questions[2:]
    pair.client.call(root, 1, 4, EMPTY)
    assert pair.to_server() == []
    assert (
        pair.returned().reason
        == "unanswered calls of this connection are 2 already; the limit is 2 (outstanding_calls)"
    )
    assert pair.hits == {"outstanding_calls": 3}
    pair.server.return_results([first.answer], [EMPTY])
    pair.client.call(root, 1, 5, EMPTY)
    assert pair.called().method_id == 5


@pytest.mark.slow
@pytest.mark.untraced
def test_thousands_of_returned_answers_may_stay_open(pair_with):
    pair = pair_with(outstanding_calls=2)
    root = pair.bootstrap()
    for _ in range(2_000):
        pair.client.call(root, 1, 0, EMPTY)
        pair.server.return_results([pair.called().answer], [EMPTY])
        pair.returned()
    assert pair.server.stats().answers == 2_000


# What we do not do, and say so.


@pytest.mark.parametrize(
    "member",
    [
        {"provide": {"questionId": 1}},
        {"accept": {"questionId": 1}},
        {"join": {"questionId": 1}},
        {"disembargo": {"context": {"accept": None}}},
        {"disembargo": {"context": {"receiverLoopback": 1}}},
    ],
)
def test_an_unimplemented_message_is_echoed_and_the_connection_stays_open(pair, member):
    assert list(pair.server.receive_data(message(**member))) == []
    echo = pair.server.data_to_send()
    assert echo
    assert not pair.server.closed
    # An Unimplemented is never answered.
    assert list(pair.server.receive_data(framed(bytes(8)))) == []
    assert list(pair.server.receive_data(message(unimplemented={"unimplemented": {}}))) == []
    assert pair.server.data_to_send() == b""


@pytest.mark.parametrize("elsewhere", [{"yourself": None}, {"thirdParty": Body(0, [], 0)}])
def test_results_go_to_the_caller_only(pair, elsewhere):
    pair.bootstrap()
    call = {"questionId": 0, "target": {"importedCap": 0}, "sendResultsTo": elsewhere}
    assert list(pair.server.receive_data(message(call=call))) == []
    pair.client.bootstrap()
    pair.client.data_to_send()
    assert pair.returned().kind == Kind.UNIMPLEMENTED


def test_a_target_of_an_unknown_kind_is_unimplemented(pair):
    call = {"questionId": 0, "target": struct_body([7 << 32], [None])}
    assert list(pair.server.receive_data(message(call=call))) == []
    pair.client.bootstrap()
    pair.client.data_to_send()
    assert pair.returned().kind == Kind.UNIMPLEMENTED


def test_bootstrap_of_a_named_object_fails(pair):
    named = {"questionId": 0, "deprecatedObjectId": Body(CAPABILITY, [], 0)}
    assert list(pair.server.receive_data(message(bootstrap=named))) == []
    pair.client.bootstrap()
    pair.client.data_to_send()
    assert "deprecatedObjectId" in pair.returned().reason


def test_disembargo_is_echoed(pair):
    pair.bootstrap()
    for target in ({"importedCap": 0}, {"promisedAnswer": {"questionId": 3}}):
        said = {"target": target, "context": {"senderLoopback": 9}}
        assert list(pair.server.receive_data(message(disembargo=said))) == []
        echo = layout("Message").read(pair.server.data_to_send()[8:])["disembargo"]
        assert echo["context"] == {"receiverLoopback": 9}
    said = {"target": struct_body([7 << 32], [None]), "context": {"senderLoopback": 9}}
    assert list(pair.server.receive_data(message(disembargo=said))) == []
    assert pair.server.data_to_send() == b""


def test_the_capability_of_a_resolve_is_released(pair):
    resolve = {"promiseId": 0, "cap": {"senderHosted": 8}}
    assert list(pair.client.receive_data(message(resolve=resolve))) == []
    assert layout("Message").read(pair.client.data_to_send()[8:])["release"] == {"id": 8, "referenceCount": 1}
    resolve = {"promiseId": 0, "exception": {"reason": "gone"}}
    assert list(pair.client.receive_data(message(resolve=resolve))) == []
    pair.client.check()
    assert pair.client.stats().imports == 0
    assert pair.client.data_to_send() == b""


# Peers that break the rules.


BROKEN = [
    ({"call": {"questionId": 5, "target": {"importedCap": 99}}}, "99 is not an export"),
    ({"disembargo": {"target": {"importedCap": 99}, "context": {"senderLoopback": 1}}}, "99 is not an export"),
    ({"release": {"id": 99, "referenceCount": 1}}, "99 is not an export"),
    ({"release": {"id": 0, "referenceCount": 2}}, "2 references"),
    ({"return": {"answerId": 3, "canceled": None}}, "question 3"),
    ({"return": {"answerId": 3, "resultsSentElsewhere": None}}, "not asked for"),
    ({"unimplemented": {"return": {"answerId": 1}}}, "does not implement `return`"),
    ({"unimplemented": {"finish": {"questionId": 1}}}, "does not implement `finish`"),
    ({"call": Body(1 | 2 << 32 | 99 << 35, [], 0)}, "segment|struct"),
]


@pytest.mark.parametrize(("member", "why"), BROKEN)
def test_a_broken_rule_ends_the_connection(pair, member, why):
    pair.bootstrap()
    reason = given_up(pair.server, message(**member))
    assert re.search(why, reason)
    (event,) = pair.to_client()
    assert event == Aborted(reason)
    assert pair.client.closed


def test_a_question_id_in_use_ends_the_connection(pair):
    root = pair.bootstrap()
    pair.client.call(root, 1, 2, EMPTY)
    said = pair.client.data_to_send()
    assert len(list(pair.server.receive_data(said))) == 1
    assert "used again" in given_up(pair.server, said)


def test_a_second_return_ends_the_connection(pair):
    pair.client.call(pair.bootstrap(), 1, 2, EMPTY)
    pair.server.return_results([pair.called().answer], [EMPTY])
    answer = pair.server.data_to_send()
    assert len(list(pair.client.receive_data(answer))) == 1
    assert "waits for no return" in given_up(pair.client, answer)


def test_releasing_twice_ends_the_connection(pair, thing):
    question, _ = returned_capabilities(pair, thing, pair.bootstrap())
    for number in (1, 2):
        list(pair.server.receive_data(message(release={"id": number, "referenceCount": 1})))
    why = given_up(pair.server, message(finish={"questionId": question}))
    assert "1 reference was released where 0 were held" in why


def test_messages_before_the_error_are_processed(pair):
    root = pair.bootstrap()
    pair.client.call(root, 1, 2, EMPTY)
    events = pair.server.receive_data(pair.client.data_to_send() + b"\xff" * 8)
    assert isinstance(next(events), Calls)
    with pytest.raises(RemoteProtocolError):
        next(events)


# The end.


def test_an_abort_is_the_last_event(pair):
    root = pair.bootstrap()
    said = message(abort={"reason": "bye"})
    pair.client.call(root, 1, 2, EMPTY)
    assert list(pair.server.receive_data(said + pair.client.data_to_send())) == [Aborted("bye")]
    assert pair.server.closed
    assert pair.server.data_to_send() == b""


def test_a_closed_connection_receives_and_sends_nothing(pair):
    root = pair.bootstrap()
    question = pair.client.call(root, 1, 2, EMPTY)
    call = pair.called()
    for end in (pair.server, pair.client):
        end.abort("enough")
        end.abort("enough is enough")
    assert b"enough is" not in pair.server.data_to_send() + pair.client.data_to_send()
    pair.server.return_results([call.answer], [EMPTY])
    pair.server.return_capabilities(call.answer, ONE_CAPABILITY, [pair.root])
    pair.server.return_exception(call.answer, Kind.FAILED, "")
    pair.server.return_canceled(call.answer)
    pair.client.finish(question)
    pair.client.release(root.id)
    assert pair.server.data_to_send() + pair.client.data_to_send() == b""
    assert list(pair.server.receive_data(message(bootstrap={"questionId": 9}))) == []
    for ask in (pair.client.bootstrap, lambda: pair.client.call(root, 1, 2, EMPTY)):
        with pytest.raises(LocalProtocolError, match="closed"):
            ask()


# Errors of ours.


def test_a_second_return_of_ours_is_a_local_error(pair):
    pair.client.call(pair.bootstrap(), 1, 2, EMPTY)
    answer = pair.called().answer
    pair.server.return_results([answer], [EMPTY])
    for again in (
        lambda: pair.server.return_results([answer], [EMPTY]),
        lambda: pair.server.return_capabilities(answer, ONE_CAPABILITY, [pair.root]),
        lambda: pair.server.return_exception(answer, Kind.FAILED, ""),
        lambda: pair.server.return_canceled(answer),
    ):
        with pytest.raises(LocalProtocolError):
            again()
    pair.server.check()
    pair.returned()


def test_a_call_of_ours_needs_an_import_or_an_open_question(pair):
    root = pair.bootstrap()
    question = pair.client.call(root, 1, 2, EMPTY)
    pair.client.finish(question)
    for target in (ImportedCap(7), PromisedAnswer(77), PromisedAnswer(question)):
        with pytest.raises(LocalProtocolError):
            pair.client.call(target, 1, 2, EMPTY)
    for again in (lambda: pair.client.finish(question), lambda: pair.client.finish(99), lambda: pair.client.release(7)):
        with pytest.raises(LocalProtocolError):
            again()
    pair.client.check()


# Self-knowledge.


def test_a_dump_names_every_entry(pair, thing):
    root = pair.bootstrap()
    question, _ = returned_capabilities(pair, thing, root)
    numbers = pair.returned().capabilities
    pair.client.release(numbers[0])
    pair.client.call(root, 1, 2, EMPTY)
    pair.called()
    assert pair.server.dump().splitlines() == [
        "open",
        f"a{question} RETURNED",
        "a1 RUNNING",
        "e0 root references=1 pins=0",
        "e- first references=0 pins=1",
        "e2 second references=1 pins=1",
    ]
    assert pair.client.dump().splitlines() == [
        "open",
        f"q{question} RETURNED",
        "q1 WAITING",
        "i0 held=1 received=1",
        "i2 held=1 received=1",
    ]
    pair.server.abort("enough")
    assert pair.server.dump().splitlines()[0] == "closed"


def test_held_bytes_are_those_of_an_incomplete_message(pair):
    assert list(pair.server.receive_data(b"\0\0\0")) == []
    assert pair.server.stats().held_bytes == 3


def test_tables_bytes_are_reported_in_whole_steps(pair):
    root = pair.bootstrap()
    assert pair.server.tables_bytes == 0
    for _ in range(60):
        pair.client.call(root, 1, 2, EMPTY)
    pair.to_server()
    assert pair.server.tables_bytes == 16 * 1024


def test_released_follows_with_the_next_events(pair, thing):
    """The results of a call that the peer has finished are not sent, and released without a message of the peer."""
    question, made = pair.client.call(pair.bootstrap(), 1, 2, EMPTY), thing("made")
    answer = pair.called().answer
    pair.client.finish(question)
    assert pair.to_server() == [Finished(answer)]
    pair.server.return_capabilities(answer, TWO_CAPABILITIES, [made, made])
    (event,) = pair.server.receive_data(message(finish={"questionId": 1}))
    assert isinstance(event, Released)
    assert event.object is made


def test_bootstrap_results_are_a_capability(pair):
    pair.client.bootstrap()
    pair.to_server()
    outcome = pair.returned()
    assert read_bootstrap(outcome) == outcome.capabilities[0]


def test_the_connection_applies_the_limits_of_the_stream(limits):
    server = Connection(limits=Limits(frame_bytes=64))
    assert "the limit is 64" in given_up(server, framed(bytes(64))[:8])


def test_after_the_end_of_the_stream_nothing_is_held_or_sent(pair):
    root = pair.bootstrap()
    pair.client.call(root, 1, 2, EMPTY)
    call = pair.called()
    pair.client.call(root, 1, 2, EMPTY)
    assert list(pair.server.receive_data(pair.client.data_to_send()[:-8])) == []
    assert pair.server.stats().held_bytes
    pair.server.end()
    assert pair.server.closed
    assert not pair.server.stats().held_bytes
    pair.server.return_results([call.answer], [EMPTY])
    assert list(pair.server.receive_data(bytes(8))) == []
    assert pair.server.data_to_send() == b""


def test_the_bytes_that_an_incomplete_message_lacks_are_counted(pair):
    pair.client.bootstrap()
    data, server = pair.client.data_to_send(), pair.server
    assert server.missing_bytes() == 0
    for at in range(8, len(data), 8):
        assert list(server.receive_data(data[at - 8 : at])) == []
        assert server.missing_bytes() == len(data) - at
    list(server.receive_data(data[-8:]))
    assert server.missing_bytes() == 0

"""One connection: the order of messages, and the end of each call."""

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from queueber import api, rpc
from queueber.client import OutcomeUnknown
from queueber.client.protocol import CLOSE_SECONDS
from queueber.client_core import routes
from queueber.client_core.errors import error_of
from queueber.errors import Kind, Overloaded
from queueber.limits import DEFAULTS
from tests.client.conftest import ROOT

ADDED = api.write_add_responses([[bytes(16)]])[0]
LEASE = bytes(range(16))
DELIVERED = api.PollResponse([api.PolledItem(b"x", bytes(16), 1, 0)], LEASE, 1_000)


def test_calls_do_not_wait_for_the_bootstrap_or_for_a_named_queue(network, success):
    """The bootstrap, the queue and the call leave together: one round trip in all."""
    client = network.client()
    adding = client.queue("mail").add(b"x")
    network.clock.advance(0)
    assert len(network.peer.transport.writes) == 1
    network.peer.turn()
    (call,) = network.peer.calls()
    assert call.target == "mail"
    network.peer.answer([ADDED], call)
    assert len(success(adding)) == 1


def test_all_calls_of_a_turn_are_one_write(network, client):
    network.peer.transport.writes.clear()
    for _ in range(5):
        client.default.add(b"x")
    assert network.peer.transport.writes == []
    network.turn()
    assert len(network.peer.transport.writes) == 1
    assert len(network.peer.calls()) == 5


def test_calls_made_while_answers_are_read_leave_with_the_finishes_of_those(network, client):
    again = [client.default.add(b"x").addCallback(lambda _: client.default.add(b"y")) for _ in range(3)]
    network.turn()
    calls = network.peer.calls()
    network.peer.transport.writes.clear()
    network.peer.answer([ADDED], *calls)
    assert len(network.peer.transport.writes) == 1
    assert network.clock.getDelayedCalls() == []
    network.turn()
    assert len(network.peer.transport.writes) == 1
    assert len(network.peer.calls()) == len(again)
    assert network.peer.connection.stats().answers == 3


def test_finished_calls_are_forgotten(network, client):
    adding = [client.queue("mail").add(b"x"), client.default.add(b"x")]
    network.turn()
    network.peer.answer([ADDED], *network.peer.calls())
    network.turn()
    assert all(deferred.called for deferred in adding)
    ours, theirs = network.peer.protocol.usage(), network.peer.connection.stats()
    assert (ours.questions, theirs.answers) == (0, 0)
    assert (ours.imports, theirs.exports) == (2, 2)


def test_a_queue_is_requested_once_and_later_calls_go_to_it_directly(network, client, success):
    for _ in range(2):
        adding = client.queue("mail").add(b"x")
        network.turn()
        (call,) = network.peer.calls()
        assert call.target == "mail"
        network.peer.answer([ADDED], call)
        assert success(adding)
    assert network.peer.connection.stats().exports == 2


def test_calls_to_a_queue_that_is_refused_fail_with_the_reason_and_the_next_asks_again(network, client, failure):
    for _ in range(2):
        adding = [client.queue("forbidden").add(b"x") for _ in range(2)]
        network.turn()
        for deferred in adding:
            found = failure(deferred)
            assert isinstance(found, Overloaded)
            assert str(found) == "no more queues"
    network.turn()
    assert network.peer.connection.stats().answers == 0


def test_the_least_recently_used_queue_is_released_when_there_are_too_many(network, client, monkeypatch):
    monkeypatch.setattr(routes, "ROUTES_MAX", 2)
    for name in ("a", "b", "a", "c"):
        client.queue(name).add(b"x")
        network.turn()
        network.peer.answer([ADDED], *network.peer.calls())
        network.turn()
    assert [event.object for event in network.peer.events if isinstance(event, rpc.Released)] == ["b"]


def test_a_queue_whose_request_is_unanswered_is_not_released(network, client, monkeypatch):
    monkeypatch.setattr(routes, "ROUTES_MAX", 1)
    for name in ("a", "b"):
        client.queue(name).add(b"x")
    network.turn()
    assert [call.target for call in network.peer.calls()] == ["a", "b"]


def test_a_server_without_a_first_object_fails_every_call_with_its_reason(network, failure):
    """Also the calls to named queues, and those made later."""
    client = network.client()
    network.peer.connection = rpc.Connection(limits=DEFAULTS, bootstrap=None)
    early = [client.default.add(b"x"), client.queue("mail").add(b"x")]
    network.turn()
    late = [client.default.add(b"x"), client.queue("mail").add(b"x")]
    network.turn()
    reasons = {str(failure(deferred)) for deferred in [*early, *late]}
    assert len(reasons) == 1
    client.close()


def test_cancelling_sends_finish_and_the_answer_is_dropped(network, client, failure):
    polling = client.default.poll()
    network.turn()
    (call,) = network.peer.calls()
    polling.cancel()
    network.turn()
    assert isinstance(failure(polling), CancelledError)
    assert network.peer.events == [rpc.Finished(call.answer)]
    network.peer.connection.return_canceled(call.answer)
    network.peer.send()
    assert network.peer.protocol.usage().questions == 0


def cancelled(network, failure, polling, results):
    """Cancel *polling* while its reply is on its way: Finish and Return cross.  Return the calls that follow."""
    network.turn()
    (poll,) = network.peer.calls()
    network.peer.connection.return_results([poll.answer], results)
    polling.cancel()
    network.peer.send()
    assert isinstance(failure(polling), CancelledError)
    network.turn()
    return network.peer.calls()


@pytest.mark.parametrize("queue", ["mail", None])
def test_items_on_their_way_to_a_cancelled_poll_are_given_back(network, client, failure, queue):
    polling = (client.default if queue is None else client.queue(queue)).poll()
    (settle,) = cancelled(network, failure, polling, api.write_poll_responses([DELIVERED]))
    assert settle.target == (queue or ROOT)
    deferred = api.Settlement(LEASE, b"", api.Action.DEFER)
    assert api.read_settle_request(settle.params, DEFAULTS) == api.SettleRequest([deferred], [])
    network.peer.answer([api.write_settle_response(api.SettleResponse([]))], settle)
    network.turn()
    assert network.peer.protocol.usage().questions == network.peer.connection.stats().answers == 0


def test_items_are_given_back_to_a_server_without_settle(network, client, failure):
    polling = client.queue("mail").poll()
    (settle,) = cancelled(network, failure, polling, api.write_poll_responses([DELIVERED]))
    network.peer.connection.return_exception(settle.answer, Kind.UNIMPLEMENTED, "no method 4")
    network.peer.send()
    network.turn()
    (extend,) = network.peer.calls()
    assert (extend.target, extend.method_id) == ("mail", api.EXTEND)
    assert api.read_extend_request(extend.params) == api.ExtendRequest(LEASE, 1)
    network.peer.answer([api.write_extend_responses([True])[0]], extend)
    network.turn()
    assert network.peer.protocol.usage().questions == network.peer.connection.stats().answers == 0


def test_items_on_their_way_to_a_cancelled_poll_of_several_queues_are_given_back(network, client, failure):
    """Through the default queue, which settles items of all."""
    polling = client.poll_any(["mail", "jobs"])
    found = api.PollAnyResponse("jobs", DELIVERED)
    (settle,) = cancelled(network, failure, polling, [api.write_poll_any_response(found)])
    assert (settle.target, settle.interface_id, settle.method_id) == (ROOT, api.QUEUE_INTERFACE_ID, api.SETTLE)
    assert api.read_settle_request(settle.params, DEFAULTS).entries == [api.Settlement(LEASE, b"", api.Action.DEFER)]


def test_a_cancelled_poll_without_items_gives_nothing_back(network, client, failure):
    empty = api.write_poll_responses([api.PollResponse([], b"", 0)])
    assert cancelled(network, failure, client.default.poll(), empty) == []


def test_losing_the_connection_fails_calls_in_flight_with_an_unknown_outcome(network, client, failure):
    adding = [client.default.add(b"x"), client.queue("mail").add(b"x")]
    network.clock.advance(0)
    network.peer.protocol.connectionLost(Failure(ConnectionLost()))
    for deferred in adding:
        found = failure(deferred)
        assert isinstance(found, OutcomeUnknown)
        assert found.kind is Kind.DISCONNECTED
        assert "unknown" in str(found)


def test_an_unexpected_cancellation_leaves_the_outcome_unknown(network, client, failure):
    adding = client.default.add(b"x")
    network.turn()
    (call,) = network.peer.calls()
    network.peer.connection.return_canceled(call.answer)
    network.peer.send()
    assert isinstance(failure(adding), OutcomeUnknown)


def test_an_unknown_kind_of_exception_means_failed():
    assert error_of(rpc.RemoteException("new", 17)).kind is Kind.FAILED


def test_an_abort_ends_the_connection_with_the_servers_reason(network, client, failure):
    adding = client.default.add(b"x")
    network.turn()
    network.peer.connection.abort("too bad")
    network.peer.send()
    assert str(failure(adding)).endswith("unknown: the server ended the connection: too bad")
    assert not network.peer.transport.connected


def test_garbage_ends_the_connection_with_an_abort(network, client, failure):
    adding = client.default.add(b"x")
    network.turn()
    network.peer.protocol.dataReceived(b"\xff" * 64)
    assert "the server broke the protocol" in str(failure(adding))
    events = list(network.peer.connection.receive_data(network.peer.transport.value()))
    assert isinstance(events[-1], rpc.Aborted)
    assert not network.peer.transport.connected


def test_results_of_another_shape_end_the_connection(network, client, failure):
    adding = client.default.add(b"x")
    network.turn()
    (call,) = network.peer.calls()
    # A struct whose first pointer is a capability where a struct should be.
    network.peer.connection.return_capabilities(call.answer, api.QUEUE_RESPONSE, ("mail",))
    network.peer.send()
    assert "the server broke the protocol" in str(failure(adding))


def test_a_connection_that_does_not_close_is_cut_after_a_while(network, client, failure):
    """Until then new calls wait for the next connection, and received data is ignored."""
    network.peer.transport.lingers = True
    network.peer.protocol.dataReceived(b"\xff" * 64)
    network.peer.protocol.dataReceived(b"\xff" * 64)
    adding = client.default.add(b"x")
    network.clock.advance(CLOSE_SECONDS)
    assert network.peer.transport.aborting
    network.clock.advance(1)
    network.turn()
    network.peer.answer([ADDED], *network.peer.calls())
    assert adding.called


def test_a_connection_does_not_gather_small_writes(network, client):
    assert network.peer.transport.options == {"nodelay": True}


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 33])
def test_answers_may_come_in_any_pieces(network, client, success, cut):
    adding = client.default.add(b"x")
    network.turn()
    (call,) = network.peer.calls()
    network.peer.connection.return_results([call.answer], [ADDED])
    data = network.peer.connection.data_to_send()
    for at in range(0, len(data), cut):
        network.peer.protocol.dataReceived(data[at : at + cut])
    assert success(adding) == [bytes(16)]

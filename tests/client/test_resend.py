"""Calls in flight when their connection is lost: which are sent again, and what the others end with."""

import pytest
from attrs import evolve
from twisted.internet.defer import CancelledError

from queueber import api
from queueber.client import CallTimedOut, NotConnected, OutcomeUnknown, connect, new_item
from queueber.client_core.reconnect import RESEND_SECONDS, RETRY_SECONDS_MAX, backoff
from queueber.errors import Kind, Stopping
from queueber.limits import DEFAULTS

REQUEST_ID, LEASE, ID = b"r" * 16, b"l" * 16, b"i" * 16
ADDED = api.write_add_responses([[ID]])[0]
EMPTY = api.write_poll_responses([api.PollResponse([], b"", 0)])[0]


def lose(network):
    """Lose the connection, and make another."""
    network.peer.transport.loseConnection()
    network.clock.advance(1)
    network.turn()


def sent(network, deferred):
    """Return the call that *deferred* has sent before its connection was lost, and the one after."""
    network.turn()
    (first,) = network.peer.calls()
    lose(network)
    assert not deferred.called
    (again,) = network.peer.calls()
    return first, again


def test_a_poll_is_sent_again_with_its_wait(network, client, success):
    polling = client.queue("mail").poll(3, wait_ms=700)
    first, again = sent(network, polling)
    assert api.read_poll_request(first.params) == api.read_poll_request(again.params)
    assert again.target == "mail"
    network.peer.answer([EMPTY], again)
    assert len(success(polling)) == 0


def test_an_add_with_a_request_id_is_sent_again_with_it(network, client, success):
    adding = client.default.add_items(new_item(b"x"), request_id=REQUEST_ID)
    first, again = sent(network, adding)
    assert api.read_add_request(again.params, DEFAULTS) == api.read_add_request(first.params, DEFAULTS)
    assert api.read_add_request(again.params, DEFAULTS).request_id == REQUEST_ID
    network.peer.answer([ADDED], again)
    assert success(adding).ids == [ID]


def test_with_resend_adds_every_add_has_a_request_id_of_its_own(network, success):
    client = network.client(resend_adds=True)
    network.turn()
    ids = []
    for add in (lambda: client.default.add(b"x"), lambda: client.default.add_items(new_item(b"x"))):
        adding = add()
        _, again = sent(network, adding)
        ids.append(api.read_add_request(again.params, DEFAULTS).request_id)
        network.peer.answer([ADDED], again)
        assert success(adding)
    assert len({len(each) for each in ids}) == 1
    assert len(set(ids)) == 2
    assert len(ids[0]) == 16
    client.close()


@pytest.mark.parametrize("knows", [Kind.UNIMPLEMENTED, Kind.OVERLOADED, None], ids=["old", "busy", "silent"])
def test_an_add_is_not_sent_again_if_the_server_may_not_know_request_ids(network, client, failure, knows):
    """An older server ignores them, and would add twice."""
    questions = []

    def asked(event):
        questions.append(event)
        if knows is not None:
            network.peer.connection.return_exception(event.answer, knows, "no control")

    network.peer.control = asked
    adding = [client.default.add_items(new_item(b"x"), request_id=REQUEST_ID) for _ in range(2)]
    network.turn()
    network.peer.calls()
    lose(network)
    assert len(questions) == 1
    for each in adding:
        assert isinstance(failure(each), OutcomeUnknown)
    assert network.peer.calls() == []


def test_the_server_is_asked_once_whether_it_knows_request_ids(network, client):
    for _ in range(2):
        client.default.add_items(new_item(b"x"), request_id=REQUEST_ID).addErrback(lambda _: None)
        network.turn()
        lose(network)
    assert [peer.controls for peer in network.peers] == [1, 0, 0]


def test_a_call_that_is_sent_again_over_useless_connections_runs_out_of_attempts(network, failure):
    client = network.client(attempts=3)
    polling = client.default.poll()
    for _ in range(3):
        assert not polling.called
        network.clock.advance(0)
        network.peer.transport.loseConnection()
        network.clock.advance(1)
    assert isinstance(failure(polling), OutcomeUnknown)
    client.close()


@pytest.mark.parametrize(
    "read",
    [
        lambda it: it.queues(),
        lambda it: it.control("mail").stats(),
        lambda it: it.control("mail").settings(),
        lambda it: it.control("mail").peek(),
        lambda it: it.control("mail").get(ID),
        lambda it: it.control("mail").leases(),
    ],
)
def test_reads_are_sent_again(network, client, read):
    reading = read(client)
    first, again = sent(network, reading)
    assert (first.target, first.interface_id, first.method_id) == (again.target, again.interface_id, again.method_id)
    reading.addErrback(lambda failure: failure.trap(OutcomeUnknown))


@pytest.mark.parametrize(
    "call",
    [
        lambda it: it.default.add(b"x"),
        lambda it: it.default.add_items(new_item(b"x")),
        lambda it: it.default.remove(ID, LEASE),
        lambda it: it.default.extend(LEASE, 1),
        lambda it: it.default.fail(ID, LEASE),
        lambda it: it.control("mail").purge(),
        lambda it: it.poll_any(["mail"], session=b"s" * 16),
        lambda it: it.default.poll(session=b"s" * 16),
        lambda it: it.ping(),
        lambda it: it.attach(b"s" * 16),
    ],
)
def test_other_calls_may_have_happened(network, client, failure, call):
    """Also polls in a session that the program attaches by itself, which the next connection does not know."""
    calling = call(client)
    network.turn()
    network.peer.calls()
    lose(network)
    assert isinstance(failure(calling), OutcomeUnknown)
    assert network.peer.calls() == []


def stop(network):
    """Answer every call that the server is stopping."""
    for call in network.peer.calls():
        network.peer.connection.return_exception(call.answer, Kind.DISCONNECTED, "the server is stopping")
    network.peer.send()


def test_a_poll_of_a_server_that_is_stopping_waits_for_the_next_one(network, client, failure, success):
    """Not for the same one, which would answer the same again and again."""
    polling, removing = client.default.poll(1), client.default.remove(ID, LEASE)
    network.turn()
    stop(network)
    assert isinstance(failure(removing), Stopping)
    later = client.default.poll(2)
    network.turn()
    stop(network)
    network.turn()
    assert network.peer.calls() == []
    assert not polling.called
    lose(network)
    calls = network.peer.calls()
    assert [api.read_poll_request(call.params).num_items for call in calls] == [1, 2]
    for call in calls:
        network.peer.answer([EMPTY], call)
    assert len(success(polling)) == len(success(later)) == 0


def test_a_poll_that_waits_for_the_next_server_can_be_cancelled_time_out_and_end_with_its_client(network, failure):
    client = network.client()
    network.turn()
    cancelled, closed = client.default.poll(), client.default.poll()
    late = client.default.poll(timeout_ms=1_000)
    network.turn()
    stop(network)
    cancelled.cancel()
    assert isinstance(failure(cancelled), CancelledError)
    network.clock.advance(1)
    found = failure(late)
    assert not found.sent
    assert str(found).endswith("there is no connection: the server is stopping")
    client.close()
    assert isinstance(failure(closed), NotConnected)
    assert network.clock.getDelayedCalls() == []


def test_servers_that_stop_one_after_the_other_use_up_the_attempts_of_a_poll(network, failure):
    client = network.client(attempts=2)
    polling = client.default.poll()
    for _ in range(2):
        assert not polling.called
        network.turn()
        stop(network)
        network.peer.transport.loseConnection()
        network.clock.advance(1)
    assert isinstance(failure(polling), Stopping)
    client.close()


def test_a_call_that_was_not_sent_again_may_have_happened_before(network, failure):
    """The call has not left a second time when the second connection is lost, too."""
    client = network.client(attempts=1)
    network.turn()
    assert len(network.peers) == 1
    adding = client.default.add_items(new_item(b"x"), request_id=REQUEST_ID)
    network.turn()
    network.on_connected = lambda: network.peer.transport.loseConnection()  # noqa: PLW0108
    network.peer.transport.loseConnection()
    network.clock.advance(1)
    found = failure(adding)
    assert isinstance(found, OutcomeUnknown)
    assert "it was not sent again: the call was not sent: the server closed it" in str(found)
    client.close()


def test_calls_that_are_sent_again_come_before_those_made_since(network, client):
    client.default.poll(1)
    client.default.poll(2)
    network.turn()
    network.peer.transport.loseConnection()
    client.default.poll(3)
    network.clock.advance(1)
    network.turn()
    assert [api.read_poll_request(call.params).num_items for call in network.peer.calls()] == [1, 2, 3]


def test_the_order_stays_when_the_connection_is_lost_while_waiting_calls_are_sent(network):
    network.refusing = True
    client = network.client(limits=evolve(DEFAULTS, frame_bytes=4_096))
    client.default.poll(1)
    client.default.add(bytes(9_000)).addErrback(lambda _: network.peer.transport.loseConnection())
    client.default.poll(2)
    network.refusing = False
    network.clock.advance(1)
    assert len(network.peers) == 1
    network.clock.advance(1)
    network.turn()
    assert [api.read_poll_request(call.params).num_items for call in network.peer.calls()] == [1, 2]
    client.close()


def test_an_add_is_not_sent_again_when_the_server_may_have_forgotten_its_request_id(network, client, failure):
    adding = client.default.add_items(new_item(b"x"), request_id=REQUEST_ID)
    network.turn()
    network.refusing = True
    network.peer.transport.loseConnection()
    polling = client.default.poll()
    network.clock.pump([1.0] * int(RESEND_SECONDS))
    network.refusing = False
    network.clock.advance(1)
    network.turn()
    assert str(failure(adding)) == (
        "the connection was lost, the call's outcome is unknown: it is not sent again after 540 s"
    )
    assert not polling.called
    assert [call.method_id for call in network.peer.calls()] == [api.POLL]


def test_an_add_is_sent_again_within_that_time(network, client):
    client.default.add_items(new_item(b"x"), request_id=REQUEST_ID).addErrback(lambda _: None)
    network.turn()
    network.refusing = True
    network.peer.transport.loseConnection()
    network.clock.pump([1.0] * int(RESEND_SECONDS - 1))
    network.refusing = False
    network.clock.advance(1)
    network.turn()
    assert [call.method_id for call in network.peer.calls()] == [api.ADD]


def test_a_call_without_attempts_left_may_have_happened_on_its_first_connection(network, failure):
    client = network.client(attempts=2)
    network.turn()
    adding = client.default.add_items(new_item(b"x"), request_id=REQUEST_ID)
    network.turn()
    network.refusing = True
    network.peer.transport.loseConnection()
    later = client.default.add(b"y")
    network.clock.advance(1)
    assert not adding.called
    network.clock.advance(1)
    found = failure(adding)
    assert isinstance(found, OutcomeUnknown)
    assert "it was not sent again: cannot connect: Connection refused" in str(found)
    assert isinstance(failure(later), NotConnected)
    client.close()


def test_a_call_that_times_out_while_it_waits_again_may_have_happened(network, client, failure):
    adding = client.default.add_items(new_item(b"x"), request_id=REQUEST_ID, timeout_ms=5_000)
    network.turn()
    network.refusing = True
    network.peer.transport.loseConnection()
    waiting = client.default.add(b"y", timeout_ms=4_000)
    network.clock.pump([1.0] * 5)
    found = failure(adding)
    assert isinstance(found, CallTimedOut)
    assert found.sent
    assert "the call may have taken effect or not: there is no connection" in str(found)
    assert failure(waiting).sent is False


def test_a_call_that_waits_again_can_be_cancelled(network, client, failure):
    polling = client.default.poll()
    network.turn()
    network.peer.transport.loseConnection()
    polling.cancel()
    failure(polling)
    network.clock.advance(1)
    network.turn()
    assert network.peer.calls() == []


def test_a_call_is_not_sent_again_to_another_protocol(network, client, failure):
    polling = client.default.poll()
    network.turn()
    network.peer.transport.loseConnection()
    network.clock.advance(1)
    assert not polling.called
    network.peer.protocol.dataReceived(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    found = failure(polling)
    assert isinstance(found, OutcomeUnknown)
    assert "it was not sent again: cannot connect: this port speaks HTTP" in str(found)


def test_a_closed_client_sends_nothing_again(network, failure):
    client = network.client()
    polling = client.default.poll()
    network.turn()
    client.close()
    assert isinstance(failure(polling), OutcomeUnknown)
    assert network.clock.getDelayedCalls() == []


def test_a_poll_that_was_not_flushed_is_sent_again_and_an_add_certainly_was_not_sent(network, client, failure):
    polling, adding = client.default.poll(), client.default.add(b"x")
    network.peer.transport.loseConnection()
    assert isinstance(failure(adding), NotConnected)
    network.clock.advance(1)
    network.turn()
    assert [call.method_id for call in network.peer.calls()] == [api.POLL]
    assert not polling.called


def test_the_backoff_grows_to_its_maximum_and_has_jitter():
    longest, shortest = backoff(lambda: 0.0), backoff(lambda: 1.0)
    assert [round(longest(number), 3) for number in (1, 2, 3)] == [0.1, 0.15, 0.225]
    assert [longest(number) for number in (20, 10**6)] == [RETRY_SECONDS_MAX] * 2
    assert [shortest(number) * 2 for number in range(1, 20)] == [longest(number) for number in range(1, 20)]


def test_without_a_policy_the_client_backs_off_by_itself(network):
    network.refusing = True
    client = connect(network.clock, network)
    network.clock.pump([0.1] * 600)
    assert 8 <= network.refused <= 40
    client.close()

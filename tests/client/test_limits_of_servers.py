"""Lengths of messages: the client follows the server's limit, and gives back items of a reply above its own."""

import pytest
from attrs import evolve
from twisted.internet.defer import CancelledError

from queueber import api, rpc
from queueber.client import NotConnected, OutcomeUnknown, ReplyTooLong, ServerLimits
from queueber.errors import InvalidRequest, Kind, Unimplemented
from queueber.limits import DEFAULTS
from queueber.units import KIB, MIB

RAISED = evolve(DEFAULTS, frame_bytes=32 * MIB)
LOWERED = evolve(DEFAULTS, frame_bytes=64 * KIB)
LONG = bytes(100 * KIB)
LONGER = bytes(17 * MIB)
ADDED = api.write_add_responses([[bytes(16)]])[0]
LEASE = bytes(range(16))


def contents(network):
    """Return the contents of the adds that have come, of one item each."""
    return [api.read_add_request(call.params, RAISED_CALLS).items[0].contents for call in network.peer.calls()]


RAISED_CALLS = evolve(RAISED, contents_bytes=32 * MIB, add_bytes=32 * MIB)


@pytest.fixture
def serve(network):
    """Connects a client to a server with these limits."""
    made = []

    def served(answer, **options):
        made.append(network.client(**options))
        network.peer.limits = answer
        limits = RAISED if isinstance(answer, Kind) else answer
        network.peer.connection = rpc.Connection(limits=limits, bootstrap="root")
        network.turn()
        return made[-1]

    yield served
    for each in made:
        each.close()
    assert network.clock.getDelayedCalls() == []


def test_a_call_that_every_server_accepts_is_sent_at_once(network, client):
    for _ in range(3):
        client.default.add(bytes(60 * KIB))
        network.turn()
        assert len(network.peer.calls()) == 1
    assert network.peer.asked == 0


def test_limits_are_requested_before_the_first_long_message_and_calls_keep_their_order(network, client):
    client.default.add(b"1")
    for each in (LONG, b"3", LONG):
        client.queue("mail").add(each)
    network.clock.advance(0)
    assert len(network.peer.transport.value()) < KIB
    network.peer.turn()
    assert contents(network) == [b"1"]
    network.turn()
    assert contents(network) == [LONG, b"3", LONG]
    client.default.add(LONG)
    network.turn()
    assert contents(network) == [LONG]
    assert network.peer.asked == 1


@pytest.mark.parametrize(
    ("limits", "content", "most"), [(LOWERED, LONG, 64 * KIB), (DEFAULTS, LONGER, 16 * MIB)], ids=["lowered", "default"]
)
def test_a_call_that_is_longer_than_the_server_takes_fails_alone(network, serve, failure, limits, content, most):
    client = serve(limits)
    adding = [client.default.add(each) for each in (content, b"2", content)]
    network.turn()
    network.turn()
    assert contents(network) == [b"2"]
    for each in adding[::2]:
        found = failure(each)
        assert isinstance(found, InvalidRequest)
        assert f"the limit is {most - 1_024:,}, set by the server's option --limit-frame-bytes" in str(found)


def test_a_server_whose_limit_is_raised_gets_longer_calls(network, serve):
    client = serve(RAISED)
    client.default.add(LONGER)
    network.turn()
    network.turn()
    assert contents(network) == [LONGER]


def test_of_a_server_that_does_not_say_the_default_is_assumed(network, serve, failure):
    client = serve(Kind.UNIMPLEMENTED)
    adding = [client.default.add(each) for each in (LONG, LONGER)]
    network.turn()
    network.turn()
    assert contents(network) == [LONG]
    assert "by default: this server does not state its limit" in str(failure(adding[1]))


def test_with_limits_of_its_own_a_client_sends_a_server_that_does_not_say_longer_calls(network, serve):
    client = serve(Kind.UNIMPLEMENTED, limits=RAISED)
    client.default.add(LONGER)
    network.turn()
    network.turn()
    assert contents(network) == [LONGER]


def test_limits_are_requested_again_after_an_overloaded_answer(network, client):
    network.peer.limits = Kind.OVERLOADED
    for asked in (1, 2):
        client.default.add(LONG)
        network.turn()
        network.turn()
        assert contents(network) == [LONG]
        assert network.peer.asked == asked


def test_a_call_that_waits_for_the_limits_can_be_cancelled(network, client, failure):
    first = client.default.add(LONG)
    client.default.add(b"2")
    first.cancel()
    network.turn()
    network.turn()
    assert isinstance(failure(first), CancelledError)
    assert contents(network) == [b"2"]


def test_a_call_that_waits_for_the_limits_is_certainly_not_sent_when_the_connection_is_lost(network, client, failure):
    sent = client.default.add(b"1")
    held = client.default.add(LONG)
    network.clock.advance(0)
    network.peer.transport.loseConnection()
    assert isinstance(failure(sent), OutcomeUnknown)
    assert isinstance(failure(held), NotConnected)


def test_a_call_made_because_another_was_refused_stays_in_line(network, serve):
    client = serve(LOWERED)
    client.default.add(LONG).addErrback(lambda _: client.default.add(b"after"))
    client.default.add(b"before")
    network.turn()
    network.turn()
    assert contents(network) == [b"before", b"after"]


def poll_response(*contents):
    items = [api.PolledItem(each, bytes(16), 1, 0) for each in contents]
    return api.write_poll_responses([api.PollResponse(items, LEASE, 1_000)])[0]


def test_any_reply_of_a_server_is_taken(network, serve, success):
    """Also before the limits were requested, and from a server without that method."""
    client = serve(Kind.UNIMPLEMENTED)
    polling = client.default.poll()
    network.turn()
    (call,) = network.peer.calls()
    network.peer.answer([poll_response(LONGER)], call)
    assert success(polling).items[0].contents == LONGER


def test_items_that_a_client_may_not_take_are_given_back(network, serve, failure, success):
    """The connection and its other calls continue."""
    client = serve(DEFAULTS, limits=LOWERED)
    polling, adding = client.queue("mail").poll(), client.default.add(b"x")
    network.turn()
    poll, add = network.peer.calls()
    network.peer.connection.return_results([poll.answer], [poll_response(LONG, b"small")])
    network.peer.answer([ADDED], add)
    found = failure(polling)
    assert isinstance(found, ReplyTooLong)
    assert "raise its frame_bytes" in str(found)
    assert "the items of this poll return to their queue" in str(found)
    assert success(adding)
    network.peer.turn()
    (settle,) = network.peer.calls()
    assert (settle.target, settle.method_id) == ("mail", api.SETTLE)
    assert api.read_settle_request(settle.params, DEFAULTS).entries == [api.Settlement(LEASE, b"", api.Action.DEFER)]
    network.peer.answer([api.write_settle_response(api.SettleResponse([]))], settle)
    network.turn()
    assert network.peer.connection.stats().answers == 0


def test_a_reply_above_the_client_s_limit_fails_only_its_call(network, serve, failure):
    client = serve(DEFAULTS, limits=evolve(DEFAULTS, frame_bytes=4_096))
    adding = client.default.add(*[b""] * 100)
    network.turn()
    (call,) = network.peer.calls()
    network.peer.answer(api.write_add_responses([[bytes(16)] * 200]), call)
    found = failure(adding)
    assert isinstance(found, ReplyTooLong)
    assert "given back" not in str(found)
    network.turn()
    assert network.peer.calls() == []


def test_a_program_can_ask_for_the_limits(network, serve, success, failure):
    asking = serve(RAISED).limits()
    network.turn()
    found = success(asking)
    assert isinstance(found, ServerLimits)
    assert (found.frame_bytes, found.items_per_add, found.lease_ms) == (32 * MIB, 1_000, DEFAULTS.lease_ms)
    asking = serve(Kind.UNIMPLEMENTED).limits()
    network.turn()
    assert isinstance(failure(asking), Unimplemented)

"""The request of each method of a queue, and its result."""

import pytest
from attrs import evolve
from twisted.internet.defer import ensureDeferred

from queueber import api
from queueber.client import Batch
from queueber.errors import InvalidRequest, Kind, Overloaded, Stopping, Unimplemented
from queueber.limits import DEFAULTS
from queueber.units import SpanMs

ID, LEASE = bytes(range(16)), bytes(range(16, 32))


def answer(network, content, method):
    """Answer the one call that is in flight; returns its params' reader."""
    (call,) = network.peer.calls()
    assert (call.interface_id, call.method_id) == (api.QUEUE_INTERFACE_ID, method)
    network.peer.answer([content], call)


def test_add_sends_the_items_with_their_delay_and_gives_their_ids(network, client, success):
    adding = client.default.add(b"a", b"", delay_ms=1_500)
    network.turn()
    (call,) = network.peer.calls()
    assert api.read_add_request(call.params, DEFAULTS).items == [api.NewItem(b"a", 1_500), api.NewItem(b"", 1_500)]
    network.peer.answer(api.write_add_responses([[ID, LEASE]]), call)
    assert success(adding) == [ID, LEASE]


@pytest.mark.parametrize(
    ("wait_ms", "wait", "no_wait"), [(None, None, False), (0, None, True), (1, 1, False), (2_500, 2_500, False)]
)
def test_poll_sends_its_wait(network, client, success, wait_ms, wait, no_wait):
    polling = client.default.poll(7, lease_ms=10, wait_ms=wait_ms)
    network.turn()
    (call,) = network.peer.calls()
    assert api.read_poll_request(call.params) == api.PollRequest(10, 7, wait, no_wait)
    network.peer.answer(api.write_poll_responses([api.PollResponse([], b"", 0)]), call)
    assert success(polling) == Batch((), b"", 0)


def test_poll_gives_items_and_their_lease(network, client, success):
    polling = client.default.poll()
    network.turn()
    item = api.PolledItem(b"contents", ID, 3, 1_000)
    answer(network, api.write_poll_responses([api.PollResponse([item], LEASE, 31_000)])[0], api.POLL)
    batch = success(polling)
    assert [each.polled for each in batch] == [item]
    assert batch == Batch(batch.items, LEASE, 31_000)


def test_remove_and_extend_say_whether_they_did(network, client, success):
    removing = client.default.remove(ID, LEASE)
    network.turn()
    answer(network, api.write_remove_responses([True])[0], api.REMOVE)
    assert success(removing) is True

    extending = client.default.extend(LEASE, 5_000)
    network.turn()
    (call,) = network.peer.calls()
    assert api.read_extend_request(call.params) == api.ExtendRequest(LEASE, 5_000)
    network.peer.answer([api.write_extend_responses([False])[0]], call)
    assert success(extending) is False


def test_a_coroutine_may_await_calls_one_after_the_other(network, client, success):
    async def work():
        ids = await client.default.add(b"x")
        return await client.default.remove(ids[0], LEASE)

    working = ensureDeferred(work())
    network.turn()
    answer(network, api.write_add_responses([[ID]])[0], api.ADD)
    network.turn()
    (call,) = network.peer.calls()
    assert api.read_remove_request(call.params) == api.RemoveRequest(ID, LEASE)
    network.peer.answer([api.write_remove_responses([True])[0]], call)
    assert success(working) is True


@pytest.mark.parametrize(("kind", "error"), [(0, InvalidRequest), (1, Overloaded), (2, Stopping), (3, Unimplemented)])
def test_an_exception_of_the_server_is_one_here_by_its_kind(network, client, failure, kind, error):
    adding = client.default.add(b"x")
    network.turn()
    (call,) = network.peer.calls()
    network.peer.connection.return_exception(call.answer, kind, "because")
    network.peer.send()
    found = failure(adding)
    assert type(found) is error
    newer = "the server does not know Queue.add, which is newer than the server: " if kind == Kind.UNIMPLEMENTED else ""
    assert str(found) == f"{newer}because"


def test_a_call_longer_than_a_frame_fails_alone_instead_of_ending_the_connection(network, failure):
    client = network.client(limits=evolve(DEFAULTS, frame_bytes=4_096))
    found = failure(client.default.add(bytes(4_096)))
    assert "the limit is 3,072" in str(found)


def test_a_call_may_be_as_long_as_the_limit_and_no_longer(network, failure):
    client = network.client(limits=evolve(DEFAULTS, frame_bytes=4_096))
    longest = 3_072 - len(api.write_add_request(api.AddRequest([api.NewItem(b"", SpanMs(0))])))
    client.default.add(bytes(longest))
    assert "the call is 3,080 bytes; the limit is 3,072" in str(failure(client.default.add(bytes(longest + 1))))
    network.turn()
    assert [len(api.read_add_request(call.params, DEFAULTS).items) for call in network.peer.calls()] == [1]


def test_a_call_that_no_server_is_known_to_accept_may_be_as_long_as_the_limit(network, failure):
    client = network.client(limits=evolve(DEFAULTS, frame_bytes=131_072))
    longest = 130_048 - len(api.write_add_request(api.AddRequest([api.NewItem(b"", SpanMs(0))])))
    adding = client.default.add(bytes(longest))
    assert "the limit is 130,048" in str(failure(client.default.add(bytes(longest + 1))))
    network.turn()
    assert not adding.called, "it waits for the server's limit"


def test_a_queue_shows_its_name(client):
    assert (repr(client.queue("mail")), repr(client.default)) == ("<Queue mail>", "<Queue default>")

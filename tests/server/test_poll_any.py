"""Polls of several queues over a connection."""

import pytest

from queueber import api
from queueber.errors import Kind
from queueber.units import SpanMs

LONG = 60_000


@pytest.fixture
def peer(server):
    return server.connect()


def add(server, peer, name, *contents):
    peer.add(*contents, target=peer.queue(name))
    server.settle()


def poll_any(peer, *queues, strict=True, no_wait=False, lease=LONG):
    request = api.PollRequest(SpanMs(lease), 1, None, no_wait=no_wait)
    content = api.write_poll_any_request(
        api.PollAnyRequest([api.QueueWeight(*each) for each in queues], strict, request)
    )
    call = peer.connection.call(peer.root, api.BROKER_INTERFACE_ID, api.POLL_ANY, content)
    peer.send()
    return call


def response(peer, call):
    return api.read_poll_any_response(peer.receive()[call])


def test_waits_in_all_queues_and_names_the_one_of_the_items(server, peer):
    call = poll_any(peer, ("one",), ("two",))
    server.settle()
    assert call not in peer.receive()

    add(server, peer, "two", b"x")

    found = response(peer, call)
    assert (found.queue, [item.contents for item in found.poll.items]) == ("two", [b"x"])
    assert len(found.poll.lease) == 16


def test_polls_of_one_and_of_several_queues_that_end_together(server, peer):
    add(server, peer, "default", b"a")
    add(server, peer, "one", b"b")
    single, several = peer.poll(1, lease=LONG), poll_any(peer, ("one",))
    empty = poll_any(peer, ("two",), ("three",), no_wait=True)
    server.settle()

    assert [item.contents for item in api.read_poll_response(peer.receive()[single]).items] == [b"a"]
    assert response(peer, several).queue == "one"
    assert (response(peer, empty).queue, response(peer, empty).poll.items) == ("", [])


def test_queues_take_turns_by_weight(server, peer):
    for name in ("one", "two"):
        add(server, peer, name, *[b""] * 8)

    calls = [poll_any(peer, ("one", 3), ("two", 1), strict=False) for _ in range(8)]
    server.settle()

    assert sorted(response(peer, call).queue for call in calls) == ["one"] * 6 + ["two"] * 2


@pytest.mark.parametrize(
    ("queues", "lease", "reason"),
    [
        ([("one",), ("one",)], LONG, "queues[1].queue is 'one', which is in the list already"),
        ([("one",)], 0, "leaseValiditySecs and leaseValidityMs are both 0; a lease must last longer (> 0)"),
        ([("x" * 300,)], LONG, "300"),
    ],
)
def test_a_poll_that_cannot_be_is_refused(server, peer, queues, lease, reason):
    call = poll_any(peer, *queues, lease=lease)
    server.settle()

    assert peer.receive()[call].kind == Kind.FAILED
    assert reason in peer.receive()[call].reason
    assert server.broker.polls.waiting == 0


def test_a_stopping_server_refuses(server, peer):
    server.handlers.drain()

    call = poll_any(peer, ("one",))
    server.settle()

    assert peer.receive()[call].kind == Kind.DISCONNECTED

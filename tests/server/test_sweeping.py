"""Items that are delivered again and again: counted, and logged at some steps."""

import pytest

from queueber import api
from queueber.server.core.sweeper import ATTEMPT_STEPS


def fail(server, peer, count=1):
    """Deliver *count* items to a worker that crashes, and sweep its lease."""
    poll = peer.poll(count)
    server.settle()
    response = api.read_poll_response(peer.receive().pop(poll))
    peer.connection.finish(poll)
    peer.send()
    server.reactor.advance(2)
    server.sweeper.sweep()
    server.settle()
    return response.items


@pytest.mark.slow
def test_an_item_that_is_never_removed_is_counted_and_logged(server, log_lines):
    peer = server.connect()
    peer.add(b"poison")
    for attempt in range(1, 1_002):
        (item,) = fail(server, peer)
        assert item.attempt == attempt
    assert server.sweeper.redelivered == {1: 9, 10: 90, 100: 900, 1_000: 2}
    lines = log_lines("has been delivered")
    assert [event["attempts"] for event in lines] == list(ATTEMPT_STEPS[1:])
    assert {event["item"] for event in lines} == {bytes(item.id).hex()}
    assert {event["queue"] for event in lines} == {"'default'"}


def test_many_such_items_are_one_log_line(server, log_lines):
    peer = server.connect()
    peer.add(*[b"poison"] * 50)
    for _ in range(10):
        fail(server, peer, 50)
    assert len(log_lines("has been delivered")) == 1
    assert server.sweeper.redelivered == {1: 450, 10: 50}

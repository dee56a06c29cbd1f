"""What the sweeper tells of items that nobody removes."""

import pytest
from twisted.logger import globalLogPublisher

from queueber import api
from queueber.server.core.sweeper import ATTEMPTS


@pytest.fixture
def lines():
    said = []

    def observe(event):
        if "handed out" in (event.get("log_format") or ""):
            said.append(event)

    globalLogPublisher.addObserver(observe)
    yield said
    globalLogPublisher.removeObserver(observe)


def fail(hand, peer, count=1):
    """Workers get *count* items and die of them."""
    poll = peer.poll(count)
    hand.settle()
    response = api.read_poll_response(peer.receive().pop(poll))
    peer.connection.finish(poll)
    peer.send()
    hand.reactor.advance(2)
    hand.sweeper.sweep()
    hand.settle()
    return response.items


def test_an_item_that_nobody_removes_is_counted_and_named(hand, lines):
    peer = hand.connect()
    peer.add(b"poison")
    for attempt in range(1, 1_002):
        (item,) = fail(hand, peer)
        assert item.attempt == attempt
    assert hand.sweeper.redelivered == {1: 9, 10: 90, 100: 900, 1_000: 2}
    assert [event["attempts"] for event in lines] == list(ATTEMPTS[1:])
    assert {event["item"] for event in lines} == {bytes(item.id).hex()}
    assert {event["queue"] for event in lines} == {"'default'"}


def test_a_thousand_of_them_are_one_line_and_their_number(hand, lines):
    peer = hand.connect()
    peer.add(*[b"poison"] * 50)
    for _ in range(10):
        fail(hand, peer, 50)
    assert len(lines) == 1
    assert hand.sweeper.redelivered == {1: 450, 10: 50}

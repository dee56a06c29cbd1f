"""Replies that wait for the peer: in order, counted, and never more at once than the transport has room for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.testing import StringTransport

from queueber import api
from queueber.server.net.send_buffer import CHUNK, SendBuffer


class Narrow(StringTransport):
    """Says that it is full after every piece, as a transport does whose peer takes nothing."""

    def __init__(self):
        super().__init__()
        self.pieces = []

    def write(self, data):
        self.pieces.append(data)
        super().write(data)
        self.producer.pauseProducing()


@given(st.lists(st.integers(1, 3 * CHUNK), max_size=6))
def test_all_of_it_arrives_in_order_in_pieces_that_fit(sizes):
    transport = Narrow()
    moved = []
    replies = SendBuffer(transport, lambda: moved.append(True))
    said = [bytes([number]) * size for number, size in enumerate(sizes, start=1)]
    for data in said:
        replies.write(data)
    while replies.full:
        assert replies.unsent == sum(sizes) - len(transport.value())
        replies.resumeProducing()
    assert transport.value() == b"".join(said)
    assert replies.unsent == 0
    assert replies.given == sum(sizes)
    assert all(len(piece) <= CHUNK for piece in transport.pieces)
    assert len(moved) >= len(transport.pieces)


def test_the_connection_ends_only_when_all_is_taken():
    transport = Narrow()
    replies = SendBuffer(transport, lambda: None)
    replies.write(b"a")
    replies.write(b"b")
    replies.end()
    assert not transport.disconnecting
    replies.resumeProducing()
    assert transport.disconnecting
    assert transport.value() == b"ab"


def test_a_connection_that_is_gone_holds_nothing():
    replies = SendBuffer(Narrow(), lambda: None)
    replies.write(b"a")
    replies.write(b"b")
    replies.stopProducing()
    assert replies.unsent == 0


def test_who_has_forgotten_them_is_called_no_more():
    """The transport may still say that it is full, or empty again."""
    calls, transport = [], StringTransport()
    replies = SendBuffer(transport, lambda: calls.append(True))
    replies.pauseProducing()
    assert calls == [True]
    replies.forget()
    replies.resumeProducing()
    assert calls == [True]


def test_a_thousand_parked_polls_and_a_large_batch_stay_within_the_bounds(make_hand):
    """Not one claim more is made for a peer that does not take what it was given."""
    size = 50_000
    hand = make_hand(unsent_bytes=1 << 20)
    worker, producer = hand.connect(), hand.connect()
    transport = worker.transport
    plain = transport.write

    def write(data):
        plain(data)
        if len(transport.value()) > CHUNK:
            worker.protocol._replies.pauseProducing()

    transport.write = write
    polls = [worker.poll() for _ in range(1_000)]
    hand.settle()
    for _ in range(10):
        items = [api.NewItem(b"x" * size, 1_000) for _ in range(100)]
        producer.call(api.ADD, api.write_add_request(api.AddRequest(items)))
        hand.settle()
    hand.reactor.advance(2)
    hand.settle()

    claim = hand.broker.claims._bounds
    assert worker.protocol._replies.unsent <= (1 << 20) + min(claim.bytes, claim.polls * size) + CHUNK
    assert hand.broker.stats().leased_items <= 2 * claim.polls
    assert hand.broker.stats().waiting_polls >= 1_000 - 2 * claim.polls

    taken = []
    for _ in range(2_000):
        taken.append(transport.value())
        transport.clear()
        worker.protocol._replies.resumeProducing()
        hand.settle()
        if not worker.protocol._replies.unsent and not hand.broker.stats().waiting_polls:
            break
    taken.append(transport.value())
    transport.clear()
    transport.io.write(b"".join(taken))
    outcomes = worker.receive()
    assert all(len(api.read_poll_response(outcomes[poll]).items) == 1 for poll in polls)


@pytest.mark.parametrize("closed_by", ["peer", "us"])
def test_items_for_a_connection_that_ends_meanwhile_are_not_lost(hand, closed_by):
    worker, other = hand.connect(), hand.connect()
    worker.poll()
    hand.settle()
    other.add(b"a")
    hand.turn()
    if closed_by == "peer":
        worker.protocol.connectionLost()
    else:
        worker.protocol.close()
    hand.settle()
    assert hand.broker.stats().leases == 0
    again = other.poll(no_wait=True)
    hand.settle()
    assert len(api.read_poll_response(other.receive()[again]).items) == 1

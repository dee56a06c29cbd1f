"""A share of what each peer sends a turn: nobody waits for all that the others have sent."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from queueber import wire
from queueber.server.acknowledged import acknowledged
from queueber.server.intake import SHARE, TURN, Intake, Turns

LONG = 64 * 1024


class Reactor:
    """Turns by hand: what is asked for in a turn comes in the next."""

    def __init__(self):
        self.calls = []

    def callLater(self, seconds, function):  # noqa: N802  (as Twisted names it)
        assert seconds == 0
        self.calls.append(function)

    def turn(self):
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class Sender:
    """A peer; `log` is what was carried out of everybody's, in order."""

    def __init__(self, name, turns, log):
        self.name, self.log = name, log
        self.transport = StringTransport()
        self.intake = Intake(self.transport, turns, self.carry_out)
        self.data = b""

    def carry_out(self, data):
        self.data += data
        self.log.append((self.name, len(data)))

    @property
    def is_read(self):
        return self.transport.producerState == "producing"


@pytest.fixture
def reactor():
    return Reactor()


@pytest.fixture
def senders(reactor):
    turns, log = Turns(reactor), []
    return [Sender(number, turns, log) for number in range(10)]


def test_a_turn_carries_out_so_much_of_long_reads_and_the_rest_waits_unread(reactor, senders):
    for sender in senders:
        sender.intake.received(bytes(LONG))
    log = senders[0].log
    assert log == [(0, LONG)]
    assert [sender.is_read for sender in senders] == [True] + [False] * 9
    reactor.turn()
    assert [name for name, _ in log[1:]] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert {size for _, size in log[1:]} == {SHARE}
    assert 8 * SHARE == TURN
    turns = 1
    while reactor.calls:
        reactor.turn()
        turns += 1
    assert turns == 9 * LONG // TURN
    assert all(sender.is_read and len(sender.data) == LONG for sender in senders)


def test_a_short_read_waits_for_nobody(reactor, senders):
    for sender in senders[1:]:
        sender.intake.received(bytes(LONG))
    senders[0].intake.received(bytes(SHARE))
    assert senders[0].log[-1] == (0, SHARE)


def test_a_turn_of_its_own_for_the_next_long_read(reactor, senders):
    """One busy peer pays nothing for being fair to others."""
    for _ in range(5):
        senders[0].intake.received(bytes(LONG))
        assert senders[0].is_read
        reactor.turn()
    assert not reactor.calls


def test_who_is_held_is_neither_read_nor_carried_out(reactor, senders):
    peer = senders[0]
    peer.intake.hold()
    assert not peer.is_read
    peer.intake.received(b"abc")
    reactor.turn()
    assert not peer.data
    assert len(peer.intake) == 3
    peer.intake.release()
    assert not peer.is_read
    reactor.turn()
    assert peer.data == b"abc"
    assert peer.is_read


def test_who_is_held_in_line_waits_until_it_is_released(reactor, senders):
    for sender in senders:
        sender.intake.received(bytes(LONG))
    peer = senders[9]
    peer.intake.hold()
    for _ in range(20):
        reactor.turn()
    assert not peer.data
    assert not reactor.calls
    peer.intake.release()
    reactor.turn()
    assert peer.is_read
    assert len(peer.data) == LONG


def test_nothing_is_carried_out_for_who_is_gone(reactor, senders):
    for sender in senders:
        sender.intake.received(bytes(LONG))
    senders[9].intake.forget()
    while reactor.calls:
        reactor.turn()
    assert not senders[9].data


STEPS = st.tuples(st.integers(0, 3), st.sampled_from(["read", "hold", "release", "turn"]), st.integers(1, LONG))


@given(st.lists(STEPS))
def test_whatever_happens_all_of_it_is_carried_out_once_and_in_order(steps):
    reactor, log = Reactor(), []
    turns = Turns(reactor)
    senders = [Sender(number, turns, log) for number in range(4)]
    sent = [b""] * 4
    for number, (who, what, size) in enumerate(steps):
        if what == "read":
            data = struct.pack("<I", number) * (size // 4 + 1)
            sent[who] += data
            senders[who].intake.received(data)
        elif what == "hold":
            senders[who].intake.hold()
        elif what == "release":
            senders[who].intake.release()
        else:
            reactor.turn()
    for sender in senders:
        sender.intake.release()
    while reactor.calls:
        reactor.turn()
    assert [sender.data for sender in senders] == sent
    assert all(sender.is_read for sender in senders)


def test_calls_that_wait_in_line_are_answered_in_order_and_their_peer_is_not_given_up(make_hand):
    hand = make_hand(idle_ms=1_000, stalled_message_ms=1_000)
    peers = [hand.connect() for _ in range(4)]
    adds = wire.write_add_request(wire.AddRequest([wire.NewItem(b"x" * 1_000, 0)]))
    for peer in peers:
        peer.send()
        for _ in range(60):
            peer.connection.call(wire.PromisedAnswer(peer._root), wire.QUEUE_INTERFACE_ID, wire.ADD, adds)
    data = [peer.connection.data_to_send() for peer in peers]
    for peer, sent in zip(peers, data, strict=True):
        peer.protocol.dataReceived(sent)
    behind = peers[3].protocol
    assert len(behind._intake) == behind.held_bytes == len(data[3]) > SHARE
    for limit in ("idle_ms", "stalled_message_ms"):
        behind.overdue(limit)
    assert not peers[3].transport.disconnecting
    hand.settle()
    assert all(len(peer.receive()) == 61 for peer in peers)
    assert not behind._intake


def test_a_slow_reader_is_not_one_who_reads_nothing(hand, monkeypatch):
    """Progress is what the peer's system has acknowledged, though the transport is never empty meanwhile."""
    told = iter([100, 200, 200])
    monkeypatch.setattr("queueber.server.protocol.acknowledged", lambda _: next(told))
    peer = hand.connect()
    peer.protocol._replies.pauseProducing()
    hand.reactor.advance(30)
    hand.connections.patience.look()
    assert not peer.transport.disconnecting
    assert not peer.aborted
    hand.reactor.advance(30)
    hand.connections.patience.look()
    assert peer.aborted


def test_a_full_transport_counts_as_held(hand):
    peer = hand.connect()
    peer.protocol._replies.pauseProducing()
    assert peer.protocol.held_bytes == 128 * 1024
    peer.protocol._replies.resumeProducing()
    assert peer.protocol.held_bytes == 0


class OverSocket:
    def __init__(self, made):
        self.socket = made


def test_what_the_peers_system_has_taken_is_told_by_tcp():
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as one:
        other, _ = listening.accept()
        with other:
            before = acknowledged(OverSocket(one))
            one.sendall(b"x" * 1_000)
            other.recv(1_000, socket.MSG_WAITALL)
            # The system acknowledges by itself, within some milliseconds.
            while acknowledged(OverSocket(one)) == before:
                pass
            assert acknowledged(OverSocket(one)) - before == 1_000


def test_what_cannot_be_told_is_not_told(monkeypatch):
    assert acknowledged(StringTransport()) is None
    one, other = socket.socketpair()
    with one, other:
        assert acknowledged(OverSocket(one)) is None
    with socket.socket() as closed:
        pass
    monkeypatch.setattr(type(closed), "family", socket.AF_INET, raising=False)
    assert acknowledged(OverSocket(closed)) is None


def test_the_clock_of_a_server_is_the_one_that_turns():
    clock = Clock()
    sender = Sender(0, Turns(clock), [])
    sender.intake.received(bytes(TURN + 1))
    assert not sender.data
    clock.advance(0)
    assert len(sender.data) == TURN + 1

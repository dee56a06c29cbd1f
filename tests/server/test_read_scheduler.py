"""A share of what each peer sends a turn: nobody waits for all that the others have sent."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from queueber import api, rpc
from queueber.server.net.inbound_buffer import InboundBuffer
from queueber.server.net.read_scheduler import SHARE, SHARE_MIN, TURN, TURN_SECONDS, ReadScheduler
from queueber.server.net.send_buffer import bytes_acked

LONG = 64 * 1024


class Reactor:
    """Turns by hand: what is asked for in a turn comes in the next.  Time passes only where somebody says so."""

    def __init__(self):
        self.calls = []
        self.now = 0.0

    def seconds(self):
        return self.now

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
        self.cost = lambda data: None
        self.transport = StringTransport()
        self.inbound = InboundBuffer(self.transport, turns, self.carry_out)
        self.data = b""

    def carry_out(self, data):
        self.data += data
        self.log.append((self.name, len(data)))
        self.cost(data)

    @property
    def is_read(self):
        return self.transport.producerState == "producing"


@pytest.fixture
def reactor():
    return Reactor()


@pytest.fixture
def senders(reactor):
    turns, log = ReadScheduler(reactor, reactor.seconds), []
    return [Sender(number, turns, log) for number in range(10)]


def test_a_turn_carries_out_so_much_and_the_rest_waits_unread(reactor, senders):
    for sender in senders:
        sender.inbound.receive(bytes(LONG))
    log = senders[0].log
    assert log == [(0, LONG)]
    assert [sender.is_read for sender in senders] == [True] + [False] * 9
    reactor.turn()
    assert [name for name, _ in log[1:]] == [1, 2, 3, 1, 4, 5, 6, 2, 7, 8], "every fourth share is somebody's next one"
    assert sum(size for _, size in log[1:]) >= TURN
    while reactor.calls:
        reactor.turn()
    assert all(sender.is_read and len(sender.data) == LONG for sender in senders)


def test_while_nobody_waits_what_comes_is_carried_out_as_it_is_read(reactor, senders):
    """A call costs no turn of the reactor's, and not even a timer."""
    for sender in senders:
        sender.inbound.receive(bytes(100))
        assert len(sender.data) == 100
    assert not reactor.calls


def test_short_reads_count_too_and_wait_when_the_turn_is_over(reactor, senders):
    most = TURN // SHARE
    for sender in senders:
        sender.inbound.receive(bytes(SHARE))
    assert [bool(sender.data) for sender in senders] == [True] * most + [False] * 2
    reactor.turn()
    assert all(len(sender.data) == SHARE for sender in senders)


def test_a_turn_is_over_after_so_long_however_few_bytes_it_was(reactor, senders):
    """A byte of one kind of message costs ten times as much as one of another."""
    for sender in senders:
        sender.cost = lambda _: setattr(reactor, "now", reactor.now + 0.6 * TURN_SECONDS)
        sender.inbound.receive(b"dear")
    assert [bool(sender.data) for sender in senders] == [True] * 2 + [False] * 8
    for served in (4, 6, 8, 10):
        reactor.turn()
        assert [bool(sender.data) for sender in senders] == [True] * served + [False] * (10 - served)
    reactor.turn()
    assert not reactor.calls


def test_what_was_spent_in_turns_long_over_is_not_held_against_anybody(reactor, senders):
    peer = senders[0]
    peer.cost = lambda _: setattr(reactor, "now", reactor.now + TURN_SECONDS / 3)
    for number in range(20):
        peer.inbound.receive(b"call")
        assert len(peer.data) == 4 * (number + 1)
        reactor.turn()


def test_a_call_waits_for_a_share_of_each_flood_and_not_for_all_that_they_send(reactor):
    """Thousands of peers with a little each: a healthy one's call is behind one small share of each, and no more."""
    turns, log = ReadScheduler(reactor, reactor.seconds), []
    crowd = [Sender(number, turns, log) for number in range(500)]
    healthy = Sender("healthy", turns, log)
    for sender in crowd:
        sender.inbound.receive(bytes(SHARE))
    healthy.inbound.receive(b"call")
    before = len(log)
    while not healthy.data:
        reactor.turn()
    carried_out = sum(size for _, size in log[before : log.index(("healthy", 4))])
    assert carried_out <= 500 * SHARE_MIN * 4 / 3
    while len(log) < before + 2_000:
        reactor.turn()
    # By now all of them want more, and it does not: its next call comes before theirs.
    before = len(log)
    healthy.inbound.receive(b"call")
    reactor.turn()
    assert [name for name, _ in log[before : before + 2]].count("healthy") == 1


def test_who_wants_more_gets_on_beside_those_who_keep_joining(reactor):
    turns, log = ReadScheduler(reactor, reactor.seconds), []
    crowd = [Sender(number, turns, log) for number in range(200)]
    busy = Sender("busy", turns, log)
    busy.inbound.receive(bytes(LONG))
    busy.inbound.receive(bytes(LONG))
    for _ in range(100):
        for sender in crowd:
            if not sender.inbound.waiting:
                sender.inbound.receive(bytes(SHARE_MIN))
        reactor.turn()
    assert len(busy.data) == 2 * LONG


def test_a_turn_of_its_own_for_the_next_long_read(reactor, senders):
    """One busy peer pays nothing for being fair to others."""
    for _ in range(5):
        senders[0].inbound.receive(bytes(LONG))
        assert senders[0].is_read
        reactor.turn()
    assert not reactor.calls


def test_who_is_held_is_neither_read_nor_carried_out(reactor, senders):
    peer = senders[0]
    peer.inbound.hold()
    assert not peer.is_read
    peer.inbound.receive(b"abc")
    reactor.turn()
    assert not peer.data
    assert len(peer.inbound.waiting) == 3
    peer.inbound.release()
    assert peer.is_read
    assert not peer.data
    reactor.turn()
    assert peer.data == b"abc"


def test_who_is_held_in_line_waits_until_it_is_released(reactor, senders):
    for sender in senders:
        sender.inbound.receive(bytes(LONG))
    peer = senders[9]
    peer.inbound.hold()
    for _ in range(20):
        reactor.turn()
    assert not peer.data
    assert not reactor.calls
    peer.inbound.release()
    reactor.turn()
    assert peer.is_read
    assert len(peer.data) == LONG


def test_nothing_is_carried_out_for_who_is_gone(reactor, senders):
    for sender in senders:
        sender.inbound.receive(bytes(LONG))
    senders[9].inbound.stop()
    while reactor.calls:
        reactor.turn()
    assert not senders[9].data


def test_who_is_gone_is_read_on_so_that_its_end_is_noticed(senders):
    peer = senders[0]
    peer.inbound.hold()
    peer.inbound.receive(b"abc")
    peer.inbound.stop()
    assert (peer.is_read, len(peer.inbound.waiting), peer.data) == (True, 0, b"")


STEPS = st.tuples(st.integers(0, 3), st.sampled_from(["read", "hold", "release", "turn"]), st.integers(1, LONG))


@given(st.lists(STEPS))
def test_whatever_happens_all_of_it_is_carried_out_once_and_in_order(steps):
    reactor, log = Reactor(), []
    turns = ReadScheduler(reactor, reactor.seconds)
    senders = [Sender(number, turns, log) for number in range(4)]
    sent = [b""] * 4
    for number, (who, what, size) in enumerate(steps):
        if what == "read":
            data = struct.pack("<I", number) * (size // 4 + 1)
            sent[who] += data
            senders[who].inbound.receive(data)
        elif what == "hold":
            senders[who].inbound.hold()
        elif what == "release":
            senders[who].inbound.release()
        else:
            reactor.turn()
    for sender in senders:
        sender.inbound.release()
    while reactor.calls:
        reactor.turn()
    assert [sender.data for sender in senders] == sent
    assert all(sender.is_read for sender in senders)


def test_calls_that_wait_in_line_are_answered_in_order_and_their_peer_is_not_given_up(make_hand):
    hand = make_hand(idle_ms=1_000, stalled_message_ms=1_000)
    peers = [hand.connect() for _ in range(4)]
    adds = api.write_add_request(api.AddRequest([api.NewItem(b"x" * 1_000, 0)]))
    for peer in peers:
        peer.send()
        for _ in range(60):
            peer.connection.call(rpc.PromisedAnswer(peer._root), api.QUEUE_INTERFACE_ID, api.ADD, adds)
    data = [peer.connection.data_to_send() for peer in peers]
    for peer, sent in zip(peers, data, strict=True):
        peer.protocol.dataReceived(sent)
    behind = peers[3].protocol
    assert len(behind._inbound.waiting) == behind.held_bytes == len(data[3]) > SHARE
    for limit in ("idle_ms", "stalled_message_ms"):
        behind.on_timeout(limit)
    assert not peers[3].transport.disconnecting
    hand.settle()
    assert all(len(peer.receive()) == 61 for peer in peers)
    assert not behind._inbound.waiting


def test_a_slow_reader_is_not_one_who_reads_nothing(hand, monkeypatch):
    """Progress is what the peer's system has acknowledged, though the transport is never empty meanwhile."""
    told = iter([100, 200, 200])
    monkeypatch.setattr("queueber.server.net.send_buffer.bytes_acked", lambda _, given: next(told))
    peer = hand.connect()
    peer.protocol._send_buffer.pauseProducing()
    hand.reactor.advance(30)
    hand.connections.timeouts.expire()
    assert not peer.transport.disconnecting
    assert not peer.aborted
    hand.reactor.advance(30)
    hand.connections.timeouts.expire()
    assert peer.aborted


def test_a_full_transport_counts_as_held(hand):
    peer = hand.connect()
    peer.protocol._send_buffer.pauseProducing()
    assert peer.protocol.held_bytes == 128 * 1024
    peer.protocol._send_buffer.resumeProducing()
    assert peer.protocol.held_bytes == 0


class OverSocket:
    dataBuffer, offset = b"", 0  # noqa: N815  (as Twisted names it)

    def __init__(self, made):
        self.socket = made


def test_what_a_peer_on_a_unix_socket_has_taken_is_told_by_what_is_under_way():
    one, other = socket.socketpair()
    with one, other:
        transport = OverSocket(one)
        assert bytes_acked(transport, 0) == 0
        one.sendall(b"x" * 1_000)
        transport.dataBuffer, transport.offset = b"y" * 700, 200
        given = 1_000 + 500
        before = bytes_acked(transport, given)
        assert before <= 0
        other.recv(1_000, socket.MSG_WAITALL)
        assert bytes_acked(transport, given) == 1_000


def test_what_the_peers_system_has_taken_is_told_by_tcp():
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as one:
        other, _ = listening.accept()
        with other:
            before = bytes_acked(OverSocket(one), 0)
            one.sendall(b"x" * 1_000)
            other.recv(1_000, socket.MSG_WAITALL)
            # The system acknowledges by itself, within some milliseconds.
            while bytes_acked(OverSocket(one), 0) == before:
                pass
            assert bytes_acked(OverSocket(one), 0) - before == 1_000


def test_what_cannot_be_told_is_not_told(monkeypatch):
    assert bytes_acked(StringTransport(), 0) is None
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other:
        assert bytes_acked(OverSocket(other), 0) is None
    one, other = socket.socketpair()
    other.close()
    one.close()
    assert bytes_acked(OverSocket(one), 0) is None
    with socket.socket() as closed:
        pass
    monkeypatch.setattr(type(closed), "family", socket.AF_INET, raising=False)
    assert bytes_acked(OverSocket(closed), 0) is None


def test_the_clock_of_a_server_is_the_one_that_turns():
    clock = Clock()
    sender = Sender(0, ReadScheduler(clock, clock.seconds), [])
    sender.inbound.receive(bytes(TURN))
    sender.inbound.receive(bytes(10))
    assert len(sender.data) == TURN
    clock.advance(0)
    assert len(sender.data) == TURN + 10


def test_a_call_waits_for_a_few_of_each_of_many_others_and_not_for_all(hand):
    """The whole server, and calls in place of bytes: those of others that are decided before mine."""
    remove = api.write_remove_request(api.RemoveRequest(bytes(16), bytes(16)))
    crowd, each = [hand.connect() for _ in range(100)], 40
    mine = hand.connect()
    for peer in (*crowd, mine):
        peer.send()
    hand.settle()
    for peer in crowd:
        for _ in range(each):
            peer.connection.call(rpc.PromisedAnswer(peer._root), api.QUEUE_INTERFACE_ID, api.REMOVE, remove)
        data = peer.connection.data_to_send()
        assert len(data) <= SHARE
        peer.protocol.dataReceived(data)
    mine.add()
    decided = []
    add = api.QUEUE_INTERFACE_ID, api.ADD
    name, call = hand.methods._handlers[add]
    note = lambda *args: decided.append(hand.methods.stats.begun["remove"]) or call(*args)  # noqa: E731
    hand.methods._handlers[add] = name, note
    hand.settle()
    assert hand.methods.stats.begun["remove"] == 100 * each
    of_each = SHARE_MIN * each / len(data)
    # Those of the first turn, which nobody had to wait for; and every fourth share is somebody's second one.
    assert decided[0] <= TURN / len(data) * each + 100 * (of_each + 1) * 4 / 3
    assert decided[0] < 100 * each / 2

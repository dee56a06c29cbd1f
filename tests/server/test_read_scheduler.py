"""Fair shares of input: no connection waits for everything that the others have sent."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from queueber import api
from queueber.server.net.inbound_buffer import InboundBuffer
from queueber.server.net.read_scheduler import READ_TURN_SECONDS, SHARE, SHARE_MIN, TURN, ReadScheduler
from tests.server.conftest import Reactor

LONG = 64 * 1024


class Sender:
    """A peer; `log` lists what was processed of all peers, in order."""

    def __init__(self, name, scheduler, log):
        self.name, self.log = name, log
        self.cost = lambda data: None
        self.transport = StringTransport()
        self.inbound = InboundBuffer(self.transport, scheduler, self.process, lambda: self.missing)
        self.missing = 0
        self.data = b""

    def process(self, data):
        self.data += data
        self.log.append((self.name, len(data)))
        self.cost(data)

    @property
    def is_read(self):
        return self.transport.producerState == "producing"


@pytest.fixture
def senders(reactor):
    scheduler, log = ReadScheduler(reactor, reactor.seconds), []
    return [Sender(number, scheduler, log) for number in range(10)]


def test_a_turn_processes_a_bounded_number_of_bytes_and_the_rest_is_not_read(reactor, senders):
    for sender in senders:
        sender.inbound.receive(bytes(LONG))
    log = senders[0].log
    assert log == [(0, LONG)]
    assert [sender.is_read for sender in senders] == [True] + [False] * 9
    reactor.turn()
    assert [name for name, _ in log[1:]] == [1, 2, 3, 1, 4, 5, 6, 2, 7, 8], (
        "every fourth share goes to a peer that has had one"
    )
    assert sum(size for _, size in log[1:]) >= TURN
    while reactor.calls:
        reactor.turn()
    assert all(sender.is_read and len(sender.data) == LONG for sender in senders)


def test_the_rest_of_a_message_is_processed_in_one_share_however_long_it_is(reactor, senders):
    """The bytes are only copied until the last one has come."""
    first, second, third = senders[:3]
    first.inbound.receive(bytes(LONG))
    second.missing = 5 * SHARE
    second.inbound.receive(bytes(LONG))
    third.inbound.receive(bytes(LONG))
    reactor.turn()
    assert first.log[1:3] == [(1, 5 * SHARE), (2, SHARE)]


def test_while_no_connection_waits_input_is_processed_as_it_is_read(reactor, senders):
    """A call costs no additional reactor turn, and not even a timer."""
    for sender in senders:
        sender.inbound.receive(bytes(100))
        assert len(sender.data) == 100
    assert not reactor.calls


def test_short_reads_count_too_and_wait_when_the_budget_is_used_up(reactor, senders):
    most = TURN // SHARE
    for sender in senders:
        sender.inbound.receive(bytes(SHARE))
    assert [bool(sender.data) for sender in senders] == [True] * most + [False] * 2
    reactor.turn()
    assert all(len(sender.data) == SHARE for sender in senders)


def test_a_turn_ends_when_its_time_is_used_up_however_few_bytes_it_processed(reactor, senders):
    """A byte of one kind of message costs ten times as much as one of another."""
    for sender in senders:
        sender.cost = lambda _: setattr(reactor, "now", reactor.now + 0.6 * READ_TURN_SECONDS)
        sender.inbound.receive(b"slow")
    assert [bool(sender.data) for sender in senders] == [True] * 2 + [False] * 8
    for served in (4, 6, 8, 10):
        reactor.turn()
        assert [bool(sender.data) for sender in senders] == [True] * served + [False] * (10 - served)
    reactor.turn()
    assert not reactor.calls


def test_time_spent_in_earlier_turns_does_not_count(reactor, senders):
    peer = senders[0]
    peer.cost = lambda _: setattr(reactor, "now", reactor.now + READ_TURN_SECONDS / 3)
    for number in range(20):
        peer.inbound.receive(b"call")
        assert len(peer.data) == 4 * (number + 1)
        reactor.turn()


def test_a_call_waits_for_one_share_of_each_flood_and_not_for_all_of_it(reactor):
    """Thousands of peers send a little each: a call waits for one small share of each at most."""
    scheduler, log = ReadScheduler(reactor, reactor.seconds), []
    others = [Sender(number, scheduler, log) for number in range(500)]
    healthy = Sender("healthy", scheduler, log)
    for sender in others:
        sender.inbound.receive(bytes(SHARE))
    healthy.inbound.receive(b"call")
    before = len(log)
    while not healthy.data:
        reactor.turn()
    processed = sum(size for _, size in log[before : log.index(("healthy", 4))])
    assert processed <= 500 * SHARE_MIN * 4 / 3
    while len(log) < before + 2_000:
        reactor.turn()
    # By now all of them have had a share and have more, so a new call comes first.
    before = len(log)
    healthy.inbound.receive(b"call")
    reactor.turn()
    assert [name for name, _ in log[before : before + 2]].count("healthy") == 1


def test_a_connection_with_more_input_advances_while_others_keep_joining(reactor):
    scheduler, log = ReadScheduler(reactor, reactor.seconds), []
    others = [Sender(number, scheduler, log) for number in range(200)]
    busy = Sender("busy", scheduler, log)
    busy.inbound.receive(bytes(LONG))
    busy.inbound.receive(bytes(LONG))
    for _ in range(100):
        for sender in others:
            if not sender.inbound.waiting:
                sender.inbound.receive(bytes(SHARE_MIN))
        reactor.turn()
    assert len(busy.data) == 2 * LONG


def test_the_next_long_read_gets_a_turn_of_its_own(reactor, senders):
    """One busy peer alone pays nothing for fairness."""
    for _ in range(5):
        senders[0].inbound.receive(bytes(LONG))
        assert senders[0].is_read
        reactor.turn()
    assert not reactor.calls


def test_a_held_connection_is_neither_read_nor_processed(reactor, senders):
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


def test_a_connection_held_in_the_queue_waits_until_it_is_released(reactor, senders):
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


def test_nothing_is_processed_for_a_stopped_connection(reactor, senders):
    for sender in senders:
        sender.inbound.receive(bytes(LONG))
    senders[9].inbound.stop()
    while reactor.calls:
        reactor.turn()
    assert not senders[9].data


def test_a_stopped_connection_is_still_read_so_that_its_end_is_noticed(senders):
    peer = senders[0]
    peer.inbound.hold()
    peer.inbound.receive(b"abc")
    peer.inbound.stop()
    assert (peer.is_read, len(peer.inbound.waiting), peer.data) == (True, 0, b"")


STEPS = st.tuples(st.integers(0, 3), st.sampled_from(["read", "hold", "release", "turn"]), st.integers(1, LONG))


@given(st.lists(STEPS))
def test_everything_is_processed_once_and_in_order(steps):
    reactor, log = Reactor(), []
    scheduler = ReadScheduler(reactor, reactor.seconds)
    senders = [Sender(number, scheduler, log) for number in range(4)]
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


def test_queued_calls_are_answered_in_order_and_do_not_time_out(make_server):
    server = make_server(idle_ms=1_000, stalled_message_ms=1_000)
    peers = [server.connect() for _ in range(4)]
    adds = api.write_add_request(api.AddRequest([api.NewItem(b"x" * 1_000, 0)]))
    for peer in peers:
        peer.send()
        for _ in range(60):
            peer.connection.call(peer.root, api.QUEUE_INTERFACE_ID, api.ADD, adds)
    data = [peer.connection.data_to_send() for peer in peers]
    for peer, sent in zip(peers, data, strict=True):
        peer.protocol.dataReceived(sent)
    last = peers[3].protocol
    assert last.held_bytes == len(data[3]) > SHARE
    for limit in ("idle_ms", "stalled_message_ms"):
        last.on_timeout(limit)
    assert not peers[3].transport.disconnecting
    server.settle()
    assert all(len(peer.receive()) == 61 for peer in peers)
    assert last.held_bytes < len(data[3]), "only the answers are held, until the peer sends Finish"


def test_a_slow_reader_does_not_time_out_and_one_that_reads_nothing_does(server, monkeypatch):
    """Acknowledged bytes are progress, even if the transport is never empty."""
    acked = iter([100, 200, 200])
    monkeypatch.setattr("queueber.server.net.send_buffer.bytes_acked", lambda _, given: next(acked))
    peer = server.connect()
    peer.stop_reading()
    server.reactor.advance(30)
    server.connections.timeouts.expire()
    assert not peer.transport.disconnecting
    assert not peer.aborted
    server.reactor.advance(30)
    server.connections.timeouts.expire()
    assert peer.aborted


def test_a_full_transport_counts_as_held(server):
    peer = server.connect()
    peer.stop_reading()
    assert peer.protocol.held_bytes == 128 * 1024
    peer.read_on()
    assert peer.protocol.held_bytes == 0


def test_a_turn_is_scheduled_on_a_clock():
    clock = Clock()
    sender = Sender(0, ReadScheduler(clock, clock.seconds), [])
    sender.inbound.receive(bytes(TURN))
    sender.inbound.receive(bytes(10))
    assert len(sender.data) == TURN
    clock.advance(0)
    assert len(sender.data) == TURN + 10


def test_a_call_waits_for_a_few_calls_of_each_other_connection_and_not_for_all(server, monkeypatch):
    """A connection waits for a bounded number of the calls of others, in the whole server."""
    remove = api.write_remove_request(api.RemoveRequest(bytes(16), bytes(16)))
    others, each = [server.connect() for _ in range(100)], 40
    mine = server.connect()
    for peer in (*others, mine):
        peer.send()
    server.settle()
    for peer in others:
        for _ in range(each):
            peer.connection.call(peer.root, api.QUEUE_INTERFACE_ID, api.REMOVE, remove)
        data = peer.connection.data_to_send()
        assert len(data) <= SHARE
        peer.protocol.dataReceived(data)
    mine.add()
    decided, add = [], server.broker.add
    note = lambda *args: decided.append(server.handlers.stats.begun["remove"]) or add(*args)  # noqa: E731
    monkeypatch.setattr(server.broker, "add", note)
    server.settle()
    assert server.handlers.stats.begun["remove"] == 100 * each
    of_each = SHARE_MIN * each / len(data)
    # The calls of the first turn, and every fourth share goes to a peer that has had one.
    assert decided[0] <= TURN / len(data) * each + 100 * (of_each + 1) * 4 / 3
    assert decided[0] < 100 * each / 2

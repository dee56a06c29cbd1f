"""
Every limit on peers, hit once: the consequence for the peer, the reason it gets, and the count.

Some limits are set below the range of their option, which `tests/test_limits.py`
tests.  The code compares with any figure, so a small one is hit in the same
place, with fewer bytes.
"""

from struct import pack

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs

from queueber import api
from queueber.broker.storage import PutLease
from queueber.capnp.layout import layout
from queueber.errors import Kind
from queueber.limits import PEER_LIMITS, Consequence, Limits
from queueber.rpc import encoder
from queueber.server.core.commit_batch import PLAN_BYTES
from queueber.server.net.connections import Connections
from queueber.server.net.protocol import RpcProtocol
from queueber.server.net.timeouts import CHECK_SECONDS, FIRST_MESSAGE, PeerTimeouts
from queueber.server.net.tls import PendingConnection
from queueber.units import SpanMs
from tests.server.conftest import Peer

ROOT = api.QUEUE_INTERFACE_ID
PROVOKERS = {}


def provokes(name, **limits):
    """Register the decorated function as the one that hits the limit *name*, on a server with *limits*."""

    def remember(function):
        PROVOKERS[name] = (function, limits)
        return function

    return remember


def refused(peer, question, kind, *words):
    peer.server.settle()
    outcome = peer.receive()[question]
    assert outcome.kind == kind
    if kind is Kind.OVERLOADED:
        peer.overloaded = outcome.reason
    for word in words:
        assert word in outcome.reason


def aborted(peer, *words):
    sent = peer.transport.value()
    for word in words:
        assert word.encode() in sent
    assert peer.transport.disconnecting or peer.aborted


def wait(peer, seconds):
    peer.server.reactor.advance(seconds + CHECK_SECONDS)
    peer.server.connections.timeouts.expire()


@provokes("frame_bytes", frame_bytes=1024)
def a_long_message(peer):
    peer.protocol.dataReceived(pack("<II", 0, 128))
    aborted(peer, "1,032", "1,024")


@provokes("segments", segments=4)
def a_message_in_many_pieces(peer):
    peer.protocol.dataReceived(pack("<II", 4, 1))
    aborted(peer, "5 segments", "limit is 4")


@provokes("traversal_factor", traversal_factor=1)
def a_message_read_many_times_over(peer):
    peer.send()
    content = bytearray(api.write_remove_request(api.RemoveRequest(b"i" * 400, b"l" * 16)))
    # Both fields of the request point to the same bytes.
    words = [int.from_bytes(content[at : at + 8], "little") for at in range(0, len(content), 8)]
    first = next(at for at, word in enumerate(words) if word & 3 == 1)
    content[first * 8 + 8 : first * 8 + 16] = (words[first] - (1 << 2)).to_bytes(8, "little")
    peer.call(api.REMOVE, bytes(content))
    aborted(peer, "than 1 times its length (traversal_factor)")


@provokes("items_per_add", items_per_add=2)
def an_add_of_many_items(peer):
    refused(peer, peer.add(b"", b"", b""), Kind.FAILED, "items is 3", "limit is 2")


@provokes("contents_bytes", contents_bytes=2)
def an_item_that_is_large(peer):
    refused(peer, peer.add(b"", b"abc"), Kind.FAILED, "items[1].contents is 3 bytes", "limit is 2")


@provokes("add_bytes", add_bytes=3)
def an_add_that_is_large_in_all(peer):
    refused(peer, peer.add(b"ab", b"cd"), Kind.FAILED, "items[1] is 4 bytes", "limit is 3")


@provokes("poll_items", poll_items=1)
def a_poll_for_many_items(peer):
    peer.add(b"a", b"b")
    assert len(peer.polled(2).items) == 1


@provokes("poll_bytes", poll_bytes=3)
def a_poll_of_large_items(peer):
    peer.add(b"abcd", b"b")
    assert [item.contents for item in peer.polled(2).items] == [b"abcd"]


@provokes("lease_ms", lease_ms=1000)
def a_long_lease(peer):
    refused(peer, peer.poll(lease=1001), Kind.FAILED, "leaseValidityMs is 1,001 ms", "limit is 1,000")
    content = layout("Queue.poll$Params").build(req={"leaseValiditySecs": 2})
    refused(peer, peer.call(api.POLL, content), Kind.FAILED, "leaseValiditySecs is 2,000 ms")
    content = layout("Queue.extend$Params").build(req={"lease": bytes(16), "leaseValiditySecs": 2})
    refused(peer, peer.call(api.EXTEND, content), Kind.FAILED, "leaseValiditySecs is 2,000 ms")


@provokes("delay_ms", delay_ms=1000)
def a_long_delay(peer):
    request = api.AddRequest([api.NewItem(b"", SpanMs(1000)), api.NewItem(b"", SpanMs(1001))])
    question = peer.call(api.ADD, api.write_add_request(request))
    refused(peer, question, Kind.FAILED, "items[1].visibilityTimeoutMs is 1,001 ms", "limit is 1,000")
    content = layout("Queue.add$Params").build(req={"items": [{"visibilityTimeoutSecs": 2}]})
    refused(peer, peer.call(api.ADD, content), Kind.FAILED, "items[0].visibilityTimeoutSecs is 2,000 ms")


@provokes("wait_ms", wait_ms=1000)
def a_long_wait(peer):
    poll = peer.poll(wait=5000)
    peer.server.settle()
    peer.server.reactor.advance(1.1)
    peer.server.settle()
    assert api.read_poll_response(peer.receive()[poll]).items == []


@provokes("outstanding_calls", outstanding_calls=2)
def many_calls(peer):
    peer.poll(), peer.poll()
    refused(peer, peer.poll(), Kind.OVERLOADED, "are 2 already", "limit is 2")


@provokes("open_answers", open_answers=2)
def many_answers_that_are_not_finished(peer):
    peer.add(), peer.add()
    aborted(peer, "2 answers", "limit is 2")


@provokes("exports", exports=2)
def many_queues_of_one_peer(peer):
    for name in "ab":
        question = peer.call_broker(api.QUEUE, api.write_queue_request(name))
    refused(peer, question, Kind.OVERLOADED, "would be 3", "limit is 2")


@provokes("request_bytes", request_bytes=1)
def adds_faster_than_the_disk(peer):
    first = peer.add(b"a" * 100)
    refused(peer, peer.add(b"b" * 100), Kind.OVERLOADED, "bytes; the limit is 1")
    assert len(api.read_add_response(peer.outcomes[first]).ids) == 1
    assert peer.request_bytes == 0


@provokes("unsent_bytes", unsent_bytes=10)
def replies_that_are_not_taken(peer):
    peer.stop_reading()
    peer.add(b"a")
    peer.server.settle()
    assert peer.transport.producerState == "paused"


@provokes("first_message_ms", first_message_ms=1000)
def silence_from_the_start(peer):
    peer.protocol.dataReceived(b"\0\0\0")
    wait(peer, 1)
    aborted(peer, "no complete message within 1 s")


@provokes("stalled_message_ms", stalled_message_ms=1000)
def half_a_message(peer):
    peer.send()
    peer.protocol.dataReceived(b"\0\0\0")
    wait(peer, 0.5)
    assert not peer.transport.disconnecting
    peer.protocol.dataReceived(b"\0")
    wait(peer, 0.5)
    assert not peer.transport.disconnecting
    wait(peer, 1)
    aborted(peer, "a message is incomplete: no data for 1 s")


@provokes("stalled_replies_ms", stalled_replies_ms=1000)
def replies_that_never_drain(peer):
    peer.send()
    peer.stop_reading()
    wait(peer, 0.5)
    assert not peer.aborted
    wait(peer, 1)
    assert peer.aborted


@provokes("idle_ms", idle_ms=1000)
def an_idle_connection(peer):
    poll = peer.poll()
    wait(peer, 2)
    assert not peer.transport.disconnecting
    peer.connection.finish(poll)
    peer.send()
    peer.server.settle()
    wait(peer, 2)
    aborted(peer, "no data for 1 s")


@provokes("session_silence_ms", session_silence_ms=1_000)
def a_session_without_pings(peer):
    peer.attach()
    wait(peer, 1.5)
    wait(peer, 0.5)
    aborted(peer, "with a session attached, no data for 1 s")


@provokes("connections", connections=3)
def many_connections(peer):
    peer.send()
    silent = peer.server.connect()
    peer.server.connect().send()
    assert silent.aborted, "a connection without a message is evicted"
    silent.protocol.connectionLost()
    assert peer.server.factory.buildProtocol(None) is None


@provokes("connections_per_peer", connections_per_peer=1)
def many_connections_of_one(peer):
    class Address:
        host = "192.0.2.1"

    factory = peer.server.factory
    first = factory.buildProtocol(Address())
    first.makeConnection(StringTransport())
    assert factory.buildProtocol(Address()) is None
    assert factory.buildProtocol(None) is not None
    first.connectionLost()
    assert factory.buildProtocol(Address()) is not None


@provokes("handshakes", handshakes=1)
def many_handshakes(peer):
    transports = [StringTransport(), StringTransport()]
    ended = []
    for transport in transports:
        pending = PendingConnection(peer.server.factory, None)
        transport.abortConnection = lambda each=transport: ended.append(each)
        pending.makeConnection(transport)
    assert ended == transports[:1], "the oldest is abandoned"


@provokes("pending_bytes", pending_bytes=10)
def adds_of_all_faster_than_the_disk(peer):
    peer.add(b"a")
    refused(peer, peer.server.connect() and peer.add(b"b"), Kind.OVERLOADED, "hold 1,153 bytes", "limit is 10")


@provokes("buffered_bytes", buffered_bytes=2_000)
def much_that_is_held_for_all(peer):
    peer.send()
    modest = peer.server.connect()
    modest.send()
    modest.protocol.dataReceived(pack("<II", 0, 1_000) + bytes(700))
    peer.protocol.dataReceived(pack("<II", 0, 1_000) + bytes(1_400))
    assert peer.aborted
    assert not modest.transport.disconnecting
    assert peer.server.connections.memory.total == 708


@provokes("waiting_polls", waiting_polls=1)
def many_polls_that_wait(peer):
    peer.poll()
    refused(peer, peer.poll(), Kind.OVERLOADED, "1 waits already", "limit is 1")


@provokes("sessions", sessions=1)
def many_sessions(peer):
    peer.attach()
    refused(peer, peer.attach(b"t" * 16), Kind.OVERLOADED, "sessions: 1 exists", "limit is 1")


@provokes("leased_items", leased_items=1)
def many_items_under_lease(peer):
    peer.add(b"a")
    peer.poll()
    peer.server.settle()
    refused(peer, peer.poll(), Kind.OVERLOADED, "there are 1", "limit is 1")


@provokes("queues", queues=0)
def many_queues(peer):
    refused(peer, peer.add(b"a"), Kind.OVERLOADED, "0 exist", "limit is 0")


@pytest.mark.parametrize("name", [limit.name for limit in PEER_LIMITS])
def test_a_hit_is_reported_to_its_peer_and_counted_and_affects_no_other(make_server, name):
    provoke, limits = PROVOKERS[name]
    server = make_server(**limits)
    other = server.connect()
    other.send()
    if name == "idle_ms":
        other.poll()
    peer = server.connect()
    provoke(peer)
    assert set(server.connections.limit_hits) == {name}
    consequence = next(limit for limit in PEER_LIMITS if limit.name == name).consequence
    if consequence is Consequence.OVERLOADED:
        assert f"({name})" in peer.overloaded, "the reason names the option"
    assert server.connections.limit_hits[name] >= 1
    server.settle()
    question = other.add()
    server.settle()
    assert api.read_add_response(other.receive()[question]).ids == []
    assert not (other.aborted or other.transport.disconnecting)
    assert not server.deaths


def test_empty_adds_and_large_extends_are_charged_their_cost(make_server):
    """Both are a hundred bytes on the wire."""
    server = make_server(request_bytes=2_000)
    peer = server.connect()
    peer.add(*[b""] * 10)
    assert peer.request_bytes == 2_560
    refused(peer, peer.add(b""), Kind.OVERLOADED, "limit is 2,000")
    peer.add(*[b"x"] * 10)
    lease = peer.polled(200).lease
    extends = [peer.extend(lease, 5_000) for _ in range(6)]
    server.settle()
    outcomes = peer.receive()
    assert [getattr(outcomes[each], "kind", None) for each in extends] == [None] * 4 + [Kind.OVERLOADED] * 2
    assert peer.request_bytes == 0


def test_an_add_of_many_small_items_is_refused_for_what_its_items_count(make_server):
    """The message alone would fit."""
    server = make_server(request_bytes=2_000)
    peer = server.connect()
    peer.add(b"")
    large = peer.add(*[b""] * 10)
    assert peer.request_bytes == 256
    refused(peer, large, Kind.OVERLOADED, "would be 2,816 bytes", "limit is 2,000")


def test_a_lease_that_is_extended_several_times_is_written_once_per_commit(server):
    peer = server.connect()
    peer.add(b"a")
    lease = peer.polled().lease
    written = []
    commit = server.store.commit
    server.store.commit = lambda writes, mark: written.append(writes) or commit(writes, mark)
    for span in (5_000, 6_000, 7_000):
        peer.extend(lease, span)
    server.settle()
    (writes,) = written
    (write,) = [each for each in writes if type(each) is PutLease]
    assert write.record.deadline - server.clock.now() > 6_900


def test_a_lease_that_is_extended_in_several_commits_counts_in_each(server):
    peer = server.connect()
    peer.add(b"a")
    lease = peer.polled().lease
    pending = []
    for span in (5_000, 6_000):
        server.connect().add(b"b")
        server.turn()
        peer.extend(lease, span)
        pending.append(server.committer.pending_bytes)
        server.settle()
    assert pending[0] == pending[1] > PLAN_BYTES + server.limits.item_overhead, "its record is written in each commit"


def test_an_incomplete_message_does_not_time_out_while_the_server_does_not_read(make_server):
    server = make_server(unsent_bytes=10, stalled_message_ms=1_000)
    peer = server.connect()
    peer.send()
    peer.add(b"a")
    peer.stop_reading()
    server.settle()
    peer.protocol.dataReceived(b"\0\0\0")
    wait(peer, 5)
    assert not peer.transport.disconnecting
    peer.read_on()
    wait(peer, 0.5)
    assert not peer.transport.disconnecting
    wait(peer, 1)
    aborted(peer, "a message is incomplete")


def test_idle_time_begins_with_the_last_reply(make_server):
    server = make_server(idle_ms=2_000)
    peer = server.connect()
    peer.poll(wait=3_000)
    for _ in range(4):
        wait(peer, 0.75)
        server.settle()
    assert server.handlers.outstanding == 0
    wait(peer, 0.5)
    assert not peer.transport.disconnecting
    wait(peer, 1)
    aborted(peer, "no data for 2 s")


def test_each_message_ends_the_idle_time_even_without_a_reply(make_server):
    server = make_server(idle_ms=2_000)
    peer = server.connect()
    peer.send()
    for _ in range(4):
        wait(peer, 0.75)
        peer.protocol.dataReceived(encoder.finish(99, release_result_caps=True))
    assert not peer.transport.disconnecting
    wait(peer, 2)
    aborted(peer, "no data for 2 s")


def test_a_message_sent_byte_by_byte_is_evicted_before_a_large_one_that_is_arriving(make_server):
    server = make_server(buffered_bytes=3_000)
    for _ in range(4):
        server.connect()
    slow_senders = [server.connect() for _ in range(3)]
    for peer in slow_senders:
        peer.send()
        peer.protocol.dataReceived(pack("<II", 0, 1_000) + bytes(600))
    server.reactor.advance(20)
    healthy = server.connect()
    healthy.send()
    healthy.protocol.dataReceived(pack("<II", 0, 1_000) + bytes(2_000))
    assert [bool(peer.aborted) for peer in (*slow_senders, healthy)] == [True, True, False, False]


def test_text_from_a_peer_does_not_control_the_log(server):
    with capturedLogs() as events:
        server.connections.warn(None, "{why}", why="a\n\x1b[31mb")
    assert [event["line"] for event in events] == ["a??[31mb"]


class From:
    def __init__(self, host):
        self.host = host


def connect_from(server, host):
    """Return a peer of that address that has sent a message."""
    protocol = server.factory.buildProtocol(From(host))
    if protocol is None:
        return None
    transport = StringTransport()
    protocol.makeConnection(transport)
    peer = Peer(server, protocol, transport)
    peer.send()
    return peer


def test_a_new_connection_replaces_an_idle_one_of_the_address_with_most_connections(make_server):
    server = make_server(connections=5)
    alone = connect_from(server, "192.0.2.1")
    others = [connect_from(server, "192.0.2.2") for _ in range(4)]
    others[0].poll()
    server.settle()
    server.reactor.advance(5)
    others[1].add(b"a")
    server.settle()
    newcomer = connect_from(server, "192.0.2.3")
    assert newcomer is not None
    assert [bool(peer.aborted) for peer in (alone, *others)] == [False, False, False, True, False]
    assert server.connections.limit_hits == {"connections": 1}
    others[2].protocol.connectionLost()
    assert connect_from(server, "192.0.2.3")
    assert others[3].aborted, "the next one, without another search"


def test_a_timer_expires_at_its_limit_and_not_before():
    clock, overdue = Clock(), []

    class Silent:
        def on_timeout(self, limit):
            overdue.append(limit)

    timeouts = PeerTimeouts(clock.seconds, Limits(first_message_ms=1_000))
    timeouts.start(Silent(), FIRST_MESSAGE)
    clock.advance(0.75)
    timeouts.expire()
    assert overdue == []
    clock.advance(0.25)
    timeouts.expire()
    assert overdue == [FIRST_MESSAGE]


def test_no_state_is_kept_for_addresses_without_connections(server):
    """An attacker may use any number of addresses."""
    for _ in range(2):
        peer = server.connect()
        peer.protocol.connectionLost()
    assert server.connections.hosts == 0


def test_an_active_connection_is_not_evicted_for_a_new_one(make_server, monkeypatch):
    server = make_server(connections=3)
    waiting, busy, half = [connect_from(server, "192.0.2.2") for _ in range(3)]
    waiting.poll()
    server.settle()
    half.protocol.dataReceived(b"\0\0\0")
    server.reactor.advance(5)
    busy.add()
    server.settle()
    assert connect_from(server, "192.0.2.3") is None
    assert not (waiting.aborted or busy.aborted or half.aborted)
    server.reactor.advance(0.125)
    with monkeypatch.context() as patched:
        patched.setattr(RpcProtocol, "idle_since", property(lambda _: pytest.fail("each new connection is a search")))
        assert connect_from(server, "192.0.2.3") is None
    server.reactor.advance(2)
    assert connect_from(server, "192.0.2.3") is not None
    assert busy.aborted


def test_a_late_reply_ends_the_idle_time(make_server):
    """A worker that has just received an item is busy with it."""
    server = make_server(connections=3)
    worker, idle, other = [connect_from(server, None) for _ in range(3)]
    worker.poll()
    server.settle()
    server.reactor.advance(3_600)
    idle.add()
    server.settle()
    server.reactor.advance(10)
    other.add(b"for the worker")
    server.settle()
    assert len(worker.receive()) == 2
    server.reactor.advance(5)
    assert connect_from(server, None)
    assert (bool(worker.aborted), bool(idle.aborted)) == (False, True)


@pytest.mark.parametrize("cut", [1, 3, 8, 1_000])
@pytest.mark.parametrize(
    ("first", "name"),
    [
        (b"GET /metrics HTTP/1.1\r\n\r\n", "HTTP"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP"),
        (bytes.fromhex("1603010200010001fc0303"), "TLS"),
        (b"SSH-2.0-OpenSSH_10.0\r\n", "SSH"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "the PROXY protocol"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", "the PROXY protocol"),
        (b"EHLO mail.example\r\n", "a text protocol"),
        (b"*1\r\n$4\r\nPING\r\n", "a text protocol"),
        (b"AMQP\0\0\x09\x01", "a text protocol"),
    ],
)
def test_another_protocol_is_named_and_hits_no_limit(server, monkeypatch, first, name, cut):
    lines = []
    monkeypatch.setattr(Connections, "warn", lambda self, host, line, **fields: lines.append(line.format(**fields)))
    peer = server.connect()
    for at in range(0, len(first), cut):
        peer.protocol.dataReceived(first[at : at + cut])
    assert [line.partition(": ")[2] for line in lines] == [f"it speaks {name}, and this port does not"]
    assert not server.connections.limit_hits


def test_no_other_protocol_is_detected_after_the_first_message(server):
    """Later bytes that look like another protocol are a message with too many segments."""
    peer = server.connect()
    peer.send()
    peer.protocol.dataReceived(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert server.connections.limit_hits == {"segments": 1}

"""Replies on their way: in order, counted, straight to the socket if possible, and bounded in the transport."""

import socket
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import main, tcp, unix
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure

from queueber import api
from queueber.broker import ClaimBounds
from queueber.server.net.send_buffer import CHUNK, SendBuffer, bytes_acked, socket_transport


class Narrow(StringTransport):
    """Is full after every chunk, as the transport of a peer that does not read."""

    def __init__(self):
        super().__init__()
        self.pieces = []

    def write(self, data):
        self.pieces.append(data)
        super().write(data)
        self.producer.pauseProducing()


@given(st.lists(st.integers(1, 3 * CHUNK), max_size=6))
def test_everything_arrives_in_order_in_chunks_that_fit(sizes):
    transport = Narrow()
    changes = []
    buffer = SendBuffer(transport, lambda: changes.append(True))
    written = [bytes([number]) * size for number, size in enumerate(sizes, start=1)]
    for data in written:
        buffer.write(data)
    while buffer.full:
        assert buffer.unsent == sum(sizes) - len(transport.value())
        buffer.resumeProducing()
    assert transport.value() == b"".join(written)
    assert buffer.unsent == 0
    assert buffer.given == sum(sizes)
    assert all(len(piece) <= CHUNK for piece in transport.pieces)
    assert len(changes) >= len(transport.pieces)


def test_the_connection_closes_only_when_everything_is_sent():
    transport = Narrow()
    buffer = SendBuffer(transport, lambda: None)
    buffer.write(b"a")
    buffer.write(b"b")
    buffer.end()
    assert not transport.disconnecting
    buffer.resumeProducing()
    assert transport.disconnecting
    assert transport.value() == b"ab"


def test_a_lost_connection_holds_nothing():
    buffer = SendBuffer(Narrow(), lambda: None)
    buffer.write(b"a")
    buffer.write(b"b")
    buffer.stopProducing()
    assert buffer.unsent == 0


def test_after_forget_no_change_is_reported():
    """The transport of a lost connection may still report that it is full or has room."""
    calls, transport = [], StringTransport()
    buffer = SendBuffer(transport, lambda: calls.append(True))
    buffer.pauseProducing()
    assert calls == [True]
    buffer.forget()
    buffer.resumeProducing()
    assert calls == [True]


@pytest.mark.slow
def test_a_thousand_waiting_polls_and_a_large_batch_stay_within_the_bounds(make_server):
    """No further claim is made for a peer that does not read its replies."""
    size, claim = 50_000, ClaimBounds(polls=64, bytes=16 << 20)
    bounds = {"coalesce_max_batch_size": claim.polls, "claim_bytes": claim.bytes}
    server = make_server(settings=bounds, unsent_bytes=1 << 20)
    worker, producer = server.connect(), server.connect()
    transport = worker.transport
    plain = transport.write

    def write(data):
        plain(data)
        if len(transport.value()) > CHUNK:
            worker.stop_reading()

    transport.write = write
    polls = [worker.poll() for _ in range(1_000)]
    server.settle()
    for _ in range(10):
        items = [api.NewItem(b"x" * size, 1_000) for _ in range(100)]
        producer.call(api.ADD, api.write_add_request(api.AddRequest(items)))
        server.settle()
    server.reactor.advance(2)
    server.settle()

    assert worker.protocol.held_bytes <= (1 << 20) + min(claim.bytes, claim.polls * size) + CHUNK
    assert server.broker.stats().leased_items <= 2 * claim.polls
    assert server.broker.stats().waiting_polls >= 1_000 - 2 * claim.polls

    received = []
    for _ in range(2_000):
        received.append(transport.value())
        transport.clear()
        worker.read_on()
        server.settle()
        if not transport.value() and not server.broker.stats().waiting_polls:
            break
    received.append(transport.value())
    transport.clear()
    transport.io.write(b"".join(received))
    outcomes = worker.receive()
    assert all(len(api.read_poll_response(outcomes[poll]).items) == 1 for poll in polls)


@pytest.mark.parametrize("closed_by", ["peer", "us"])
def test_items_for_a_connection_that_ends_during_their_commit_are_not_lost(server, closed_by):
    worker, other = server.connect(), server.connect()
    worker.poll()
    server.settle()
    other.add(b"a")
    server.turn()
    if closed_by == "peer":
        worker.protocol.connectionLost()
    else:
        worker.protocol.close()
    server.settle()
    assert server.broker.stats().leases == 0
    assert len(other.polled(no_wait=True).items) == 1


class WritersReactor:
    """The part of a reactor that a socket's transport uses; `writers` are those that wait for a writable socket."""

    def __init__(self):
        self.writers = {}
        self.registrations = 0

    def addReader(self, reader):  # noqa: N802
        pass

    def removeReader(self, reader):  # noqa: N802
        pass

    def addWriter(self, writer):  # noqa: N802
        self.registrations += 1
        self.writers[writer] = None

    def removeWriter(self, writer):  # noqa: N802
        self.writers.pop(writer, None)

    def callLater(self, seconds, function, *args):  # noqa: N802
        pass

    def turn(self):
        """Let each writer write, and report its connection lost as a reactor does."""
        for writer in list(self.writers):
            reason = writer.doWrite()
            if reason is not None:
                self.removeWriter(writer)
                writer.connectionLost(Failure(reason))


class Socket:
    """A peer's socket, and the transport of a real socket pair with a `SendBuffer` on it."""

    def __init__(self, family):
        if family == "unix":
            mine, self.peer = socket.socketpair()
            made = unix.Server
        else:
            with socket.create_server(("127.0.0.1", 0)) as listening:
                self.peer = socket.create_connection(listening.getsockname())
                mine = listening.accept()[0]
            made = tcp.Server
        self.reactor = WritersReactor()
        self.lost = []
        self.protocol = Protocol()
        self.protocol.connectionLost = lambda failure: self.lost.append(failure.value)
        self.transport = made(mine, self.protocol, ("", 0), None, 0, self.reactor)
        self.protocol.makeConnection(self.transport)
        self.changes = []
        self.buffer = SendBuffer(self.transport, lambda: self.changes.append(self.buffer.full))

    def write_until_the_socket_is_full(self):
        """Return all bytes that were written."""
        mine = self.transport.socket
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        written = b""
        while not self.reactor.writers:
            piece = bytes([len(written) // 1_000 % 251]) * 1_000
            self.buffer.write(piece)
            written += piece
        return written

    def read(self, size):
        """Return what the peer reads of *size* bytes, while the reactor turns."""
        data = b""
        self.peer.settimeout(10)
        while len(data) < size:
            self.reactor.turn()
            data += self.peer.recv(size - len(data))
        self.reactor.turn()
        return data


@pytest.fixture(params=["unix", "tcp"])
def plain(request):
    made = Socket(request.param)
    yield made
    made.peer.close()
    if made.transport.connected:
        made.transport.connectionLost(Failure(main.CONNECTION_DONE))


def test_a_reply_goes_straight_to_the_socket(plain):
    """No registration with the reactor: that is two system calls for each reply."""
    for reply in (b"one", b"two"):
        plain.buffer.write(reply)
    assert plain.peer.recv(6, socket.MSG_WAITALL) == b"onetwo"
    assert plain.reactor.registrations == 0
    assert plain.buffer.given == 6


def test_the_transport_gets_what_the_socket_does_not_take_and_the_order_stays(plain):
    written = plain.write_until_the_socket_is_full()
    for last in (b"after", b"that"):
        plain.buffer.write(last)
        written += last
    assert plain.buffer.given == len(written)
    assert not plain.buffer.full
    assert plain.read(len(written)) == written
    assert not plain.reactor.writers
    before = plain.reactor.registrations
    plain.buffer.write(b"direct again")
    assert plain.read(12) == b"direct again"
    assert plain.reactor.registrations == before


def test_a_peer_that_does_not_read_fills_the_buffer_and_still_gets_everything(plain):
    written = plain.write_until_the_socket_is_full()
    while not plain.buffer.full:
        plain.buffer.write(b"x" * 10_000)
        written += b"x" * 10_000
    assert plain.changes == [True]
    waiting = b"y" * (2 * CHUNK + 1)
    plain.buffer.write(waiting)
    assert plain.buffer.unsent == len(waiting)
    assert plain.buffer.held == len(waiting) + 2 * CHUNK
    written += waiting
    assert plain.read(len(written)) == written
    assert plain.buffer.given == len(written)
    assert (plain.buffer.full, plain.buffer.held) == (False, 0)
    assert plain.changes[-1] is False


def test_a_long_reply_needs_no_registration_while_the_socket_takes_it():
    plain = Socket("unix")
    plain.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    with plain.peer:
        plain.buffer.write(b"z" * (CHUNK + 1))
        assert plain.read(CHUNK + 1) == b"z" * (CHUNK + 1)
        assert plain.reactor.registrations == 0
        plain.transport.connectionLost(Failure(main.CONNECTION_DONE))


def test_a_broken_connection_raises_nothing_and_ends_in_connection_lost(plain):
    plain.peer.close()
    for _ in range(3):
        plain.buffer.write(b"reply")
        assert plain.lost == []
        plain.reactor.turn()
        if plain.lost:
            break
    assert plain.lost == [main.CONNECTION_LOST]
    plain.buffer.write(b"late")
    assert not plain.reactor.writers


def test_a_reply_after_the_connection_is_lost_is_dropped(plain):
    plain.transport.connectionLost(Failure(main.CONNECTION_DONE))
    plain.buffer.write(b"late")
    assert not plain.reactor.writers


def test_nothing_is_sent_once_the_connection_is_aborted(plain):
    plain.buffer.abort()
    plain.buffer.write(b"late")
    plain.peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        plain.peer.recv(1)


def test_a_reply_after_end_still_arrives_before_the_connection_closes(plain):
    plain.buffer.write(b"early, ")
    plain.buffer.end()
    plain.buffer.write(b"late")
    plain.reactor.turn()
    plain.peer.settimeout(10)
    received = b""
    while data := plain.peer.recv(100):
        received += data
    assert received == b"early, late"


def test_the_connection_closes_after_bytes_that_the_socket_did_not_take(plain):
    written = plain.write_until_the_socket_is_full()
    plain.buffer.end()
    assert not plain.lost
    assert plain.read(len(written)) == written
    plain.reactor.turn()
    assert len(plain.lost) == 1


@pytest.mark.parametrize("error", [BlockingIOError(11, "full"), OSError(105, "no room"), InterruptedError(4, "")])
def test_an_error_of_the_socket_leaves_the_reply_to_the_transport(plain, error):
    real = plain.transport.socket

    def send(data):
        raise error

    plain.transport.socket = SimpleNamespace(send=send, fileno=real.fileno)
    plain.buffer.write(b"reply")
    plain.transport.socket = real
    assert list(plain.reactor.writers) == [plain.transport]
    assert plain.read(5) == b"reply"


@given(st.lists(st.tuples(st.integers(1, 3 * CHUNK), st.booleans()), max_size=8))
def test_direct_sends_give_the_same_bytes_as_the_transport_alone(steps):
    """Replies of all lengths, with a peer that reads and one that does not."""
    plain, written = Socket("unix"), 0
    with plain.peer:
        received = b""
        for number, (size, reads) in enumerate(steps):
            plain.buffer.write(bytes([number]) * size)
            written += size
            assert plain.buffer.given + plain.buffer.unsent == written
            if reads:
                received += plain.read(written - len(received))
        received += plain.read(written - len(received))
        assert received == b"".join(bytes([number]) * size for number, (size, _) in enumerate(steps))
        assert not plain.reactor.writers
        plain.transport.connectionLost(Failure(main.CONNECTION_DONE))


def test_only_a_transport_that_passes_bytes_on_unchanged_is_bypassed(plain):
    class Encrypting(ProtocolWrapper):
        def write(self, data):
            super().write(data[::-1])

    factory = WrappingFactory(SimpleNamespace())
    transport = plain.transport
    wrapped, encrypted = ProtocolWrapper(factory, Protocol()), Encrypting(factory, Protocol())
    for each in (wrapped, encrypted):
        each.transport = transport
    assert socket_transport(transport) is transport
    assert socket_transport(wrapped) is transport
    assert socket_transport(encrypted) is None
    assert socket_transport(StringTransport()) is None
    transport.TLS = True
    assert socket_transport(transport) is None


class OverSocket:
    dataBuffer, offset = b"", 0  # noqa: N815  (as Twisted names it)

    def __init__(self, made):
        self.socket = made


def test_bytes_acked_over_a_unix_socket_are_those_not_queued():
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


def test_bytes_acked_over_tcp_come_from_the_kernel():
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as one:
        other, _ = listening.accept()
        with other:
            before = bytes_acked(OverSocket(one), 0)
            one.sendall(b"x" * 1_000)
            other.recv(1_000, socket.MSG_WAITALL)
            # The kernel acknowledges within some milliseconds.
            while bytes_acked(OverSocket(one), 0) == before:
                pass
            assert bytes_acked(OverSocket(one), 0) - before == 1_000


def test_bytes_acked_are_unknown_for_other_sockets(monkeypatch):
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

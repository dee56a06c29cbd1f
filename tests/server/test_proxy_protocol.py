"""Malformed PROXY headers: the connection ends, with at most one log line a second."""

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.testing import MemoryReactorClock, StringTransport

from queueber.rpc import encoder
from queueber.server.net.listeners import parse_listen, start_listening

ADDRESS = IPv4Address("TCP", "192.0.2.1", 4711)
V2 = b"\r\n\r\n\0\r\nQUIT\n"


@pytest.fixture
def reactor():
    return MemoryReactorClock()


@pytest.fixture
def connect(server, reactor):
    """Return the protocol and transport of a new connection to the balancer's port."""
    coroutine = start_listening(reactor, parse_listen("haproxy:tcp:4711:interface=127.0.0.1"), server.factory)
    with pytest.raises(StopIteration):
        coroutine.send(None)
    factory = reactor.tcpServers[0][1]

    def make():
        protocol = factory.buildProtocol(ADDRESS)
        if protocol is None:
            return None, None
        transport = StringTransport(peerAddress=ADDRESS)
        transport.aborted = False
        transport.abortConnection = lambda: setattr(transport, "aborted", True)
        protocol.makeConnection(transport)
        return protocol, transport

    return make


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY \xff\xff\xff\r\n",
        b"PROXY TCP4 \xa3\xa3 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 a b\r\n",
        b"PROXY TCP6 ::1 ::2 x -1\r\n",
        V2 + b"\x21\x21\0\x04" + bytes(4),
        V2 + b"\x21\x31\0\x02" + b"\xff" * 2,
    ],
)
def test_a_malformed_header_ends_its_connection_with_one_log_line(server, connect, log_lines, header):
    for _ in range(20):
        protocol, transport = connect()
        protocol.dataReceived(header)
        assert transport.aborted or transport.disconnecting
    lines = log_lines("")
    assert len(lines) <= 1
    assert not any("log_failure" in line for line in lines)


def test_a_connection_with_a_valid_header_is_served(server, connect):
    protocol, transport = connect()
    protocol.dataReceived(b"PROXY TCP4 192.0.2.9 192.0.2.8 1 2\r\n" + encoder.bootstrap(0))
    server.settle()
    assert len(transport.value()) > 32
    assert next(iter(server.connections)).transport.getPeer().host == "192.0.2.9"


def test_an_error_of_the_server_is_not_taken_for_a_malformed_header(server, connect, monkeypatch):
    protocol, _ = connect()
    protocol.dataReceived(b"PROXY TCP4 192.0.2.9 192.0.2.8 1 2\r\n")
    monkeypatch.setattr("queueber.server.net.protocol.RpcProtocol.send", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        protocol.dataReceived(encoder.bootstrap(0))


def test_at_the_limit_a_connection_with_a_header_is_refused_like_others(make_server, reactor):
    server = make_server(connections=1)
    server.connect().send()
    coroutine = start_listening(reactor, parse_listen("haproxy:tcp:4711:interface=127.0.0.1"), server.factory)
    with pytest.raises(StopIteration):
        coroutine.send(None)
    assert reactor.tcpServers[0][1].buildProtocol(ADDRESS) is None

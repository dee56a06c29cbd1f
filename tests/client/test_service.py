"""Connecting, connecting again, and closing."""

import subprocess
import sys

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from queueber import api
from queueber.client import NotConnected, OutcomeUnknown, connect
from queueber.client.connect import twisted_endpoint_of
from queueber.client.protocol import CLOSE_SECONDS
from queueber.client_core.address import TcpAddress, UnixAddress, parse
from queueber.client_core.reconnect import RETRY_SECONDS_MAX
from queueber.errors import InvalidRequest, Kind, Stopping
from queueber.limits import DEFAULTS

ADDED = api.write_add_responses([[bytes(16)]])[0]


def test_calls_wait_for_a_connection_and_keep_their_order(network, success):
    network.refusing = True
    client = network.client()
    adding = [client.default.add(contents) for contents in (b"1", b"2")]
    network.clock.advance(1)
    assert network.refused == 2
    network.clock.advance(0)
    network.refusing = False
    network.clock.advance(1)
    network.turn()
    calls = network.peer.calls()
    sent = [api.read_add_request(call.params, DEFAULTS).items[0].contents for call in calls]
    assert sent == [b"1", b"2"]
    network.peer.answer([ADDED], *calls)
    assert [success(deferred) for deferred in adding] == [[bytes(16)]] * 2
    client.close()


def test_a_lost_connection_is_made_again_and_queues_go_on(network, client, failure, success):
    """Adds in flight are not repeated, and the same `Queue` works on the new connection."""
    mail = client.queue("mail")
    lost = mail.add(b"x")
    network.turn()
    network.peer.transport.loseConnection()
    why = failure(lost)
    assert isinstance(why, OutcomeUnknown)
    assert str(why) == "the connection was lost, the call's outcome is unknown: the server closed it"
    waiting = mail.add(b"y")
    network.clock.advance(1)
    network.turn()
    assert len(network.peers) == 2
    network.peer.answer([ADDED], *network.peer.calls())
    assert success(waiting) == [bytes(16)]


def test_a_poll_waits_again_however_often_its_connection_is_lost(network, client, success):
    """Trap 16: no client seems to be alive that waits for nothing."""
    polling = client.default.poll()
    for _ in range(100):
        network.turn()
        assert [call.method_id for call in network.peer.calls()] == [api.POLL]
        network.peer.transport.loseConnection()
        assert not polling.called
        network.clock.advance(RETRY_SECONDS_MAX)
    network.turn()
    (call,) = network.peer.calls()
    network.peer.answer(api.write_poll_responses([api.PollResponse([], b"", 0)]), call)
    assert len(success(polling).items) == 0
    adding = client.default.add(b"x")
    network.turn()
    network.peer.answer([ADDED], *network.peer.calls())
    assert success(adding) == [bytes(16)]


def test_the_backoff_continues_over_connections_that_end_before_an_answer(network, success):
    failed = []

    def policy(number):
        failed.append(number)
        return 1.0

    client = connect(network.clock, network, retry_policy=policy)
    for _ in range(3):  # accepted, and closed at once
        network.peer.transport.loseConnection()
        network.clock.advance(1)
    network.refusing = True
    network.peer.transport.loseConnection()
    network.clock.advance(1)
    network.refusing = False
    network.clock.advance(1)
    assert failed == [1, 2, 3, 4, 5]
    network.turn()  # the server's first object is no sign of use: one that stops has it, too
    refused = client.default.remove(bytes(16), bytes(16)).addErrback(lambda failure: failure.type)
    network.turn()
    (call,) = network.peer.calls()
    network.peer.connection.return_exception(call.answer, Kind.DISCONNECTED, "the server is stopping")
    network.peer.send()
    assert success(refused) is Stopping
    network.peer.transport.loseConnection()
    network.clock.advance(1)
    adding = client.default.add(b"x")
    network.turn()
    network.peer.answer([ADDED], *network.peer.calls())
    assert success(adding) == [bytes(16)]
    network.peer.transport.loseConnection()
    assert failed == [1, 2, 3, 4, 5, 6, 1]
    client.close()


def test_a_connection_over_which_a_poll_has_waited_was_of_use(network):
    """A worker may wait for its first item for days."""
    failed = []
    client = connect(network.clock, network, retry_policy=lambda number: failed.append(number) or 1.0)
    network.peer.transport.loseConnection()
    network.clock.advance(1)
    network.turn()
    network.clock.advance(RETRY_SECONDS_MAX)
    network.peer.transport.loseConnection()
    assert failed == [1, 1]
    client.close()


def test_with_attempts_a_call_fails_when_connecting_does(network, failure):
    network.refusing = True
    client = network.client(attempts=2)
    adding = client.default.add(b"x")
    network.clock.advance(1)
    assert not adding.called
    network.clock.advance(1)
    network.clock.advance(0)
    found = failure(adding)
    assert isinstance(found, NotConnected)
    assert str(found).startswith("cannot connect: Connection refused")
    client.close()


def test_a_call_that_waits_for_a_connection_can_be_cancelled(network, failure):
    network.refusing = True
    client = network.client()
    adding = client.default.add(b"x")
    adding.cancel()
    assert isinstance(failure(adding), CancelledError)
    network.refusing = False
    network.clock.advance(1)
    network.turn()
    assert network.peer.calls() == []
    client.close()


def test_a_failed_call_may_close_the_client_or_call_again_at_once(network, failure, success):
    """`ClientService` reports failures from within its methods, and is not re-entrant."""
    network.refusing = True
    client = network.client(attempts=1)
    retried = client.default.add(b"x").addErrback(lambda _: client.default.add(b"y"))
    closed = client.default.add(b"z").addErrback(lambda _: client.close())
    network.clock.advance(1)
    network.clock.advance(0)
    assert success(closed) is None
    assert isinstance(failure(retried), NotConnected)


def test_a_call_made_because_the_connection_was_lost_waits_for_the_next(network, client, success):
    adding = client.default.add(b"x").addErrback(lambda _: client.default.add(b"y"))
    network.turn()
    network.peer.transport.loseConnection()
    network.clock.advance(1)
    network.turn()
    network.peer.answer([ADDED], *network.peer.calls())
    assert success(adding) == [bytes(16)]


def test_a_call_that_gives_up_may_cancel_the_others(network, failure):
    network.refusing = True
    client = network.client(attempts=1)
    first = client.default.add(b"x").addErrback(lambda _: second.cancel())
    second = client.default.add(b"y")
    network.clock.advance(1)
    network.clock.advance(0)
    assert first.called
    assert isinstance(failure(second), CancelledError)
    client.close()


def test_a_call_made_in_the_turn_of_connecting_is_sent_after_the_waiting_ones(network):
    network.refusing = True
    client = network.client()
    client.default.add(b"1")
    network.refusing = False
    network.on_connected = lambda: client.default.add(b"2")
    network.clock.advance(1)
    network.turn()
    sent = [api.read_add_request(call.params, DEFAULTS).items[0].contents for call in network.peer.calls()]
    assert sent == [b"1", b"2"]
    client.default.poll().addErrback(lambda _: None)
    client.close().addErrback(lambda _: None)


def test_close_sends_pending_calls_and_fails_those_in_flight(network, client, failure, success):
    adding = client.default.add(b"x")
    closing = client.close()
    why = failure(adding)
    assert isinstance(why, OutcomeUnknown)
    assert str(why) == "the connection was lost, the call's outcome is unknown: the client was closed"
    network.peer.turn()
    assert len(network.peer.calls()) == 1
    assert success(closing) is None
    late = failure(client.default.add(b"x"))
    assert isinstance(late, NotConnected)
    assert "closed" in str(late)


def test_close_ends_though_the_peer_does_not_close(network, client, failure, success):
    """With TLS the peer takes part in the close, and a peer that is gone does not."""
    adding = client.default.add(b"x")
    network.peer.transport.lingers = True
    closing = client.close()
    network.clock.advance(CLOSE_SECONDS - 1)
    assert not closing.called
    network.clock.advance(1)
    assert success(closing) is None
    assert isinstance(failure(adding), OutcomeUnknown)
    assert not network.clock.getDelayedCalls()


def test_close_fails_waiting_calls_and_stops_connecting(network, failure, success):
    network.refusing = True
    client = network.client()
    adding = client.default.add(b"x")
    assert success(client.close()) is None
    assert isinstance(failure(adding), NotConnected)
    assert network.clock.getDelayedCalls() == []


def test_close_may_be_repeated(network, success):
    """Before the connection is made, while it closes, and when it is closed."""
    client = network.client()
    network.turn()
    network.peer.transport.lingers = True
    first, second, third = client.close(), client.close(), client.close()
    second.cancel()
    assert isinstance(second.result, Failure)
    second.addErrback(lambda _: None)
    assert not first.called
    network.peer.transport.lingers = False
    network.peer.transport.loseConnection()
    assert success(first) is success(third) is None
    assert success(client.close()) is None
    network.refusing = True
    other = network.client()
    assert success(other.close()) is success(other.close()) is None
    assert network.clock.getDelayedCalls() == []


def test_close_may_be_repeated_at_the_moment_of_closing(network, success):
    """A program that awaited the first continues within `ClientService`, which is not re-entrant."""
    client = network.client()
    network.turn()
    network.peer.transport.lingers = True

    async def close_twice():
        await client.close()
        await client.close()

    closing = Deferred.fromCoroutine(close_twice())
    network.peer.transport.lingers = False
    network.peer.transport.loseConnection()
    assert success(closing) is None


def test_each_failed_call_may_close_the_client(network, client, failure, success):
    """The cleanup of a program that ends with its first error does not raise a second one."""
    closed = [client.default.add(b"x").addErrback(lambda _: client.close()) for _ in range(2)]
    network.turn()
    network.peer.transport.loseConnection()
    network.refusing = True
    waiting = [client.default.add(b"x").addErrback(lambda _: client.close()) for _ in range(2)]
    client.close()
    assert [success(each) for each in [*closed, *waiting]] == [None] * 4


def test_close_in_the_turn_of_a_failure_leaves_no_timer(network, failure):
    network.refusing = True
    client = network.client(attempts=1)
    adding = client.default.add(b"x")
    network.clock.callLater(1, client.close)  # after the attempt
    network.clock.advance(1)
    assert network.refused == 2
    assert "refused" in str(failure(adding))
    assert network.clock.getDelayedCalls() == []


@pytest.mark.parametrize("address", ["127.0.0.1:9090", "tcp:host=127.0.0.1:port=9090", "tcp:127.0.0.1:9090"])
def test_a_tcp_address_is_connected_to(address):
    reactor = MemoryReactorClock()
    client = connect(reactor, address)
    reactor.advance(0)
    assert reactor.tcpClients[0][:2] == ("127.0.0.1", 9090)
    client.close()


def test_an_ipv6_address_is_in_brackets():
    assert repr(twisted_endpoint_of(MemoryReactorClock(), parse("[::1]:9090"))) == "<HostnameEndpoint [::1]:9090>"


@pytest.mark.parametrize(
    ("served", "address"),
    [
        (":9090", TcpAddress("localhost", 9090)),
        ("tcp:9090", TcpAddress("localhost", 9090)),
        ("tcp:9090:interface=127.0.0.1", TcpAddress("127.0.0.1", 9090)),
        ("tcp:9090:backlog=9:interface=0.0.0.0", TcpAddress("localhost", 9090)),
        (r"tcp:9090:interface=\:\:", TcpAddress("localhost", 9090)),
        (r"tcp:9090:interface=\:\:1", TcpAddress("::1", 9090)),
        ("unix:/run/q.sock:mode=660:lockfile=0", UnixAddress("/run/q.sock")),
        (r"unix:/run/a\:b.sock", UnixAddress("/run/a:b.sock")),
    ],
)
def test_the_endpoint_of_a_server_is_an_address(served, address):
    assert parse(served) == address


def test_a_unix_socket_is_an_address():
    reactor = MemoryReactorClock()
    client = connect(reactor, "unix:path=/run/queueber.sock")
    assert reactor.unixClients[0][0] == "/run/queueber.sock"
    client.close()


@pytest.mark.parametrize(
    ("address", "part"),
    [
        ("localhost", "'localhost' is not an address"),
        ("", "'' is not an address"),
        ("nothing:at=all", "not an address: neither HOST:PORT, [IPv6]:PORT nor a Twisted endpoint"),
        ("localhost:0", "the port in 'localhost:0' is 0; the limit is 65535"),
        ("localhost:65536", "is 65536; the limit is 65535"),
        ("tcp:host=localhost:port=many", "is not an address"),
    ],
)
def test_a_bad_address_is_refused_in_one_line(address, part):
    with pytest.raises(InvalidRequest) as caught:
        twisted_endpoint_of(MemoryReactorClock(), parse(address))
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_importing_the_client_installs_no_reactor():
    check = "import sys, queueber.client; sys.exit('twisted.internet.reactor' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0

"""TLS handshakes: bounded in number, duration and share of a reactor turn, and cheap to abandon."""

import gc
import ssl

import pytest
from attrs import frozen
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs
from twisted.protocols.tls import BufferingTLSTransport
from twisted.python.failure import Failure

from queueber.limits import Limits
from queueber.rpc import encoder
from queueber.server.net.certificates import Certificates, TlsFiles
from queueber.server.net.handshakes import HANDSHAKE_TURN_SECONDS, Handshakes
from queueber.server.net.tls import COLLECTED_AFTER
from queueber.transport.protocol_detection import TLS_REFUSAL
from tests.process.certificates import Authority

ADDRESS = IPv4Address("TCP", "192.0.2.1", 4711)


class Shaking:
    def __init__(self, reactor, cost=0.0):
        self.reactor, self.cost, self.steps, self.given_up = reactor, cost, 0, None

    def proceed(self):
        self.steps += 1
        self.reactor.now += self.cost

    def abandon(self, limit):
        self.given_up = limit

    on_timeout = abandon


@pytest.fixture
def make_handshakes(reactor):
    def make(others=0, **limits):
        bounds = Limits(**limits)
        return Handshakes(bounds, reactor.seconds, reactor.callLater, lambda: bounds.connections - others)

    return make


def test_the_oldest_handshake_is_abandoned_for_the_newest(reactor, make_handshakes):
    handshakes, shaking = make_handshakes(handshakes=2), [Shaking(reactor) for _ in range(4)]
    for each in shaking:
        handshakes.add(each)
    assert [each.given_up for each in shaking] == ["handshakes", "handshakes", None, None]
    handshakes.remove(shaking[2])
    handshakes.add(Shaking(reactor))
    assert len(handshakes) == 2
    assert shaking[3].given_up is None


def test_handshakes_and_connections_together_exceed_the_limit_by_one_at_most(reactor, make_handshakes):
    """One more may always begin, because it may replace an idle connection when it is finished."""
    handshakes, shaking = make_handshakes(others=10, connections=10), [Shaking(reactor) for _ in range(3)]
    for each in shaking:
        handshakes.add(each)
    assert [each.given_up for each in shaking] == ["handshakes", "handshakes", None]


def test_the_last_place_is_for_one_handshake(reactor, make_handshakes):
    handshakes, shaking = make_handshakes(others=9, connections=10), [Shaking(reactor) for _ in range(2)]
    for each in shaking:
        handshakes.add(each)
    assert [each.given_up for each in shaking] == ["handshakes", None]


def test_a_handshake_that_lasts_too_long_is_abandoned(reactor, make_handshakes):
    handshakes, slow, quick = make_handshakes(first_message_ms=1_000), Shaking(reactor), Shaking(reactor)
    handshakes.add(slow)
    reactor.now = 0.5
    handshakes.add(quick)
    reactor.now = 1.0
    handshakes.expire()
    assert (slow.given_up, quick.given_up) == ("first_message_ms", None)
    handshakes.remove(quick)
    handshakes.expire()


def test_a_turn_spends_a_bounded_time_on_handshakes(reactor, make_handshakes):
    handshakes, shaking = make_handshakes(), [Shaking(reactor, 0.6 * HANDSHAKE_TURN_SECONDS) for _ in range(6)]
    for each in shaking:
        handshakes.add(each)
    assert [handshakes.schedule(each) for each in shaking] == [True, True, False, False, False, False]
    handshakes.remove(shaking[3])
    reactor.turn()
    assert [each.steps for each in shaking] == [1, 1, 1, 0, 1, 0], "a removed handshake has no turn"
    reactor.turn()
    assert [each.steps for each in shaking] == [1, 1, 1, 0, 1, 1]
    reactor.turn()
    assert not reactor.calls


def test_a_single_handshake_does_not_wait(reactor, make_handshakes):
    handshakes, alone = make_handshakes(), Shaking(reactor, 10 * HANDSHAKE_TURN_SECONDS)
    handshakes.add(alone)
    for _ in range(3):
        assert handshakes.schedule(alone)
        reactor.turn()


# With OpenSSL


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def make_client(authority):
    def make():
        context = ssl.create_default_context(cafile=str(authority.pem))
        context.check_hostname = False
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        return context.wrap_bio(incoming, outgoing), incoming, outgoing

    return make


@pytest.fixture(scope="module")
def certificates(authority):
    certificate, key = authority.sign("server", alternative="IP:127.0.0.1")
    found = Certificates(TlsFiles(certificate=certificate, key=key))
    found.load()
    return found


class Transport(StringTransport):
    protocol = None
    aborted = False

    def abortConnection(self):  # noqa: N802  (as Twisted names it)
        self.aborted = True


def connect(factory):
    transport = Transport()
    transport.protocol = factory.buildProtocol(ADDRESS)
    transport.protocol.makeConnection(transport)
    return transport


def shake(client, transport):
    """Continue the client's handshake, send its bytes, and return whether it is finished."""
    shaking, incoming, outgoing = client
    incoming.write(transport.value())
    transport.clear()
    try:
        shaking.do_handshake()
    except ssl.SSLWantReadError:
        return False
    finally:
        if outgoing.pending:
            transport.protocol.dataReceived(outgoing.read())
    return True


def test_a_finished_handshake_is_served_and_no_longer_counted(server, certificates, make_client):
    factory = certificates.secure(server.factory)
    transport, client = connect(factory), make_client()
    assert (len(server.connections.handshakes), len(server.connections)) == (1, 0), "a silent peer costs almost nothing"
    while not shake(client, transport):
        server.turn()
    server.turn()
    assert (len(server.connections.handshakes), len(server.connections)) == (0, 1)
    client[0].write(encoder.bootstrap(0))
    transport.protocol.dataReceived(client[2].read())
    (connection,) = server.connections
    assert connection.usage().answers == 1
    transport.protocol.connectionLost(Failure(ConnectionDone()))
    assert not server.connections


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_whose_name_is_checked_cannot_resume_a_session(server, authority, version):
    """A resumed session is not verified again, and the name may have been removed meanwhile."""
    certificate, key = authority.sign("server", alternative="IP:127.0.0.1")
    files = TlsFiles(certificate=certificate, key=key, client_ca=authority.pem, client_names=["worker"])
    certificates = Certificates(files)
    certificates.load()
    factory = certificates.secure(server.factory)
    context = ssl.create_default_context(cafile=str(authority.pem))
    context.check_hostname, context.maximum_version = False, version
    context.load_cert_chain(*authority.sign("worker"))
    session = None
    for _ in range(2):
        incoming, outgoing, transport = ssl.MemoryBIO(), ssl.MemoryBIO(), connect(factory)
        client = context.wrap_bio(incoming, outgoing, session=session)
        while not shake((client, incoming, outgoing), transport):
            server.turn()
        server.turn()
        # TLS 1.3 sends session tickets after the handshake.
        incoming.write(transport.value())
        with pytest.raises(ssl.SSLWantReadError):
            client.read()
        assert not client.session_reused
        session = client.session


@frozen
class Slow:
    """A handshake whose step takes a second, more than all of a turn."""

    clock: object

    def proceed(self):
        self.clock.rightNow += 1.0


def test_a_handshake_that_waits_is_not_read_and_proceeds_later(server, certificates, make_client):
    factory = certificates.secure(server.factory)
    first, client = connect(factory), make_client()
    server.connections.handshakes.schedule(Slow(server.reactor))
    assert not shake(client, first)
    assert (first.producerState, len(server.connections)) == ("paused", 0)
    # TLS or TCP may have buffered more.
    first.protocol.dataReceived(b"")
    server.turn()
    assert (first.producerState, len(server.connections)) == ("producing", 1)
    while not shake(client, first):
        server.turn()
    assert not server.connections.handshakes


def test_a_lost_or_abandoned_handshake_leaves_nothing(make_server, certificates, make_client):
    server = make_server(handshakes=1)
    factory = certificates.secure(server.factory)
    first = connect(factory)
    second, client = connect(factory), make_client()
    assert (first.aborted, second.aborted) == (True, False)
    assert server.connections.limit_hits == {"handshakes": 1}
    first.protocol.connectionLost(Failure(ConnectionDone()))
    shake(client, second)
    assert len(server.connections) == 1
    second.protocol.connectionLost(Failure(ConnectionDone()))
    assert (len(server.connections), len(server.connections.handshakes)) == (0, 0)


def test_at_the_limit_of_connections_the_handshake_is_closed(make_server, certificates, make_client):
    server = make_server(connections=1)
    server.connect().send()
    transport = connect(certificates.secure(server.factory))
    shake(make_client(), transport)
    assert transport.aborted


def test_a_peer_without_tls_is_refused_once(server, certificates):
    transport = connect(certificates.secure(server.factory))
    with capturedLogs() as events:
        for _ in range(2):
            transport.protocol.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
            server.reactor.advance(2)
    assert transport.value() == TLS_REFUSAL
    assert transport.disconnecting
    assert [event["line"] for event in events if "line" in event] == [
        "Closing the connection of 192.168.1.1:54321: it speaks HTTP, and this port TLS"
    ]


def transports_alive():
    """Return how many TLS transports are in memory."""
    return sum(isinstance(each, BufferingTLSTransport) for each in gc.get_objects())


def test_reference_cycles_of_lost_connections_are_collected(server, certificates, make_client):
    factory = certificates.secure(server.factory)
    gc.disable()
    try:
        before = transports_alive()
        for _ in range(COLLECTED_AFTER):
            transport, client = connect(factory), make_client()
            shake(client, transport)
            server.turn()
            transport.protocol.connectionLost(Failure(ConnectionDone()))
            transport.producer = None
        del transport, client
        assert transports_alive() - before < COLLECTED_AFTER / 10
    finally:
        gc.enable()

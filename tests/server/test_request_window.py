"""Back-pressure on connections whose calls in flight exceed their share of the request window."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueber import api, rpc
from queueber.server.net.read_scheduler import REQUEST_WINDOW, WINDOW_SHARE_MIN, exceeds_share, has_room
from queueber.server.net.states import ConnectionState
from queueber.units import KIB

CONTENT = bytes(64 * KIB)
ADDING = api.write_add_request(api.AddRequest([api.NewItem(CONTENT, 0)]))
MORE_THAN_THE_WINDOW = 2 * REQUEST_WINDOW // len(CONTENT)


def fill(peer, number=MORE_THAN_THE_WINDOW):
    """Send adds without waiting for a reply, in reactor turns during which the disk does nothing."""
    questions = [peer.add(CONTENT) for _ in range(number)]
    for _ in range(2 * number):
        peer.server.turn()
    return questions


def wait(server, seconds):
    for _ in range(seconds):
        server.reactor.advance(1)
        server.connections.timeouts.expire()


def throttled(peer):
    return peer.protocol.state is ConnectionState.THROTTLED


class TestAProducerThatDoesNotWait:
    def test_has_its_share_of_the_window_in_flight_and_loses_nothing(self, server):
        peer = server.connect()
        questions = fill(peer)
        assert throttled(peer)
        # One call may pass the bound, and each counts a little more than its contents.
        assert REQUEST_WINDOW < peer.request_bytes <= REQUEST_WINDOW + 2 * len(CONTENT)
        server.settle()
        assert not throttled(peer)
        outcomes = peer.receive()
        assert all(isinstance(outcomes[each], rpc.Results) for each in questions)

    def test_stops_the_transport_until_half_of_its_share_is_free(self, server):
        peer = server.connect()
        fill(peer)
        assert peer.transport.producerState == "paused"
        server.settle()
        assert peer.transport.producerState == "producing"

    def test_shares_the_window_with_others(self, server):
        peers = [server.connect() for _ in range(8)]
        for peer in peers:
            for _ in range(16):
                peer.add(CONTENT)
        for _ in range(500):
            server.turn()
        assert all(map(throttled, peers))
        assert sum(peer.request_bytes for peer in peers) <= REQUEST_WINDOW + 8 * 2 * len(CONTENT)
        server.settle()
        assert not any(map(throttled, peers))

    def test_a_call_longer_than_the_window_is_carried_out(self, server):
        peer = server.connect()
        question = peer.add(bytes(REQUEST_WINDOW + 1))
        server.settle()
        assert isinstance(peer.receive()[question], rpc.Results)
        assert peer.protocol.state is ConnectionState.OPEN

    def test_polls_of_a_throttled_connection_are_served(self, server):
        peer, other = server.connect(), server.connect()
        waiting = peer.poll()
        server.settle()
        fill(peer)
        assert throttled(peer)
        server.settle()
        assert api.read_poll_response(peer.receive()[waiting]).items
        assert other.protocol.state is ConnectionState.CONNECTED

    def test_other_kinds_of_calls_free_their_share_too(self, server):
        """Settles and adds with a key wait for rows, and are answered in other ways than adds."""
        peer = server.connect()
        fill(peer)
        item = api.NewItem(CONTENT, 0, api.ItemOptions(dedup_key=b"k"))
        keyed = [peer.call(api.ADD, api.write_add_request(api.AddRequest([item]))) for _ in range(2)]
        settles = [
            peer.call(
                api.SETTLE,
                api.write_settle_request(
                    api.SettleRequest([api.Settlement(b"l" * 16, b"i" * 16, api.Action.FAIL, None, "")])
                ),
            )
            for _ in range(2)
        ]
        server.settle()
        outcomes = peer.receive()
        assert all(isinstance(outcomes[each], rpc.Results) for each in keyed + settles)
        assert not peer.request_bytes
        assert peer.protocol.state is ConnectionState.OPEN


class TestTimeouts:
    @pytest.fixture
    def server(self, make_server):
        return make_server(stalled_message_ms=5_000, session_silence_ms=30_000)

    def test_a_message_that_the_server_does_not_read_on_is_not_held_against_its_sender(self, server):
        peer = server.connect()
        fill(peer, REQUEST_WINDOW // len(CONTENT) - 1)
        assert peer.protocol.state is ConnectionState.OPEN
        for _ in range(2):
            peer.connection.call(peer.root, api.QUEUE_INTERFACE_ID, api.ADD, ADDING)
        peer.protocol.dataReceived(peer.connection.data_to_send()[:-1])
        assert throttled(peer)
        wait(server, 10)
        assert throttled(peer)
        server.settle()
        assert peer.protocol.state is ConnectionState.OPEN
        wait(server, 10)
        assert peer.protocol.state is ConnectionState.CLOSING

    def test_a_throttled_worker_keeps_its_session(self, server):
        peer = server.connect()
        peer.attach()
        server.settle()
        fill(peer, REQUEST_WINDOW // len(CONTENT))
        assert throttled(peer)
        wait(server, 70)
        assert throttled(peer)


@given(st.dictionaries(st.integers(0, 20), st.integers(1, 3 * REQUEST_WINDOW), min_size=1))
def test_a_connection_with_room_does_not_exceed_its_share(request_bytes):
    for peer, own in request_bytes.items():
        assert not (exceeds_share(peer, request_bytes) and has_room(peer, request_bytes))
        if own > WINDOW_SHARE_MIN:
            assert exceeds_share(peer, request_bytes) == (own > REQUEST_WINDOW / len(request_bytes))
    kept = {peer: own for peer, own in request_bytes.items() if not exceeds_share(peer, request_bytes)}
    assert sum(kept.values()) <= REQUEST_WINDOW + WINDOW_SHARE_MIN * len(kept)
    assert has_room(21, request_bytes)

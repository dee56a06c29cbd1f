"""Session leases over connections: attach, ping, loss, silence, pauses of the server, and starts."""

import pytest

from queueber import api
from queueber.broker import sessions
from queueber.broker.leases import FOREVER
from queueber.errors import Kind
from queueber.fixed_limits import ATTACH_BYTES
from queueber.limits import DEFAULTS
from queueber.server.net.states import ConnectionState
from queueber.server.net.timeouts import CHECK_SECONDS
from tests.server.conftest import Server

WORKER, OTHER = b"w" * 16, b"o" * 16
GRACE = 10_000
SILENCE = DEFAULTS.session_silence_ms // 1_000


def outcome(peer, question, read):
    peer.server.settle()
    return read(peer.receive()[question])


def attach(peer, session=WORKER, grace=GRACE, *, more=False):
    return outcome(peer, peer.attach(session, grace, more=more), api.read_attach_response)


def ping(peer):
    """Ping, and return the reply, for which no job of the storage pool is run."""
    question = peer.call_broker(api.PING, api.write_ping_request())
    peer.server.turn()
    peer.server.flush_queue.flush()
    return api.read_ping_response(peer.receive()[question])


def take(peer, count=1, session=WORKER):
    return peer.polled(count, no_wait=True, lease=0, session=session)


def pass_time(server, seconds):
    """Let time pass as it does in a server that runs: the timers of peers are checked regularly."""
    step = CHECK_SECONDS
    for _ in range(round(seconds / step)):
        server.reactor.advance(step)
        server.connections.timeouts.expire()
    server.sweeper.sweep()
    server.settle()


def lose(peer):
    """Take the connection away, as a killed worker does."""
    peer.protocol.connectionLost()
    peer.server.settle()


@pytest.fixture
def worker(server):
    peer = server.connect()
    peer.add(*[b"%d" % number for number in range(10)])
    attach(peer)
    return peer


def test_an_attach_says_what_it_grants(server):
    peer = server.connect()
    assert attach(peer, grace=0) == api.AttachResponse([], 30_000, 30_000)
    assert attach(peer, grace=20_000) == api.AttachResponse([], 20_000, 30_000)


def test_two_sessions_of_one_connection_move_to_another_one_before_the_older_is_lost(server, worker):
    attach(worker, OTHER)
    taken = [take(worker, session=each).lease for each in (WORKER, OTHER)]
    again = server.connect()
    assert [each.lease for each in attach(again).leases] == taken[:1]
    assert [each.lease for each in attach(again, OTHER).leases] == taken[1:]
    lose(worker)
    assert [lease.deadline for lease in server.broker.leases] == [FOREVER] * 2
    lose(again)
    assert FOREVER not in [lease.deadline for lease in server.broker.leases]


def test_an_attach_returns_many_leases_in_pieces(server, worker, monkeypatch):
    monkeypatch.setattr(sessions, "ATTACH_BYTES", 250)
    taken = [take(worker, 2).lease for _ in range(5)]
    lose(worker)
    again = server.connect()
    first = attach(again)
    assert ([each.lease for each in first.leases], first.more) == (taken[:3], True)
    assert attach(again) == api.AttachResponse([], GRACE, 30_000, True)
    # One that was removed meanwhile is left out.
    for item in list(next(lease for lease in server.broker.leases if lease.id == taken[3]).keys):
        removed = again.remove(item, taken[3])
        assert outcome(again, removed, api.read_remove_response) is True
    second = attach(again, more=True)
    assert ([each.lease for each in second.leases], second.more) == (taken[4:], False)
    assert attach(again, more=True) == api.AttachResponse([], GRACE, 30_000)


@pytest.mark.slow
def test_a_session_with_more_leases_than_a_frame_holds_is_attached(make_server):
    """Each piece stays below the smallest frame limit that a client may have."""
    server = make_server(poll_items=10_000, items_per_add=10_000)
    worker = server.connect()
    attach(worker)
    for _ in range(3):
        worker.add(*[b""] * 10_000)
        take(worker, 10_000)
    lose(worker)
    again = server.connect()
    found, more = [], True
    while more:
        response = attach(again, more=bool(found))
        assert len(api.write_attach_response(response)) < 2 * ATTACH_BYTES
        found, more = found + list(response.leases), response.more
    assert [len(each.ids) for each in found] == [10_000] * 3


def test_a_poll_says_that_its_lease_is_one_of_the_session(worker):
    taken = take(worker, 2)
    assert (len(taken.items), taken.session, taken.deadline) == (2, True, 0)
    empty = worker.polled(no_wait=True, lease=5_000)
    assert (empty.session, bool(empty.deadline)) == (False, True)


def test_a_poll_for_another_session_is_refused(worker):
    question = worker.poll(no_wait=True, session=OTHER)
    worker.server.settle()
    assert worker.receive()[question].kind == Kind.FAILED


def test_a_killed_worker_s_items_are_with_others_after_its_grace_and_not_before(server, worker):
    take(worker, 10)
    lose(worker)
    other = server.connect()
    pass_time(server, GRACE / 1_000 - 1)
    assert other.polled(10, no_wait=True).items == []
    pass_time(server, 1)
    taken = other.polled(10, no_wait=True)
    assert [item.attempt for item in taken.items] == [2] * 10


def test_a_worker_whose_network_vanished_loses_its_items_after_the_silence_and_its_grace(server, worker):
    take(worker, 10)
    pass_time(server, SILENCE)
    assert not worker.transport.disconnecting
    pass_time(server, CHECK_SECONDS)
    assert worker.transport.disconnecting
    lose(worker)
    other = server.connect()
    pass_time(server, GRACE / 1_000 - 1)
    assert other.polled(10, no_wait=True).items == []
    pass_time(server, 1)
    assert len(other.polled(10, no_wait=True).items) == 10


def test_a_worker_that_comes_back_in_time_loses_nothing(server, worker):
    """Trap 16, for a worker that holds items."""
    taken = take(worker, 10)
    lose(worker)
    pass_time(server, GRACE / 1_000 - 1)
    again = server.connect()
    found = attach(again)
    assert found.leases == [api.SessionLease(taken.lease, "default", [item.id for item in taken.items])]
    pass_time(server, SILENCE - 1)
    ping(again)
    pass_time(server, SILENCE - 1)
    removed = again.remove(taken.items[0].id, taken.lease)
    assert outcome(again, removed, api.read_remove_response) is True


def test_an_attach_over_another_connection_closes_the_older_one_and_keeps_the_leases(server, worker):
    taken = take(worker)
    worker.poll(20, session=WORKER)
    again = server.connect()
    assert [lease.lease for lease in attach(again).leases] == [taken.lease]
    assert worker.transport.disconnecting
    server.settle()
    assert b"its session was attached over another connection" in worker.transport.value()
    lose(worker)
    pass_time(server, SILENCE - 1)
    assert next(iter(server.broker.leases)).deadline == FOREVER


def test_pings_alone_keep_a_session_and_wait_for_no_commit(server, worker):
    taken = take(worker)
    before = server.committer.commits
    for _ in range(20):
        pass_time(server, SILENCE / 4)
        assert ping(worker) == []
    assert server.committer.commits == before
    assert not worker.transport.disconnecting
    assert [lease.id for lease in server.broker.leases] == [taken.lease]


def test_a_ping_names_leases_that_ended_otherwise(server, worker):
    taken = take(worker)
    (lease,) = server.broker.leases
    server.broker.leases.extend(lease, server.clock.now() + 1_000)
    pass_time(server, 2)
    assert ping(worker) == [taken.lease]
    assert ping(worker) == []


def test_a_server_that_was_stopped_for_a_minute_ends_no_session_whose_pings_came(server, worker):
    take(worker)
    silent = server.connect()
    attach(silent, OTHER)
    server.reactor.advance(60)
    server.connections.timeouts.expire()  # timers run first …
    assert not worker.transport.disconnecting
    ping(worker)  # … then the sockets are read
    pass_time(server, 1)
    assert not worker.transport.disconnecting
    assert silent.transport.disconnecting


def test_silence_does_not_count_while_the_server_does_not_read_the_peer(make_server):
    server = make_server(unsent_bytes=64 << 10, stalled_replies_ms=600_000)
    peer = server.connect()
    attach(peer)
    peer.stop_reading()
    for _ in range(12):
        peer.add(*[b""] * 1_000)
    server.settle()
    assert peer.protocol.state is ConnectionState.PAUSED
    pass_time(server, 2 * SILENCE - 1)
    assert not peer.transport.disconnecting
    peer.read_on()
    pass_time(server, SILENCE - 1)
    assert not peer.transport.disconnecting
    pass_time(server, 1 + CHECK_SECONDS)
    assert peer.transport.disconnecting


def test_connections_that_the_server_ends_because_it_stops_start_no_grace(server, worker):
    taken = take(worker)
    server.parts.handlers.drain()
    server.parts.sessions.drain()
    lose(worker)
    ((lease, record),) = server.store.recover().leases.items()
    assert (lease, record.deadline) == (taken.lease, FOREVER)


def test_an_idle_connection_with_a_session_does_not_give_way(make_server):
    server = make_server(connections=2)
    peer, idle = server.connect(), server.connect()
    attach(peer)
    idle.send()
    server.settle()
    server.reactor.advance(5)
    assert server.connect() is not None
    assert idle.aborted
    assert not peer.aborted


@pytest.mark.slow
def test_a_thousand_workers_with_ten_thousand_leases_for_a_minute_write_nothing():
    """Trap 13."""
    server = Server()
    producer = server.connect()
    for _ in range(10):
        producer.add(*[b"x"] * 1_000)
        server.settle()
    workers = [server.connect() for _ in range(1_000)]
    for number, peer in enumerate(workers):
        session = number.to_bytes(16, "big")
        peer.attach(session)
        for _ in range(10):
            peer.poll(no_wait=True, session=session)
    for _ in range(3):
        server.settle()
    assert len(server.broker.leases) == 10_000
    before = server.committer.commits
    for _ in range(8):
        pass_time(server, 7.5)
        for peer in workers:
            peer.call_broker(api.PING, api.write_ping_request())
    assert server.committer.commits == before
    assert len(server.broker.leases) == 10_000

"""A session that the client keeps: attached to each connection, pinged, compared, and given back, at a real server."""

import pytest
from attrs import evolve
from joined import Joined
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import globalLogPublisher

from queueber import api
from queueber.client import NotConnected
from queueber.client_core.kept_session import SessionState
from queueber.errors import InvalidRequest, Kind, Overloaded, Stopping
from queueber.limits import DEFAULTS
from queueber.testing import InProcessServer
from queueber.units import SpanMs

GRACE_MS = 20_000
PING_SECONDS = GRACE_MS / 4 / 1_000


@pytest.fixture
def joined():
    return Joined()


@pytest.fixture(name="joined_client")
def fixture_of_client(joined):
    return joined.client()


@pytest.fixture
def lost():
    return []


@pytest.fixture
def session(joined, joined_client, lost):
    session = joined_client.session(GRACE_MS, on_lost=lost.append)
    joined.result(session.attached())
    return session


def passes(joined, seconds):
    """Let *seconds* pass in steps in which everything is delivered."""
    for _ in range(round(seconds)):
        joined.pass_time(1)


def reconnect(joined, after=1):
    joined.break_link()
    passes(joined, after)


def test_a_session_lease_outlives_lost_connections(joined, joined_client, session, lost):
    queue = joined_client.queue("mail")
    joined.result(queue.add(b"x"))
    batch = joined.result(queue.poll(session=session, lease_ms=1))
    assert (batch.session, batch.deadline) == (True, 0)
    for _ in range(3):
        reconnect(joined)
        passes(joined, 3 * GRACE_MS / 1_000)
    assert session.state is SessionState.ATTACHED
    assert joined.result(batch.items[0].remove()) is True
    assert lost == []


def test_it_is_pinged_each_quarter_and_says_until_when_its_leases_are_safe(joined, session):
    clock = joined.server.reactor
    assert session.safe_until == clock.seconds() + GRACE_MS / 1_000
    passes(joined, PING_SECONDS - 1)
    assert session.safe_until < clock.seconds() + GRACE_MS / 1_000
    passes(joined, 1)
    assert session.safe_until == clock.seconds() + GRACE_MS / 1_000
    joined.refusing = True
    joined.break_link()
    until = session.safe_until
    passes(joined, 2 * GRACE_MS / 1_000)
    assert (session.safe_until, session.state) == (until, SessionState.DETACHED)


def test_a_poll_that_waits_in_a_session_waits_on_after_a_reconnection(joined, joined_client, session):
    """The session is attached first, or the server would refuse the poll."""
    queue = joined_client.queue("mail")
    polling = queue.poll(session=session)
    joined.settle()
    reconnect(joined)
    joined.result(queue.add(b"x"))
    batch = joined.result(polling)
    assert (batch.session, len(batch)) == (True, 1)


def test_leases_that_ended_while_the_connection_was_lost_are_reported(joined, joined_client, session, lost):
    queue = joined_client.queue("mail")
    joined.result(queue.add(b"x", b"y"))
    batches = [joined.result(queue.poll(session=session)) for _ in range(2)]
    joined.refusing = True
    reconnect(joined, after=GRACE_MS / 1_000 + 5)
    assert lost == []
    joined.refusing = False
    passes(joined, 1)
    assert lost == sorted(each.lease for each in batches)
    assert [item.attempt for item in joined.result(queue.poll(2))] == [2, 2]


def test_a_lease_that_an_operator_ends_is_reported_by_a_ping(joined, joined_client, session, lost):
    queue = joined_client.queue("mail")
    joined.result(queue.add(b"x"))
    batch = joined.result(queue.poll(session=session))
    assert joined.result(joined_client.control("mail").end_lease(batch.lease)) is True
    passes(joined, PING_SECONDS + 1)
    assert lost == [batch.lease]


@pytest.mark.parametrize(
    "settle",
    [
        lambda item, queue: item.remove(),
        lambda item, queue: queue.remove(item.id, item.lease),
        lambda item, queue: queue.fail(item.id, item.lease),
        lambda item, queue: queue.reject(item.id, item.lease),
    ],
)
def test_a_settled_item_is_not_reported_as_lost(joined, joined_client, session, lost, settle):
    queue = joined_client.queue("mail")
    joined.result(queue.add(b"x"))
    (item,) = joined.result(queue.poll(session=session))
    joined.result(settle(item, queue))
    reconnect(joined)
    passes(joined, PING_SECONDS + 1)
    assert lost == []


def test_a_lease_that_has_left_its_session_is_not_reported_as_lost(joined, joined_client, session, lost):
    queue = joined_client.queue("mail")
    joined.result(queue.add(b"x"))
    (item,) = joined.result(queue.poll(session=session))
    assert joined.result(item.extend(60_000)) is True
    reconnect(joined)
    passes(joined, PING_SECONDS + 1)
    assert lost == []
    assert joined.result(item.remove()) is True


def test_a_lease_whose_reply_was_lost_is_given_back_after_attaching(joined, joined_client, session):
    """A lease of an attached session would not end by itself."""
    queue = joined_client.queue("mail")
    joined.result(queue.add(b"x"))
    polling = queue.poll(session=session)
    joined.server.reactor.advance(0)
    _, transport, peer, peer_transport = joined.links[-1]
    peer.dataReceived(transport.value())
    joined.server.settle()
    assert joined.server.broker.stats().leases == 1
    peer_transport.clear()
    reconnect(joined)
    batch = joined.result(polling)
    assert [(item.contents, item.attempt) for item in batch] == [(b"x", 1)]


def test_closing_gives_back_what_is_left(joined, joined_client, session):
    queue = joined_client.queue("mail")
    joined.result(queue.add(b"x", b"y"))
    batch = joined.result(queue.poll(2, session=session))
    joined.result(batch.items[0].remove())
    joined.result(session.close())
    assert [item.contents for item in joined.result(queue.poll(2, wait_ms=0))] == [b"y"]
    with pytest.raises(InvalidRequest, match="session is closed"):
        joined.result(queue.poll(session=session))
    joined.result(session.close())


def test_the_connection_of_a_closed_session_is_not_taken_for_silent(joined, joined_client, session):
    joined.result(session.close())
    polling = joined_client.queue("mail").poll()
    passes(joined, 3 * DEFAULTS.session_silence_ms / 1_000)
    assert len(joined.server.connections) == 1
    assert not polling.called
    polling.cancel()
    polling.addErrback(lambda failure: failure.trap(CancelledError))


def test_closing_without_a_connection_says_that_the_items_were_not_given_back(joined, joined_client, session):
    queue = joined_client.queue("mail")
    joined.result(queue.add(b"x"))
    joined.result(queue.poll(session=session))
    joined.refusing = True
    joined.break_link()
    with pytest.raises(NotConnected, match="the session's items were not given back"):
        joined.result(session.close())


def test_as_a_context_manager(joined, joined_client):
    queue = joined_client.queue("mail")
    joined.result(queue.add(b"x", b"y"))

    async def work():
        async with joined_client.session() as session:
            assert session.state is SessionState.ATTACHED
            async with await queue.poll(session=session):
                pass
            await queue.poll(session=session)

    joined.result(Deferred.fromCoroutine(work()))
    assert [item.contents for item in joined.result(queue.poll(2, wait_ms=0))] == [b"y"]


def test_without_a_server_its_context_is_not_entered(joined):
    joined.refusing = True
    client = joined.client(attempts=2)
    session = client.session()
    attached = session.attached()
    passes(joined, 2)
    with pytest.raises(NotConnected):
        joined.result(attached)
    client.close()
    assert joined.server.reactor.getDelayedCalls() == []


def test_a_server_without_room_for_sessions_is_asked_again(joined):
    joined = Joined(InProcessServer(evolve(DEFAULTS, sessions=1)))
    other = joined.client()
    first = other.session()
    joined.result(first.attached())
    client = joined.client()
    second = client.session()
    attached = second.attached()
    joined.settle()
    assert second.state is SessionState.REFUSED
    assert isinstance(second.error, Overloaded)
    with pytest.raises(Overloaded):
        joined.result(client.default.poll(session=second))
    other.close()
    joined.break_link(0)
    passes(joined, 40)
    joined.result(attached)
    assert second.state is SessionState.ATTACHED


def test_another_refusal_ends_the_wait_for_the_session(network, client, failure):
    session = client.session()
    attached = session.attached()
    network.turn()
    (call,) = network.peer.calls()
    assert api.read_attach_request(call.params).grace == 30_000
    network.peer.connection.return_exception(call.answer, Kind.DISCONNECTED, "the server is stopping")
    network.peer.send()
    assert isinstance(failure(attached), Stopping)
    network.peer.transport.loseConnection()
    assert session.state is SessionState.DETACHED


def test_an_old_server_has_no_sessions_and_polls_go_on(network, client, success):
    session = client.session()
    attached = session.attached()
    network.turn()
    (call,) = network.peer.calls()
    network.peer.connection.return_exception(call.answer, Kind.UNIMPLEMENTED, "no method 2")
    network.peer.send()
    assert success(attached) is None
    assert (session.state, session.next_at, session.safe_until) == (SessionState.UNSUPPORTED, None, None)
    client.default.poll(session=session, lease_ms=1_500)
    network.turn()
    (call,) = network.peer.calls()
    assert api.read_poll_request(call.params).session == session.session_id
    assert success(session.close()) is None


def test_closing_the_client_leaves_no_timer(joined, joined_client, session):
    joined_client.close()
    joined.settle()
    assert session.state is SessionState.CLOSED
    assert joined.server.reactor.getDelayedCalls() == []


def test_closing_the_client_gives_back_what_is_left(joined, joined_client, session):
    queue = joined_client.queue("mail")
    joined.result(queue.add(b"x"))
    joined.result(queue.poll(session=session))
    assert joined.result(joined_client.close()) is None
    other = joined.client()
    (item,) = joined.result(other.queue("mail").poll(wait_ms=0))
    assert (item.contents, item.attempt) == (b"x", 1)


def test_a_function_that_raises_does_not_end_the_connection(joined, joined_client):
    failures = []
    globalLogPublisher.addObserver(failures.append)
    session = joined_client.session(on_lost=lambda _: 1 / 0)
    queue = joined_client.queue("mail")
    joined.result(queue.add(b"x"))
    batch = joined.result(queue.poll(session=session))
    joined.result(joined_client.control("mail").end_lease(batch.lease))
    passes(joined, PING_SECONDS + 5)
    globalLogPublisher.removeObserver(failures.append)
    assert [each["log_failure"].type for each in failures if "log_failure" in each] == [ZeroDivisionError]
    assert len(joined.links) == 1
    assert session.state is SessionState.ATTACHED


def test_closing_takes_ten_seconds_at_most(joined, joined_client, session):
    queue = joined_client.queue("mail")
    joined.result(queue.add(b"x"))
    joined.result(queue.poll(session=session))
    closing, failures = session.close(), []
    closing.addErrback(failures.append)
    joined.server.reactor.pump([1.0] * 9)
    assert not failures
    joined.server.reactor.advance(1)
    assert "the session's items may be returned or not" in str(failures[0].value)


def test_many_leases_come_in_pieces(joined, joined_client, session, lost, monkeypatch):
    monkeypatch.setattr("queueber.broker.sessions.ATTACH_BYTES", 64)
    queue = joined_client.queue("mail")
    joined.result(queue.add(*[b"x"] * 5))
    batches = [joined.result(queue.poll(session=session)) for _ in range(5)]
    reconnect(joined)
    joined.settle()
    assert lost == []
    assert [joined.result(each.items[0].remove()) for each in batches] == [True] * 5


def test_spans_of_the_server_are_used(joined):
    joined = Joined(InProcessServer(evolve(DEFAULTS, session_silence_ms=SpanMs(4_000))))
    client = joined.client()
    session = client.session()
    joined.result(session.attached())
    assert session.next_at == joined.server.reactor.seconds() + 1
    passes(joined, 60)
    assert session.state is SessionState.ATTACHED
    assert len(joined.server.connections) == 1

"""Settles over a connection: outcomes, reads in the pool, and what may happen while rows are read."""

import pytest
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from queueber import api, rpc
from queueber.broker.storage import PutLease
from queueber.errors import Damaged, Kind, Passing
from queueber.testing import InProcessServer
from queueber.testing.memory import DisklessStore
from queueber.units import SpanMs
from queueber.values import Action, AddTo, DeathReason, NewItem, Outcome, Settled, Settlement

LONG = 60_000
UNKNOWN = b"?" * 16


def settle(peer, *entries, adds=(), all_or_nothing=False, target=None):
    return peer.call(api.SETTLE, api.write_settle_request(api.SettleRequest(entries, adds, all_or_nothing)), target)


def entry(action, lease, item=b"", delay=None, error=""):
    return Settlement(lease, item, action, None if delay is None else SpanMs(delay), error)


def response(peer, question):
    return api.read_settle_response(peer.receive()[question])


def outcomes(peer, question):
    return [each.outcome for each in response(peer, question).settled]


@pytest.fixture
def worker(server):
    """A peer with three items under one lease, the lease, and the items' ids."""
    peer = server.connect()
    peer.add(b"a", b"b", b"c")
    polled = peer.polled(3, lease=LONG)
    server.reactor.advance(1)
    return peer, polled.lease, [item.id for item in polled.items]


def contents(peer, target=None):
    return [item.contents for item in peer.polled(9, lease=LONG, no_wait=True, target=target).items]


def test_each_action_is_done(server, worker):
    peer, lease, (a, b, c) = worker
    call = settle(
        peer,
        entry(Action.REMOVE, lease, a),
        entry(Action.FAIL, lease, b, delay=0, error="no disk"),
        entry(Action.EXTEND, lease, delay=5_000),
        entry(Action.REJECT, lease, c),
        entry(Action.DEFER, lease),
    )
    server.settle()

    reply = response(peer, call)
    assert [each.outcome for each in reply.settled] == [Outcome.DONE] * 4 + [Outcome.LEASE_LOST]
    assert [each.died for each in reply.settled] == [False, False, False, True, False]
    assert reply.changed
    assert contents(peer) == [b"b"]
    assert len(server.broker.leases) == 1


def test_removes_and_extends_read_nothing(server, worker):
    peer, lease, (a, *_) = worker
    server.store.read = None
    call = settle(peer, entry(Action.REMOVE, lease, a), entry(Action.EXTEND, lease, delay=5_000))
    server.settle()

    assert outcomes(peer, call) == [Outcome.DONE] * 2


def test_the_reply_waits_for_the_commit(server, worker):
    peer, lease, (a, *_) = worker
    call = settle(peer, entry(Action.FAIL, lease, a))
    server.pool.step()
    server.turn()
    assert call not in peer.receive()
    server.pool.step()

    assert outcomes(peer, call) == [Outcome.DONE]


def test_the_root_settles_all_queues_and_a_queue_its_own(server, worker):
    peer, lease, (a, b, _) = worker
    other = peer.queue("other")
    peer.add(b"m", target=other)
    theirs = peer.polled(1, lease=LONG, no_wait=True, target=other).lease
    entries = entry(Action.FAIL, lease, a, delay=0), entry(Action.FAIL, theirs, delay=0)

    from_queue = settle(peer, *entries, target=other)
    server.settle()
    assert outcomes(peer, from_queue) == [Outcome.LEASE_LOST, Outcome.DONE]

    from_root = settle(peer, entry(Action.DEFER, lease, b), entries[0])
    server.settle()
    assert outcomes(peer, from_root) == [Outcome.DONE] * 2


def test_a_hand_off_is_one_commit(server, worker):
    peer, lease, (a, *_) = worker
    before = server.committer.commits
    adds = [AddTo("next", [NewItem(b"a2", SpanMs(0))]), AddTo("", [NewItem(b"a3", SpanMs(0))])]
    call = settle(peer, entry(Action.REMOVE, lease, a), adds=adds)
    server.settle()

    reply = response(peer, call)
    assert [len(each.ids) for each in reply.added] == [1, 1]
    assert server.committer.commits == before + 1
    assert contents(peer) == [b"a3"]


def test_a_stale_entry_refuses_a_hand_off(server, worker):
    peer, lease, (a, *_) = worker
    adds = [AddTo("next", [NewItem(b"a2", SpanMs(0))])]
    call = settle(peer, entry(Action.REMOVE, lease, a), entry(Action.FAIL, UNKNOWN), adds=adds)
    server.settle()

    assert response(peer, call) == api.SettleResponse(
        [Settled(Outcome.DONE), Settled(Outcome.LEASE_LOST)], [], changed=False
    )
    assert server.broker.stats().items == 3


def test_all_or_nothing_refuses_with_one_stale_entry(server, worker):
    peer, lease, (a, *_) = worker
    call = settle(peer, entry(Action.REMOVE, lease, a), entry(Action.REMOVE, lease, UNKNOWN), all_or_nothing=True)
    server.settle()

    assert outcomes(peer, call) == [Outcome.DONE, Outcome.NOT_FOUND]
    assert not response(peer, call).changed


def test_an_extend_before_and_after_a_settle_of_one_commit_both_count(server, worker):
    """Extend, settle, extend in one commit lost the second extend: the rows of a lease were put where the first was."""
    peer, lease, (a, b, c) = worker
    settled = settle(peer, entry(Action.DEFER, lease, a, delay=LONG))
    written = []
    commit = server.store.commit
    server.store.commit = lambda writes, mark: written.append(writes) or commit(writes, mark)
    peer.extend(lease, SpanMs(70_000))
    server.pool.step()
    peer.extend(lease, SpanMs(80_000))
    server.settle()

    assert outcomes(peer, settled) == [Outcome.DONE]
    (writes,) = written
    *_, last = [write.record for write in writes if isinstance(write, PutLease)]
    assert last.deadline == server.clock.now() + 80_001
    assert [key.id for key in last.keys] == [b, c]
    (recovered,) = server.store.recover().leases.values()
    assert recovered.deadline == last.deadline


def test_a_lease_that_ends_while_the_rows_are_read_is_lost(server, worker):
    peer, lease, (a, *_) = worker
    call = settle(peer, entry(Action.FAIL, lease, a))
    server.reactor.advance(LONG / 1_000)
    server.settle()

    assert call in peer.receive(), "it waits for no commit, and is sent all the same"
    assert outcomes(peer, call) == [Outcome.LEASE_LOST]


def test_settles_are_decided_in_the_order_of_their_arrival(server, worker):
    peer, lease, (a, b, _) = worker
    calls = [settle(peer, entry(Action.FAIL, lease, a, delay=0)), settle(peer, entry(Action.FAIL, lease, a, delay=0))]
    calls.append(settle(peer, entry(Action.DEFER, lease, b)))
    assert server.pool.waiting == 1, "one job reads at a time"
    server.settle()

    assert [outcomes(peer, call) for call in calls] == [[Outcome.DONE], [Outcome.NOT_FOUND], [Outcome.DONE]]


def test_what_waits_for_its_rows_counts(make_server):
    server = make_server(request_bytes=1_000)
    peer = server.connect()
    peer.add(b"a" * 900)
    server.settle()
    lease = peer.polled(1, lease=LONG).lease

    first, second = settle(peer, entry(Action.FAIL, lease)), settle(peer, entry(Action.FAIL, lease))
    assert peer.request_bytes == server.committer.pending_bytes > 900
    server.settle()

    assert outcomes(peer, first) == [Outcome.DONE]
    assert peer.outcomes[second].kind == Kind.OVERLOADED
    assert "request_bytes" in peer.outcomes[second].reason
    assert peer.request_bytes == server.committer.pending_bytes == 0


@pytest.mark.parametrize(("error", "kind"), [(Damaged("torn"), Kind.FAILED), (Passing("full"), Kind.OVERLOADED)])
def test_rows_that_cannot_be_read_refuse_their_settle_alone(server, worker, error, kind):
    peer, lease, (a, b, _) = worker
    read = server.store.read

    def fail_for_a(queue, keys):
        if any(key.id == a for key in keys):
            raise error
        return read(queue, keys)

    server.store.read = fail_for_a
    bad, good = settle(peer, entry(Action.FAIL, lease, a)), settle(peer, entry(Action.FAIL, lease, b))
    server.settle()

    assert peer.receive()[bad].kind == kind
    assert str(error) not in peer.outcomes[bad].reason
    assert outcomes(peer, good) == [Outcome.DONE]
    assert peer.request_bytes == server.committer.pending_bytes == 0


def test_a_settle_of_a_lost_connection_takes_effect(server, worker):
    peer, lease, (a, *_) = worker
    settle(peer, entry(Action.REJECT, lease, a))
    peer.protocol.connectionLost(Failure(ConnectionDone()))
    server.settle()

    assert server.broker.deaths.counts.total() == 1


class TestDeadLetters:
    @pytest.fixture
    def dead(self, server, worker):
        peer, lease, (a, b, _) = worker
        settle(peer, entry(Action.REJECT, lease, a, error="broken"), entry(Action.REJECT, lease, b))
        question = peer.connection.call(
            peer.root, api.QUEUE_INTERFACE_ID, api.DEAD_LETTERS, api.write_dead_letters_request()
        )
        peer.send()
        server.settle()
        return rpc.PromisedAnswer(question, (0,))

    def test_are_a_queue(self, server, worker, dead):
        peer, *_ = worker
        polled = peer.polled(9, lease=LONG, no_wait=True, target=dead)
        assert [item.contents for item in polled.items] == [b"a", b"b"]

        first, second = [item.id for item in polled.items]
        call = settle(
            peer, entry(Action.REMOVE, polled.lease, first), entry(Action.REJECT, polled.lease, second), target=dead
        )
        server.settle()
        assert response(peer, call).settled[1].died is False, "dead items do not die again"
        assert contents(peer, dead) == [b"b"]

    def test_have_none_of_their_own(self, server, worker, dead):
        peer, *_ = worker
        call = peer.call(api.DEAD_LETTERS, api.write_dead_letters_request(), dead)
        server.settle()

        assert peer.receive()[call].kind == Kind.FAILED


def test_a_server_that_is_killed_after_any_commit_has_each_item_once(server, monkeypatch):
    """Settles of all kinds, a hand-off and a redrive; each prefix of their commits is a state to start from."""
    commits = []
    commit = server.store.commit
    server.store.commit = lambda writes, mark: commits.append((list(writes), mark)) or commit(writes, mark)
    peer = server.connect()
    peer.add(b"a", b"b", b"c", b"d")
    polled = peer.polled(4, lease=LONG)
    lease, (a, b, c, d) = polled.lease, [item.id for item in polled.items]
    handed_on = [AddTo("next", [NewItem(b"d2", SpanMs(0))])]
    for entries, adds in (
        ([entry(Action.REJECT, lease, a, error="broken")], ()),
        ([entry(Action.FAIL, lease, b, delay=5)], ()),
        ([entry(Action.REMOVE, lease, d)], handed_on),
        ([entry(Action.DEFER, lease, c)], ()),
    ):
        server.reactor.advance(0.01)
        settle(peer, *entries, adds=adds)
        server.settle()
    queue = server.broker.queue("default")
    search = server.broker.dead_letters.begin(queue, queue, (), DeathReason.NONE, 9)
    search.add_slice(server.store.scan(search.number, search.after, items_max=9, bytes_max=10**6))
    server.committer.submit(server.broker.dead_letters.redrive(search, server.clock.now()), lambda _: None)
    server.settle()

    found = [delivered_after(commits[:count], monkeypatch) for count in range(len(commits) + 1)]
    everything = [b"a", b"b", b"c", b"d"]
    # The add and the poll share a commit.
    assert found == [[], everything, everything, everything, *[[b"a", b"b", b"c", b"d2"]] * 3]


def delivered_after(commits, monkeypatch):
    """Return the contents that a server delivers that starts from *commits*, once all leases have ended."""
    store = DisklessStore()
    for writes, mark in commits:
        store.commit(writes, mark)
    monkeypatch.setattr("queueber.testing.in_process.DisklessStore", lambda: store)
    server = InProcessServer()
    server.reactor.advance(2 * LONG / 1_000)
    server.sweeper.sweep()
    server.settle()
    delivered = []
    for line in list(server.broker.queues.lines()):
        waiter = server.broker.poll(
            line, wanted=9, lease_duration=SpanMs(LONG), wait=SpanMs(0), peer=1, now=server.clock.now()
        )
        server.dispatcher.wait(waiter, 1, 0.0, delivered.extend)
        server.settle()
    return sorted(item.contents for _, _, delivery in delivered for item in delivery.items)

"""The order of a call: decide, commit, send the reply.  Each test checks what a peer receives, and when."""

import pytest
from twisted.internet.error import ConnectionDone
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure

from queueber import api
from queueber.broker import Scan, StoreStalled
from queueber.broker.model import just_below
from queueber.broker.storage import Gap
from queueber.errors import Damaged, Kind, Passing, Stopping, StorageError, Withheld
from queueber.limits import DEFAULTS


def ids(outcome):
    return api.read_add_response(outcome).ids


def polled(outcome):
    return [item.contents for item in api.read_poll_response(outcome).items]


def test_no_reply_is_sent_before_its_commit_is_durable(server):
    peer = server.connect()
    add = peer.add(b"a")
    server.turn()
    assert add not in peer.receive()

    server.pool.step()

    assert len(ids(peer.receive()[add])) == 1


def test_a_bootstrap_alone_is_answered_at_once(server):
    peer = server.connect()
    peer.send()

    assert list(peer.receive()) == [peer.root.question]


def test_the_limits_in_force_are_answered_at_once(server):
    """All that a client can keep to, also before anything is on disk."""
    peer = server.connect()
    root = peer.root
    asked = peer.connection.call(root, api.BROKER_INTERFACE_ID, api.LIMITS, api.write_limits_request())
    peer.send()

    found = api.read_limits_response(peer.receive()[asked])._asdict()
    assert found == {name: getattr(server.limits, name) for name in found}
    assert found["frame_bytes"] == DEFAULTS.frame_bytes
    assert server.handlers.stats.begun["limits"] == 1
    server.settle()
    assert server.handlers.outstanding == 0


def test_a_queue_has_no_limits_of_its_own(server):
    peer = server.connect()
    asked = peer.connection.call(peer.queue("mail"), api.BROKER_INTERFACE_ID, api.LIMITS, api.write_limits_request())
    peer.send()

    assert peer.receive()[asked].kind == Kind.UNIMPLEMENTED


def test_calls_that_arrive_in_one_turn_share_a_commit(server):
    peers = [server.connect() for _ in range(5)]
    for peer in peers:
        peer.add(b"a")
        peer.add(b"b")
    server.turn()

    assert len(server.pool.jobs) == 1
    server.pool.step()
    assert server.committer.commits == 1
    assert all(len(peer.receive()) == 3 for peer in peers)


def test_replies_of_one_commit_go_out_in_one_write(server):
    peer = server.connect()
    writes = []
    peer.transport.write = writes.append
    for _ in range(10):
        peer.add(b"a")
    writes.clear()
    server.turn()
    server.pool.step()

    assert len(writes) == 1


def test_a_reply_without_writes_waits_for_the_commits_before_it(server):
    peer = server.connect()
    add = peer.add(b"a")
    server.turn()
    look = peer.extend(bytes(16), 1000)
    assert look not in peer.receive()

    server.settle()

    assert api.read_extend_response(peer.receive()[look]) is False
    assert add in peer.outcomes


def test_a_reply_without_writes_is_immediate_if_nothing_is_pending(server):
    peer = server.connect()
    look = peer.extend(bytes(16), 1000)

    assert api.read_extend_response(peer.receive()[look]) is False
    assert not server.pool.jobs


def test_a_failed_commit_ends_the_process_and_sends_no_reply(server):
    peer = server.connect()
    add = peer.add(b"a")

    def fail(writes, mark):
        raise StorageError("the disk is gone")

    server.store.commit = fail
    server.turn()
    _done, function, args, kwargs = server.pool.jobs.popleft()
    function(*args, **kwargs)

    assert [what for what, _ in server.deaths] == ["A commit failed"]
    assert add not in peer.receive()


def test_a_bug_in_a_decision_ends_the_process(server, monkeypatch):
    peer = server.connect()
    monkeypatch.setattr(type(server.broker.claims), "distribute", lambda _, now: 1 // 0)
    peer.poll()
    server.turn()

    assert [what for what, _ in server.deaths] == ["A decision failed"]


def test_a_bug_in_a_remove_ends_the_process(server):
    peer = server.connect()
    server.broker.remove = lambda *args: 1 // 0
    peer.call(api.REMOVE, api.write_remove_request(api.RemoveRequest(bytes(16), bytes(16))))
    with pytest.raises(ZeroDivisionError):
        server.turn()

    assert [what for what, _ in server.deaths] == ["A decision failed"]


def test_a_bug_in_a_sweep_ends_the_process(server):
    server.broker.pop_expired = lambda now: 1 // 0
    server.sweeper.sweep()

    assert [what for what, _ in server.deaths] == ["A decision failed"]


def test_a_stalled_commit_is_retried_and_adds_are_refused_meanwhile(server):
    peer = server.connect()
    commit = server.store.commit
    stalls = iter([True, True, False])

    def stalling(writes, mark):
        if next(stalls):
            raise StoreStalled
        commit(writes, mark)

    server.store.commit = stalling
    first = peer.add(b"a")
    server.turn()
    server.pool.step()
    refused = peer.add(b"b")
    assert peer.receive()[refused].kind == Kind.OVERLOADED
    for _ in range(2):
        server.reactor.advance(0.06)
        server.pool.step()

    assert len(ids(peer.receive()[first])) == 1
    later = peer.add(b"c")
    server.settle()
    assert len(ids(peer.receive()[later])) == 1


def test_a_poll_that_waits_is_woken_and_round_by_round(server):
    worker, producer = server.connect(), server.connect()
    polls = [worker.poll() for _ in range(3)]
    server.settle()
    producer.add(b"a", b"b", b"c")
    server.settle()

    assert [polled(worker.receive()[each]) for each in polls] == [[b"a"], [b"b"], [b"c"]]


def test_all_waiting_polls_share_one_timer(server):
    peer = server.connect()
    for wait in (*range(1_005, 1_000, -1), *range(1_000, 1_005)):
        peer.poll(wait=wait)
        server.settle()
    assert len(server.reactor.getDelayedCalls()) == 1
    server.dispatcher.stop()
    assert server.reactor.getDelayedCalls() == []


def test_a_shorter_wait_ends_first_and_leaves_the_timer_for_the_longer_one(server):
    peer = server.connect()
    long, short = peer.poll(wait=500), peer.poll(wait=200)
    server.settle()
    for seconds, ended in ((0.199, []), (0.003, [short]), (0.297, [short]), (0.003, [short, long])):
        server.reactor.advance(seconds)
        server.settle()
        assert [each for each in (short, long) if each in peer.receive()] == ended


def test_a_timer_of_a_poll_that_was_served_does_no_harm(server):
    peer = server.connect()
    served = peer.poll(wait=200)
    server.settle()
    peer.add(b"a")
    server.settle()
    assert served in peer.receive()
    server.reactor.advance(0.1)
    waiting = peer.poll(wait=200)
    server.settle()
    server.reactor.advance(0.15)
    server.settle()
    assert waiting not in peer.receive()
    server.reactor.advance(0.053)
    server.settle()
    assert waiting in peer.receive()


def test_a_wait_ends_by_the_clock(server):
    peer = server.connect()
    poll = peer.poll(wait=500)
    server.settle()
    server.reactor.advance(0.499)
    server.settle()
    assert poll not in peer.receive()

    server.reactor.advance(0.002)
    server.settle()

    assert polled(peer.receive()[poll]) == []


def test_finish_cancels_a_poll_that_waits_and_nothing_stays_leased(server):
    peer = server.connect()
    poll = peer.poll()
    server.settle()
    peer.connection.finish(poll)
    peer.send()
    peer.add(b"a")
    server.settle()

    assert server.broker.stats().leases == 0
    assert server.handlers.outstanding == 0
    other = peer.poll(no_wait=True)
    server.settle()
    assert polled(peer.receive()[other]) == [b"a"]


def test_a_claim_whose_connection_is_lost_is_given_back(server):
    peer = server.connect()
    peer.add(b"a")
    server.settle()
    peer.poll()
    server.turn()
    peer.protocol.connectionLost(Failure(ConnectionDone()))
    server.settle()

    assert server.broker.stats().leases == 0
    other = server.connect()
    (item,) = other.polled(no_wait=True).items
    assert (item.contents, item.attempt) == (b"a", 1)


def test_a_poll_that_does_not_wait_is_decided_before_a_later_add(server):
    peer = server.connect()
    poll = peer.poll(no_wait=True)
    peer.add(b"later")
    server.settle()

    assert polled(peer.receive()[poll]) == []


def test_a_poll_that_is_decided_before_an_add_starts_the_scan_that_it_needs(server):
    """No poll waits at the next cut, which would start it otherwise."""
    peer = server.connect()
    peer.add(b"a", b"b", b"c")
    server.settle()
    queue = server.broker.queue("default")
    queue.window.trim(0, queue.floor, keep=2)
    poll = peer.poll(no_wait=True)
    peer.add(b"d")
    server.committer.decide_now()
    assert server.broker.polls.waiting == 0
    assert queue.refill is not None
    server.settle()
    assert polled(peer.receive()[poll]) == [b"a"]
    assert queue.refill is None
    assert polled(taken(server, peer, 4)) == [b"b", b"c", b"d"]


def test_expired_leases_put_their_items_back(server):
    peer = server.connect()
    peer.add(b"a")
    first = peer.poll(lease=100)
    server.settle()
    assert polled(peer.receive()[first]) == [b"a"]
    server.reactor.advance(0.2)

    server.sweeper.sweep()
    server.settle()

    assert [item.attempt for item in peer.polled(no_wait=True).items] == [2]


def test_a_sweep_that_cannot_read_tries_again(server):
    peer = server.connect()
    peer.add(b"a")
    peer.poll(lease=100)
    server.settle()
    server.reactor.advance(0.2)
    read = server.store.read
    server.store.read = lambda queue, keys: 1 // 0
    swept = server.sweeper.sweep()
    server.settle()
    assert swept.called

    server.store.read = read
    server.reactor.advance(2)
    server.sweeper.sweep()
    server.settle()

    assert server.broker.stats().leases == 0


def spoil(server, *contents):
    """The disk fails at the rows of these, and at any read that asks for one of them."""
    read = server.store.read

    def reading(queue, keys):
        items = read(queue, keys)
        if any(item is not None and item.contents in contents for item in items):
            raise StorageError("Corruption: block checksum mismatch")
        return items

    server.store.read = reading
    return lambda: setattr(server.store, "read", read)


@pytest.mark.parametrize("items_per_poll", [1, 5])
def test_one_leased_row_that_cannot_be_read_keeps_no_other_waiting(server, items_per_poll):
    """Whether the others are under leases of their own or under the same one."""
    peer = server.connect()
    peer.add(b"a", b"b", b"c", b"d", b"e")
    for _ in range(5 // items_per_poll):
        peer.poll(items_per_poll, lease=100)
        server.settle()
    mended = spoil(server, b"c")
    server.reactor.advance(0.2)
    server.sweeper.sweep()
    server.settle()

    assert sorted(polled(taken(server, peer, 9))) == [b"a", b"b", b"d", b"e"]
    stats = server.broker.stats()
    assert (stats.items, server.sweeper.unreadable, server.sweeper.expired) == (5, 1, 4 if items_per_poll == 1 else 0)
    mended()
    server.reactor.advance(1)
    server.sweeper.sweep()
    server.settle()
    assert polled(taken(server, peer, 9)) == [b"c"]


def test_unreadable_items_of_an_expired_lease_survive_a_restart(server):
    peer = server.connect()
    peer.add(b"a", b"b")
    peer.poll(2, lease=100)
    server.settle()
    mended = spoil(server, b"b")
    server.reactor.advance(0.2)
    server.sweeper.sweep()
    server.settle()

    mended()
    (lease,) = server.store.recover().leases.values()
    assert [item.contents for item in server.store.read(lease.queue, tuple(lease.keys))] == [b"b"]


def test_unreadable_rows_are_retried_with_growing_delays(server):
    peer = server.connect()
    peer.add(b"a")
    peer.poll(lease=100)
    server.settle()
    mended = spoil(server, b"a")
    tried = []
    for second in range(300):
        server.reactor.advance(1)
        before = server.sweeper.unreadable
        server.sweeper.sweep()
        server.settle()
        tried += [second] * (server.sweeper.unreadable - before)
    assert tried == [0, 1, 3, 7, 15, 31, 63, 127, 191, 255]
    mended()
    server.reactor.advance(64)
    server.sweeper.sweep()
    server.settle()
    assert server.sweeper.expired == 1
    assert server.sweeper.retrying == 0, "nothing is remembered of a lease that is over"


def taken(server, peer, count):
    poll = peer.poll(count, no_wait=True)
    server.settle()
    return peer.receive()[poll]


def test_a_step_of_the_wall_clock_is_marked_without_anything_else_to_write(server):
    wall = [1_000.0]
    server.clock.wall = lambda: wall[0]
    server.committer.mark_time()
    server.settle()
    assert server.store.recover().mark is None
    wall[0] += 3_600
    server.committer.mark_time()
    server.settle()
    assert server.store.recover().mark.wall == 4_600_000
    assert server.store.recover().mark.queue_time == server.clock.now()
    server.committer.mark_time()
    server.settle()
    assert server.committer.commits == 1


AGAIN = "; nothing is skipped, it is read again for the next poll"


@pytest.mark.parametrize(
    ("error", "kind", "next_"),
    [
        (Damaged("items: a checksum is wrong"), Kind.FAILED, ""),
        (
            Passing("Too many open files"),
            Kind.OVERLOADED,
            AGAIN,
        ),
        (
            Withheld("Input/output error"),
            Kind.OVERLOADED,
            AGAIN,
        ),
        (MemoryError(), Kind.OVERLOADED, AGAIN),
    ],
)
def test_an_unreadable_queue_fails_its_polls_instead_of_seeming_empty(server, error, kind, next_):
    """A poll's error says whether it is worth trying again; the log has a line, and no more than one a second."""
    peer = server.connect()
    peer.add(b"a")
    server.settle()
    queue = server.broker.queue("default")
    queue.window.trim(0, queue.floor)

    def fail(*args, **kwargs):
        raise error

    scan, server.store.scan = server.store.scan, fail
    with capturedLogs() as logged:
        for _ in range(3):
            poll = peer.poll(no_wait=True)
            server.settle()
            outcome = peer.receive()[poll]
            assert outcome.kind == kind
            assert outcome.reason == "queue 'default' cannot be read at the moment; the server's log says why"
    (line,) = [formatEvent(event) for event in logged if event["log_level"] is LogLevel.error]
    assert line == f"Reading queue 'default' failed: {str(error) or 'MemoryError()'}{next_}"

    server.store.scan = scan
    poll = peer.poll(no_wait=True)
    server.settle()
    assert polled(peer.receive()[poll]) == [b"a"]


def test_unreadable_items_are_skipped_and_logged(server):
    peer = server.connect()
    peer.add(b"a", b"b", b"c")
    server.settle()
    queue = server.broker.queue("default")
    queue.window.trim(0, queue.floor)
    scan = server.store.scan

    def scanning(*args, **kwargs):
        first, *others = scan(*args, **kwargs).items
        return Scan(others, exhausted=True, gaps=[Gap(just_below(first.key), StorageError("a checksum is wrong"))])

    server.store.scan = scanning
    with capturedLogs() as logged:
        assert polled(taken(server, peer, 3)) == [b"b", b"c"]
    (line,) = [formatEvent(event) for event in logged if event["log_level"] is LogLevel.error]
    assert line.startswith("Items of queue 'default' cannot be read and are skipped: a checksum is wrong; ")
    assert server.dispatcher.unreadable == 1
    assert queue.items == 3


def test_a_peer_that_takes_no_replies_is_not_read_and_not_served(make_server):
    server = make_server(unsent_bytes=10)
    slow, quick = server.connect(), server.connect()
    first = slow.poll()
    second = quick.poll()
    server.settle()
    slow.stop_reading()
    look = slow.extend(bytes(16), 1000)
    quick.add(b"a")
    server.settle()
    assert {first, look}.isdisjoint(slow.receive())
    assert polled(quick.receive()[second]) == [b"a"]
    assert slow.transport.producerState == "paused"

    slow.read_on()
    quick.add(b"b")
    server.settle()

    assert polled(slow.receive()[first]) == [b"b"]
    assert look in slow.outcomes
    assert slow.transport.producerState == "producing"
    assert server.connections.limit_hits == {"unsent_bytes": 1}


def test_a_peer_with_few_unread_replies_is_served(server):
    peer = server.connect()
    peer.poll()
    server.settle()
    peer.stop_reading()
    add = peer.add(b"a")
    server.settle()
    assert add not in peer.receive()
    assert server.broker.stats().leases == 1
    assert peer.transport.producerState == "producing"

    peer.read_on()

    assert len(ids(peer.receive()[add])) == 1


def test_a_connection_that_lingers_gets_no_items_and_is_cut_off(server):
    bad = server.connect()
    bad.poll()
    server.settle()
    aborted = []
    bad.transport.abortConnection = lambda: aborted.append(True)
    bad.protocol.dataReceived(b"\xff" * 8)
    server.connect().add(b"a")
    server.settle()
    assert server.broker.stats().leases == 0
    assert not aborted

    server.reactor.advance(31)
    server.connections.timeouts.expire()

    assert aborted


def test_adds_beyond_pending_bytes_are_overloaded(make_server):
    server = make_server(pending_bytes=10, item_overhead=1)
    peer = server.connect()
    peer.add(b"x" * 11)
    refused = peer.add(b"y")

    outcome = peer.receive()[refused]
    assert outcome.kind == Kind.OVERLOADED
    assert outcome.reason == "plans that wait for the disk hold 652 bytes; the limit is 10 (pending_bytes)"
    server.settle()
    assert server.committer.pending_bytes == 0


def test_a_draining_server_refuses_new_work_and_finishes_the_old(server):
    peer = server.connect()
    waiting = peer.poll()
    server.settle()
    server.handlers.drain()
    server.dispatcher.end_waiting(Stopping("the server is stopping"))
    server.flush_queue.flush()
    add, poll = peer.add(b"a"), peer.poll()
    extend = peer.extend(bytes(16), 1000)
    server.settle()

    outcomes = peer.receive()
    assert [outcomes[each].kind for each in (waiting, add, poll)] == [Kind.DISCONNECTED] * 3
    assert api.read_extend_response(outcomes[extend]) is False


def test_unknown_methods_are_unimplemented(server):
    peer = server.connect()
    call = peer.call(99, api.write_queue_request("x"))

    assert peer.receive()[call].kind == Kind.UNIMPLEMENTED


def test_a_connection_beyond_the_limit_is_refused(make_server):
    server = make_server(connections=1)
    server.connect().send()

    assert server.factory.buildProtocol(None) is None


def test_a_broken_frame_ends_its_connection_alone(server):
    bad, good = server.connect(), server.connect()
    bad.protocol.dataReceived(b"\xff" * 8)
    assert bad.transport.disconnecting

    add = good.add(b"a")
    server.settle()
    assert len(ids(good.receive()[add])) == 1

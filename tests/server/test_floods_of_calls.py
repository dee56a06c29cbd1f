"""Newer calls at their limits and without end: each limit is hit, memory is bounded, and others are served."""

import gc
import re
import types as python_types

import pytest

from queueber import api, rpc
from queueber.api import control_types
from queueber.api.control import read_control_response, write_control_request
from queueber.broker.session_table import ENDED_MAX
from queueber.errors import Kind
from queueber.fixed_limits import HEADER_BYTES_MAX, HEADERS_MAX, SETTLEMENTS_MAX
from queueber.limits import DEFAULTS
from queueber.server.net.states import ConnectionState
from queueber.units import SpanMs
from queueber.values import Action, ItemOptions, NewItem, Outcome, Settlement

LONG = 60_000
WORKER = b"w" * 16


def attach(peer, session=WORKER):
    question = peer.attach(session)
    peer.server.settle()
    return peer.receive()[question]


def take(peer, count=1, **how):
    return peer.polled(count, no_wait=True, **{"lease": LONG} | how)


def add_with(peer, *options, contents=b"x", request_id=b""):
    items = [NewItem(contents, SpanMs(0), each) for each in options]
    return peer.call(api.ADD, api.write_add_request(api.AddRequest(items, request_id)))


def assert_unharmed(healthy):
    """Add, take and remove an item of a queue of its own."""
    server, queue = healthy.server, healthy.queue("healthy")

    def outcome(method, content):
        question = healthy.call(method, content, queue)
        server.settle()
        return healthy.receive()[question]

    (item,) = api.read_add_response(
        outcome(api.ADD, api.write_add_request(api.AddRequest([NewItem(b"h", SpanMs(0))])))
    ).ids
    poll = api.PollRequest(SpanMs(LONG), 1, None, no_wait=True)
    polled = api.read_poll_response(outcome(api.POLL, api.write_poll_request(poll)))
    assert [each.id for each in polled.items] == [item]
    assert api.read_remove_response(
        outcome(api.REMOVE, api.write_remove_request(api.RemoveRequest(item, polled.lease)))
    )


def reachable(*roots):
    """Return how many objects are reachable from *roots*, code and types left out."""
    seen, waiting = set(), list(roots)
    left_out = type, python_types.ModuleType, python_types.FunctionType, python_types.CodeType
    while waiting:
        each = waiting.pop()
        if id(each) not in seen and not isinstance(each, left_out):
            seen.add(id(each))
            waiting.extend(gc.get_referents(each))
    return len(seen)


class TestSettles:
    def settle(self, peer, entries):
        question = peer.call(api.SETTLE, api.write_settle_request(api.SettleRequest(entries, (), False)))
        peer.server.settle()
        return peer.receive()[question]

    def test_of_as_many_entries_as_there_may_be(self, server):
        peer, healthy = server.connect(), server.connect()
        peer.add(*[b"x"] * SETTLEMENTS_MAX)
        polled = take(peer, SETTLEMENTS_MAX)
        entries = [Settlement(polled.lease, each.id, Action.FAIL, SpanMs(0), "e" * 4_096) for each in polled.items]

        above = self.settle(peer, [*entries, entries[0]])
        assert (above.kind, above.reason) == (Kind.FAILED, "entries is 1,001 elements; the limit is 1,000")
        assert server.broker.stats().leased_items == SETTLEMENTS_MAX

        done = api.read_settle_response(self.settle(peer, entries))
        assert {each.outcome for each in done.settled} == {Outcome.DONE}
        assert server.broker.stats().leased_items == len(server.broker.leases) == 0
        assert (peer.request_bytes, server.committer.pending_bytes) == (0, 0)
        assert_unharmed(healthy)

    def test_of_one_item_a_thousand_times(self, server):
        peer = server.connect()
        peer.add(b"x")
        polled = take(peer)
        entries = [Settlement(polled.lease, polled.items[0].id, Action.DEFER, SpanMs(0), "")] * SETTLEMENTS_MAX

        outcomes = [each.outcome for each in api.read_settle_response(self.settle(peer, entries)).settled]

        assert outcomes == [Outcome.DONE] + [Outcome.LEASE_LOST] * (SETTLEMENTS_MAX - 1)
        assert server.broker.queue("default").items == 1


class TestHeaders:
    def test_count_in_the_reply_to_a_poll(self, server):
        """Contents and headers together stay below the longest message."""
        peer, healthy = server.connect(), server.connect()
        header = ItemOptions(headers=(("h", bytes(HEADER_BYTES_MAX - 1)),))
        for _ in range(5):
            add_with(peer, *[header] * 200, contents=bytes(15_000))
            server.settle()
        peer.receive()
        items = 0
        while items < 1_000:
            peer.poll(1_000, no_wait=True, lease=LONG)
            server.settle()
            assert len(peer.transport.value()) < DEFAULTS.frame_bytes
            question, outcome = max(peer.receive().items())
            polled = api.read_poll_response(outcome)
            assert polled.items, question
            items += len(polled.items)
        assert items == 1_000
        assert_unharmed(healthy)

    def test_above_their_limits_store_nothing(self, server):
        peer = server.connect()
        many = ItemOptions(headers=tuple((str(number), b"") for number in range(HEADERS_MAX + 1)))
        large = ItemOptions(headers=(("h", bytes(HEADER_BYTES_MAX)),))
        questions = [add_with(peer, ItemOptions(), options) for options in (many, large)]
        server.settle()
        outcomes = peer.receive()
        assert [outcomes[each].kind for each in questions] == [Kind.FAILED] * 2
        assert server.broker.stats().items == 0


class TestSessions:
    def test_of_one_connection_that_takes_all_end_with_it(self, make_server):
        server = make_server(sessions=100)
        peer, healthy = server.connect(), server.connect()
        attach(healthy, b"h" * 16)
        assert_unharmed(healthy)
        before = reachable(server.broker)
        questions = [peer.attach(number.to_bytes(16, "big")) for number in range(1_000)]
        server.settle()

        refused = [peer.receive()[each] for each in questions[99:]]
        assert {each.kind for each in refused} == {Kind.OVERLOADED}
        assert len(server.broker.leases.sessions) == 100
        assert healthy.attach(b"h" * 16) is not None
        server.settle()
        assert_unharmed(healthy)

        peer.protocol.connectionLost()
        assert len(server.broker.leases.sessions) == 1
        assert reachable(server.broker) < before + 100
        assert not isinstance(attach(healthy, b"n" * 16), rpc.RemoteException)

    def test_attached_again_and_again_return_their_leases_once(self, server):
        """A call of a hundred bytes would else return megabytes, as often as one read has room for it."""
        peer, healthy = server.connect(), server.connect()
        attach(peer)
        peer.add(*[b"x"] * 1_000)
        taken = take(peer, 1_000, lease=0, session=WORKER)
        for _ in range(1_000):
            peer.attach(WORKER)
        server.settle()
        assert len(peer.transport.value()) < 200 * 1_000
        peer.receive()
        assert_unharmed(healthy)

        again = server.connect()
        (lease,) = api.read_attach_response(attach(again)).leases
        assert (lease.lease, len(lease.ids)) == (taken.lease, 1_000)

    def test_that_never_ping_remember_few_of_the_leases_that_ended(self, server):
        peer = server.connect()
        attach(peer)
        peer.add(*[b"x"] * 500)
        for _ in range(3):
            for _ in range(500):
                peer.poll(no_wait=True, lease=0, session=WORKER)
            server.settle()
            server.settle()
            last = [lease.id for lease in server.broker.leases]
            assert len(last) == 500
            for lease in server.broker.leases:
                server.broker.leases.end(lease, server.clock.now())
            server.reactor.advance(1)
            server.sweeper.sweep()
            server.settle()
        peer.receive()

        question = peer.call_broker(api.PING, api.write_ping_request())
        server.settle()
        ended = api.read_ping_response(peer.receive()[question])
        assert len(ended) == ENDED_MAX
        assert set(ended[-500:]) == set(last)


def test_pings_whose_replies_are_not_read_end_the_reading(make_server):
    server = make_server(unsent_bytes=64 << 10)
    peer, healthy = server.connect(), server.connect()
    attach(peer)
    peer.stop_reading()
    for _ in range(5_000):
        peer.call_broker(api.PING, api.write_ping_request())
        server.turn()
        server.flush_queue.flush()
    assert peer.protocol.state is ConnectionState.PAUSED
    assert server.committer.commits == 0
    assert_unharmed(healthy)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["PEEK", "GET"])
def test_looking_without_end_is_overloaded(make_server, method):
    """`pending_bytes` bounds the memory of the reads, and one pool job reads at a time."""
    server = make_server(pending_bytes=1 << 20)
    peer, healthy = server.connect(), server.connect()
    added = peer.add(*[bytes(1_000)] * 100)
    server.settle()
    number = getattr(control_types, method)
    if method == "PEEK":
        content = write_control_request(number, control_types.PeekRequest(limit=100, contents_bytes=1_000))
    else:
        content = write_control_request(number, api.read_add_response(peer.receive()[added]).ids[0])
    controlled = peer.queue("default", api.CONTROL)
    questions = [
        peer.connection.call(controlled, control_types.CONTROL_INTERFACE_ID, number, content) for _ in range(1_200)
    ]
    peer.send()
    assert len(server.pool.jobs) <= 1
    assert server.committer.pending_bytes < 2 << 20
    server.settle()

    outcomes = [peer.receive()[each] for each in questions]
    kinds = [each.kind for each in outcomes if isinstance(each, rpc.RemoteException)]
    assert set(kinds) == {Kind.OVERLOADED}
    assert 0 < len(kinds) < 1_200
    assert read_control_response(number, outcomes[0])
    assert (peer.request_bytes, server.committer.pending_bytes) == (0, 0)
    assert_unharmed(healthy)


@pytest.mark.slow
@pytest.mark.parametrize("requests", [False, True])
def test_keys_and_request_ids_without_end_use_no_memory_and_leave_no_rows(server, requests):
    peer, healthy = server.connect(), server.connect()

    def flood(numbers):
        for number in numbers:
            if requests:
                add_with(peer, ItemOptions(), request_id=number.to_bytes(16, "big"))
            else:
                add_with(peer, ItemOptions(dedup_key=b"key %d" % number))
            server.settle()
            polled = take(peer)
            peer.remove(polled.items[0].id, polled.lease)
            server.settle()
        peer.receive()

    flood(range(100))
    before = reachable(server.broker)
    flood(range(100, 500))
    assert reachable(server.broker) < before + 50
    assert len(server.store.ended(2**63, entries_max=10_000)) == 500
    assert_unharmed(healthy)

    server.reactor.advance(601)
    server.cleanup.run()
    server.settle()
    assert server.store.ended(2**63, entries_max=10_000) == []
    assert server.broker.stats().items == 0


def test_peeks_of_one_connection_take_its_own_share_only(make_server):
    """A peek may hold 15 MiB until it is answered, which counts in `request_bytes`: others are served."""
    server = make_server(request_bytes=1 << 20, pending_bytes=4 << 20)
    peer, healthy = server.connect(), server.connect()
    peer.add(b"x")
    server.settle()
    controlled = peer.queue("default", api.CONTROL)

    def peek(**how):
        content = write_control_request(control_types.PEEK, control_types.PeekRequest(**how))
        question = peer.connection.call(controlled, control_types.CONTROL_INTERFACE_ID, control_types.PEEK, content)
        peer.send()
        return question

    questions = [peek(limit=1_000, contents_bytes=1) for _ in range(100)]
    assert server.committer.pending_bytes < 1 << 20
    added = healthy.add(b"y")
    large = peek(limit=1_000, contents_bytes=10_000)
    server.settle()

    outcomes = [peer.receive()[each] for each in [*questions, large]]
    refused = [each for each in outcomes if isinstance(each, rpc.RemoteException)]
    assert len(refused) == 99
    said = (
        r"calls of this connection that wait for the disk would be .* bytes; the limit is 1,048,576 \(request_bytes\)"
    )
    assert all(re.fullmatch(said, each.reason) for each in refused)
    assert not isinstance(healthy.receive()[added], rpc.RemoteException)
    alone = peek(limit=1_000, contents_bytes=10_000)
    server.settle()
    bad = peek(after=b"abc")
    server.settle()
    assert not isinstance(peer.receive()[alone], rpc.RemoteException), "one call always fits"
    assert peer.outcomes[bad].kind == Kind.FAILED
    assert (server.handlers.request_bytes, server.committer.pending_bytes) == ({}, 0)

"""Adds or removes of one reactor turn are decided together, whichever connections they are from."""

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from queueber import api
from queueber.broker.model import LOWEST
from queueber.capnp.framing import Framer
from queueber.errors import Kind
from queueber.limits import Limits
from queueber.server.core.ids import RandomIds
from queueber.server.core.write_methods import SHARED_BYTES
from queueber.units import SpanMs
from tests.server.conftest import Server

ADD_X = api.write_add_request(api.AddRequest([api.NewItem(b"x", SpanMs(0))]))
NO_LEASE = b"l" * 16


def plans(server):
    """Return the number of calls in each plan that waits for a commit, once all calls are decided."""
    server.committer.decide_now()
    return [len(plan.reply) for plan in server.committer.pending_plans()]


def remove(peer, item=b"i" * 16, lease=NO_LEASE):
    return peer.remove(item, lease)


def committing(server):
    """Have a commit in flight."""
    server.connect().add(b"first")
    server.turn()
    assert server.committer.committing


@pytest.fixture
def peers(server):
    return [server.connect() for _ in range(3)]


def test_adds_of_many_connections_are_one_plan_with_a_reply_for_each(server, peers):
    questions = [peer.add(*[b"x"] * count) for count, peer in enumerate(peers, 1)]
    assert plans(server) == [3]
    assert server.handlers.request_bytes.keys() == {peer.protocol.peer for peer in peers}
    server.settle()
    found = [len(api.read_add_response(peer.receive()[each]).ids) for peer, each in zip(peers, questions, strict=True)]
    assert found == [1, 2, 3]
    assert not server.handlers.request_bytes
    assert server.handlers.outstanding == 0
    assert server.handlers.stats.seconds["add"].count == 3


def test_the_order_of_decisions_is_the_order_of_arrival(server, peers):
    committing(server)
    one, two, three = peers
    one.add(b"a")
    two.add(b"b")
    remove(three)
    one.add(b"c")
    assert plans(server) == [2, 1, 1]


def test_a_poll_is_decided_after_the_adds_before_it(server, peers):
    peers[0].add(b"a")
    assert not server.broker.queue("default").added
    peers[1].poll()
    assert server.broker.queue("default").added == 1


def test_calls_of_two_queues_are_two_plans(server, peers):
    committing(server)
    mail = peers[1].queue("mail")
    peers[0].add(b"a")
    peers[1].add(b"x", target=mail)
    peers[2].add(b"b")
    assert plans(server) == [1, 1, 1]


def test_an_extend_is_decided_at_once(server, peers):
    committing(server)
    peers[0].add(b"a")
    peers[1].extend(NO_LEASE, SpanMs(1_000))
    assert [len(plan.reply) for plan in server.committer.pending_plans()] == [1, 1]


def test_what_is_collected_is_bounded(server, peers):
    committing(server)
    peers[0].add(bytes(SHARED_BYTES // 2))
    assert not [*server.committer.pending_plans()]
    peers[1].add(bytes(SHARED_BYTES // 2))
    assert [len(plan.reply) for plan in server.committer.pending_plans()] == [2]


def test_nothing_is_collected_close_to_pending_bytes(make_server):
    server = make_server(pending_bytes=10_000)
    committing(server)
    server.connect().add(b"a")
    assert len([*server.committer.pending_plans()]) == 1


@pytest.mark.parametrize("settings", [(), {"coalesce_batch_window_ms": 1_000}.items()], ids=["", "with a window"])
def test_calls_are_decided_in_the_next_turn_though_no_cut_is_due(make_server, settings):
    server = make_server(settings)
    if not settings:
        committing(server)
    server.connect().add(b"a")
    server.connect().add(b"b")
    assert not [*server.committer.pending_plans()]
    server.turn()
    assert [len(plan.reply) for plan in server.committer.pending_plans()] == [2]


def test_a_reply_without_a_commit_is_sent_in_the_turn_of_its_decision(make_server):
    server = make_server({"coalesce_batch_window_ms": 1_000}.items())
    peer = server.connect()
    question = remove(peer)
    server.turn()
    assert not api.read_remove_response(peer.receive()[question])


def test_a_remove_comes_before_the_end_of_its_lease(server, peers):
    peers[0].add(b"a")
    response = peers[0].polled(lease=1_000)
    server.reactor.advance(0.999)
    question = remove(peers[0], bytes(response.items[0].id), bytes(response.lease))
    server.sweeper.sweep()
    server.reactor.advance(0.001)
    server.settle()
    assert api.read_remove_response(peers[0].receive()[question])


def test_a_call_that_is_refused_is_refused_alone(server, peers):
    good, bad, other = remove(peers[0]), remove(peers[1], lease=b"short"), remove(peers[2])
    assert server.handlers.outstanding == 3
    server.settle()
    assert api.read_remove_response(peers[0].receive()[good]) is False
    assert peers[1].receive()[bad].kind == Kind.FAILED
    assert api.read_remove_response(peers[2].receive()[other]) is False
    assert server.handlers.stats.seconds["remove"].count == 2
    assert server.handlers.stats.refused.total() == 1


def test_the_peer_of_a_collected_call_may_go(server, peers):
    peers[0].add(b"a")
    peers[1].add(b"b")
    peers[0].protocol.connectionLost()
    server.settle()
    assert server.broker.queue("default").added == 2
    assert not server.deaths


def answered(server, peer, call):
    """Make *call* and return whether its commit is in flight when its bytes were read."""
    call(peer)
    at_once = server.committer.committing
    server.settle()
    return at_once


def test_after_a_commit_of_one_call_the_next_call_is_committed_without_another_turn(server, peers):
    peer = peers[0]
    assert not answered(server, peer, lambda each: each.add(b"a")), "the first has none before it"
    assert answered(server, peer, lambda each: each.add(b"b"))
    assert answered(server, peer, lambda each: each.poll(2))
    assert answered(server, peer, lambda each: each.add(b"c"))
    for each in peers:
        each.add(b"d")
    server.settle()
    # The first of these was alone, and the others shared the next commit.
    assert not answered(server, peer, lambda each: each.add(b"e"))


def test_with_a_window_even_a_lone_call_waits_for_it(make_server):
    server = make_server({"coalesce_batch_window_ms": 1_000}.items())
    for _ in range(2):
        peer = server.connect()
        peer.add(b"a")
        server.turn()
        assert not server.committer.committing
        server.reactor.advance(1)
        assert server.committer.committing
        server.settle()


def test_a_read_that_breaks_the_protocol_is_committed_up_to_there(server, peers):
    peer = peers[0]
    peer.add(b"a")
    server.settle()
    frame = peer.connection
    question = frame.call(peer.root, api.QUEUE_INTERFACE_ID, api.ADD, ADD_X)
    peer.protocol.dataReceived(frame.data_to_send() + b"\xff" * 8)
    assert question
    assert server.committer.committing
    server.settle()
    assert server.broker.queue("default").added == 2


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.one_of(
            st.tuples(st.just("add"), st.lists(st.binary(max_size=12), max_size=3)),
            st.tuples(st.just("remove"), st.integers(0, 4), st.sampled_from(["lease", "other", "short"])),
            st.tuples(st.just("poll"), st.integers(1, 3)),
            st.tuples(st.just("extend"), st.sampled_from(["lease", "other"])),
            st.tuples(st.just("turn")),
        ),
    ),
    min_size=1,
    max_size=30,
)


def carried_out(steps, *, shared, limits):
    """Carry out *steps* on a new server; return all outcomes, the rows, and the server."""
    server = Server(Limits(contents_bytes=10, **limits), ids=RandomIds(random.Random(1).randbytes))
    if not shared:
        server.handlers.sharing_max = -1
    peers = [server.connect() for _ in range(3)]
    peers[0].add(b"1", b"2", b"3", b"4")
    response = peers[0].polled(4, lease=60_000)
    items, leases = [bytes(each.id) for each in response.items], {"lease": bytes(response.lease), "short": b"s"}
    for place, (what, *rest) in steps:
        peer = peers[place]
        if what == "add":
            peer.add(*rest[0])
        elif what == "remove":
            remove(peer, [*items, b"?" * 16][rest[0]], leases.get(rest[1], NO_LEASE))
        elif what == "poll":
            peer.poll(rest[0], no_wait=True)
        elif what == "extend":
            request = api.ExtendRequest(leases.get(rest[0], NO_LEASE), SpanMs(70_000))
            peer.call(api.EXTEND, api.write_extend_request(request))
        else:
            server.turn()
    server.settle()
    outcomes = [sorted(frames(peer)) for peer in peers]
    found = server.store.recover()
    scans = [server.store.scan(queue.number, LOWEST, items_max=1_000, bytes_max=1 << 20) for queue in found.queues]
    return outcomes, (found.queues, found.leases, scans), server


def frames(peer):
    """Return the messages that *peer* has received and not read."""
    data = peer.transport.value()
    return [data[frame.start * 8 : frame.end * 8] for frame in Framer(Limits()).feed(data)]


EMPTY, FULL, TOO_LARGE = (("add", each) for each in ([], [b"x"], [bytes(11)]))


@pytest.mark.parametrize("shared", [True, False], ids=["together", "one by one"])
@pytest.mark.parametrize(
    ("calls", "refused"),
    [
        ([EMPTY] * 4, 0),
        ([TOO_LARGE] * 4, 0),
        ([EMPTY] * 3 + [FULL] * 3, 0),
        ([EMPTY] * 3 + [FULL] * 4, 1),
        ([FULL, EMPTY, TOO_LARGE, FULL, EMPTY, FULL, FULL], 1),
        ([FULL] * 3 + [EMPTY] * 2, 2),
        ([EMPTY] * 3 + [("add", [b""] * 4)], 0),
    ],
)
def test_calls_that_write_nothing_leave_room_in_request_bytes(calls, refused, shared):
    """Three adds of an item fit, whichever others are collected with them."""
    outcomes, _, server = carried_out([(0, each) for each in calls], shared=shared, limits={"request_bytes": 900})
    assert sum(b"(request_bytes)" in each for each in outcomes[0]) == refused
    assert not server.handlers.request_bytes


def test_calls_of_other_connections_are_decided_later_if_one_has_no_room(make_server):
    server = make_server(request_bytes=900)
    committing(server)
    one, two = server.connect(), server.connect()
    for _ in range(3):
        one.add(b"a")
    server.committer.decide_now()
    two.add(b"b")
    refused = one.add(b"c")
    two.add(b"d")
    assert plans(server) == [3, 2]
    assert "(request_bytes)" in one.receive()[refused].reason


@given(steps=STEPS, limits=st.sampled_from([{}, {"request_bytes": 900}]))
@example(steps=[(0, EMPTY)] * 4, limits={"request_bytes": 900})
@example(steps=[(0, EMPTY), (0, FULL), (0, EMPTY), (1, FULL), (0, FULL)], limits={"request_bytes": 900})
def test_calls_that_are_decided_together_have_the_results_of_calls_one_by_one(steps, limits):
    outcomes, rows, server = carried_out(steps, shared=True, limits=limits)
    expected, expected_rows, _ = carried_out(steps, shared=False, limits=limits)
    assert outcomes == expected
    assert rows == expected_rows
    assert server.handlers.outstanding == 0
    assert not server.handlers.request_bytes
    assert not server.deaths

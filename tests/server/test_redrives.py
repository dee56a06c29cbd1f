"""Redrives as an operator calls them: read in slices in the pool, one at a time."""

import pytest
from attrs import define, field
from interface_values import params, results

from queueber import api
from queueber.api import control_types
from queueber.api.control import read_control_response, write_control_request
from queueber.api.control_types import Redriven, RedriveRequest
from queueber.errors import Damaged, Kind
from queueber.rpc import Calls
from queueber.server.core import redrives as redrives_module
from queueber.server.core.redrives import Redrives
from queueber.server.core.replies import Replies
from queueber.units import SpanMs
from queueber.values import Action, DeathReason, NewItem, Settlement

LONG = 60_000


@define
class Sink:
    """A connection that keeps its replies."""

    peer: int = 1
    replies: dict = field(factory=dict)

    def results(self, answers, contents):
        self.replies.update(zip(answers, contents, strict=True))

    def error(self, answer, kind, reason):
        self.replies[answer] = kind, reason

    def result(self, answer):
        return read_control_response(control_types.REDRIVE, results(self.replies[answer]))


@pytest.fixture
def make_redrives():
    def make(server):
        replies = Replies(server.limits, server.broker.limit_hits)
        return Redrives(
            server.broker, server.committer, server.store, server.pool, server.clock, server.limits, replies
        )

    return make


@pytest.fixture
def redrives(server, make_redrives):
    return make_redrives(server)


def kill(server, *contents, action=Action.REJECT):
    """Add items and let them die; return their ids."""
    queue = server.broker.queue("default")
    (ids,) = submit(
        server, server.broker.add(queue, [[NewItem(each, SpanMs(0)) for each in contents]], server.clock.now())
    )
    peer = server.connect()
    lease = peer.polled(len(contents), lease=LONG).lease
    peer.call(api.SETTLE, api.write_settle_request(api.SettleRequest([Settlement(lease, b"", action)])))
    server.settle()
    server.reactor.advance(0.002)
    return ids


def submit(server, plan):
    server.committer.submit(plan, lambda _: None)
    server.settle()
    return plan.reply


def call(server, redrives, sink, answer=1, **request):
    content = write_control_request(control_types.REDRIVE, RedriveRequest(**request))
    calls = Calls([answer], None, 0, 0, params(content), [len(content)])
    redrives.redrive(sink, server.broker.queue("default"), calls)


def redrive(server, redrives, **request):
    sink = Sink()
    call(server, redrives, sink, **request)
    server.settle()
    assert not server.deaths
    return sink.result(1)


def ready(server, name="default"):
    return server.broker.queue(name).items


def test_all_dead_items_go_back(make_server, make_redrives):
    server = make_server()
    kill(server, *(b"%d" % number for number in range(7)))
    assert redrive(server, make_redrives(server)) == Redriven(moved=7, more=False)
    assert ready(server) == 7


def test_rows_are_read_in_slices(make_server, make_redrives):
    server = make_server()
    kill(server, *(b"%d" % number for number in range(7)))
    redrives = make_redrives(server)
    scans = []
    scan = server.store.scan
    server.store.scan = lambda *place, **bounds: scans.append(place) or scan(*place, **{**bounds, "items_max": 3})

    assert redrive(server, redrives) == Redriven(moved=7, more=False)
    assert len(scans) == 3


def test_nothing_is_read_without_dead_items(server, redrives):
    server.store.scan = None

    assert redrive(server, redrives) == Redriven(moved=0, more=False)


def test_filters_and_target(server, redrives):
    a, b, _ = kill(server, b"a", b"b", b"c")

    assert redrive(server, redrives, reason=DeathReason.LOST) == Redriven(moved=0, more=False)
    assert redrive(server, redrives, ids=[b, a, b"?" * 16], limit=1, to="other") == Redriven(moved=1, more=True)
    assert (ready(server), ready(server, "other")) == (0, 1)
    assert redrive(server, redrives, limit=1) == Redriven(moved=1, more=True)
    assert redrive(server, redrives) == Redriven(moved=1, more=False)


def test_few_items_are_found_by_their_ids_at_once_and_no_more_than_are_needed(server, redrives, monkeypatch):
    """Each may have contents of 8 MiB."""
    monkeypatch.setattr(redrives_module, "LOOKUPS_MAX", 2)
    ids = kill(server, *[b"%d" % number for number in range(6)])
    sizes, find = [], server.store.find
    server.store.find = lambda numbers, some: sizes.append(len(some)) or find(numbers, some)

    assert redrive(server, redrives, ids=ids, limit=1) == Redriven(moved=1, more=True)
    assert sizes == [2]
    sizes.clear()
    assert redrive(server, redrives, ids=ids[1:]) == Redriven(moved=5, more=False)
    assert sizes == [2, 2, 1]


def test_one_redrive_runs_at_a_time(server, redrives):
    kill(server, b"a", b"b")
    sink = Sink()
    for answer in (1, 2, 3):
        call(server, redrives, sink, answer, limit=1)
    assert server.pool.waiting == 1
    server.settle()

    assert [sink.result(answer).moved for answer in (1, 2, 3)] == [1, 1, 0]


def test_the_contents_count_while_they_are_read(server, redrives):
    kill(server, b"a")
    sink = Sink()
    call(server, redrives, sink)
    assert server.committer.pending_bytes == server.limits.add_bytes
    server.settle()
    assert server.committer.pending_bytes == 0


def test_an_item_that_is_removed_meanwhile_stays_removed(server, redrives):
    kill(server, b"a", b"b")
    peer = server.connect()
    dead = server.broker.queue("default").dead
    waiter = server.broker.poll(dead, wanted=1, lease_duration=SpanMs(LONG), wait=0, peer=9, now=server.clock.now())
    delivered = []
    server.dispatcher.wait(waiter, 1, 0.0, delivered.extend)
    server.settle()
    ((_, _, delivery),) = delivered
    sink = Sink()
    call(server, redrives, sink)
    item = delivery.items[0].key.id
    submit(server, server.broker.remove(dead, [(item, delivery.lease.id)], server.clock.now()))
    server.settle()

    assert sink.result(1) == Redriven(moved=1, more=False)
    assert peer


def test_dead_items_that_cannot_be_read_stay(server, redrives):
    kill(server, b"a")
    scan, server.store.scan = server.store.scan, None

    def torn(*_, **__):
        raise Damaged("torn")

    server.store.scan = torn
    sink = Sink()
    call(server, redrives, sink)
    server.settle()
    assert sink.replies[1] == (Kind.OVERLOADED, "dead items cannot be read at the moment; the server's log says why")

    server.store.scan = scan
    assert redrive(server, redrives) == Redriven(moved=1, more=False)


def test_a_target_that_is_full_leaves_them(make_server, make_redrives):
    server = make_server(queues=1)
    kill(server, b"a")
    sink = Sink()
    call(server, make_redrives(server), sink, to="other")
    server.settle()

    kind, reason = sink.replies[1]
    assert kind is Kind.OVERLOADED
    assert "queues" in reason
    assert server.broker.queue("default").dead.items == 1

"""Items that die: the log names them, and a metric counts them."""

import pytest

from queueber import api
from queueber.broker.deaths import COUNTED_QUEUES_MAX, DropReason
from queueber.broker.settings import QueueConfig
from queueber.units import SpanMs, WallMs
from queueber.values import DeathReason


@pytest.fixture
def server(make_server):
    return make_server({"queue_defaults": QueueConfig(max_attempts=1)})


def lose(server, peer, count):
    """Deliver *count* items to a worker that crashes, and sweep its lease."""
    peer.poll(count)
    server.settle()
    server.reactor.advance(2)
    server.sweeper.sweep()
    server.settle()


def test_the_log_names_an_item_and_says_why(server, log_lines):
    peer = server.connect()
    peer.add(b"poison")
    lose(server, peer, 1)
    (line,) = log_lines("dead items")
    (item,) = server.store.scan(2, server.broker.queue("x").floor, items_max=9, bytes_max=9).items
    assert (line["item"], line["queue"], line["attempts"]) == (item.key.id.hex(), "default", 1)
    assert line["why"] == "the lease of its last attempt ended by itself"
    assert server.broker.deaths.counts == {("default", DeathReason.LOST): 1}


def test_an_item_whose_failure_outlasts_it_is_counted_and_logged_when_it_would_be_due(make_server, log_lines):
    server = make_server()
    peer = server.connect()
    options = api.ItemOptions(expires_at=WallMs(server.clock.now() + 1_000))
    peer.call(api.ADD, api.write_add_request(api.AddRequest([api.NewItem(b"late", SpanMs(0), options)])))
    server.settle()
    poll = peer.poll()
    server.settle()
    given = api.read_poll_response(peer.receive()[poll])
    (item,) = given.items
    entry = api.Settlement(given.lease, item.id, api.Action.FAIL, SpanMs(5_000), "broken")
    settle = peer.call(api.SETTLE, api.write_settle_request(api.SettleRequest([entry], [])))
    server.settle()
    (settled,) = api.read_settle_response(peer.receive()[settle]).settled
    assert (settled.outcome, settled.died) == (api.Outcome.DONE, False)
    assert log_lines("dead items") == []

    server.reactor.advance(6)
    peer.poll(no_wait=True)
    server.settle()
    (line,) = log_lines("dead items")
    assert (line["item"], line["attempts"], line["why"]) == (bytes(item.id).hex(), 1, "it was not delivered in time")
    assert server.broker.deaths.counts == {("default", DeathReason.EXPIRED): 1}


def test_many_such_items_are_one_line(server, log_lines):
    peer = server.connect()
    peer.add(*[b"poison"] * 50)
    lose(server, peer, 50)
    assert len(log_lines("dead items")) == 1
    assert server.broker.deaths.counts == {("default", DeathReason.LOST): 50}


def test_expired_items_that_are_dropped_are_counted_and_logged(make_server, log_lines):
    server = make_server({"queue_defaults": QueueConfig(ttl_ms=SpanMs(1_000), drop_expired=True)})
    peer = server.connect()
    peer.add(*[b"late"] * 3)
    server.settle()
    server.reactor.advance(2)
    peer.poll(no_wait=True)
    server.settle()
    (line,) = log_lines("is dropped")
    assert (line["queue"], line["attempts"], line["why"]) == ("default", 0, "it was not delivered in time")
    assert server.broker.deaths.drops == {("default", DropReason.EXPIRED): 3}
    assert not server.broker.deaths.counts


def test_dead_items_that_are_dropped_are_counted_and_logged(make_server, log_lines):
    server = make_server({"queue_defaults": QueueConfig(max_attempts=1, dead_ttl_ms=SpanMs(60_000))})
    peer = server.connect()
    peer.add(b"poison")
    lose(server, peer, 1)
    server.reactor.advance(61)
    server.cleanup.run()
    server.settle()
    (line,) = log_lines("is dropped")
    assert (line["queue"], line["attempts"], line["why"]) == ("default", 1, "it was dead for the time of dead-ttl-ms")
    assert server.broker.deaths.drops == {("default", DropReason.DEAD_TTL): 1}


def test_further_queues_are_counted_together(server):
    deaths = server.broker.deaths
    peer = server.connect()
    peer.add(b"a")
    server.settle()
    ((_, item),) = [(each, each.window.head(server.clock.now())) for each in server.broker.queues]
    for number in range(COUNTED_QUEUES_MAX + 5):
        queue = server.broker.queue(f"q{number}")
        server.broker.queues.assign_number(queue)
        deaths.die(queue, item, DeathReason.EXPIRED, server.clock.now())
        deaths.die(queue, item._replace(key=item.key._replace(due=1)), DeathReason.EXPIRED, server.clock.now())
    assert deaths.counts["", DeathReason.EXPIRED] == 10
    assert deaths.counts["q7", DeathReason.EXPIRED] == 2
    deaths.note_drop(queue, item, DropReason.EXPIRED)
    assert deaths.drops == {("", DropReason.EXPIRED): 1}

"""Background work on queues."""

import sys

import pytest

from queueber import api
from queueber.broker.dedup import CHECK_SPAN_MIN
from queueber.broker.model import LOWEST
from queueber.errors import StorageError
from queueber.server.core.lookups import LOOKUPS_MAX
from queueber.values import ItemOptions, NewItem


@pytest.fixture
def purged(make_server):
    """Return a server with a queue that has been purged of five items, and reads two keys at a time."""
    server = make_server(refill_items=2)
    peer = server.connect()
    peer.add(b"a", b"b", b"c", b"d", b"e")
    server.settle()
    queue = server.broker.queue("default")
    server.committer.submit(server.broker.lifecycle.purge(queue), lambda _: None)
    return server


def rows(server):
    return [server.store.keys(number, LOWEST, items_max=9) for number in (1, 2)]


def test_the_rows_that_a_purge_leaves_are_deleted_in_slices(purged):
    purged.cleanup.run()
    purged.settle()
    assert len(rows(purged)[0]) == 5, "the purge was not durable when it ran"
    purged.cleanup.run()
    purged.settle()
    assert rows(purged) == [[], []]
    assert purged.cleanup.deleted == 5
    assert purged.store.recover().retired == {}
    assert purged.deaths == []


def test_a_slice_that_cannot_be_read_is_tried_again(purged, log_lines):
    purged.settle()
    read = purged.store.keys

    def fail(*_, **__):
        raise StorageError("a block is damaged")

    purged.store.keys = fail
    for _ in range(2):
        purged.cleanup.run()
        purged.settle()
    (line,) = log_lines("what a purge")
    assert (line["queue"], line["why"]) == ("default", "a block is damaged")
    purged.store.keys = read
    purged.cleanup.run()
    purged.settle()
    assert rows(purged) == [[], []]


def test_idle_queues_are_deleted_and_old_dead_items_removed(server):
    broker, committer = server.broker, server.committer
    changes = {"maxAttempts": 1, "deadTtlMs": 60_000, "idleTtlMs": 1_000}
    for name in ("used", "idle"):
        plan = broker.lifecycle.configure(broker.queue(name), changes)
        committer.submit(plan, lambda _: None)
    server.settle()
    queue = broker.queue("used")
    committer.submit(broker.add(queue, [[NewItem(b"a", 0)]], server.clock.now()), lambda _: None)
    broker.poll(queue, wanted=1, lease_duration=10, wait=None, peer=1, now=server.clock.now())
    for plan in broker.claims.distribute(server.clock.now()):
        committer.submit(plan, lambda given: [broker.confirm_delivery(each) for each in given])
    server.settle()
    for _ in range(3):
        server.reactor.advance(2)
        server.sweeper.sweep()
        server.cleanup.run()
        server.settle()
    assert [queue.name for queue in broker.queues if queue.number] == ["used"]
    assert queue.dead.items == 1
    queue.dead.window.trim(0, queue.dead.floor)
    server.reactor.advance(60)
    for _ in range(2):
        server.cleanup.run()
        server.settle()
    assert queue.dead.items == 0
    server.reactor.advance(2)
    server.cleanup.run()
    server.settle()
    assert [queue.name for queue in broker.queues if queue.number] == []
    assert server.deaths == []


def test_few_items_of_records_without_an_end_are_read_at_once(server):
    """Each may have contents of 8 MiB."""
    count = 2 * LOOKUPS_MAX + 1
    options = [ItemOptions(dedup_key=b"%d" % number, until_removed=True) for number in range(count)]
    add = api.AddRequest([NewItem(b"x", 0, each) for each in options])
    server.connect().call(api.ADD, api.write_add_request(add))
    server.settle()
    sizes, find = [], server.store.find
    server.store.find = lambda numbers, ids: sizes.append(len(ids)) or find(numbers, ids)
    server.reactor.advance(CHECK_SPAN_MIN / 1_000 + 1)
    server.cleanup.run()
    server.settle()
    assert sizes == [LOOKUPS_MAX, LOOKUPS_MAX, 1]
    assert (server.cleanup.ended_records, server.deaths) == (0, [])


def test_idle_queues_cost_no_periodic_work(server):
    """Trap 14: a run of all periodic work makes as many Python calls with a thousand queues as with ten."""
    peer = server.connect()

    def calls_of_a_second():
        seen = []
        server.reactor.advance(1)
        sys.setprofile(lambda frame, event, _: event == "call" and seen.append(frame.f_code.co_qualname))
        try:
            server.cleanup.run()
            server.first_due_reader.run()
            server.sweeper.sweep()
            server.connections.timeouts.expire()
            server.reactor.advance(1)
        finally:
            sys.setprofile(None)
        server.settle()
        return len(seen)

    def fill(names):
        for name in names:
            queue = server.broker.queue(f"idle {name}")
            server.committer.submit(server.broker.add(queue, [[NewItem(b"a", 0)]], server.clock.now()), lambda _: None)
        server.settle()

    fill(range(10))
    peer.poll(no_wait=True)
    server.settle()
    calls_of_a_second()
    few = calls_of_a_second()
    fill(range(10, 1_000))
    calls_of_a_second()

    assert len(server.broker.queues) == 1_000
    assert calls_of_a_second() <= few


def test_other_plans_between_those_of_two_purged_queues_keep_their_order(server):
    broker, committer = server.broker, server.committer
    for name in ("a", "b"):
        committer.submit(broker.add(broker.queue(name), [[NewItem(b"x", 0)]], server.clock.now()), lambda _: None)
        committer.submit(broker.lifecycle.purge(broker.queue(name)), lambda _: None)
    server.settle()
    server.cleanup.run()
    for _ in range(40):
        committer.submit(broker.add(broker.queue("c"), [[NewItem(b"x", 0)]], server.clock.now()), lambda _: None)
        server.turn()
        if server.pool.jobs:
            server.pool.step()
    server.settle()
    assert server.deaths == []
    assert server.store.recover().retired == {}

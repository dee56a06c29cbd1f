"""The statistics of all queues, which are collected without blocking the reactor."""

import pytest

from queueber.broker.stats import QueueState
from queueber.server.monitoring import queue_stats
from queueber.server.monitoring.queue_stats import OTHER_QUEUES, Collector
from queueber.units import SpanMs
from queueber.values import NewItem


@pytest.fixture
def collector(server):
    return Collector(server.reactor, server.broker, server.clock)


@pytest.fixture
def fill(server):
    """Add numbers of items to queues by name."""

    def fill(**counts):
        for name, count in counts.items():
            plan = server.broker.add(server.broker.queue(name), [[NewItem(b"", SpanMs(0))] * count], server.clock.now())
            server.committer.submit(plan, lambda _: None)

    return fill


def now(deferred):
    found = []
    deferred.addCallback(lambda result: (found.append(result), result)[1])
    return found[0] if found else None


def test_the_largest_queues_come_first_and_the_rest_are_one(collector, fill, monkeypatch, server):
    monkeypatch.setattr(queue_stats, "TOP", 2)
    fill(a=1, b=4, c=2, d=3)
    found = now(collector.collect())
    assert [(state.name, state.ready) for state in found.top] == [("b", 4), ("d", 3)]
    assert found.rest == QueueState(OTHER_QUEUES, 3, 0, 0, 0, 0, server.clock.now())
    assert (found.total.items, found.queues, found.added, found.removed) == (10, 4, 10, 0)


def test_a_queue_with_the_name_of_the_rest_is_one_of_them(collector, fill):
    fill(other=5, a=1)
    found = now(collector.collect())
    assert [state.name for state in found.top] == ["a"]
    assert found.rest.ready == 5


def test_queues_of_the_same_size_need_no_order(collector, fill):
    fill(a=1, b=1)
    assert len(now(collector.collect()).top) == 2


def test_empty_queues_are_counted_and_not_named(collector, server):
    server.broker.queue("asked for")
    found = now(collector.collect())
    assert (found.queues, found.top, found.total.items) == (0, (), 0)


def test_many_queues_are_read_in_slices(collector, fill, monkeypatch, server):
    monkeypatch.setattr(queue_stats, "SLICE", 2)
    fill(a=1, b=1, c=1, d=1, e=1)
    taking, sharing = collector.collect(), collector.collect()
    assert not taking.called
    server.turn()
    assert now(taking) is now(sharing)
    assert now(taking).queues == 5


def test_a_failure_reaches_its_callers_and_no_later_ones(collector, fill, monkeypatch, server):
    fill(a=1)
    with monkeypatch.context() as broken:
        broken.setattr(queue_stats, "state_of", lambda queue, now: 1 / 0)
        failures = []
        collector.collect().addErrback(failures.append)
    assert failures[0].check(ZeroDivisionError)
    assert now(collector.collect()).queues == 1


def test_statistics_are_reused_for_a_second(collector, fill, server):
    first = now(collector.collect())
    fill(a=1)
    assert now(collector.collect()) is first
    server.reactor.advance(1)
    assert now(collector.collect()).queues == 1

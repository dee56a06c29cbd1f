"""The server's counters of its own work."""

import pytest

from queueber import api
from queueber.errors import Kind
from queueber.server.core.histogram import Histogram
from queueber.server.core.stats import LAG_SECONDS, ReactorLag


def test_a_value_counts_in_the_bucket_of_the_smallest_bound_that_it_does_not_exceed():
    histogram = Histogram((1, 2, 5))
    for value in (0.5, 1, 1.5, 5, 7):
        histogram.observe(value)
    assert list(histogram.cumulative()) == [(1, 2), (2, 3), (5, 4), (float("inf"), 5)]
    assert (histogram.count, histogram.total, histogram.mean) == (5, 15, 3)


@pytest.mark.parametrize(("share", "bound"), [(0.0, 1), (0.4, 1), (0.41, 2), (0.8, 5), (1.0, float("inf"))])
def test_a_quantile_is_the_smallest_bound_of_its_share(share, bound):
    histogram = Histogram((1, 2, 5))
    for value in (0.5, 1, 1.5, 5, 7):
        histogram.observe(value)
    assert histogram.quantile(share) == bound


def test_without_values_mean_and_quantiles_are_0():
    histogram = Histogram((1, 2))
    assert (histogram.mean, histogram.quantile(0.5)) == (0, 0)


def test_calls_are_counted_and_timed_by_method(server):
    peer = server.connect()
    peer.poll()
    server.settle()
    server.reactor.advance(3)
    peer.add(b"x")
    server.settle()
    calls = server.handlers.stats
    assert calls.begun == {"poll": 1, "add": 1}
    assert calls.seconds["add"].count == 1
    assert calls.seconds["poll"].count == 1
    assert calls.seconds["poll"].total == pytest.approx(3)
    assert not calls.refused


def test_refusals_are_counted_by_method_and_kind(make_server):
    server = make_server(waiting_polls=1)
    peer = server.connect()
    peer.poll(lease=0)
    peer.poll()
    peer.poll()
    server.settle()
    peer.call(77, api.write_poll_request(api.PollRequest(1000, 1, None, False)))
    calls = server.handlers.stats
    assert calls.refused == {
        ("poll", Kind.FAILED): 1,
        ("poll", Kind.OVERLOADED): 1,
        ("other", Kind.UNIMPLEMENTED): 1,
    }
    assert calls.begun == {"poll": 3, "other": 1}


def test_a_commit_is_counted_with_its_contents_and_duration(server):
    peer = server.connect()
    peer.add(b"four", b"five!")
    server.turn()
    load = server.committer.stats
    server.reactor.advance(2)
    assert (server.committer.committing, server.committer.commit_seconds(server.reactor.seconds())) == (True, 2)
    server.settle()
    assert (server.committer.committing, server.committer.commit_seconds(server.reactor.seconds())) == (False, 0)
    (commit,) = load.last
    assert (commit.seconds, commit.plans, commit.rows, commit.bytes) == (2, 1, 2, 9)
    assert (load.seconds.total, load.rows.total, load.bytes.total) == (2, 2, 9)
    assert list(load.since(commit.ended - 1)) == [commit]
    assert list(load.since(commit.ended)) == []


def test_the_lag_is_the_delay_of_the_timer():
    now = 10.0
    lag = ReactorLag(lambda: now)
    for late in (0.0, 0.0, 0.4, 0.0):
        now += LAG_SECONDS + late
        lag.measure()
    assert lag.worst(60) == pytest.approx(0.4)
    assert lag.worst(LAG_SECONDS) == pytest.approx(0)
    assert lag.lateness.count == 3


def test_an_early_timer_is_no_lag():
    moments = iter((0.0, 0.15, 0.2))
    lag = ReactorLag(lambda: next(moments))
    for _ in range(3):
        lag.measure()
    assert lag.lateness.total == pytest.approx(0.05)


def test_connections_and_expired_leases_are_counted(server):
    peer = server.connect()
    peer.add(b"x")
    peer.poll(lease=1)
    server.settle()
    server.reactor.advance(5)
    server.sweeper.sweep()
    server.settle()
    assert server.sweeper.expired == 1
    assert server.connections.accepted == 1

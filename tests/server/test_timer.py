"""The one timer of the server's periodic work."""

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python import log

from queueber.server.core.clock import periodic_timer


@pytest.fixture
def clock():
    return Clock()


def test_calls_at_once_and_then_at_each_interval_until_it_is_stopped(clock):
    calls = []
    timer = periodic_timer(clock, 2.0, lambda: calls.append(clock.seconds()))
    assert calls == []
    timer.startService()
    clock.pump([1.0] * 5)
    timer.stopService()
    clock.advance(10)
    assert calls == [0, 2, 4]


def test_a_slow_call_is_not_repeated_before_it_has_ended(clock):
    calls = []
    timer = periodic_timer(clock, 1.0, lambda: calls.append(Deferred()) or calls[-1])
    timer.startService()
    clock.pump([1.0] * 5)
    assert len(calls) == 1
    calls[0].callback(None)
    clock.advance(1.0)
    assert len(calls) == 2
    calls[1].callback(None)
    timer.stopService()


def test_an_error_is_logged_and_ends_the_timer(clock):
    calls, events = [], []
    timer = periodic_timer(clock, 1.0, lambda: calls.append(True) or 1 / 0)
    log.addObserver(events.append)
    try:
        timer.startService()
        clock.pump([1.0] * 5)
    finally:
        log.removeObserver(events.append)
    assert len(calls) == 1
    assert [event["failure"].type for event in events if event["isError"]] == [ZeroDivisionError]

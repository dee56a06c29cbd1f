"""Time limits of calls, and whether a call that exceeds its limit may have taken effect."""

import pytest
from twisted.internet.defer import CancelledError

from queueber import api, rpc
from queueber.client import CallTimedOut, NotConnected, OutcomeUnknown
from queueber.client.protocol import CLOSE_SECONDS
from queueber.errors import Kind
from queueber.limits import DEFAULTS

LEASE = b"l" * 16
ADDED = api.write_add_responses([[bytes(16)]])[0]


def timed_out(network, failure, calling, seconds):
    """Return the error of *calling*, whose time limit passes after *seconds* and not before."""
    # Parts of a second that binary numbers have exactly.
    network.clock.advance(seconds - 0.125)
    assert not calling.called
    network.clock.advance(0.125)
    found = failure(calling)
    assert type(found) is CallTimedOut
    assert found.kind is Kind.DISCONNECTED
    return found


@pytest.fixture
def limited(network):
    """A connected client whose calls may take 5 s."""
    client = network.client(timeout_ms=5_000)
    network.turn()
    yield client
    client.close()
    network.clock.advance(CLOSE_SECONDS)
    assert network.clock.getDelayedCalls() == []


def test_an_answer_in_time_leaves_no_timer(network, limited, success):
    adding = limited.default.add(b"x")
    network.turn()
    (call,) = network.peer.calls()
    network.clock.advance(4.999)
    network.peer.answer([ADDED], call)
    assert success(adding) == [bytes(16)]
    assert network.clock.getDelayedCalls() == []


def test_a_call_that_was_sent_may_have_taken_effect(network, limited, failure):
    calls = [
        limited.default.add(b"x"),
        limited.queue("mail").remove(bytes(16), LEASE),
        limited.default.extend(LEASE, 1),
    ]
    calls.append(limited.admin.stats())
    network.turn()
    found = [timed_out(network, failure, calls[0], 5), *map(failure, calls[1:])]
    assert [each.sent for each in found] == [True] * 4
    assert str(found[0]) == "no answer within 5,000 ms: the call may have taken effect or not"


def test_an_answer_that_comes_too_late_is_dropped(network, limited, failure, success):
    adding = limited.default.add(b"x")
    network.turn()
    (call,) = network.peer.calls()
    timed_out(network, failure, adding, 5)
    network.turn()
    network.peer.answer([ADDED], call)
    again = limited.default.add(b"y")
    network.turn()
    (call,) = network.peer.calls()
    network.peer.answer([ADDED], call)
    assert success(again) == [bytes(16)]


def test_the_error_of_an_unsent_call_has_a_reason_and_the_call_is_never_sent(network, failure):
    network.refusing = True
    client = network.client(timeout_ms=1_500)
    adding = client.default.add(b"x")
    found = timed_out(network, failure, adding, 1.5)
    assert not found.sent
    assert str(found) == ("the call was not sent within 1,500 ms: there is no connection: Connection refused")
    network.refusing = False
    network.clock.advance(1)
    network.turn()
    assert network.peer.calls() == []
    client.close()


def test_a_long_call_that_waits_for_the_server_s_limits_was_not_sent(network, limited, failure):
    adding = limited.default.add(bytes(100_000))
    network.clock.advance(0)
    found = timed_out(network, failure, adding, 5)
    assert not found.sent
    assert "the server has not returned its limits" in str(found)


@pytest.mark.parametrize(("wait_ms", "seconds"), [(0, 5), (2_500, 7.5)])
def test_the_wait_of_a_poll_is_added_to_its_time_limit(network, limited, failure, wait_ms, seconds):
    polling = limited.default.poll(wait_ms=wait_ms)
    network.turn()
    assert timed_out(network, failure, polling, seconds).sent


def test_unlimited_polls_backups_and_checks_have_only_their_own_time_limit(network, limited, failure, tmp_path):
    waiting = [limited.default.poll(), limited.admin.check(force=True), limited.admin.backup(tmp_path / "b")]
    short = limited.default.poll(timeout_ms=7_000)
    network.turn()
    timed_out(network, failure, short, 7)
    network.clock.advance(1_000_000)
    assert not any(each.called for each in waiting)
    for each in waiting:
        each.addErrback(lambda _: None)


def test_a_call_s_own_limit_is_the_whole_time(network, limited, failure):
    """Shorter or longer than the client's; the wait of a poll is within it."""
    calls = {
        1: limited.default.poll(wait_ms=60_000, timeout_ms=1_000),
        2: limited.default.remove(bytes(16), LEASE, timeout_ms=2_000),
        3: limited.default.extend(LEASE, 1, timeout_ms=3_000),
        9: limited.default.add(b"x", timeout_ms=9_000),
    }
    network.turn()
    now = 0
    for seconds, calling in calls.items():
        timed_out(network, failure, calling, seconds - now)
        now = seconds


def test_a_poll_that_exceeds_its_time_limit_is_cancelled(network, limited, failure):
    polling = limited.default.poll(timeout_ms=1_000)
    network.turn()
    (call,) = network.peer.calls()
    timed_out(network, failure, polling, 1)
    network.turn()
    assert network.peer.events == [rpc.Finished(call.answer)]


def test_items_sent_to_a_poll_that_has_timed_out_are_given_back(network, limited, failure):
    polling = limited.default.poll(timeout_ms=1_000)
    network.turn()
    (call,) = network.peer.calls()
    timed_out(network, failure, polling, 1)
    item = api.PolledItem(bytes(16), b"x", 1, 0)
    network.peer.answer(api.write_poll_responses([api.PollResponse([item], LEASE, 9)]), call)
    network.turn()
    (given_back,) = network.peer.calls()
    (entry,) = api.read_settle_request(given_back.params, DEFAULTS).entries
    assert (entry.lease, entry.action) == (LEASE, api.Action.DEFER)


def test_without_a_time_limit_no_timer_runs(network, client):
    adding = client.default.add(b"x").addErrback(lambda failure: failure.trap(OutcomeUnknown))
    network.turn()
    assert network.clock.getDelayedCalls() == []
    assert not adding.called


def test_a_call_that_its_program_cancels_is_cancelled(network, limited, failure):
    adding = limited.default.add(b"x")
    adding.cancel()
    assert isinstance(failure(adding), CancelledError)


def test_an_error_before_the_time_limit_is_the_error_of_the_call(network, limited, failure):
    adding = limited.default.add(b"x")
    network.clock.advance(0)
    network.peer.transport.loseConnection()
    assert isinstance(failure(adding), OutcomeUnknown)
    waiting = limited.default.add(b"y")
    limited.close()
    assert isinstance(failure(waiting), NotConnected)


@pytest.mark.parametrize("contents", [b"x", bytes(DEFAULTS.frame_bytes // 2)], ids=["in flight", "held"])
def test_a_call_that_ends_with_its_connection_may_cancel_the_others(network, client, failure, contents):
    first = client.default.add(contents).addErrback(lambda _: second.cancel())
    second = client.default.add(contents)
    network.clock.advance(0)
    network.peer.transport.loseConnection()
    assert first.called
    assert isinstance(failure(second), CancelledError)
